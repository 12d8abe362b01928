//! Encodings: every form and the boundaries of its immediates, against a checked-in table, and the table against the
//! assemblers that are installed.

mod rows;

use super::branch::Condition;
use super::inst::{Inst, r};
use super::{Core, Thumb2};
use crate::codegen::native::Isa;
use crate::codegen::native::emit::{Assembler, Frame};
use crate::intrinsic;
use crate::output::assert_golden;
use regalloc2::{Allocation, PReg, RegClass, VReg};
use std::process::Command;

/// A core register before allocation.
fn v() -> VReg {
    VReg::new(0, RegClass::Int)
}

/// A float register before allocation.
fn w() -> VReg {
    VReg::new(0, RegClass::Float)
}

fn isa() -> Thumb2 {
    Thumb2::new(Core {
        dsp: true,
        fpu: true,
        timing: None,
    })
}

fn frame(saved: &[PReg], locals: u32) -> Frame {
    Frame {
        saved: saved.to_vec(),
        locals,
        spills: 0,
        slots: 0,
        incoming: locals + 4 * saved.len() as u32,
        total: locals + 4 * saved.len() as u32,
    }
}

/// Assembly text and what we encode for it.
#[derive(Default)]
struct Table(Vec<(String, Vec<u8>)>);

impl Table {
    fn bytes(&mut self, text: &str, bytes: Vec<u8>) {
        self.0.push((text.to_owned(), bytes));
    }

    fn inst(&mut self, text: &str, inst: Inst, registers: &[PReg]) {
        let allocations: Vec<Allocation> = registers.iter().map(|register| Allocation::reg(*register)).collect();
        let mut asm = Assembler::default();
        isa().emit(&inst, &allocations, &frame(&[], 0), &mut asm);
        let count = text.split("; ").count() as u32;
        assert_eq!(asm.executed, count, "{text}");
        self.bytes(text, asm.bytes);
    }

    /// An instruction on core registers by their numbers.
    fn core(&mut self, text: &str, inst: Inst, registers: &[usize]) {
        let registers: Vec<PReg> = registers.iter().map(|number| r(*number)).collect();
        self.inst(text, inst, &registers);
    }

    fn branch(&mut self, text: &str, condition: Option<Condition>, form: usize, displacement: i64) {
        let isa = isa();
        let forms = isa.forms(condition);
        assert!((forms[form].min..=forms[form].max).contains(&displacement), "{text}");
        let bytes = isa.encode_branch(condition, form, displacement);
        assert_eq!(bytes.len() as u32, forms[form].bytes, "{text}");
        self.bytes(text, bytes);
    }
}

fn table() -> Table {
    let mut t = Table::default();
    rows::constants(&mut t);
    rows::arithmetic(&mut t);
    rows::shifts(&mut t);
    rows::products(&mut t);
    rows::fields(&mut t);
    rows::memory(&mut t);
    rows::flags(&mut t);
    rows::floats(&mut t);
    rows::control(&mut t);
    t
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn encodings() {
    let rows = table().0;
    let text: String = rows
        .iter()
        .map(|(text, bytes)| format!("{:<24} {text}\n", hex(bytes)))
        .collect();
    assert_golden("src/codegen/thumb2/encodings.txt", &text);
}

/// Every intrinsic has a row of its own above.
#[test]
fn intrinsics_are_in_the_table() {
    let text: String = table().0.iter().map(|(text, _)| format!("{text}\n")).collect();
    for intrinsic in intrinsic::ALL {
        let name = format!("{intrinsic:?}").to_lowercase();
        if *intrinsic == intrinsic::Intrinsic::Smax8 {
            assert!(text.contains("ssub8") && text.contains("sel"));
            continue;
        }
        assert!(text.contains(name.trim_end_matches("ror8")), "{name}");
    }
}

/// What an assembler makes of the rows, or nothing if it is not installed.
fn assembled(program: &str, arguments: &[&str], prefix: &str, rows: &[(String, Vec<u8>)]) -> Option<Vec<Vec<u8>>> {
    use ::object::{Object, ObjectSection, ObjectSymbol};
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [source, object] = ["rows.s", "rows.o"].map(|name| directory.path().join(name));
    let mut text = format!("{prefix}.text\n");
    for (at, (row, _)) in rows.iter().enumerate() {
        text += &format!("row_{at}:\n{}\n", row.replace("; ", "\n"));
    }
    text += &format!("row_{}:\n", rows.len());
    std::fs::write(&source, text).expect("a writable temporary directory");
    let output = match Command::new(program)
        .args(arguments)
        .arg("-o")
        .arg(&object)
        .arg(&source)
        .output()
    {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {program} is not installed");
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let bytes = std::fs::read(&object).expect("the assembler's output");
    let file = ::object::File::parse(&*bytes).expect("an object file");
    let code = file.section_by_name(".text").expect("code").data().expect("its bytes");
    let address = |at: usize| {
        let name = format!("row_{at}");
        let symbol = file
            .symbols()
            .find(|symbol| symbol.name() == Ok(&name))
            .expect("a label");
        symbol.address() as usize & !1
    };
    Some(
        (0..rows.len())
            .map(|at| code[address(at)..address(at + 1)].to_vec())
            .collect(),
    )
}

#[test]
fn assemblers_agree() {
    let rows = table().0;
    let gnu = ".syntax unified\n.cpu cortex-m4\n.fpu fpv4-sp-d16\n.thumb\n";
    let llvm = ["-triple=thumbv7em-none-eabihf", "-mcpu=cortex-m4", "-filetype=obj"];
    for (program, arguments, prefix) in [
        ("arm-none-eabi-as", &[][..], gnu),
        ("llvm-mc", &llvm[..], ".syntax unified\n.thumb\n"),
    ] {
        // LLVM's assembler wants labels for branches.
        let understood = |text: &str| program != "llvm-mc" || !(text.contains(" . ") || text.ends_with(" ."));
        let rows: Vec<_> = rows.iter().filter(|(text, _)| understood(text)).cloned().collect();
        let Some(found) = assembled(program, arguments, prefix, &rows) else {
            continue;
        };
        let differing: Vec<String> = rows
            .iter()
            .zip(&found)
            .filter(|((_, ours), theirs)| ours != *theirs)
            .map(|((text, ours), theirs)| format!("{text}: {}, {program} says {}", hex(ours), hex(theirs)))
            .collect();
        assert!(differing.is_empty(), "{}", differing.join("\n"));
    }
}
