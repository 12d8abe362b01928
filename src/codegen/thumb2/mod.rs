//! Thumb-2 for Cortex-M3, M4, M7 and M33: registers, calling convention, frames, branch forms.
//!
//! Source: the Arm procedure call standard (AAPCS32), base variant: floats travel in core registers between our own
//! functions, so that one archive serves soft, softfp and hard-float applications.

mod branch;
mod call;
mod compare;
mod cycles;
mod emission;
mod encode;
mod float;
mod inst;
mod integer;
mod memory;
mod select;
#[cfg(test)]
mod tests;
mod wide;
mod wide_shift;

use super::debug::FrameRule;
use super::native::emit::{Assembler, Frame};
use super::native::select::{Refused, Select};
use super::native::{Form, FrameNeeds, Isa, Place};
use super::timing::Timing;
use branch::Condition;
use cranelift_codegen::ir::{self, Signature, types};
use emission::{POP_ONE, PUSH_ONE, move_stack, stack_access};
use encode::{Alu, Encode};
use inst::{Inst, r, s};
use regalloc2::{Allocation, MachineEnv, PReg, PRegSet, RegClass, VReg};

const SP: u32 = 13;
/// Number of the first double-word register in DWARF.
const D0: u16 = 256;

/// What the core has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// The DSP extension (Armv7E-M; optional in Armv8-M).
    pub dsp: bool,
    /// Single-precision floating point.
    pub fpu: bool,
    /// What instructions cost, where that is known.
    pub timing: Option<Timing>,
}

/// The Thumb-2 target.
#[derive(Debug)]
pub struct Thumb2 {
    core: Core,
    registers: MachineEnv,
}

impl Thumb2 {
    /// A target for this core.
    pub fn new(core: Core) -> Self {
        let set = |make: fn(usize) -> PReg, numbers: &[usize]| {
            numbers
                .iter()
                .fold(PRegSet::empty(), |set, number| set.with(make(*number)))
        };
        let floats: Vec<usize> = (0..32).collect();
        let (near, far) = if core.fpu {
            floats.split_at(16)
        } else {
            floats[..0].split_at(0)
        };
        // Low registers first: short encodings. Saving r4 to r7 is one instruction for all of them.
        let registers = MachineEnv {
            preferred_regs_by_class: [set(r, &[0, 1, 2, 3, 4, 5, 6, 7]), set(s, near), PRegSet::empty()],
            non_preferred_regs_by_class: [set(r, &[12, 8, 9, 10, 11, 14]), set(s, far), PRegSet::empty()],
            scratch_by_class: [None; 3],
            fixed_stack_slots: Vec::new(),
        };
        Thumb2 { core, registers }
    }

    /// Registers that a callee may overwrite.
    fn caller_saved(&self) -> PRegSet {
        let mut set = PRegSet::empty();
        [0, 1, 2, 3, 12, 14]
            .map(r)
            .into_iter()
            .for_each(|register| set.add(register));
        if self.core.fpu {
            (0..16).map(s).for_each(|register| set.add(register));
        }
        set
    }

    /// Places of a list of types: r0 to r3, then the stack; 64-bit integers are aligned to even registers.
    fn places(&self, params: &[ir::AbiParam]) -> Result<(Vec<Vec<Place>>, u32), Refused> {
        let (mut next, mut stack) = (0usize, 0u32);
        let mut places = Vec::with_capacity(params.len());
        for param in params {
            // A structure by value whose contents do not matter: its room on the stack.
            if let ir::ArgumentPurpose::StructArgument(bytes) = param.purpose {
                places.push(Vec::new());
                next = 4;
                stack += bytes.next_multiple_of(4);
                continue;
            }
            let words = match param.value_type {
                types::I8 | types::I16 | types::I32 | types::F32 => 1,
                types::I64 => 2,
                other => return Err(Refused(format!("a parameter of type {other}"))),
            };
            if words == 2 {
                next = next.next_multiple_of(2);
            }
            // A pair is never split between registers and stack.
            if next + words > 4 {
                next = 4;
                stack = stack.next_multiple_of(4 * words as u32);
            }
            let mut value = Vec::with_capacity(words);
            for _ in 0..words {
                if next < 4 {
                    value.push(Place::Register(r(next)));
                    next += 1;
                } else {
                    value.push(Place::Stack(stack));
                    stack += 4;
                }
            }
            places.push(value);
        }
        Ok((places, stack.next_multiple_of(8)))
    }

    /// `register` in a core register.
    fn in_core(&self, state: &mut Select<Inst>, register: VReg) -> VReg {
        if register.class() == RegClass::Int {
            return register;
        }
        let rd = state.int();
        state.emit(Inst::Move { rd, rm: register });
        rd
    }
}

impl Isa for Thumb2 {
    type Inst = Inst;
    type Condition = Condition;

    fn registers(&self) -> &MachineEnv {
        &self.registers
    }

    fn float_class(&self) -> Option<RegClass> {
        self.core.fpu.then_some(RegClass::Float)
    }

    fn abi_params(&self, signature: &Signature) -> Result<(Vec<Vec<Place>>, u32), Refused> {
        self.places(&signature.params)
    }

    fn entry(&self, state: &mut Select<Inst>, arguments: &[(VReg, Place)]) {
        let mut registers = Vec::new();
        let mut later = Vec::new();
        for (register, place) in arguments {
            let float = register.class() == RegClass::Float;
            let core = if float { state.int() } else { *register };
            match *place {
                Place::Register(fixed) => registers.push((core, fixed)),
                Place::Stack(offset) => later.push(Inst::LoadArgument { rd: core, offset }),
            }
            if float {
                later.push(Inst::Move {
                    rd: *register,
                    rm: core,
                });
            }
        }
        state.emit(Inst::Entry(registers));
        later.into_iter().for_each(|inst| state.emit(inst));
    }

    fn select(&self, state: &mut Select<Inst>, inst: ir::Inst) -> Result<(), Refused> {
        select::select(self, state, inst)
    }

    fn branch(&self, state: &mut Select<Inst>, condition: ir::Value) -> Result<Inst, Refused> {
        Ok(select::branch(self, state, condition))
    }

    fn ret(&self, state: &mut Select<Inst>, values: &[ir::Value]) -> Result<Inst, Refused> {
        let params: Vec<ir::AbiParam> = values.iter().map(|value| ir::AbiParam::new(state.ty(*value))).collect();
        let (places, stack) = self.places(&params)?;
        if stack != 0 {
            return Err(Refused("results beyond r0 to r3".into()));
        }
        let mut registers = Vec::new();
        for (value, places) in values.iter().zip(&places) {
            for (register, place) in state.parts(*value).into_iter().zip(places) {
                if let Place::Register(fixed) = *place {
                    registers.push((self.in_core(state, register), fixed));
                }
            }
        }
        Ok(Inst::Return(registers))
    }

    fn trap(&self, _state: &mut Select<Inst>) -> Result<Inst, Refused> {
        Ok(Inst::Trap)
    }

    fn frame(&self, needs: &FrameNeeds) -> Result<Frame, Refused> {
        let mut saved: Vec<PReg> = (4..12)
            .map(r)
            .filter(|register| needs.used.contains(*register))
            .collect();
        if needs.calls || needs.used.contains(r(14)) {
            saved.push(r(14));
        }
        // Callees may expect the stack pointer to be a multiple of 8.
        if needs.calls && saved.len() % 2 == 1 {
            let filler = (4..12)
                .map(r)
                .find(|register| !saved.contains(register))
                .unwrap_or(r(12));
            saved.push(filler);
            saved.sort_unstable_by_key(|register| register.hw_enc());
        }
        // VPUSH takes a contiguous range.
        let highest = (16..32).filter(|number| needs.used.contains(s(*number))).max();
        if let Some(highest) = highest {
            saved.extend((16..(highest + 1).next_multiple_of(2)).map(s));
        }
        let spills = needs.outgoing;
        let slots = spills + 4 * needs.spills;
        let locals = (slots + needs.slots).next_multiple_of(8);
        let incoming = locals + 4 * saved.len() as u32;
        // Slots within 256 bytes behind the spilled registers are accessed in one instruction.
        if slots > 3800 || incoming > 1 << 24 {
            return Err(Refused(format!(
                "a frame of {incoming} bytes is out of reach of its accesses"
            )));
        }
        Ok(Frame {
            saved,
            locals,
            spills,
            slots,
            incoming,
            total: incoming,
        })
    }

    fn prologue(&self, frame: &Frame, asm: &mut Assembler) {
        let (list, floats) = saved(frame);
        match list {
            0 => {}
            _ if list & !0x40ff == 0 => asm.half((0xb400 | (list >> 14) << 8 | (list & 0xff)) as u16),
            // PUSH of one register has a form of its own: STR rt, [sp, #-4]!
            _ if list.is_power_of_two() => asm.wide(PUSH_ONE | list.trailing_zeros() << 12),
            _ => asm.wide(0xe92d_0000 | list),
        }
        let core = (0..16).filter(|number| list & 1 << number != 0);
        let pushed = 4 * list.count_ones();
        if list != 0 {
            asm.rule(FrameRule::CfaOffset(pushed));
            core.zip(0..)
                .for_each(|(number, place)| asm.rule(FrameRule::Saved(number, 4 * place - pushed as i32)));
        }
        if floats != 0 {
            asm.wide(0xed2d_8a00 | floats);
            let pushed = pushed + 4 * floats;
            asm.rule(FrameRule::CfaOffset(pushed));
            // Pairs have numbers in DWARF, D8 the first of them.
            let pairs = 0..(floats / 2) as u16;
            pairs.for_each(|pair| asm.rule(FrameRule::Saved(D0 + 8 + pair, 8 * i32::from(pair) - pushed as i32)));
        }
        if frame.locals != 0 {
            move_stack(asm, Alu::Sub, frame.locals);
            asm.rule(FrameRule::CfaOffset(frame.total));
        }
    }

    fn epilogue(&self, frame: &Frame, asm: &mut Assembler) {
        let (list, floats) = saved(frame);
        let pushed = 4 * list.count_ones();
        asm.rule(FrameRule::Remember);
        if frame.locals != 0 {
            move_stack(asm, Alu::Add, frame.locals);
            asm.rule(FrameRule::CfaOffset(pushed + 4 * floats));
        }
        if floats != 0 {
            asm.wide(0xecbd_8a00 | floats);
            asm.rule(FrameRule::CfaOffset(pushed));
            (0..(floats / 2) as u16).for_each(|pair| asm.rule(FrameRule::Same(D0 + 8 + pair)));
        }
        // The return address goes straight to the program counter.
        let returns = list & 1 << 14 != 0;
        let list = if returns { list & !(1 << 14) | 1 << 15 } else { list };
        match list {
            0 => {}
            _ if list & !0x80ff == 0 => asm.half((0xbc00 | (list >> 15) << 8 | (list & 0xff)) as u16),
            // LDR rt, [sp], #4
            _ if list.is_power_of_two() => asm.wide(POP_ONE | list.trailing_zeros() << 12),
            _ => asm.wide(0xe8bd_0000 | list),
        }
        if !returns {
            if list != 0 {
                asm.rule(FrameRule::CfaOffset(0));
                let core = (0..16).filter(|number| list & 1 << number != 0);
                core.for_each(|number| asm.rule(FrameRule::Same(number)));
            }
            asm.half(0x4770);
        }
        asm.rule(FrameRule::Restore);
    }

    fn cycles(&self, code: &[u8]) -> Option<u32> {
        self.core.timing.map(|timing| cycles::straight(timing, code))
    }

    fn refill(&self) -> u32 {
        cycles::REFILL
    }

    fn emit(&self, inst: &Inst, allocations: &[Allocation], frame: &Frame, asm: &mut Assembler) -> Option<Condition> {
        emission::emit(inst, allocations, frame, asm)
    }

    fn emit_move(&self, from: Allocation, to: Allocation, frame: &Frame, asm: &mut Assembler) {
        let slot = |allocation: Allocation| {
            allocation
                .as_stack()
                .map_or(0, |slot| frame.spills + 4 * slot.index() as u32)
        };
        match (from.as_reg(), to.as_reg()) {
            (Some(from), Some(to)) if from.class() == RegClass::Int => {
                asm.mov(to.hw_enc() as u32, from.hw_enc() as u32)
            }
            (Some(from), Some(to)) => asm.float2(encode::VMOV, to.hw_enc() as u32, from.hw_enc() as u32),
            (Some(from), None) => stack_access(asm, false, from.class(), from.hw_enc() as u32, slot(to)),
            (None, Some(to)) => stack_access(asm, true, to.class(), to.hw_enc() as u32, slot(from)),
            // regalloc2 resolves these through a register of its own.
            (None, None) => unreachable!("a move between two spill slots"),
        }
    }

    fn invert(&self, condition: Condition) -> Condition {
        condition.invert()
    }

    fn forms(&self, condition: Option<Condition>) -> &'static [Form] {
        branch::forms(condition)
    }

    fn encode_branch(&self, condition: Option<Condition>, form: usize, displacement: i64) -> Vec<u8> {
        branch::encode(condition, form, displacement)
    }
}

/// The list of saved core registers as a mask, and the number of saved float registers from s16.
fn saved(frame: &Frame) -> (u32, u32) {
    let core = frame.saved.iter().filter(|register| register.class() == RegClass::Int);
    let list = core.fold(0, |list, register| list | 1 << register.hw_enc());
    (
        list,
        frame
            .saved
            .iter()
            .filter(|register| register.class() == RegClass::Float)
            .count() as u32,
    )
}
