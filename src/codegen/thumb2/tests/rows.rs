//! The rows of the table, by what instructions are for.

use super::super::branch::Condition;
use super::super::encode::{self, Alu, Cond, Memory, Shift};
use super::super::inst::{Address, Callee, Choice, Inst, PairAddress, PairRhs, Rhs, Source, Test, r, s};
use super::{Table, frame, isa, v, w};
use crate::codegen::native::Isa;
use crate::codegen::native::emit::Assembler;
use regalloc2::{Allocation, PReg, PRegSet, RegClass};

pub(super) fn constants(t: &mut Table) {
    let mut imm = |text: &str, rd: usize, value: u32| t.core(text, Inst::Imm { rd: v(), value }, &[rd]);
    imm("movs r0, #0", 0, 0);
    imm("movs r7, #255", 7, 255);
    imm("mov.w r8, #255", 8, 255);
    imm("mov.w r0, #256", 0, 256);
    imm("mov.w r3, #0x3fc", 3, 0x3fc);
    imm("mov.w r3, #0x1fe", 3, 0x1fe);
    imm("mov.w r3, #0x80000000", 3, 0x8000_0000);
    imm("mov.w r3, #0xff000000", 3, 0xff00_0000);
    imm("mov.w lr, #0x00ab00ab", 14, 0x00ab_00ab);
    imm("mov.w r12, #0xab00ab00", 12, 0xab00_ab00);
    imm("mov.w r0, #0xabababab", 0, 0xabab_abab);
    imm("mov.w r0, #0xffffffff", 0, 0xffff_ffff);
    imm("mvn r0, #1", 0, 0xffff_fffe);
    imm("mvn r0, #0xff", 0, 0xffff_ff00);
    imm("mvn r8, #0x80000000", 8, 0x7fff_ffff);
    imm("movw r0, #257", 0, 257);
    imm("movw r0, #0xffff", 0, 0xffff);
    imm("movw r9, #0x1234; movt r9, #0x5678", 9, 0x5678_1234);
    imm("movw r0, #0; movt r0, #0x8001", 0, 0x8001_0000);
    let mut symbol = |text: &str, rd: usize, offset: i16| {
        t.core(
            text,
            Inst::Symbol {
                rd: v(),
                symbol: 0,
                offset,
            },
            &[rd],
        );
    };
    symbol("movw r0, #0; movt r0, #0", 0, 0);
    symbol("movw r11, #0x7fff; movt r11, #0x7fff", 11, i16::MAX);
    symbol("movw r1, #0x8000; movt r1, #0x8000", 1, i16::MIN);
    let mut slot = |text: &str, rd: usize, offset: u32| t.core(text, Inst::SlotAddress { rd: v(), offset }, &[rd]);
    slot("add r0, sp, #0", 0, 0);
    slot("add r7, sp, #1020", 7, 1020);
    slot("add.w r0, sp, #1024", 0, 1024);
    slot("addw r0, sp, #1022", 0, 1022);
    slot("add.w r8, sp, #4", 8, 4);
    slot("addw lr, sp, #4095", 14, 4095);
    slot("add.w r0, sp, #4096", 0, 4096);
    slot("movw r0, #4100; add r0, sp", 0, 4100);
    slot("movw r9, #0x1234; movt r9, #1; add r9, sp", 9, 0x1_1234);
    let mut mv = |text: &str, rd: usize, rm: usize| t.core(text, Inst::Move { rd: v(), rm: v() }, &[rd, rm]);
    mv("mov r0, r1", 0, 1);
    mv("mov r8, r0", 8, 0);
    mv("mov r0, lr", 0, 14);
    let mut not = |text: &str, rd: usize, rm: usize| t.core(text, Inst::Not { rd: v(), rm: v() }, &[rd, rm]);
    not("mvns r0, r7", 0, 7);
    not("mvn.w r8, r0", 8, 0);
}

pub(super) fn arithmetic(t: &mut Table) {
    let mut alu = |text: &str, op: Alu, shift: Shift, amount: u32, registers: [usize; 3]| {
        let inst = Inst::Alu {
            op,
            rd: v(),
            rn: v(),
            rm: v(),
            shift,
            amount,
        };
        t.core(text, inst, &registers);
    };
    let lsl = Shift::Lsl;
    alu("adds r0, r1, r2", Alu::Add, lsl, 0, [0, 1, 2]);
    alu("add r8, r1", Alu::Add, lsl, 0, [8, 8, 1]);
    alu("add r0, r12", Alu::Add, lsl, 0, [0, 0, 12]);
    alu("add r0, r12", Alu::Add, lsl, 0, [0, 12, 0]);
    alu("add.w r0, r1, r12", Alu::Add, lsl, 0, [0, 1, 12]);
    alu("subs r7, r6, r5", Alu::Sub, lsl, 0, [7, 6, 5]);
    alu("sub.w r8, r8, r0", Alu::Sub, lsl, 0, [8, 8, 0]);
    for (name, op) in [("and", Alu::And), ("eor", Alu::Eor), ("orr", Alu::Orr)] {
        alu(&format!("{name}s r3, r4"), op, lsl, 0, [3, 3, 4]);
        alu(&format!("{name}s r3, r4"), op, lsl, 0, [3, 4, 3]);
        alu(&format!("{name}.w r3, r4, r5"), op, lsl, 0, [3, 4, 5]);
        alu(&format!("{name}.w r3, r3, r12"), op, lsl, 0, [3, 3, 12]);
    }
    alu("bics r3, r4", Alu::Bic, lsl, 0, [3, 3, 4]);
    alu("bic.w r3, r4, r3", Alu::Bic, lsl, 0, [3, 4, 3]);
    alu("orn r0, r1, r2", Alu::Orn, lsl, 0, [0, 1, 2]);
    alu("add.w r0, r1, r2, lsl #1", Alu::Add, lsl, 1, [0, 1, 2]);
    alu("sub.w r0, r0, r2, lsl #31", Alu::Sub, lsl, 31, [0, 0, 2]);
    alu("eor.w r0, r1, r2, lsr #1", Alu::Eor, Shift::Lsr, 1, [0, 1, 2]);
    alu("orr.w r8, r9, lr, asr #31", Alu::Orr, Shift::Asr, 31, [8, 9, 14]);

    let mut imm = |text: &str, op: Alu, registers: [usize; 2], imm: u32| {
        let inst = Inst::AluImm {
            op,
            rd: v(),
            rn: v(),
            imm,
        };
        t.core(text, inst, &registers);
    };
    for (name, other, op) in [("add", "sub", Alu::Add), ("sub", "add", Alu::Sub)] {
        imm(&format!("{name}s r0, r1, #0"), op, [0, 1], 0);
        imm(&format!("{name}s r0, r1, #7"), op, [0, 1], 7);
        imm(&format!("{name}.w r0, r1, #8"), op, [0, 1], 8);
        imm(&format!("{name}s r7, #8"), op, [7, 7], 8);
        imm(&format!("{name}s r7, #255"), op, [7, 7], 255);
        imm(&format!("{name}.w r8, r8, #255"), op, [8, 8], 255);
        imm(&format!("{name}.w r0, r0, #256"), op, [0, 0], 256);
        imm(&format!("{name}w r0, r0, #257"), op, [0, 0], 257);
        imm(&format!("{name}w r0, r1, #4095"), op, [0, 1], 4095);
        imm(&format!("{name}.w r0, r1, #4096"), op, [0, 1], 4096);
        imm(&format!("{name}.w r0, r1, #0x80000000"), op, [0, 1], 0x8000_0000);
        imm(&format!("{name}.w r0, r1, #0xff00ff00"), op, [0, 1], 0xff00_ff00);
        imm(&format!("{other}s r0, r1, #1"), op, [0, 1], u32::MAX);
        imm(&format!("{other}s r0, #255"), op, [0, 0], 255u32.wrapping_neg());
    }
    for (name, op) in [
        ("and", Alu::And),
        ("bic", Alu::Bic),
        ("orr", Alu::Orr),
        ("orn", Alu::Orn),
        ("eor", Alu::Eor),
    ] {
        imm(&format!("{name} r0, r1, #1"), op, [0, 1], 1);
        imm(&format!("{name} r8, r9, #0xff00ff00"), op, [8, 9], 0xff00_ff00);
        imm(&format!("{name} r0, r1, #0x80000000"), op, [0, 1], 0x8000_0000);
    }
    imm("rsbs r0, r7, #0", Alu::Rsb, [0, 7], 0);
    imm("rsb r0, r8, #0", Alu::Rsb, [0, 8], 0);
    imm("rsb r0, r1, #32", Alu::Rsb, [0, 1], 32);
    let mut flags = |text: &str, op: Alu, registers: [usize; 2], imm: u32| {
        let inst = Inst::AluImmFlags {
            op,
            rd: v(),
            rn: v(),
            imm,
        };
        t.core(text, inst, &registers);
    };
    flags("subs r0, #1", Alu::Sub, [0, 0], 1);
    flags("subs r0, #255", Alu::Sub, [0, 0], 255);
    flags("subs r0, r1, #7", Alu::Sub, [0, 1], 7);
    flags("subs.w r0, r1, #8", Alu::Sub, [0, 1], 8);
    flags("subs.w r8, r8, #1", Alu::Sub, [8, 8], 1);
    flags("adds r3, #200", Alu::Add, [3, 3], 200);
    flags("adds.w r3, r3, #0x3fc", Alu::Add, [3, 3], 0x3fc);
    let mut pairs = |text: &str, subtract: bool, b: PairRhs, registers: &[usize]| {
        let (rd, a) = ([v(); 2], [v(); 2]);
        t.core(text, Inst::Pairs { subtract, rd, a, b }, registers);
    };
    let regs = PairRhs::Regs([v(); 2]);
    pairs("adds r0, r2, r4; adc.w r1, r3, r5", false, regs, &[0, 1, 2, 3, 4, 5]);
    pairs("adds.w r8, r2, r4; adcs r1, r5", false, regs, &[8, 1, 2, 1, 4, 5]);
    pairs("subs r0, r2, r4; sbc.w r1, r3, r5", true, regs, &[0, 1, 2, 3, 4, 5]);
    pairs("subs.w r8, r9, r10; sbcs r1, r5", true, regs, &[8, 1, 9, 1, 10, 5]);
    pairs(
        "adds r0, #128; adc r1, r1, #0",
        false,
        PairRhs::Imm([128, 0]),
        &[0, 1, 0, 1],
    );
    pairs(
        "subs.w r8, r9, #1; sbc r10, r11, #0xffffffff",
        true,
        PairRhs::Imm([1, u32::MAX]),
        &[8, 10, 9, 11],
    );
}

pub(super) fn shifts(t: &mut Table) {
    for (name, shift) in [
        ("lsl", Shift::Lsl),
        ("lsr", Shift::Lsr),
        ("asr", Shift::Asr),
        ("ror", Shift::Ror),
    ] {
        let constant = |amount: u32| Inst::ShiftImm {
            shift,
            rd: v(),
            rm: v(),
            amount,
        };
        if shift != Shift::Ror {
            t.core(&format!("{name}s r0, r7, #1"), constant(1), &[0, 7]);
            t.core(&format!("{name}s r0, r0, #31"), constant(31), &[0, 0]);
        }
        t.core(&format!("{name}.w r8, r7, #1"), constant(1), &[8, 7]);
        t.core(&format!("{name}.w r0, r9, #31"), constant(31), &[0, 9]);
        let by = Inst::ShiftReg {
            shift,
            rd: v(),
            rn: v(),
            rm: v(),
        };
        t.core(&format!("{name}s r0, r7"), by.clone(), &[0, 0, 7]);
        t.core(&format!("{name}.w r0, r1, r2"), by.clone(), &[0, 1, 2]);
        t.core(&format!("{name}.w r8, r8, lr"), by, &[8, 8, 14]);
    }
}

pub(super) fn products(t: &mut Table) {
    let three = |bits: u32| Inst::R3 {
        bits,
        rd: v(),
        rn: v(),
        rm: v(),
    };
    let four = |bits: u32| Inst::R4 {
        bits,
        rd: v(),
        rn: v(),
        rm: v(),
        ra: v(),
    };
    t.core("muls r0, r7", three(encode::MUL), &[0, 7, 0]);
    t.core("muls r0, r7", three(encode::MUL), &[0, 0, 7]);
    t.core("mul r0, r1, r2", three(encode::MUL), &[0, 1, 2]);
    for (name, bits) in [
        ("mul", encode::MUL),
        ("sdiv", encode::SDIV),
        ("udiv", encode::UDIV),
        ("smmul", encode::SMMUL),
        ("smmulr", encode::SMMULR),
        ("sxtab16", encode::SXTAB16),
        ("ssub8", encode::SSUB8),
        ("sel", encode::SEL),
    ] {
        t.core(&format!("{name} r8, r9, lr"), three(bits), &[8, 9, 14]);
    }
    t.core("sxtab16 r1, r2, r3, ror #8", three(encode::SXTAB16_ROR8), &[1, 2, 3]);
    t.core("pkhbt r1, r2, r3, lsl #16", three(encode::PKHBT_LSL16), &[1, 2, 3]);
    t.core("pkhtb r1, r2, r3, asr #16", three(encode::PKHTB_ASR16), &[1, 2, 3]);
    // These two name their operands the other way round.
    t.core("qadd r1, r3, r2", three(encode::QADD), &[1, 2, 3]);
    t.core("qsub r1, r3, r2", three(encode::QSUB), &[1, 2, 3]);
    t.core("clz r8, r9", three(encode::CLZ), &[8, 9, 9]);
    t.core("rbit r8, r9", three(encode::RBIT), &[8, 9, 9]);
    for (name, bits) in [
        ("mla", encode::MLA),
        ("mls", encode::MLS),
        ("smlad", encode::SMLAD),
        ("smlabb", encode::SMLABB),
        ("smlabt", encode::SMLABT),
        ("smlatb", encode::SMLATB),
        ("smlatt", encode::SMLATT),
        ("smlawb", encode::SMLAWB),
        ("smlawt", encode::SMLAWT),
        ("smmla", encode::SMMLA),
        ("smmlar", encode::SMMLAR),
    ] {
        t.core(&format!("{name} r0, r1, r2, r3"), four(bits), &[0, 1, 2, 3]);
        t.core(&format!("{name} r8, r9, r10, lr"), four(bits), &[8, 9, 10, 14]);
    }
    for (name, bits) in [("smull", encode::SMULL), ("umull", encode::UMULL)] {
        let inst = Inst::MulLong {
            bits,
            rd: [v(); 2],
            rn: v(),
            rm: v(),
        };
        t.core(&format!("{name} r0, r8, r1, lr"), inst, &[0, 8, 1, 14]);
    }
    for (name, bits) in [("smlal", encode::SMLAL), ("umlal", encode::UMLAL)] {
        let inst = Inst::MulAddLong {
            bits,
            rd: [v(); 2],
            acc: [v(); 2],
            rn: v(),
            rm: v(),
        };
        let text = format!("mov r8, r7; {name} r0, r8, r1, lr");
        t.core(&text, inst, &[0, 8, 0, 7, 1, 14]);
    }
}

pub(super) fn fields(t: &mut Table) {
    let two = |bits: u32| Inst::R2 { bits, rd: v(), rm: v() };
    for (name, bits) in [
        ("sxtb", encode::SXTB),
        ("sxth", encode::SXTH),
        ("uxtb", encode::UXTB),
        ("uxth", encode::UXTH),
    ] {
        t.core(&format!("{name} r0, r7"), two(bits), &[0, 7]);
        t.core(&format!("{name}.w r8, r7"), two(bits), &[8, 7]);
        t.core(&format!("{name}.w r0, lr"), two(bits), &[0, 14]);
    }
    t.core("sxtb16 r0, r8", two(encode::SXTB16), &[0, 8]);
    t.core("sxtb16 r0, r8, ror #8", two(encode::SXTB16_ROR8), &[0, 8]);
    let field = |bits: u32| Inst::Field { bits, rd: v(), rn: v() };
    t.core("ssat r0, #1, r8", field(encode::ssat(1, 0)), &[0, 8]);
    t.core("ssat r0, #8, r8, asr #1", field(encode::ssat(8, 1)), &[0, 8]);
    t.core("ssat r9, #32, r8, asr #31", field(encode::ssat(32, 31)), &[9, 8]);
    t.core("usat r0, #0, r8", field(encode::usat(0, 0)), &[0, 8]);
    t.core("usat r0, #8, r8, asr #1", field(encode::usat(8, 1)), &[0, 8]);
    t.core("usat r9, #31, r8, asr #31", field(encode::usat(31, 31)), &[9, 8]);
    for (name, signed) in [("sbfx", true), ("ubfx", false)] {
        let mut row = |lsb: u32, width: u32| {
            let text = format!("{name} r0, r8, #{lsb}, #{width}");
            t.core(&text, field(encode::bit_field(signed, lsb, width)), &[0, 8]);
        };
        row(0, 1);
        row(1, 7);
        row(15, 1);
        row(31, 1);
        row(0, 32);
        row(5, 27);
    }
}

pub(super) fn memory(t: &mut Table) {
    let kinds = [
        ("", Memory::Word, 124, 4),
        ("h", Memory::Half, 62, 2),
        ("sh", Memory::SignedHalf, 62, 2),
        ("b", Memory::Byte, 31, 1),
        ("sb", Memory::SignedByte, 31, 1),
    ];
    for (suffix, memory, narrow, step) in kinds {
        for load in [true, false] {
            let signed = suffix.starts_with('s');
            // A store has no sign.
            let name = format!(
                "{}{}",
                if load { "ldr" } else { "str" },
                if load { suffix } else { suffix.trim_start_matches('s') }
            );
            let inst = |address: Address| {
                if load {
                    Inst::Load {
                        memory,
                        rd: v(),
                        address,
                    }
                } else {
                    Inst::Store {
                        memory,
                        rs: v(),
                        address,
                    }
                }
            };
            let at = |offset: i32| inst(Address::Offset(v(), offset));
            // Loads that extend signs have no short form with an offset.
            let wide = if load && signed { ".w" } else { "" };
            t.core(&format!("{name}{wide} r0, [r7]"), at(0), &[0, 7]);
            t.core(&format!("{name}{wide} r0, [r7, #{narrow}]"), at(narrow), &[0, 7]);
            t.core(
                &format!("{name}.w r0, [r7, #{}]", narrow + step),
                at(narrow + step),
                &[0, 7],
            );
            t.core(&format!("{name}.w r0, [r7, #4095]"), at(4095), &[0, 7]);
            t.core(&format!("{name}.w r8, [r7]"), at(0), &[8, 7]);
            t.core(&format!("{name}.w r0, [lr, #1]"), at(1), &[0, 14]);
            t.core(&format!("{name} r0, [r7, #-1]"), at(-1), &[0, 7]);
            t.core(&format!("{name} r8, [r9, #-255]"), at(-255), &[8, 9]);
            let index = |amount: u32| inst(Address::Index(v(), v(), amount));
            t.core(&format!("{name} r0, [r1, r7]"), index(0), &[0, 1, 7]);
            t.core(&format!("{name}.w r0, [r1, r7, lsl #1]"), index(1), &[0, 1, 7]);
            t.core(&format!("{name}.w r8, [r9, lr, lsl #3]"), index(3), &[8, 9, 14]);
            t.core(&format!("{name}.w r8, [r1, r2]"), index(0), &[8, 1, 2]);
            let post = |step: i32| inst(Address::Post(v(), v(), step));
            t.core(&format!("{name} r0, [r1], #1"), post(1), &[0, 1, 1]);
            t.core(&format!("{name} r8, [r9], #255"), post(255), &[8, 9, 9]);
            t.core(&format!("{name} r8, [r9], #-255"), post(-255), &[8, 9, 9]);
        }
    }
    for load in [true, false] {
        let pair = |address: PairAddress| {
            let both = [v(); 2];
            if load {
                Inst::LoadPair {
                    rd: both,
                    address,
                    keep: false,
                }
            } else {
                Inst::StorePair { rs: both, address }
            }
        };
        let inst = |offset: i32| pair(PairAddress::Offset(v(), offset));
        let post = |step: i32| pair(PairAddress::Post(v(), v(), step));
        let name = if load { "ldrd" } else { "strd" };
        t.core(&format!("{name} r0, r8, [r1]"), inst(0), &[0, 8, 1]);
        t.core(&format!("{name} r0, r8, [lr, #1020]"), inst(1020), &[0, 8, 14]);
        t.core(&format!("{name} r5, r4, [r1, #-4]"), inst(-4), &[5, 4, 1]);
        t.core(&format!("{name} r5, r4, [r1, #-1020]"), inst(-1020), &[5, 4, 1]);
        t.core(&format!("{name} r5, r14, [r1], #8"), post(8), &[5, 14, 1, 1]);
        t.core(&format!("{name} r5, r4, [r8], #-1020"), post(-1020), &[5, 4, 8, 8]);
    }
    let mut stack = |text: &str, load: bool, register: PReg, offset: u32| {
        let mut asm = Assembler::default();
        super::super::emission::stack_access(&mut asm, load, register.class(), register.hw_enc() as u32, offset);
        assert_eq!(asm.executed as usize, text.split("; ").count(), "{text}");
        t.bytes(text, asm.bytes);
    };
    stack("ldr r0, [sp]", true, r(0), 0);
    stack("ldr r7, [sp, #1020]", true, r(7), 1020);
    stack("ldr.w r7, [sp, #1024]", true, r(7), 1024);
    stack("ldr.w r8, [sp, #4]", true, r(8), 4);
    stack("str r0, [sp, #4]", false, r(0), 4);
    stack("str.w r12, [sp, #4000]", false, r(12), 4000);
    stack("vldr s31, [sp, #1020]", true, s(31), 1020);
    stack("vstr s0, [sp]", false, s(0), 0);
    stack(
        "str r0, [sp, #-4]!; ldr.w r0, [sp, #1028]; vmov s5, r0; ldr r0, [sp], #4",
        true,
        s(5),
        1024,
    );
    stack(
        "str r0, [sp, #-4]!; vmov r0, s5; str.w r0, [sp, #4004]; ldr r0, [sp], #4",
        false,
        s(5),
        4000,
    );
}

pub(super) fn flags(t: &mut Table) {
    let set = |test: Test, cond: Cond| Inst::Set { test, cond, rd: v() };
    let words = |rhs: Rhs| Test::Words(v(), rhs);
    let imm = |value: i32| words(Rhs::Imm(value));
    t.core(
        "cmp r1, r2; ite eq; moveq r0, #1; movne r0, #0",
        set(words(Rhs::Reg(v())), Cond::Eq),
        &[0, 1, 2],
    );
    t.core(
        "cmp r8, r2; ite ne; movne r0, #1; moveq r0, #0",
        set(words(Rhs::Reg(v())), Cond::Ne),
        &[0, 8, 2],
    );
    t.core(
        "cmp r2, lr; ite cs; movcs.w r8, #1; movcc.w r8, #0",
        set(words(Rhs::Reg(v())), Cond::Hs),
        &[8, 2, 14],
    );
    t.core(
        "cmp r1, #0; ite cc; movcc r0, #1; movcs r0, #0",
        set(imm(0), Cond::Lo),
        &[0, 1],
    );
    t.core(
        "cmp r1, #255; ite mi; movmi r0, #1; movpl r0, #0",
        set(imm(255), Cond::Mi),
        &[0, 1],
    );
    t.core(
        "cmp.w r8, #255; ite pl; movpl r0, #1; movmi r0, #0",
        set(imm(255), Cond::Pl),
        &[0, 8],
    );
    t.core(
        "cmp.w r1, #256; ite vs; movvs r0, #1; movvc r0, #0",
        set(imm(256), Cond::Vs),
        &[0, 1],
    );
    t.core(
        "cmp.w r1, #0x80000000; ite vc; movvc r0, #1; movvs r0, #0",
        set(imm(i32::MIN), Cond::Vc),
        &[0, 1],
    );
    t.core(
        "cmp.w r1, #0xffffffff; ite hi; movhi r0, #1; movls r0, #0",
        set(imm(-1), Cond::Hi),
        &[0, 1],
    );
    t.core(
        "cmn.w r1, #256; ite ls; movls r0, #1; movhi r0, #0",
        set(imm(-256), Cond::Ls),
        &[0, 1],
    );
    let pairs = |b: PairRhs| Test::Pairs([v(); 2], b, v());
    let regs = PairRhs::Regs([v(); 2]);
    t.core(
        "cmp r1, r3; sbcs r2, r4; ite ge; movge r0, #1; movlt r0, #0",
        set(pairs(regs), Cond::Ge),
        &[0, 1, 2, 3, 4, 2],
    );
    t.core(
        "cmp r1, r3; sbcs.w r12, r2, r4; ite lt; movlt r0, #1; movge r0, #0",
        set(pairs(regs), Cond::Lt),
        &[0, 1, 2, 3, 4, 12],
    );
    t.core(
        "cmp r1, #127; sbcs r5, r2, #0; ite gt; movgt r0, #1; movle r0, #0",
        set(pairs(PairRhs::Imm([127, 0])), Cond::Gt),
        &[0, 1, 2, 5],
    );
    t.core(
        "cmn.w r1, #128; sbcs r5, r2, #0xffffffff; ite le; movle r0, #1; movgt r0, #0",
        set(pairs(PairRhs::Imm([128u32.wrapping_neg(), u32::MAX])), Cond::Le),
        &[0, 1, 2, 5],
    );
    let equal = |b: PairRhs| Test::PairsEqual([v(); 2], b);
    t.core(
        "cmp r1, r3; it eq; cmpeq r2, r4; ite eq; moveq r0, #1; movne r0, #0",
        set(equal(regs), Cond::Eq),
        &[0, 1, 2, 3, 4],
    );
    t.core(
        "cmp r1, #5; it eq; cmpeq.w r8, #0; ite ne; movne r0, #1; moveq r0, #0",
        set(equal(PairRhs::Imm([5, 0])), Cond::Ne),
        &[0, 1, 8],
    );
    let floats = Test::Floats(w(), w());
    t.inst(
        "vcmp.f32 s0, s31; vmrs APSR_nzcv, fpscr; ite mi; movmi r0, #1; movpl r0, #0",
        set(floats, Cond::Mi),
        &[r(0), s(0), s(31)],
    );
    let choice = |yes: Source| Choice { rd: v(), yes, no: v() };
    let one = |yes: Source, test: Test, cond: Cond| Inst::Select {
        test,
        cond,
        moves: vec![choice(yes)],
    };
    let both = |yes: [Source; 2], test: Test, cond: Cond| Inst::Select {
        test,
        cond,
        moves: yes.map(choice).to_vec(),
    };
    let reg = Source::Reg(v());
    t.core(
        "cmp r2, r3; it lt; movlt r0, r1",
        one(reg, words(Rhs::Reg(v())), Cond::Lt),
        &[0, 0, 1, 2, 3],
    );
    t.core(
        "cmp r2, #1; it ge; movge r8, lr",
        one(reg, imm(1), Cond::Ge),
        &[8, 8, 14, 2],
    );
    t.core(
        "cmp r2, #1; it ge; movge r0, #255",
        one(Source::Imm(255), imm(1), Cond::Ge),
        &[0, 0, 2],
    );
    t.core(
        "cmp r2, #1; it eq; moveq.w r8, #255",
        one(Source::Imm(255), imm(1), Cond::Eq),
        &[8, 8, 2],
    );
    t.core(
        "cmp r2, #1; it eq; movweq r0, #0xffff",
        one(Source::Imm(0xffff), imm(1), Cond::Eq),
        &[0, 0, 2],
    );
    t.core(
        "cmp r2, #1; it eq; mvneq r0, #127",
        one(Source::Imm(-128i32 as u32), imm(1), Cond::Eq),
        &[0, 0, 2],
    );
    t.core(
        "cmp r6, r7; itte lt; movlt r0, r3; movlt r1, r4; movge r1, r2",
        both([reg, reg], words(Rhs::Reg(v())), Cond::Lt),
        &[0, 0, 1, 2, 3, 4, 6, 7],
    );
    t.core(
        "cmp r6, r7; itte ge; movge r0, #5; movge r1, #0; movlt r1, r2",
        both([Source::Imm(5), Source::Imm(0)], words(Rhs::Reg(v())), Cond::Ge),
        &[0, 0, 1, 2, 6, 7],
    );
    t.inst(
        "vcmp.f32 s3, s4; vmrs APSR_nzcv, fpscr; it gt; vmovgt.f32 s1, s2",
        Inst::Select {
            test: floats,
            cond: Cond::Gt,
            moves: vec![Choice {
                rd: w(),
                yes: Source::Reg(w()),
                no: w(),
            }],
        },
        &[s(1), s(1), s(2), s(3), s(4)],
    );
}

pub(super) fn floats(t: &mut Table) {
    for (name, bits) in [
        ("vadd.f32", encode::VADD),
        ("vsub.f32", encode::VSUB),
        ("vmul.f32", encode::VMUL),
        ("vdiv.f32", encode::VDIV),
    ] {
        let inst = Inst::Float3 {
            bits,
            rd: w(),
            rn: w(),
            rm: w(),
        };
        t.inst(&format!("{name} s0, s1, s2"), inst.clone(), &[s(0), s(1), s(2)]);
        t.inst(&format!("{name} s31, s30, s17"), inst, &[s(31), s(30), s(17)]);
    }
    let fma = Inst::FloatMulAdd {
        bits: encode::VFMA,
        rd: w(),
        acc: w(),
        rn: w(),
        rm: w(),
    };
    t.inst("vfma.f32 s0, s2, s31", fma, &[s(0), s(0), s(2), s(31)]);
    for (name, bits) in [
        ("vmov.f32", encode::VMOV),
        ("vabs.f32", encode::VABS),
        ("vneg.f32", encode::VNEG),
        ("vsqrt.f32", encode::VSQRT),
        ("vcvt.f32.s32", encode::VCVT_F32_S32),
        ("vcvt.f32.u32", encode::VCVT_F32_U32),
        ("vcvt.s32.f32", encode::VCVT_S32_F32),
        ("vcvt.u32.f32", encode::VCVT_U32_F32),
    ] {
        let inst = Inst::Float2 { bits, rd: w(), rm: w() };
        t.inst(&format!("{name} s0, s31"), inst.clone(), &[s(0), s(31)]);
        t.inst(&format!("{name} s17, s2"), inst, &[s(17), s(2)]);
    }
    t.inst("vmov.f32 s3, s4", Inst::Move { rd: w(), rm: w() }, &[s(3), s(4)]);
    t.inst("vmov r8, s31", Inst::Move { rd: v(), rm: w() }, &[r(8), s(31)]);
    t.inst("vmov s31, r0", Inst::Move { rd: w(), rm: v() }, &[s(31), r(0)]);
    let memory = Memory::Float;
    let at = |offset: i32| Address::Offset(v(), offset);
    let load = |offset: i32| Inst::Load {
        memory,
        rd: w(),
        address: at(offset),
    };
    let store = |offset: i32| Inst::Store {
        memory,
        rs: w(),
        address: at(offset),
    };
    t.inst("vldr s0, [r1]", load(0), &[s(0), r(1)]);
    t.inst("vldr s31, [lr, #1020]", load(1020), &[s(31), r(14)]);
    t.inst("vldr s1, [r8, #-1020]", load(-1020), &[s(1), r(8)]);
    t.inst("vstr s0, [r1, #4]", store(4), &[s(0), r(1)]);
    t.inst("vstr s31, [r1, #-4]", store(-4), &[s(31), r(1)]);
}

pub(super) fn control(t: &mut Table) {
    let call = |callee: Callee| Inst::Call {
        callee,
        uses: Vec::new(),
        defs: Vec::new(),
        clobbers: PRegSet::empty(),
    };
    t.core("bl .", call(Callee::Symbol(0)), &[]);
    t.core("blx r8", call(Callee::Register(v())), &[8]);
    t.core("udf #0", Inst::Trap, &[]);
    let on = |cond: Cond| Some(Condition::new(cond, None));
    t.branch("beq.n . - 252", on(Cond::Eq), 0, -252);
    t.branch("ble.n . + 258", on(Cond::Le), 0, 258);
    t.branch("bne.w . + 260", on(Cond::Ne), 1, 260);
    t.branch("bcs.w . - 1048572", on(Cond::Hs), 1, -1_048_572);
    t.branch("bhi.w . + 1048578", on(Cond::Hi), 1, 1_048_578);
    t.branch("bgt.w . + 0x54326", on(Cond::Gt), 1, 0x54326);
    t.branch("bls.n . + 6; b.w . + 1048580", on(Cond::Hi), 2, 1_048_582);
    t.branch("b.n . - 2044", None, 0, -2044);
    t.branch("b.n . + 2050", None, 0, 2050);
    t.branch("b.w . + 2052", None, 1, 2052);
    t.branch("b.w . - 16777212", None, 1, -16_777_212);
    t.branch("b.w . + 16777218", None, 1, 16_777_218);
    t.branch("b.w . + 0xabcdee", None, 1, 0xab_cdee);
    t.branch("b.w . - 0xabcdee", None, 1, -0xab_cdee);
    let zero = |cond: Cond, register: u32| Some(Condition::new(cond, Some(register)));
    t.branch("cbz r0, . + 4", zero(Cond::Eq, 0), 0, 4);
    t.branch("cbnz r7, . + 130", zero(Cond::Ne, 7), 0, 130);
    t.branch("cbz r5, . + 66", zero(Cond::Eq, 5), 0, 66);
    t.branch("cmp r5, #0; beq.n . - 252", zero(Cond::Eq, 5), 1, -250);
    t.branch("cmp r5, #0; bne.w . + 260", zero(Cond::Ne, 5), 2, 262);
    let mut placed = |text: &str, offset: u32, register: PReg| {
        let float = register.class() == RegClass::Float;
        let rs = if float { w() } else { v() };
        t.inst(text, Inst::StoreArgument { rs, offset }, &[register]);
    };
    placed("str r0, [sp, #0]", 0, r(0));
    placed("str r7, [sp, #1020]", 1020, r(7));
    placed("str.w r7, [sp, #1024]", 1024, r(7));
    placed("str.w lr, [sp, #4092]", 4092, r(14));
    placed("vstr s31, [sp, #1020]", 1020, s(31));
    placed(
        "str r0, [sp, #-4]!; vmov r0, s31; str.w r0, [sp, #1028]; ldr r0, [sp], #4",
        1024,
        s(31),
    );
    let mut argument = |text: &str, offset: u32, rd: usize| t.core(text, Inst::LoadArgument { rd: v(), offset }, &[rd]);
    argument("ldr r0, [sp, #4]", 4, 0);
    argument("ldr.w lr, [sp, #4092]", 4092, 14);
    argument("mov.w r0, #4096; ldr.w r0, [sp, r0]", 4096, 0);
    // What register allocation adds; slots are words from the stack pointer.
    let slot = |index: usize| Allocation::stack(regalloc2::SpillSlot::new(index));
    for (text, from, to) in [
        ("mov r0, lr", Allocation::reg(r(14)), Allocation::reg(r(0))),
        ("vmov.f32 s31, s0", Allocation::reg(s(0)), Allocation::reg(s(31))),
        ("str r0, [sp, #1020]", Allocation::reg(r(0)), slot(255)),
        ("ldr.w r0, [sp, #1024]", slot(256), Allocation::reg(r(0))),
        ("vldr s1, [sp, #1020]", slot(255), Allocation::reg(s(1))),
        (
            "str r0, [sp, #-4]!; ldr.w r0, [sp, #1028]; vmov s1, r0; ldr r0, [sp], #4",
            slot(256),
            Allocation::reg(s(1)),
        ),
    ] {
        let mut asm = Assembler::default();
        isa().emit_move(from, to, &frame(&[], 0), &mut asm);
        assert_eq!(asm.executed as usize, text.split("; ").count(), "{text}");
        t.bytes(text, asm.bytes);
    }
    let mut framed = |prologue: &str, epilogue: &str, saved: &[PReg], locals: u32| {
        let frame = frame(saved, locals);
        let mut asm = Assembler::default();
        isa().prologue(&frame, &mut asm);
        t.bytes(prologue, asm.bytes);
        let mut asm = Assembler::default();
        isa().epilogue(&frame, &mut asm);
        t.bytes(epilogue, asm.bytes);
    };
    framed("sub sp, #8", "add sp, #8; bx lr", &[], 8);
    framed("push {r4, lr}", "pop {r4, pc}", &[r(4), r(14)], 0);
    framed("push {lr}", "pop {pc}", &[r(14)], 0);
    framed("str r8, [sp, #-4]!", "ldr r8, [sp], #4; bx lr", &[r(8)], 0);
    framed(
        "push.w {r4, r8, lr}; sub sp, #508",
        "add sp, #508; pop.w {r4, r8, pc}",
        &[r(4), r(8), r(14)],
        508,
    );
    framed(
        "push {r4, r5}; sub.w sp, sp, #512",
        "add.w sp, sp, #512; pop {r4, r5}; bx lr",
        &[r(4), r(5)],
        512,
    );
    framed("subw sp, sp, #4092", "addw sp, sp, #4092; bx lr", &[], 4092);
    framed(
        "sub.w sp, sp, #4096; sub sp, #8",
        "add.w sp, sp, #4096; add sp, #8; bx lr",
        &[],
        4104,
    );
    framed(
        "push {r7, lr}; vpush {s16-s17}",
        "vpop {s16-s17}; pop {r7, pc}",
        &[r(7), r(14), s(16), s(17)],
        0,
    );
    let all: Vec<PReg> = (4..12).chain([14]).map(r).chain((16..32).map(s)).collect();
    framed(
        "push.w {r4-r11, lr}; vpush {s16-s31}",
        "vpop {s16-s31}; pop.w {r4-r11, pc}",
        &all,
        0,
    );
}
