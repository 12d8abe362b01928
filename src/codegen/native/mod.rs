//! The driver of our own back ends, for the 32-bit targets that Cranelift has no code generator for.
//!
//! A function goes through five steps: [`select`](mod@select) makes target instructions over virtual registers out of
//! CLIF, regalloc2 assigns registers, [`moves`](mod@moves) takes out what it put in for nothing (its checker runs on what
//! is left, in every build), [`emit`](mod@emit) encodes blocks, and [`layout`] chooses branch forms and counts
//! instructions. A target provides an [`Isa`]: rules, registers, encodings.

pub mod backend;
pub mod emit;
pub mod expand;
pub mod layout;
pub mod moves;
pub mod select;
pub mod vcode;

use super::debug::DebugMap;
use cranelift_codegen::ir::{Function, Inst, Signature, Value};
use emit::{Assembler, Frame};
use regalloc2::{Allocation, MachineEnv, PReg, PRegSet, RegClass, VReg};
use select::{Refused, Select};
use vcode::MachineInst;

/// Where an argument or a result is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a register.
    Register(PReg),
    /// At this offset of the argument area on the stack.
    Stack(u32),
}

/// One conditional or unconditional branch form of a target, from short to long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Size in bytes.
    pub bytes: u32,
    /// Smallest displacement from the start of the form to the target.
    pub min: i64,
    /// Largest displacement.
    pub max: i64,
    /// Instructions executed if the branch is taken.
    pub taken: u32,
    /// Instructions executed if it is not.
    pub not_taken: u32,
}

/// A target of our own.
pub trait Isa {
    /// Its instructions.
    type Inst: MachineInst;
    /// A branch condition over allocated registers (or flags that the code before it has set).
    type Condition: Copy + std::fmt::Debug;

    /// Registers, in order of preference.
    fn registers(&self) -> &MachineEnv;
    /// The register class of floats; `None` where floats live in integer registers.
    fn float_class(&self) -> Option<RegClass>;

    /// Where the parameters of a signature are passed, one list for each value (two places for 64-bit integers), and
    /// the bytes of stack they take.
    ///
    /// # Errors
    /// For types that the convention does not know.
    fn abi_params(&self, signature: &Signature) -> Result<(Vec<Vec<Place>>, u32), Refused>;
    /// Emits the definition of the function's arguments.
    fn entry(&self, state: &mut Select<Self::Inst>, arguments: &[(VReg, Place)]);
    /// Emits code for one CLIF instruction that is neither a branch nor a return.
    ///
    /// # Errors
    /// [`Refused`] where there is no rule.
    fn select(&self, state: &mut Select<Self::Inst>, inst: Inst) -> Result<(), Refused>;
    /// The instruction that branches if `condition` is not zero; may emit others before it.
    ///
    /// # Errors
    /// [`Refused`] where there is no rule.
    fn branch(&self, state: &mut Select<Self::Inst>, condition: Value) -> Result<Self::Inst, Refused>;
    /// The instruction that returns `values`.
    ///
    /// # Errors
    /// [`Refused`] where they do not fit registers.
    fn ret(&self, state: &mut Select<Self::Inst>, values: &[Value]) -> Result<Self::Inst, Refused>;
    /// The instruction that traps.
    ///
    /// # Errors
    /// [`Refused`] where there is none.
    fn trap(&self, state: &mut Select<Self::Inst>) -> Result<Self::Inst, Refused>;

    /// The frame of a function that uses these registers.
    ///
    /// # Errors
    /// A frame larger than the target can address.
    fn frame(&self, needs: &FrameNeeds) -> Result<Frame, Refused>;
    /// Emits the prologue.
    fn prologue(&self, frame: &Frame, asm: &mut Assembler);
    /// Emits the epilogue and the return.
    fn epilogue(&self, frame: &Frame, asm: &mut Assembler);
    /// Emits one instruction. Returns the condition for a conditional branch, which the layout encodes.
    fn emit(
        &self,
        inst: &Self::Inst,
        allocations: &[Allocation],
        frame: &Frame,
        asm: &mut Assembler,
    ) -> Option<Self::Condition>;
    /// Emits a move between registers, or between a register and a spill slot.
    fn emit_move(&self, from: Allocation, to: Allocation, frame: &Frame, asm: &mut Assembler);

    /// The opposite condition.
    fn invert(&self, condition: Self::Condition) -> Self::Condition;
    /// Forms of a conditional branch (`Some`) or a jump (`None`), short ones first; the last reaches everything.
    fn forms(&self, condition: Option<Self::Condition>) -> &'static [Form];
    /// Modelled cycles of instructions that run one after the other, which no branch of a block's end is among. `None` for
    /// a core whose cycles are not known.
    fn cycles(&self, code: &[u8]) -> Option<u32>;
    /// Modelled cycles of a taken branch beside its own.
    fn refill(&self) -> u32;
    /// Encodes form `form` of a branch over `displacement` bytes from its start.
    fn encode_branch(&self, condition: Option<Self::Condition>, form: usize, displacement: i64) -> Vec<u8>;
}

/// What a function needs of its frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameNeeds {
    /// Registers that the function writes.
    pub used: PRegSet,
    /// Spilled words.
    pub spills: u32,
    /// Bytes of stack slots.
    pub slots: u32,
    /// Bytes of outgoing arguments.
    pub outgoing: u32,
    /// Whether it calls.
    pub calls: bool,
}

/// Machine code of one function, before its symbols are named.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Encoded instructions.
    pub bytes: Vec<u8>,
    /// Relocations, by offset.
    pub relocations: Vec<emit::Fixup>,
    /// Instructions executed for each run of a block or an edge.
    pub costs: Vec<layout::Cost>,
    /// Bytes of stack, saved registers included.
    pub frame: u32,
    /// What a debugger asks of it.
    pub debug: DebugMap,
}

/// Compiles a function.
///
/// # Errors
/// [`Refused`] for what the target cannot do; a failure of register allocation or of its checker says so.
pub fn compile<T: Isa>(isa: &T, func: &Function) -> Result<Machine, Refused> {
    let code = select::select(isa, func)?;
    let env = isa.registers();
    let options = regalloc2::RegallocOptions {
        verbose_log: false,
        validate_ssa: true,
        algorithm: regalloc2::Algorithm::Ion,
    };
    let mut output =
        regalloc2::run(&code, env, &options).map_err(|error| Refused(format!("register allocation: {error}")))?;
    moves::clean(&code, &mut output);
    let mut checker = regalloc2::checker::Checker::new(&code, env);
    checker.prepare(&output);
    checker
        .run()
        .map_err(|errors| Refused(format!("register allocation is wrong: {errors:?}")))?;
    let (frame, pieces) = emit::emit(isa, &code, &output)?;
    Ok(layout::lay_out(isa, pieces, frame.total))
}
