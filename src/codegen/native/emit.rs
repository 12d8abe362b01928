//! Allocated code → encoded blocks whose branches are still open.

use super::select::Refused;
use super::vcode::{Origin, Terminator, VCode};
use super::{FrameNeeds, Isa};
use crate::codegen::debug::{self, FrameRule};
use cranelift_codegen::ir::SourceLoc;
use regalloc2::{Block, Edit, Function as _, InstOrEdit, Output, PReg, PRegSet};

/// A stack frame: offsets in bytes from the stack pointer after the prologue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Registers that the prologue saves.
    pub saved: Vec<PReg>,
    /// Bytes that the prologue subtracts beside what pushing `saved` takes.
    pub locals: u32,
    /// Offset of the spill area.
    pub spills: u32,
    /// Offset of the stack slots.
    pub slots: u32,
    /// Offset of the incoming stack arguments.
    pub incoming: u32,
    /// All bytes that the function takes from its caller's stack pointer down.
    pub total: u32,
}

/// A place that a relocation patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixup {
    /// Offset in bytes.
    pub offset: u32,
    /// Index of the symbol in the input's list.
    pub symbol: u32,
    /// The ELF relocation type.
    pub kind: u32,
    /// Addend.
    pub addend: i64,
}

/// Bytes of one block under construction.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    /// Encoded instructions.
    pub bytes: Vec<u8>,
    /// Relocations.
    pub fixups: Vec<Fixup>,
    /// Instructions that one run of these bytes executes at most.
    pub executed: u32,
    /// How many of them a run may skip, depending on data (a move behind a branch).
    pub skippable: u32,
    /// Where the source location changes, as in [`DebugMap`](crate::codegen::debug::DebugMap).
    pub locations: Vec<(u32, u32)>,
    /// Where the rules for finding the caller change.
    pub frame: Vec<(u32, FrameRule)>,
    /// Bytes of the prologue.
    pub body: u32,
}

impl Assembler {
    /// A 16-bit instruction.
    pub fn half(&mut self, word: u16) {
        self.bytes.extend(word.to_le_bytes());
        self.executed += 1;
    }

    /// A 32-bit instruction in one little-endian word (RISC-V).
    pub fn word(&mut self, word: u32) {
        self.bytes.extend(word.to_le_bytes());
        self.executed += 1;
    }

    /// A 32-bit instruction as two little-endian halves, the first in the high half of `word` (Thumb-2).
    pub fn wide(&mut self, word: u32) {
        self.bytes.extend(((word >> 16) as u16).to_le_bytes());
        self.bytes.extend((word as u16).to_le_bytes());
        self.executed += 1;
    }

    /// A relocation at the next byte.
    pub fn fixup(&mut self, symbol: u32, kind: u32, addend: i64) {
        self.fixups.push(Fixup {
            offset: self.bytes.len() as u32,
            symbol,
            kind,
            addend,
        });
    }

    /// Says where the next instructions come from.
    pub fn locate(&mut self, location: SourceLoc) {
        debug::locate(&mut self.locations, self.bytes.len() as u32, location);
    }

    /// Changes how the caller is found, for the next instructions.
    pub fn rule(&mut self, rule: FrameRule) {
        self.frame.push((self.bytes.len() as u32, rule));
    }

    /// Notes that the last `instructions` are executed only for some data.
    pub fn may_skip(&mut self, instructions: u32) {
        self.skippable += instructions;
    }
}

/// How an encoded block goes on. Targets are indices of pieces.
#[derive(Clone, Copy, Debug)]
pub enum Exit<C> {
    /// At another piece.
    Jump(usize),
    /// At the first piece if the condition holds, else at the second.
    Branch(C, usize, usize),
    /// Nowhere: the code returned.
    None,
}

/// An encoded block.
#[derive(Clone, Debug)]
pub struct Piece<C> {
    /// Which block.
    pub origin: Origin,
    /// Its code but the branch at its end.
    pub asm: Assembler,
    /// Where it goes on.
    pub exit: Exit<C>,
}

/// The blocks of a function for a target.
pub type Pieces<T> = Vec<Piece<<T as Isa>::Condition>>;

/// Encodes every block. Edge blocks in which nothing is left are skipped over.
///
/// # Errors
/// A frame that the target cannot have.
pub fn emit<T: Isa>(isa: &T, code: &VCode<T::Inst>, output: &Output) -> Result<(Frame, Pieces<T>), Refused> {
    let frame = isa.frame(&FrameNeeds {
        used: written(code, output),
        spills: output.num_spillslots as u32,
        slots: code.slots,
        outgoing: code.outgoing,
        calls: code.calls,
    })?;

    let mut encoded: Vec<(Assembler, Option<T::Condition>)> = Vec::with_capacity(code.blocks.len());
    for index in 0..code.blocks.len() {
        let mut asm = Assembler::default();
        let mut condition = None;
        if index == 0 {
            isa.prologue(&frame, &mut asm);
            asm.body = asm.bytes.len() as u32;
        }
        for item in output.block_insts_and_edits(code, Block::new(index)) {
            match item {
                InstOrEdit::Edit(Edit::Move { from, to }) => {
                    if from != to {
                        isa.emit_move(*from, *to, &frame, &mut asm);
                    }
                }
                InstOrEdit::Inst(inst) => {
                    if let Some(target) = code.inst(Block::new(index), inst) {
                        asm.locate(code.location(Block::new(index), inst));
                        condition = isa.emit(target, output.inst_allocs(inst), &frame, &mut asm);
                    }
                }
            }
        }
        if let Terminator::Return(_) = code.blocks[index].terminator {
            isa.epilogue(&frame, &mut asm);
        }
        encoded.push((asm, condition));
    }

    // An edge without moves is the branch itself.
    let skipped =
        |index: usize| matches!(code.blocks[index].origin, Origin::Edge { .. }) && encoded[index].0.bytes.is_empty();
    let mut piece_of = vec![usize::MAX; code.blocks.len()];
    let mut count = 0;
    for (index, piece) in piece_of.iter_mut().enumerate() {
        if !skipped(index) {
            *piece = count;
            count += 1;
        }
    }
    let target = |succ: Block| {
        let index = succ.index();
        // The successor of an edge block is never an edge block.
        if skipped(index) {
            piece_of[code.blocks[index].succs[0].index()]
        } else {
            piece_of[index]
        }
    };
    let skip: Vec<bool> = (0..code.blocks.len()).map(skipped).collect();

    let mut pieces = Vec::with_capacity(count);
    for ((block, (asm, condition)), skip) in code.blocks.iter().zip(&encoded).zip(skip) {
        if skip {
            continue;
        }
        let exit = match (&block.terminator, condition) {
            (Terminator::Jump(_), _) => Exit::Jump(target(block.succs[0])),
            (Terminator::Branch(_), Some(condition)) => {
                let [yes, no] = [block.succs[0], block.succs[1]];
                Exit::Branch(*condition, target(yes), target(no))
            }
            (Terminator::Branch(inst), None) => return Err(Refused(format!("{inst:?} has no condition"))),
            (Terminator::Return(_) | Terminator::Trap(_), _) => Exit::None,
        };
        pieces.push(Piece {
            origin: block.origin,
            asm: asm.clone(),
            exit,
        });
    }
    Ok((frame, pieces))
}

/// Registers that the allocated code writes or reads.
fn written<I: super::vcode::MachineInst>(code: &VCode<I>, output: &Output) -> PRegSet {
    let mut used = PRegSet::empty();
    let moved = output.edits.iter().flat_map(|(_, Edit::Move { from, to })| [from, to]);
    for allocation in output.allocs.iter().chain(moved) {
        if let Some(register) = allocation.as_reg() {
            used.add(register);
        }
    }
    for inst in 0..code.num_insts() {
        used.union_from(code.inst_clobbers(regalloc2::Inst::new(inst)));
    }
    used
}
