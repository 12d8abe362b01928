//! The instructions that layout predicts, against those that QEMU executes.

use crate::board::{BOARDS, Board, Image};
use crate::build;
use crate::differential::{batch, inputs};
use crate::generate::Options;
use crate::program::Program;
use corerope::codegen::counts::{self, Instructions};
use cranelift_codegen::ir::{Block, ExternalName, Function, InstructionData};

/// What one call of a function and of what it calls executes, given those of earlier functions.
fn predict(
    image: &Image,
    at: usize,
    func: &Function,
    executions: &[(Block, u64)],
    earlier: &[Instructions],
) -> Instructions {
    let costs = &image.codes[at].1.costs;
    let mut sum = counts::instructions(func, executions, costs).expect("known runs of every edge");
    for (block, runs) in executions {
        for inst in func.layout.block_insts(*block) {
            let InstructionData::Call { func_ref, .. } = func.dfg.insts[inst] else {
                continue;
            };
            let ExternalName::User(name) = func.dfg.ext_funcs[func_ref].name else {
                continue;
            };
            let name = &func.params.user_named_funcs()[name];
            if name.namespace == 0 {
                sum.most += runs * earlier[name.index as usize].most;
                sum.skippable += runs * earlier[name.index as usize].skippable;
            }
        }
    }
    sum
}

fn compare(board: &Board, programs: &[Program]) {
    let inputs = inputs(7);
    let image = board.compile(programs).expect("programs that compile");
    let machine = board.isa.machine(programs);
    let mut predicted = Vec::new();
    for index in 0..programs.len() {
        let (func, executions) = build::counted(programs, index, &machine);
        predicted.push(predict(&image, index, &func, &executions, &predicted));
    }
    let (records, status) = board.run(&image, &inputs, true);
    status.expect("a run to the end");
    assert_eq!(records.len(), programs.len() * inputs.len());
    let mut exact = 0;
    for (at, record) in records.iter().enumerate() {
        let index = at / inputs.len();
        let func = build::entry(programs, index, &machine);
        let entry = func.layout.entry_block().expect("an entry");
        let wanted = predict(&image, image.entries[index], &func, &[(entry, 1)], &predicted);
        let range = wanted.most - wanted.skippable..=wanted.most;
        assert!(
            range.contains(&record.instructions),
            "{}: seed {}: {} instructions, predicted {range:?}",
            board.name,
            programs[index].seed,
            record.instructions
        );
        exact += usize::from(wanted.skippable == 0);
    }
    eprintln!(
        "{}: {} of {} counts depend on no data",
        board.name,
        exact,
        records.len()
    );
}

#[test]
fn predicted_instructions_are_executed() {
    for board in BOARDS.iter().filter(|board| board.counts() && crate::installed(board)) {
        let options = Options {
            // Calls of routines for soft floats are put in while compiling.
            floats: board.isa.floats(),
            straight: true,
            ..board.isa.options()
        };
        compare(board, &batch(400, 60, options));
    }
}
