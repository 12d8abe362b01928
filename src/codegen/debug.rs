//! What a debugger asks of machine code: which instructions belong to which source location, and how to find the caller
//! from each of them. Both are plain numbers: a location is what the function's author put into its CLIF
//! ([`SourceLoc`]), a register has its number in the architecture's DWARF supplement.

use cranelift_codegen::ir::SourceLoc;
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::isa::unwind::UnwindInst;
use target_lexicon::Architecture;

/// How a function's bytes map back. The bytes do not depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebugMap {
    /// Offset and location of every instruction at which the location changes, by offset.
    pub locations: Vec<(u32, u32)>,
    /// Offset of the first instruction behind the prologue.
    pub body: u32,
    /// How the caller's frame is found, from each offset on. What holds at the first instruction is the convention's.
    pub frame: Vec<(u32, FrameRule)>,
}

/// A change of the rules by which the caller's registers are found (DWARF 5, 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameRule {
    /// The caller's stack pointer is this many bytes above the register that it is found by.
    CfaOffset(u32),
    /// It is found by another register.
    CfaRegister(u16),
    /// The caller's value of a register lies this many bytes from the caller's stack pointer.
    Saved(u16, i32),
    /// A register has the caller's value again.
    Same(u16),
    /// Keeps the rules for [`FrameRule::Restore`].
    Remember,
    /// Takes the kept rules.
    Restore,
}

/// Adds a location from `offset` on. Instructions without one belong to what precedes them.
pub(super) fn locate(locations: &mut Vec<(u32, u32)>, offset: u32, location: SourceLoc) {
    if location.is_default() {
        return;
    }
    locations.pop_if(|(last, _)| *last == offset);
    if locations.last().is_none_or(|(_, last)| *last != location.bits()) {
        locations.push((offset, location.bits()));
    }
}

/// Cranelift's description of its own prologue. It has none of epilogues.
pub(super) fn prologue(isa: &dyn TargetIsa, insts: &[(u32, UnwindInst)]) -> Vec<(u32, FrameRule)> {
    // The frame pointer, and the link register, which is saved above it.
    let (fp, lr) = match isa.triple().architecture {
        Architecture::Aarch64(_) => (29, Some(30)),
        Architecture::Riscv64(_) => (8, Some(1)),
        _ => (6, None),
    };
    let mut rules = Vec::new();
    let mut clobbers = 0;
    for (offset, inst) in insts {
        let mut rule = |rule| rules.push((*offset, rule));
        match inst {
            UnwindInst::PushFrameRegs {
                offset_upward_to_caller_sp,
            } => {
                rule(FrameRule::CfaOffset(*offset_upward_to_caller_sp));
                let saved = -(*offset_upward_to_caller_sp as i32);
                rule(FrameRule::Saved(fp, saved));
                if let Some(lr) = lr {
                    rule(FrameRule::Saved(lr, saved + 8));
                }
            }
            UnwindInst::DefineNewFrame {
                offset_upward_to_caller_sp,
                offset_downward_to_clobbers,
            } => {
                rule(FrameRule::CfaRegister(fp));
                clobbers = (offset_upward_to_caller_sp + offset_downward_to_clobbers) as i32;
            }
            UnwindInst::SaveReg { clobber_offset, reg } => {
                if let Ok(register) = isa.map_regalloc_reg_to_dwarf((*reg).into()) {
                    rule(FrameRule::Saved(register, *clobber_offset as i32 - clobbers));
                }
            }
            // The frame pointer finds the caller wherever the stack pointer is; none of these functions signs its
            // return address.
            UnwindInst::StackAlloc { .. }
            | UnwindInst::RegStackOffset { .. }
            | UnwindInst::Aarch64SetPointerAuth { .. } => {}
        }
    }
    rules
}
