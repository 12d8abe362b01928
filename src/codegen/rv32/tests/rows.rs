//! The rows of the table, by what instructions are for.

use super::super::encode::{self, branch};
use super::super::inst::{Callee, Compare, Inst};
use super::{Table, frame, named, v, w};
use crate::codegen::native::Isa;
use crate::codegen::native::emit::Assembler;
use regalloc2::{Allocation, PRegSet, RegClass, VReg};

pub(super) fn constants(t: &mut Table) {
    let mut li = |text: &str, rd: &str, value: i32| t.inst(text, Inst::Li { rd: v(), value }, &[rd]);
    li("c.li a0, 0", "a0", 0);
    li("c.li t6, 31", "t6", 31);
    li("c.li s11, -32", "s11", -32);
    li("addi a0, zero, 32", "a0", 32);
    li("addi a0, zero, -33", "a0", -33);
    li("addi a0, zero, 2047", "a0", 2047);
    li("addi a0, zero, -2048", "a0", -2048);
    li("c.lui a0, 1; addi a0, a0, -2048", "a0", 2048);
    li("c.lui a0, 0xfffff; addi a0, a0, 2047", "a0", -2049);
    li("c.lui a1, 1", "a1", 0x1000);
    li("c.lui a1, 31", "a1", 31 << 12);
    li("lui a1, 32", "a1", 32 << 12);
    li("c.lui t5, 0xfffe0", "t5", -32 << 12);
    li("lui t5, 0xfffdf", "t5", -33 << 12);
    li("c.lui a0, 1; c.addi a0, 31", "a0", 0x101f);
    li("c.lui a0, 1; addi a0, a0, 32", "a0", 0x1020);
    li("lui s2, 0x12345; addi s2, s2, 0x678", "s2", 0x1234_5678);
    li("lui a0, 0x80000; c.addi a0, -1", "a0", i32::MAX);
    li("lui a0, 0x80000", "a0", i32::MIN);
    li("lui a0, 0x80000; addi a0, a0, 2047", "a0", i32::MIN + 2047);
    li("lui a0, 0x7ffff; addi a0, a0, 2047", "a0", 0x7fff_f7ff);
    let mut address = |text: &str, rd: &str| {
        t.inst(
            text,
            Inst::Address {
                rd: v(),
                symbol: 0,
                offset: 0,
            },
            &[rd],
        );
    };
    // Relocations want whole instructions.
    address("lui a0, 0; addi a0, a0, 0", "a0");
    address("lui t5, 0; addi t5, t5, 0", "t5");
    let mut slot = |text: &str, rd: &str, offset: u32| t.inst(text, Inst::SlotAddress { rd: v(), offset }, &[rd]);
    slot("c.mv a0, sp", "a0", 0);
    slot("c.addi4spn s0, sp, 4", "s0", 4);
    slot("c.addi4spn a5, sp, 1020", "a5", 1020);
    slot("c.addi4spn a0, sp, 0x2a8", "a0", 0x2a8);
    slot("addi a0, sp, 1024", "a0", 1024);
    slot("addi a0, sp, 6", "a0", 6);
    slot("addi a6, sp, 4", "a6", 4);
    slot("addi t5, sp, 2047", "t5", 2047);
    slot("c.lui t6, 1; addi t6, t6, -2048; add a0, sp, t6", "a0", 2048);
    slot("c.lui t6, 1; add t5, sp, t6", "t5", 4096);
    slot("lui t6, 0x12345; addi t6, t6, 0x678; add a0, sp, t6", "a0", 0x1234_5678);
}

pub(super) fn arithmetic(t: &mut Table) {
    for (name, bits) in [
        ("add", encode::ADD),
        ("sub", encode::SUB),
        ("sll", encode::SLL),
        ("slt", encode::SLT),
        ("sltu", encode::SLTU),
        ("xor", encode::XOR),
        ("srl", encode::SRL),
        ("sra", encode::SRA),
        ("or", encode::OR),
        ("and", encode::AND),
        ("mul", encode::MUL),
        ("mulh", encode::MULH),
        ("mulhu", encode::MULHU),
        ("div", encode::DIV),
        ("divu", encode::DIVU),
        ("rem", encode::REM),
        ("remu", encode::REMU),
    ] {
        for [rd, rs1, rs2] in [["t3", "a1", "s11"], ["a0", "t6", "ra"]] {
            t.r(&format!("{name} {rd}, {rs1}, {rs2}"), bits, [rd, rs1, rs2]);
        }
    }
    for (name, bits) in [("xor", encode::XOR), ("or", encode::OR), ("and", encode::AND)] {
        t.r(&format!("c.{name} s0, a5"), bits, ["s0", "s0", "a5"]);
        t.r(&format!("c.{name} a5, s0"), bits, ["a5", "s0", "a5"]);
        t.r(&format!("{name} a0, a1, a2"), bits, ["a0", "a1", "a2"]);
        t.r(&format!("{name} a0, a0, t3"), bits, ["a0", "a0", "t3"]);
        t.r(&format!("{name} t3, t3, a0"), bits, ["t3", "t3", "a0"]);
    }
    t.r("c.sub s0, a5", encode::SUB, ["s0", "s0", "a5"]);
    t.r("c.sub a5, s0", encode::SUB, ["a5", "a5", "s0"]);
    t.r("sub a5, s0, a5", encode::SUB, ["a5", "s0", "a5"]);
    t.r("sub a5, a5, t3", encode::SUB, ["a5", "a5", "t3"]);
    t.r("c.add t3, s11", encode::ADD, ["t3", "t3", "s11"]);
    t.r("c.add t3, s11", encode::ADD, ["t3", "s11", "t3"]);
    t.r("c.add a0, a0", encode::ADD, ["a0", "a0", "a0"]);
    let negated = |bits: u32| Inst::FromZero {
        bits,
        rd: v(),
        rs2: v(),
    };
    t.inst("sub a0, zero, a1", negated(encode::SUB), &["a0", "a1"]);
    t.inst("sub t5, zero, s2", negated(encode::SUB), &["t5", "s2"]);
    t.inst("sltu a0, zero, a1", negated(encode::SLTU), &["a0", "a1"]);
    t.inst("c.mv t3, s2", negated(encode::ADD), &["t3", "s2"]);
}

pub(super) fn immediates(t: &mut Table) {
    for (name, bits) in [
        ("addi", encode::ADDI),
        ("sltiu", encode::SLTIU),
        ("xori", encode::XORI),
        ("ori", encode::ORI),
        ("andi", encode::ANDI),
    ] {
        for (rd, rs1, imm) in [
            ("t3", "a1", 2047),
            ("a0", "t6", -2048),
            ("s2", "s3", 1),
            ("a0", "a1", -1),
            ("a2", "a3", 0x555),
        ] {
            t.i(&format!("{name} {rd}, {rs1}, {imm}"), bits, [rd, rs1], imm);
        }
    }
    for (name, bits) in [("slli", encode::SLLI), ("srli", encode::SRLI), ("srai", encode::SRAI)] {
        // The bit that tells SRAI from SRLI is in the instruction's own bits.
        for amount in [1, 15, 16, 31] {
            t.i(&format!("{name} t3, a1, {amount}"), bits, ["t3", "a1"], amount);
        }
        t.i(&format!("c.{name} a0, 1"), bits, ["a0", "a0"], 1);
        t.i(&format!("c.{name} s1, 31"), bits, ["s1", "s1"], 31);
        t.i(&format!("c.{name} a5, 21"), bits, ["a5", "a5"], 21);
    }
    t.i("c.slli t6, 31", encode::SLLI, ["t6", "t6"], 31);
    t.i("srli t6, t6, 31", encode::SRLI, ["t6", "t6"], 31);
    t.i("srai t6, t6, 31", encode::SRAI, ["t6", "t6"], 31);
    let mut addi = |text: &str, rd: &str, rs1: &str, imm: i32| t.i(text, encode::ADDI, [rd, rs1], imm);
    addi("c.addi a0, 1", "a0", "a0", 1);
    addi("c.addi t6, 31", "t6", "t6", 31);
    addi("c.addi s2, -32", "s2", "s2", -32);
    addi("addi a0, a0, 32", "a0", "a0", 32);
    addi("addi a0, a0, -33", "a0", "a0", -33);
    addi("c.mv t3, s2", "t3", "s2", 0);
    t.i("c.andi a0, 31", encode::ANDI, ["a0", "a0"], 31);
    t.i("c.andi s0, -32", encode::ANDI, ["s0", "s0"], -32);
    t.i("andi s0, s0, 32", encode::ANDI, ["s0", "s0"], 32);
    t.i("andi s0, s0, -33", encode::ANDI, ["s0", "s0"], -33);
    t.i("andi t3, t3, 1", encode::ANDI, ["t3", "t3"], 1);
}

pub(super) fn memory(t: &mut Table) {
    for (name, bits) in [
        ("lb", encode::LB),
        ("lh", encode::LH),
        ("lw", encode::LW),
        ("lbu", encode::LBU),
        ("lhu", encode::LHU),
    ] {
        for (rd, base, imm) in [
            ("t3", "a1", 2047),
            ("a0", "t6", -2048),
            ("s2", "s3", 0),
            ("a0", "a1", -4),
            ("a2", "a3", 2),
        ] {
            t.i(&format!("{name} {rd}, {imm}({base})"), bits, [rd, base], imm);
        }
    }
    for (name, bits) in [("sb", encode::SB), ("sh", encode::SH), ("sw", encode::SW)] {
        for (rs, base, imm) in [
            ("t3", "a1", 2047),
            ("a0", "t6", -2048),
            ("s2", "s3", 0),
            ("a0", "a1", -4),
            ("a2", "a3", 2),
            ("zero", "a0", 31),
            ("zero", "a0", 32),
        ] {
            t.s(&format!("{name} {rs}, {imm}({base})"), bits, [rs, base], imm);
        }
    }
    for (imm, short) in [
        (0, true),
        (4, true),
        (64, true),
        (124, true),
        (128, false),
        (126, false),
    ] {
        let c = if short { "c." } else { "" };
        t.i(&format!("{c}lw s0, {imm}(a5)"), encode::LW, ["s0", "a5"], imm);
        t.s(&format!("{c}sw a5, {imm}(s0)"), encode::SW, ["a5", "s0"], imm);
        t.i(&format!("{c}flw fs0, {imm}(a5)"), encode::FLW, ["fs0", "a5"], imm);
        t.s(&format!("{c}fsw fa5, {imm}(s0)"), encode::FSW, ["fa5", "s0"], imm);
    }
    for (imm, short) in [
        (0, true),
        (4, true),
        (60, true),
        (64, true),
        (252, true),
        (256, false),
        (-4, false),
    ] {
        let (c, sp) = if short { ("c.", "sp") } else { ("", "") };
        t.i(&format!("{c}lw{sp} t6, {imm}(sp)"), encode::LW, ["t6", "sp"], imm);
        t.s(&format!("{c}sw{sp} ra, {imm}(sp)"), encode::SW, ["ra", "sp"], imm);
        t.i(&format!("{c}flw{sp} ft0, {imm}(sp)"), encode::FLW, ["ft0", "sp"], imm);
        t.s(&format!("{c}fsw{sp} ft11, {imm}(sp)"), encode::FSW, ["ft11", "sp"], imm);
    }
    t.s("c.swsp zero, 8(sp)", encode::SW, ["zero", "sp"], 8);
    t.s("sw zero, 0(a0)", encode::SW, ["zero", "a0"], 0);
    t.i("flw ft8, 2047(a1)", encode::FLW, ["ft8", "a1"], 2047);
    t.i("flw fa0, -2048(t6)", encode::FLW, ["fa0", "t6"], -2048);
    t.s("fsw ft8, 2047(a1)", encode::FSW, ["ft8", "a1"], 2047);
    t.s("fsw fa0, -2048(t6)", encode::FSW, ["fa0", "t6"], -2048);
    // Arguments on the stack, near and far.
    let load = |offset: u32| Inst::LoadArgument {
        bits: encode::LW,
        rd: v(),
        offset,
    };
    let store = |offset: u32| Inst::StoreArgument {
        bits: encode::FSW,
        rs: w(),
        offset,
    };
    t.inst("c.lwsp a0, 4(sp)", load(4), &["a0"]);
    t.inst("lw a0, 2044(sp)", load(2044), &["a0"]);
    t.inst("c.lui t6, 1; c.add t6, sp; lw a0, -2048(t6)", load(2048), &["a0"]);
    t.inst("c.lui t6, 1; c.add t6, sp; lw a0, 2044(t6)", load(6140), &["a0"]);
    t.inst("c.lui t6, 2; c.add t6, sp; lw a0, -2048(t6)", load(6144), &["a0"]);
    t.inst("c.fswsp fa0, 4(sp)", store(4), &["fa0"]);
    t.inst("c.lui t6, 1; c.add t6, sp; fsw fa0, 0(t6)", store(4096), &["fa0"]);
}

pub(super) fn floats(t: &mut Table) {
    let three = |bits: u32| Inst::R {
        bits,
        rd: w(),
        rs1: w(),
        rs2: Some(w()),
    };
    let two = |bits: u32| Inst::R {
        bits,
        rd: w(),
        rs1: w(),
        rs2: None,
    };
    for (name, bits) in [
        ("fadd.s", encode::FADD),
        ("fsub.s", encode::FSUB),
        ("fmul.s", encode::FMUL),
        ("fdiv.s", encode::FDIV),
        ("fsgnj.s", encode::FSGNJ),
        ("fsgnjn.s", encode::FSGNJN),
        ("fsgnjx.s", encode::FSGNJX),
    ] {
        for [rd, rs1, rs2] in [["fa0", "fs1", "ft11"], ["ft10", "fa7", "fs0"]] {
            t.inst(&format!("{name} {rd}, {rs1}, {rs2}"), three(bits), &[rd, rs1, rs2]);
        }
    }
    for (name, bits) in [("feq.s", encode::FEQ), ("flt.s", encode::FLT), ("fle.s", encode::FLE)] {
        for [rd, rs1, rs2] in [["a0", "fs1", "ft11"], ["t5", "fa7", "fs0"]] {
            t.inst(&format!("{name} {rd}, {rs1}, {rs2}"), three(bits), &[rd, rs1, rs2]);
        }
    }
    t.inst("fsqrt.s fa0, ft11", two(encode::FSQRT), &["fa0", "ft11"]);
    t.inst("fsqrt.s ft8, fs0", two(encode::FSQRT), &["ft8", "fs0"]);
    for (name, bits) in [("fcvt.w.s", encode::FCVT_W_S), ("fcvt.wu.s", encode::FCVT_WU_S)] {
        t.inst(&format!("{name} a0, ft11, rtz"), two(bits), &["a0", "ft11"]);
        t.inst(&format!("{name} t5, fs0, rtz"), two(bits), &["t5", "fs0"]);
    }
    for (name, bits) in [("fcvt.s.w", encode::FCVT_S_W), ("fcvt.s.wu", encode::FCVT_S_WU)] {
        t.inst(&format!("{name} fa0, t5"), two(bits), &["fa0", "t5"]);
        t.inst(&format!("{name} ft11, a0"), two(bits), &["ft11", "a0"]);
    }
    t.inst("fmv.x.w a0, ft11", two(encode::FMV_X_W), &["a0", "ft11"]);
    t.inst("fmv.w.x ft11, a0", two(encode::FMV_W_X), &["ft11", "a0"]);
    let fused = Inst::R4 {
        bits: encode::FMADD,
        rd: w(),
        rs1: w(),
        rs2: w(),
        rs3: w(),
    };
    t.inst(
        "fmadd.s fa0, ft11, fs1, ft2",
        fused.clone(),
        &["fa0", "ft11", "fs1", "ft2"],
    );
    t.inst("fmadd.s ft10, fa5, ft0, fs11", fused, &["ft10", "fa5", "ft0", "fs11"]);
}

pub(super) fn moves(t: &mut Table) {
    let mv = || Inst::Move { rd: v(), rs: v() };
    t.inst("c.mv a0, t6", mv(), &["a0", "t6"]);
    t.inst("", mv(), &["a0", "a0"]);
    let select = |funct3: u32, b: bool, class: RegClass| Inst::Select {
        compare: Compare {
            funct3,
            a: v(),
            b: b.then(v),
        },
        rd: VReg::new(0, class),
        yes: v(),
        no: v(),
    };
    let int = RegClass::Int;
    t.inst(
        "bge a2, a3, . + 6; c.mv a0, a1",
        select(branch::LT, true, int),
        &["a0", "a0", "a1", "a2", "a3"],
    );
    t.inst(
        "bne t3, zero, . + 6; c.mv s2, t5",
        select(branch::EQ, false, int),
        &["s2", "s2", "t5", "t3"],
    );
    t.inst(
        "bltu a2, a3, . + 8; fsgnj.s fa0, fa1, fa1",
        select(branch::GEU, true, RegClass::Float),
        &["fa0", "fa0", "fa1", "a2", "a3"],
    );
    t.inst("", select(branch::LT, true, int), &["a0", "a0", "a0", "a2", "a3"]);
    // What register allocation adds: slot 0 is at 0, slot 600 beyond a 12-bit immediate.
    let slot = |index: usize| Allocation::stack(regalloc2::SpillSlot::new(index));
    for (text, from, to) in [
        (
            "c.mv s2, t6",
            Allocation::reg(named("t6")),
            Allocation::reg(named("s2")),
        ),
        (
            "fsgnj.s fs2, ft0, ft0",
            Allocation::reg(named("ft0")),
            Allocation::reg(named("fs2")),
        ),
        ("c.swsp t5, 0(sp)", Allocation::reg(named("t5")), slot(0)),
        ("c.lwsp t5, 252(sp)", slot(63), Allocation::reg(named("t5"))),
        ("lw t5, 256(sp)", slot(64), Allocation::reg(named("t5"))),
        ("fsw fs0, 2044(sp)", Allocation::reg(named("fs0")), slot(511)),
        (
            "c.lui t6, 1; c.add t6, sp; flw fs0, -2048(t6)",
            slot(512),
            Allocation::reg(named("fs0")),
        ),
        (
            "c.lui t6, 1; c.add t6, sp; sw a0, -1696(t6)",
            Allocation::reg(named("a0")),
            slot(600),
        ),
    ] {
        let mut asm = Assembler::default();
        t.isa.emit_move(from, to, &frame(&[], 0), &mut asm);
        assert_eq!(asm.executed as usize, text.split("; ").count(), "{text}");
        t.bytes(text, asm.bytes);
    }
}

pub(super) fn control(t: &mut Table) {
    let call = |callee: Callee| Inst::Call {
        callee,
        uses: Vec::new(),
        defs: Vec::new(),
        clobbers: PRegSet::empty(),
    };
    t.inst("auipc ra, 0; jalr ra, 0(ra)", call(Callee::Symbol(0)), &[]);
    t.inst("c.jalr t5", call(Callee::Register(v())), &["t5"]);
    t.inst("c.ebreak", Inst::Trap, &[]);
    for (displacement, text) in [
        (-2048, "-2048"),
        (2046, "2046"),
        (0x554, "1364"),
        (-0x556, "-1366"),
        (2, "2"),
    ] {
        t.branch(&format!("c.j {text}"), None, 0, displacement);
    }
    for (displacement, text) in [
        (2048, "2048"),
        (-(1 << 20), "-1048576"),
        ((1 << 20) - 2, "1048574"),
        (0x5_5554, "349524"),
        (-0x5_5556, "-349526"),
    ] {
        t.branch(&format!("jal zero, {text}"), None, 1, displacement);
    }
    for (name, funct3) in [("beqz", branch::EQ), ("bnez", branch::NE)] {
        for (register, displacement) in [("s0", -256), ("a5", 254), ("a0", 0x54), ("s1", -0x56)] {
            let on = Some((funct3, register, "zero"));
            t.branch(&format!("c.{name} {register}, {displacement}"), on, 0, displacement);
        }
    }
    for (name, funct3) in [
        ("beq", branch::EQ),
        ("bne", branch::NE),
        ("blt", branch::LT),
        ("bge", branch::GE),
        ("bltu", branch::LTU),
        ("bgeu", branch::GEU),
    ] {
        for (rs1, rs2, displacement) in [("a0", "t6", -4096), ("s11", "ra", 4094), ("t3", "s2", 0x554)] {
            let on = Some((funct3, rs1, rs2));
            t.branch(&format!("{name} {rs1}, {rs2}, {displacement}"), on, 0, displacement);
        }
    }
    t.branch("beq t3, zero, -1366", Some((branch::EQ, "t3", "zero")), 0, -1366);
    t.branch("blt a0, zero, 4", Some((branch::LT, "a0", "zero")), 0, 4);
    // A far one is a jump that the opposite condition leaves out.
    for (text, funct3, rs2, form, displacement) in [
        ("bne a0, zero, 8; jal zero, -4100", branch::EQ, "zero", 2, -4096),
        (
            "beq a0, zero, 8; jal zero, 1048574",
            branch::NE,
            "zero",
            2,
            (1 << 20) + 2,
        ),
        ("bge a0, a1, 8; jal zero, -1048576", branch::LT, "a1", 1, 4 - (1 << 20)),
        ("bltu a0, a1, 8; jal zero, 4092", branch::GEU, "a1", 1, 4096),
    ] {
        t.branch(text, Some((funct3, "a0", rs2)), form, displacement);
    }
}

pub(super) fn frames(t: &mut Table) {
    let mut framed = |prologue: &str, epilogue: &str, saved: &[&str], total: u32| {
        let frame = frame(saved, total);
        let mut asm = Assembler::default();
        t.isa.prologue(&frame, &mut asm);
        t.bytes(prologue, asm.bytes);
        let mut asm = Assembler::default();
        t.isa.epilogue(&frame, &mut asm);
        t.bytes(epilogue, asm.bytes);
    };
    framed("", "c.jr ra", &[], 0);
    framed(
        "c.addi sp, -16; c.swsp ra, 12(sp)",
        "c.lwsp ra, 12(sp); c.addi sp, 16; c.jr ra",
        &["ra"],
        16,
    );
    framed("c.addi sp, -32", "c.addi16sp sp, 32; c.jr ra", &[], 32);
    framed("c.addi16sp sp, -48", "c.addi16sp sp, 48; c.jr ra", &[], 48);
    framed(
        "c.addi16sp sp, -496; sw s0, 488(sp); sw s11, 492(sp)",
        "lw s0, 488(sp); lw s11, 492(sp); c.addi16sp sp, 496; c.jr ra",
        &["s0", "s11"],
        496,
    );
    framed("c.addi16sp sp, -512", "addi sp, sp, 512; c.jr ra", &[], 512);
    framed("addi sp, sp, -528", "addi sp, sp, 528; c.jr ra", &[], 528);
    framed("addi sp, sp, -2032", "addi sp, sp, 2032; c.jr ra", &[], 2032);
    framed(
        "addi sp, sp, -2048",
        "c.lui t6, 1; addi t6, t6, -2048; c.add sp, t6; c.jr ra",
        &[],
        2048,
    );
    framed(
        "c.lui t6, 0xfffff; c.add sp, t6; c.lui t6, 1; c.add t6, sp; sw ra, -4(t6)",
        "c.lui t6, 1; c.add t6, sp; lw ra, -4(t6); c.lui t6, 1; c.add sp, t6; c.jr ra",
        &["ra"],
        4096,
    );
    framed(
        "c.lui t6, 0xfffed; addi t6, t6, -1664; c.add sp, t6",
        "c.lui t6, 19; addi t6, t6, 1664; c.add sp, t6; c.jr ra",
        &[],
        0x1_3680,
    );
}

/// Cores without 16-bit instructions.
pub(super) fn uncompressed(t: &mut Table) {
    t.inst("addi a0, zero, 1", Inst::Li { rd: v(), value: 1 }, &["a0"]);
    t.inst("lui a0, 1; addi a0, a0, 1", Inst::Li { rd: v(), value: 4097 }, &["a0"]);
    t.inst("addi a0, sp, 4", Inst::SlotAddress { rd: v(), offset: 4 }, &["a0"]);
    t.inst("addi a0, a1, 0", Inst::Move { rd: v(), rs: v() }, &["a0", "a1"]);
    t.r("add a0, a0, a1", encode::ADD, ["a0", "a0", "a1"]);
    t.r("sub a0, a0, a1", encode::SUB, ["a0", "a0", "a1"]);
    t.r("and a0, a0, a1", encode::AND, ["a0", "a0", "a1"]);
    t.i("addi a0, a0, 1", encode::ADDI, ["a0", "a0"], 1);
    t.i("slli a0, a0, 1", encode::SLLI, ["a0", "a0"], 1);
    t.i("lw a0, 0(a1)", encode::LW, ["a0", "a1"], 0);
    t.s("sw a0, 0(sp)", encode::SW, ["a0", "sp"], 0);
    t.i("flw fa0, 0(a1)", encode::FLW, ["fa0", "a1"], 0);
    let call = Inst::Call {
        callee: Callee::Register(v()),
        uses: Vec::new(),
        defs: Vec::new(),
        clobbers: PRegSet::empty(),
    };
    t.inst("jalr ra, 0(a0)", call, &["a0"]);
    t.inst("ebreak", Inst::Trap, &[]);
    t.inst(
        "bge a2, a3, . + 8; addi a0, a1, 0",
        Inst::Select {
            compare: Compare {
                funct3: branch::LT,
                a: v(),
                b: Some(v()),
            },
            rd: v(),
            yes: v(),
            no: v(),
        },
        &["a0", "a0", "a1", "a2", "a3"],
    );
    t.branch("jal zero, 2", None, 0, 2);
    t.branch("beq a0, zero, 2", Some((branch::EQ, "a0", "zero")), 0, 2);
    t.branch(
        "bne a0, zero, 8; jal zero, -4100",
        Some((branch::EQ, "a0", "zero")),
        1,
        -4096,
    );
    let frame = frame(&["ra"], 16);
    let mut asm = Assembler::default();
    t.isa.prologue(&frame, &mut asm);
    t.bytes("addi sp, sp, -16; sw ra, 12(sp)", asm.bytes);
    let mut asm = Assembler::default();
    t.isa.epilogue(&frame, &mut asm);
    t.bytes("lw ra, 12(sp); addi sp, sp, 16; jalr zero, 0(ra)", asm.bytes);
}
