//! Encodings: every form and the boundaries of its immediates, against a checked-in table, and the table against the
//! assemblers and disassemblers that are installed.
//!
//! Rows name 16-bit instructions by their own mnemonics (`c.add`), so that a form that is chosen wrongly is seen.

mod rows;

use super::inst::{Inst, f, x};
use super::{Extensions, Rv32};
use crate::codegen::native::Isa;
use crate::codegen::native::emit::{Assembler, Frame};
use crate::output::assert_golden;
use regalloc2::{Allocation, PReg, RegClass, VReg};
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
    rows::constants(&mut t);
    rows::arithmetic(&mut t);
    rows::immediates(&mut t);
    rows::memory(&mut t);
    rows::floats(&mut t);
    rows::moves(&mut t);
    rows::control(&mut t);
    rows::frames(&mut t);
    t.compressed(false);
    rows::uncompressed(&mut t);
    t.rows
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
    let source = include_str!("../encode.rs");
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
