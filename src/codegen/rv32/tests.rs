//! Encodings: every form and the boundaries of its immediates, against a checked-in table, and the table against the
//! assemblers and disassemblers that are installed.
//!
//! Rows name 16-bit instructions by their own mnemonics (`c.add`), so that a form that is chosen wrongly is seen.

use super::encode::{self, branch};
use super::inst::{Callee, Compare, Inst, f, x};
use super::{Extensions, Rv32};
use crate::codegen::native::Isa;
use crate::codegen::native::emit::{Assembler, Frame};
use crate::output::assert_golden;
use regalloc2::{Allocation, PReg, PRegSet, RegClass, VReg};
use std::process::Command;

const X: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "s2",
    "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
];
const F: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4", "fa5",
    "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
];

/// An integer register before allocation.
fn v() -> VReg {
    VReg::new(0, RegClass::Int)
}

/// A float register before allocation.
fn w() -> VReg {
    VReg::new(0, RegClass::Float)
}

/// A register by its name.
fn named(name: &str) -> PReg {
    let number = |names: &[&str]| names.iter().position(|known| *known == name);
    number(&X).map(x).or_else(|| number(&F).map(f)).expect("a register")
}

fn frame(saved: &[&str], total: u32) -> Frame {
    Frame {
        saved: saved.iter().map(|name| named(name)).collect(),
        locals: total,
        spills: 0,
        slots: 0,
        incoming: total,
        total,
    }
}

/// Assembly text and what we encode for it.
struct Table {
    isa: Rv32,
    rows: Vec<(String, Vec<u8>)>,
}

impl Table {
    fn compressed(&mut self, compressed: bool) {
        self.isa = Rv32::new(Extensions {
            compressed,
            float: true,
            float_abi: true,
        });
    }

    fn bytes(&mut self, text: &str, bytes: Vec<u8>) {
        self.rows.push((text.to_owned(), bytes));
    }

    /// An instruction on registers by their names.
    fn inst(&mut self, text: &str, inst: Inst, registers: &[&str]) {
        let allocations: Vec<Allocation> = registers.iter().map(|name| Allocation::reg(named(name))).collect();
        let mut asm = Assembler::default();
        self.isa.emit(&inst, &allocations, &frame(&[], 0), &mut asm);
        let count = text.split("; ").filter(|part| !part.is_empty()).count() as u32;
        assert_eq!(asm.executed, count, "{text}");
        self.bytes(text, asm.bytes);
    }

    /// rd = rs1 op rs2 of the integer registers in `text`, which is `name rd, rs1, rs2`, or what that becomes.
    fn r(&mut self, text: &str, bits: u32, registers: [&str; 3]) {
        let inst = Inst::R {
            bits,
            rd: v(),
            rs1: v(),
            rs2: Some(v()),
        };
        self.inst(text, inst, &registers);
    }

    fn i(&mut self, text: &str, bits: u32, registers: [&str; 2], imm: i32) {
        let inst = Inst::I {
            bits,
            rd: v(),
            rs1: v(),
            imm,
        };
        self.inst(text, inst, &registers);
    }

    /// A store of the first register at the second.
    fn s(&mut self, text: &str, bits: u32, [rs, base]: [&str; 2], imm: i32) {
        let stored = (rs != "zero").then(v);
        let inst = Inst::S {
            bits,
            rs: stored,
            base: v(),
            imm,
        };
        let registers = if stored.is_some() { vec![base, rs] } else { vec![base] };
        self.inst(text, inst, &registers);
    }

    fn branch(&mut self, text: &str, condition: Option<(u32, &str, &str)>, form: usize, displacement: i64) {
        let number = |name: &str| named(name).hw_enc() as u32;
        let condition = condition.map(|(funct3, rs1, rs2)| (funct3, number(rs1), number(rs2)));
        let forms = self.isa.forms(condition);
        assert!((forms[form].min..=forms[form].max).contains(&displacement), "{text}");
        let bytes = self.isa.encode_branch(condition, form, displacement);
        assert_eq!(bytes.len() as u32, forms[form].bytes, "{text}");
        self.bytes(text, bytes);
    }
}

fn table() -> Vec<(String, Vec<u8>)> {
    let mut t = Table {
        isa: Rv32::new(Extensions {
            compressed: true,
            float: true,
            float_abi: true,
        }),
        rows: Vec::new(),
    };
    constants(&mut t);
    arithmetic(&mut t);
    immediates(&mut t);
    memory(&mut t);
    floats(&mut t);
    moves(&mut t);
    control(&mut t);
    frames(&mut t);
    t.compressed(false);
    uncompressed(&mut t);
    t.rows
}

fn constants(t: &mut Table) {
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

fn arithmetic(t: &mut Table) {
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

fn immediates(t: &mut Table) {
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

fn memory(t: &mut Table) {
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

fn floats(t: &mut Table) {
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

fn moves(t: &mut Table) {
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

fn control(t: &mut Table) {
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

fn frames(t: &mut Table) {
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
fn uncompressed(t: &mut Table) {
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn encodings() {
    let text: String = table()
        .iter()
        .map(|(text, bytes)| format!("{:<24} {text}", hex(bytes)).trim_end().to_owned() + "\n")
        .collect();
    assert_golden("src/codegen/rv32/encodings.txt", &text);
}

/// Every instruction that has bits of its own has a row.
#[test]
fn all_instructions_are_in_the_table() {
    let source = include_str!("encode.rs");
    let start = source.find("words! {\n").expect("the list of instructions");
    let list = &source[start..][..source[start..].find("\n}").expect("its end")];
    let names: Vec<String> = list
        .split([';', '\n', '{'])
        .filter_map(|part| Some(part.trim().split_once(" = ")?.0.to_lowercase()))
        .collect();
    assert!(names.len() > 50, "{names:?}");
    let rows = table();
    let used = |name: &str| {
        rows.iter()
            .flat_map(|(text, _)| text.split("; "))
            .any(|inst| inst.split(' ').next() == Some(name))
    };
    for name in names {
        let spelled = match name.as_str() {
            "branch" => "beq".to_owned(),
            "fmadd" => "fmadd.s".to_owned(),
            "flw" | "fsw" => name,
            name if name.starts_with("fcvt") || name.starts_with("fmv") => name.replace('_', "."),
            name if name.starts_with('f') => format!("{name}.s"),
            _ => name,
        };
        assert!(used(&spelled), "{spelled}");
    }
}

/// A row's instructions for an assembler: each is of the size that its mnemonic says.
fn source(rows: &[(String, Vec<u8>)], llvm: bool) -> String {
    let mut text = ".text\n".to_owned();
    for (at, (row, _)) in rows.iter().enumerate() {
        text += &format!("row_{at}:\n");
        for inst in row.split("; ").filter(|inst| !inst.is_empty()) {
            let option = if inst.starts_with("c.") { "rvc" } else { "norvc" };
            text += &format!(".option {option}\n{}\n", relative(inst, llvm));
        }
    }
    text + &format!("row_{}:\n", rows.len())
}

/// Displacements of branches are numbers to LLVM and addresses to GNU's assembler.
fn relative(inst: &str, llvm: bool) -> String {
    let name = inst.split(' ').next().unwrap_or_default().trim_start_matches("c.");
    let branches = ["j", "jal", "beqz", "bnez", "beq", "bne", "blt", "bge", "bltu", "bgeu"];
    let (first, last) = inst.rsplit_once([' ', ',']).map_or(("", inst), |parts| parts);
    match (branches.contains(&name), llvm) {
        (true, true) => inst.replace(". + ", ""),
        (true, false) if !inst.contains(". + ") => {
            let comma = if inst.contains(',') { "," } else { "" };
            format!("{}{comma} . + {last}", first.trim_end_matches(','))
        }
        _ => inst.to_owned(),
    }
}

/// Runs a program; nothing if it is not installed.
fn ran(command: &mut Command) -> Option<String> {
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command:?}: {said}");
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {:?} is not installed", command.get_program());
            None
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}

#[test]
fn assemblers_agree() {
    use ::object::{Object, ObjectSection, ObjectSymbol};
    let rows = table();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [text, object] = ["rows.s", "rows.o"].map(|name| directory.path().join(name));
    let gnu = ["-march=rv32imafdc", "-mabi=ilp32d", "-mno-relax"];
    let llvm = ["-triple=riscv32", "-mattr=+m,+a,+f,+d,+c", "-filetype=obj"];
    for (program, arguments) in [("riscv64-unknown-elf-as", &gnu[..]), ("llvm-mc", &llvm)] {
        std::fs::write(&text, source(&rows, program == "llvm-mc")).expect("a writable temporary directory");
        let mut command = Command::new(program);
        command.args(arguments).arg("-o").arg(&object).arg(&text);
        if ran(&mut command).is_none() {
            continue;
        }
        let bytes = std::fs::read(&object).expect("the assembler's output");
        let file = ::object::File::parse(&*bytes).expect("an object file");
        let code = file.section_by_name(".text").expect("code").data().expect("its bytes");
        let address = |at: usize| {
            let name = format!("row_{at}");
            let mut symbols = file.symbols();
            let symbol = symbols.find(|symbol| symbol.name() == Ok(&name)).expect("a label");
            symbol.address() as usize
        };
        let differing: Vec<String> = (rows.iter().enumerate())
            .filter_map(|(at, (text, ours))| {
                let theirs = &code[address(at)..address(at + 1)];
                (ours != theirs).then(|| format!("{text}: {}, {program} says {}", hex(ours), hex(theirs)))
            })
            .collect();
        assert!(differing.is_empty(), "{}", differing.join("\n"));
    }
}

/// An instruction as both disassemblers spell it: no spaces behind commas, decimal numbers, no default rounding mode.
fn plain(inst: &str) -> String {
    let (name, operands) = inst.trim().split_once([' ', '\t']).unwrap_or((inst.trim(), ""));
    let operands = operands
        .split(['<', '#'])
        .next()
        .unwrap_or_default()
        .replace([' ', '\t'], "");
    let number = |text: &str| {
        let value = match text.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        // Upper immediates of 20 bits may be signed.
        value.map_or(text.to_owned(), |value| (value & 0xfffff).to_string())
    };
    let spelled: Vec<String> = operands
        .split(',')
        .filter(|operand| !matches!(*operand, "dyn" | ""))
        .map(|operand| match operand.split_once('(') {
            Some((offset, base)) => format!("{}({base}", number(if offset.is_empty() { "0" } else { offset })),
            None => number(operand),
        })
        .collect();
    format!("{name} {}", spelled.join(",")).trim_end().to_owned()
}

/// Disassemblers read the bytes of each row as its text. Displacements of branches are left to the assemblers.
#[test]
fn disassemblers_agree() {
    use ::object::write::{Object, StandardSection};
    use ::object::{Architecture, BinaryFormat, Endianness, FileFlags, elf};
    let rows: Vec<_> = table()
        .into_iter()
        .filter(|(text, _)| relative(text, true) == relative(text, false) && !text.contains(". + ") && !text.is_empty())
        .filter(|(text, _)| {
            text.split("; ")
                .all(|inst| relative(inst, true) == relative(inst, false))
        })
        .collect();
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Riscv32, Endianness::Little);
    object.flags = FileFlags::Elf {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_flags: elf::EF_RISCV_RVC | elf::EF_RISCV_FLOAT_ABI_DOUBLE,
    };
    let section = object.section_id(StandardSection::Text);
    for (_, bytes) in &rows {
        object.append_section_data(section, bytes, 1);
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("rows.o");
    std::fs::write(&path, object.write().expect("an object")).expect("a writable temporary directory");
    let wanted: Vec<&str> = rows.iter().flat_map(|(text, _)| text.split("; ")).collect();
    let gnu = ["-d", "-M", "no-aliases", "-m", "riscv:rv32"];
    let llvm = ["-d", "-M", "no-aliases", "--mattr=+m,+a,+f,+d,+c"];
    for (program, arguments) in [("riscv64-unknown-elf-objdump", &gnu[..]), ("llvm-objdump", &llvm)] {
        let Some(text) = ran(Command::new(program).args(arguments).arg(&path)) else {
            continue;
        };
        // `address: bytes instruction`, the instruction behind a tab.
        let found: Vec<String> = text
            .lines()
            .filter(|line| {
                line.split_once(':')
                    .is_some_and(|(address, _)| u64::from_str_radix(address.trim(), 16).is_ok())
            })
            .filter_map(|line| Some(plain(line.split_once(':')?.1.trim_start().split_once('\t')?.1)))
            .collect();
        assert_eq!(found.len(), wanted.len(), "{program}\n{text}");
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_eq!(found, &plain(wanted), "{program}");
        }
    }
}
