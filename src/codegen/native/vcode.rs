//! Machine code before register allocation: blocks of target instructions over virtual registers.

use cranelift_codegen::ir;
use regalloc2::{Block, Inst, InstRange, Operand, PRegSet, RegClass, VReg};

/// What the driver has to know of a target's instruction.
pub trait MachineInst: Clone + std::fmt::Debug {
    /// Appends the operands, in an order of the instruction's own; emission gets the allocations in the same order.
    fn operands(&self, operands: &mut Vec<Operand>);
    /// Physical registers that the instruction overwrites beside its results.
    fn clobbers(&self) -> PRegSet;
}

/// How a block ends.
#[derive(Clone, Debug)]
pub enum Terminator<I> {
    /// Continue at the only successor, passing these values.
    Jump(Vec<VReg>),
    /// The instruction branches to the first successor if its condition holds, else to the second. Passes no values:
    /// edges that pass some have a block of their own.
    Branch(I),
    /// The instruction leaves the function.
    Return(I),
    /// Control does not get here (a trap).
    Trap(I),
}

/// Where a block comes from: needed to count how often it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A block of the CLIF function.
    Block(ir::Block),
    /// An edge between two of them, `index`-th successor of the first.
    Edge {
        /// Where the edge starts.
        from: ir::Block,
        /// Which successor.
        index: usize,
    },
}

/// A block.
#[derive(Clone, Debug)]
pub struct VBlock<I> {
    /// Where it comes from.
    pub origin: Origin,
    /// Instructions but the terminator.
    pub insts: Vec<I>,
    /// Where each of them comes from, and then the terminator.
    pub locations: Vec<ir::SourceLoc>,
    /// How it ends.
    pub terminator: Terminator<I>,
    /// Values that predecessors pass.
    pub params: Vec<VReg>,
    /// Successors.
    pub succs: Vec<Block>,
}

/// A function over virtual registers, as regalloc2 wants it.
#[derive(Clone, Debug)]
pub struct VCode<I> {
    /// Blocks in layout order, the entry first.
    pub blocks: Vec<VBlock<I>>,
    /// Number of virtual registers.
    pub vregs: usize,
    /// Bytes of stack slots.
    pub slots: u32,
    /// Bytes of the largest outgoing argument area.
    pub outgoing: u32,
    /// Whether there is a call.
    pub calls: bool,
    flat: Vec<Flat>,
    operands: Vec<Operand>,
    ranges: Vec<InstRange>,
    preds: Vec<Vec<Block>>,
}

/// An instruction as regalloc2 sees it.
#[derive(Clone, Debug)]
struct Flat {
    operands: std::ops::Range<u32>,
    clobbers: PRegSet,
    role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Plain,
    Branch,
    Return,
}

impl<I: MachineInst> VCode<I> {
    /// Lays the blocks' instructions out for the allocator.
    pub fn new(blocks: Vec<VBlock<I>>, vregs: usize, slots: u32, outgoing: u32, calls: bool) -> Self {
        let mut code = VCode {
            preds: vec![Vec::new(); blocks.len()],
            blocks,
            vregs,
            slots,
            outgoing,
            calls,
            flat: Vec::new(),
            operands: Vec::new(),
            ranges: Vec::new(),
        };
        for (index, block) in code.blocks.iter().enumerate() {
            let start = code.flat.len();
            let mut push = |inst: Option<&I>, role| {
                let first = code.operands.len() as u32;
                let mut clobbers = PRegSet::empty();
                if let Some(inst) = inst {
                    inst.operands(&mut code.operands);
                    clobbers = inst.clobbers();
                }
                code.flat.push(Flat {
                    operands: first..code.operands.len() as u32,
                    clobbers,
                    role,
                });
            };
            for inst in &block.insts {
                push(Some(inst), Role::Plain);
            }
            match &block.terminator {
                Terminator::Jump(_) => push(None, Role::Branch),
                Terminator::Branch(inst) => push(Some(inst), Role::Branch),
                Terminator::Return(inst) | Terminator::Trap(inst) => push(Some(inst), Role::Return),
            }
            code.ranges
                .push(InstRange::new(Inst::new(start), Inst::new(code.flat.len())));
            for succ in &block.succs {
                code.preds[succ.index()].push(Block::new(index));
            }
        }
        code
    }

    /// The target instruction behind one of the allocator's; `None` for a jump.
    pub fn inst(&self, block: Block, inst: Inst) -> Option<&I> {
        let block_data = &self.blocks[block.index()];
        let position = inst.index() - self.ranges[block.index()].first().index();
        match block_data.insts.get(position) {
            Some(inst) => Some(inst),
            None => match &block_data.terminator {
                Terminator::Jump(_) => None,
                Terminator::Branch(inst) | Terminator::Return(inst) | Terminator::Trap(inst) => Some(inst),
            },
        }
    }
}

impl<I: MachineInst> VCode<I> {
    /// Where one of the allocator's instructions comes from.
    pub fn location(&self, block: Block, inst: Inst) -> ir::SourceLoc {
        let position = inst.index() - self.ranges[block.index()].first().index();
        let locations = &self.blocks[block.index()].locations;
        locations.get(position).copied().unwrap_or_default()
    }
}

impl<I: MachineInst> regalloc2::Function for VCode<I> {
    fn num_insts(&self) -> usize {
        self.flat.len()
    }

    fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    fn entry_block(&self) -> Block {
        Block::new(0)
    }

    fn block_insns(&self, block: Block) -> InstRange {
        self.ranges[block.index()]
    }

    fn block_succs(&self, block: Block) -> &[Block] {
        &self.blocks[block.index()].succs
    }

    fn block_preds(&self, block: Block) -> &[Block] {
        &self.preds[block.index()]
    }

    fn block_params(&self, block: Block) -> &[VReg] {
        &self.blocks[block.index()].params
    }

    fn is_ret(&self, inst: Inst) -> bool {
        self.flat[inst.index()].role == Role::Return
    }

    fn is_branch(&self, inst: Inst) -> bool {
        self.flat[inst.index()].role == Role::Branch
    }

    fn branch_blockparams(&self, block: Block, _inst: Inst, _successor: usize) -> &[VReg] {
        match &self.blocks[block.index()].terminator {
            Terminator::Jump(args) => args,
            _ => &[],
        }
    }

    fn inst_operands(&self, inst: Inst) -> &[Operand] {
        let range = &self.flat[inst.index()].operands;
        &self.operands[range.start as usize..range.end as usize]
    }

    fn inst_clobbers(&self, inst: Inst) -> PRegSet {
        self.flat[inst.index()].clobbers
    }

    fn num_vregs(&self) -> usize {
        self.vregs
    }

    /// Spill slots are words: no 64-bit register is allocated on these targets.
    fn spillslot_size(&self, _class: RegClass) -> usize {
        1
    }
}
