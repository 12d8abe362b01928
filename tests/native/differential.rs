//! Random programs: our back ends on emulated boards against Cranelift on this machine.
//!
//! `COREROPE_FUZZ=N` runs N programs on each ISA instead of 500, `COREROPE_FUZZ_SEED=S` starts at another seed,
//! `COREROPE_FUZZ_BOARD=NAME` keeps to one board.

use crate::board::{BOARDS, Board, Isa};
use crate::generate::{self, Options};
use crate::host;
use crate::program::{BUFFER, Program};
use crate::random::Random;
use corerope::intrinsic::{self, Intrinsic};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{ExternalName, InstructionData, types};
use cranelift_codegen::settings;
use std::collections::BTreeSet;
use std::path::Path;

/// Programs that are compiled, linked and run at once; later ones call earlier ones.
const BATCH: usize = 500;
/// Inputs on which each program runs.
const INPUTS: usize = 4;

/// Buffers: arguments that fit their parameters' types however they are read, and random bytes.
pub fn inputs(seed: u64) -> Vec<[u8; BUFFER]> {
    let mut random = Random::new(seed ^ 0x1234_5678);
    (0..INPUTS)
        .map(|_| {
            let mut buffer = [0; BUFFER];
            for at in (0..BUFFER).step_by(8) {
                // Arguments and memory are read as integers and as floats.
                let value = if random.one_in(3) {
                    u64::from(random.float()) | u64::from(random.float()) << 32
                } else {
                    random.interesting() as u64
                };
                buffer[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            buffer
        })
        .collect()
}

pub fn batch(seed: u64, count: usize, options: Options) -> Vec<Program> {
    let mut programs: Vec<Program> = Vec::with_capacity(count);
    for index in 0..count {
        // Eight at most of those before, so that failures stay small.
        let program = generate::program(seed + index as u64, options, &programs[index - index % 8..]);
        let mut program = program;
        program.renumber(&|callee| callee + index - index % 8);
        programs.push(program);
    }
    programs
}

/// The first difference: which program, which input, and what.
pub fn difference(board: &Board, programs: &[Program], inputs: &[[u8; BUFFER]]) -> Option<(usize, usize, String)> {
    let image = match board.compile(programs) {
        Ok(image) => image,
        Err(refused) => {
            let index = refused
                .strip_prefix("program ")
                .and_then(|rest| rest.split(',').next()?.parse().ok())
                .unwrap_or(0);
            let reason = refused.lines().next().unwrap_or_default();
            return Some((index, 0, format!("it does not compile: {reason}")));
        }
    };
    let wanted = host::run(programs, inputs);
    let (records, status) = board.run(&image, inputs, false);
    for (at, record) in records.iter().enumerate() {
        let (program, input) = (at / inputs.len(), at % inputs.len());
        if record.spoiled != 0 {
            return Some((program, input, format!("registers are not kept: {:#x}", record.spoiled)));
        }
        let wanted = &wanted[program][input];
        if let Some(byte) = (0..BUFFER).find(|byte| record.buffer[*byte] != wanted[*byte]) {
            let word = byte & !3;
            let show = |bytes: &[u8; BUFFER]| u32::from_le_bytes(bytes[word..word + 4].try_into().expect("four bytes"));
            let what = format!(
                "word at {word}: {:#010x}, not {:#010x}",
                show(&record.buffer),
                show(wanted)
            );
            return Some((program, input, what));
        }
    }
    let all = programs.len() * inputs.len();
    if records.len() < all || status.is_err() {
        let at = records.len().min(all - 1);
        let reason = status.err().unwrap_or_else(|| "records are missing".to_owned());
        return Some((at / inputs.len(), at % inputs.len(), reason));
    }
    None
}

/// `programs` without what the failing one does not call.
fn isolated(programs: &[Program], failing: usize) -> Vec<Program> {
    let mut needed = vec![failing];
    let mut at = 0;
    while at < needed.len() {
        for callee in programs[needed[at]].callees() {
            if !needed.contains(&callee) {
                needed.push(callee);
            }
        }
        at += 1;
    }
    needed.sort_unstable();
    needed
        .iter()
        .map(|index| {
            let mut program = programs[*index].clone();
            program.renumber(&|callee| needed.iter().position(|kept| *kept == callee).expect("a needed callee"));
            program
        })
        .collect()
}

/// Makes a failing set of programs smaller as long as it fails.
fn smaller(board: &Board, mut programs: Vec<Program>, inputs: &[[u8; BUFFER]]) -> Vec<Program> {
    let fails = |programs: &[Program]| difference(board, programs, inputs).is_some();
    let mut progress = true;
    while progress {
        progress = false;
        for index in 0..programs.len() {
            for at in 0..programs[index].slots.len() {
                let mut candidate = programs.clone();
                candidate[index].slots.truncate(at);
                if fails(&candidate) {
                    programs = candidate;
                    progress = true;
                    break;
                }
            }
            for mixed in [0, 1, 2, 4, 8] {
                let mut candidate = programs.clone();
                candidate[index].mixed = mixed;
                if mixed < programs[index].mixed && fails(&candidate) {
                    programs = candidate;
                    progress = true;
                    break;
                }
            }
            let mut chunk = programs[index].len().max(1);
            loop {
                let mut start = 0;
                while start < programs[index].len() {
                    let mut done = false;
                    for splice in [false, true] {
                        let mut candidate = programs.clone();
                        let keep = |at: usize| at < start || at >= start + chunk;
                        candidate[index] = programs[index].filtered(&keep, splice);
                        if candidate[index].len() < programs[index].len() && fails(&candidate) {
                            programs = candidate;
                            progress = true;
                            done = true;
                            break;
                        }
                    }
                    if !done {
                        start += chunk;
                    }
                }
                if chunk == 1 {
                    break;
                }
                chunk = chunk.div_ceil(2);
            }
        }
        let last = programs.len() - 1;
        let alone = isolated(&programs, last);
        if alone.len() < programs.len() {
            programs = alone;
            progress = true;
        }
    }
    programs
}

fn report(board: &Board, programs: Vec<Program>, inputs: &[[u8; BUFFER]], found: (usize, usize, String)) -> String {
    let (failing, input, what) = found;
    let seed = programs[failing].seed;
    let mut text = format!("{}: seed {seed}, input {input}: {what}\n", board.name);
    eprintln!("{text}making it smaller");
    let alone = isolated(&programs, failing);
    let programs = if difference(board, &alone, inputs).is_some() {
        smaller(board, alone, inputs)
    } else {
        text += "(not alone: something before it matters)\n";
        alone
    };
    text += &format!(
        "{} functions, {} steps are left of it:\n",
        programs.len(),
        programs.iter().map(Program::len).sum::<usize>()
    );
    let machine = board.isa.machine(&programs);
    for index in 0..programs.len() {
        let function = crate::build::function(&programs, index, &machine);
        text += &format!("{function}");
    }
    if let Some((_, input, what)) = difference(board, &programs, inputs) {
        let program = programs.last().expect("the failing one");
        text += &format!("input {input}: {what}\narguments:");
        for (at, ty) in program.params.iter().enumerate() {
            let bytes = inputs[input][8 * at..8 * at + 8].try_into().expect("eight bytes");
            let value = u64::from_le_bytes(bytes)
                & if *ty == types::I64 {
                    u64::MAX
                } else {
                    (1 << ty.bits()) - 1
                };
            text += &format!(" {value:#x}");
        }
        text += "\n";
    }
    text
}

fn fuzz(wanted: impl Fn(&Board) -> bool) {
    let variable = |name: &str| std::env::var(name).ok();
    let number = |name: &str| variable(name).map(|text| text.parse::<u64>().expect("a number"));
    let only = variable("COREROPE_FUZZ_BOARD");
    let boards: Vec<&Board> = BOARDS
        .iter()
        .filter(|board| wanted(board) && only.as_deref().is_none_or(|only| only == board.name))
        .collect();
    let boards: Vec<&Board> = boards.into_iter().filter(|board| crate::installed(board)).collect();
    let total = number("COREROPE_FUZZ").unwrap_or(500) as usize;
    let start = number("COREROPE_FUZZ_SEED").unwrap_or(0);
    for (at, board) in boards.iter().enumerate() {
        let share = total.div_ceil(boards.len());
        let options = board.isa.options();
        let mut done = 0;
        while done < share {
            let count = BATCH.min(share - done);
            let seed = start + (at as u64) * 1_000_000_000 + done as u64;
            let programs = batch(seed, count, options);
            let inputs = inputs(seed);
            if let Some(found) = difference(board, &programs, &inputs) {
                panic!("{}", report(board, programs, &inputs, found));
            }
            done += count;
        }
        eprintln!(
            "{}: {done} programs, {} inputs each, from seed {start}",
            board.name, INPUTS
        );
    }
}

#[test]
fn random_programs_on_cortex_m() {
    fuzz(|board| matches!(board.isa, Isa::Thumb2(_)));
}

#[test]
fn random_programs_on_rv32() {
    fuzz(|board| matches!(board.isa, Isa::Rv32(_)));
}

/// Opcodes that the rules of selection and expansion name, from their text.
fn known_operations() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/codegen");
    let mut known = BTreeSet::new();
    for room in ["native", "rv32", "thumb2", "soft_float"] {
        for entry in std::fs::read_dir(root.join(room)).expect("a room of the code generator") {
            let path = entry.expect("a readable directory").path();
            let text = std::fs::read_to_string(path).unwrap_or_default();
            for part in text.split("Opcode::").skip(1) {
                let end = part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
                known.insert(part[..end].to_owned());
            }
        }
    }
    known
}

/// The programs of 500 seeds are valid and have every operation that selection knows, every intrinsic and every condition, loops,
/// branches, and calls with more arguments than there are registers for.
#[test]
fn random_programs_cover_what_selection_knows() {
    let board = BOARDS.iter().find(|board| board.name == "cortex-m4f").expect("a board");
    let mut found = BTreeSet::new();
    let mut note = |what: &str| {
        found.insert(what.to_owned());
    };
    let mut many_live = 0;
    for start in (0..500).step_by(BATCH) {
        let programs = batch(start, BATCH, board.isa.options());
        let machine = board.isa.machine(&programs);
        let image = board.compile(&programs).expect("programs that compile");
        // More values live than there are registers: some are spilled beyond the stack slots.
        many_live += (0..BATCH)
            .filter(|index| {
                let slots: u32 = programs[*index]
                    .slots
                    .iter()
                    .map(|bytes| bytes.next_multiple_of(8))
                    .sum();
                image.codes[*index].1.frame > slots + 200
            })
            .count();
        for index in 0..BATCH {
            let function = crate::build::function(&programs, index, &machine);
            cranelift_codegen::verify_function(&function, &settings::Flags::new(settings::builder()))
                .expect("a program that Cranelift accepts");
            if programs[index].params.len() > 8 {
                note("stack arguments");
            }
            for block in function.layout.blocks() {
                for inst in function.layout.block_insts(block) {
                    let data = function.dfg.insts[inst];
                    note(&format!("{:?}", data.opcode()));
                    match data {
                        InstructionData::IntCompare { cond, .. } => note(&format!("{cond:?}")),
                        InstructionData::FloatCompare { cond, .. } => note(&format!("float {cond:?}")),
                        InstructionData::Call { func_ref, .. } => {
                            let ExternalName::User(name) = function.dfg.ext_funcs[func_ref].name else {
                                continue;
                            };
                            let name = &function.params.user_named_funcs()[name];
                            if name.namespace == intrinsic::NAMESPACE {
                                note(&format!("{:?}", Intrinsic::from_index(name.index)));
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    assert!(
        many_live > 50,
        "{many_live} of 500 programs have more live values than registers"
    );
    let mut wanted = known_operations();
    assert!(wanted.remove("Nop"), "the rules are where they are looked for");
    wanted.extend(IntCC::all().iter().map(|cond| format!("{cond:?}")));
    wanted.extend(FloatCC::all().iter().map(|cond| format!("float {cond:?}")));
    wanted.extend(intrinsic::ALL.iter().map(|which| format!("{:?}", Some(*which))));
    wanted.extend(["Brif", "Jump", "CallIndirect", "stack arguments"].map(str::to_owned));
    let missing: Vec<_> = wanted.difference(&found).collect();
    assert!(missing.is_empty(), "never generated: {missing:?}");
}
