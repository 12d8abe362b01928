//! Single-precision arithmetic on cores without an FPU: calls of routines of our own.
//!
//! [`legalize`] turns float operations of a function into calls; [`Routine::function`] is the body of each routine in
//! CLIF, on integers only. Rounding is to nearest even, subnormals are exact, every NaN result is quiet. A model gets
//! each routine that it needs once, as a hidden symbol.

mod routines;

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{
    AbiParam, ExtFuncData, ExternalName, FuncRef, Function, Inst, InstBuilder, InstructionData, Opcode, Signature,
    Type, UserExternalName, Value, types,
};
use cranelift_codegen::isa::CallConv;
use std::collections::BTreeMap;

/// A routine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Routine {
    /// a + b.
    Add,
    /// a − b.
    Sub,
    /// a × b.
    Mul,
    /// a / b.
    Div,
    /// 0 if a < b, 1 if equal, 2 if a > b, 3 if one is a NaN.
    Compare,
    /// int32 → float32.
    FromSigned,
    /// uint32 → float32.
    FromUnsigned,
    /// float32 → int32, towards zero, saturating, NaN to 0.
    ToSigned,
    /// float32 → uint32, towards zero, saturating, NaN to 0.
    ToUnsigned,
}

/// All routines, in their order.
pub const ROUTINES: &[Routine] = &[
    Routine::Add,
    Routine::Sub,
    Routine::Mul,
    Routine::Div,
    Routine::Compare,
    Routine::FromSigned,
    Routine::FromUnsigned,
    Routine::ToSigned,
    Routine::ToUnsigned,
];

impl Routine {
    /// Name, a part of its symbol.
    pub fn name(self) -> &'static str {
        match self {
            Routine::Add => "soft_add",
            Routine::Sub => "soft_sub",
            Routine::Mul => "soft_mul",
            Routine::Div => "soft_div",
            Routine::Compare => "soft_compare",
            Routine::FromSigned => "soft_from_int32",
            Routine::FromUnsigned => "soft_from_uint32",
            Routine::ToSigned => "soft_to_int32",
            Routine::ToUnsigned => "soft_to_uint32",
        }
    }

    fn types(self) -> (&'static [Type], Type) {
        match self {
            Routine::Add | Routine::Sub | Routine::Mul | Routine::Div => (&[types::F32, types::F32], types::F32),
            Routine::Compare => (&[types::F32, types::F32], types::I32),
            Routine::FromSigned | Routine::FromUnsigned => (&[types::I32], types::F32),
            Routine::ToSigned | Routine::ToUnsigned => (&[types::F32], types::I32),
        }
    }

    /// Its signature.
    pub fn signature(self, call_conv: CallConv) -> Signature {
        let (params, result) = self.types();
        let mut signature = Signature::new(call_conv);
        signature.params = params.iter().copied().map(AbiParam::new).collect();
        signature.returns = vec![AbiParam::new(result)];
        signature
    }

    /// How often its loop runs, if it has one.
    pub fn rounds(self) -> u64 {
        match self {
            Routine::Div => routines::QUOTIENT,
            _ => 1,
        }
    }

    /// Its body. `has_clz` says whether counting leading zeros is one instruction.
    pub fn function(self, call_conv: CallConv, has_clz: bool) -> Function {
        routines::build(self, self.signature(call_conv), has_clz)
    }
}

/// Replaces float arithmetic, comparisons and conversions by calls. `symbol` gives the index of a routine's symbol in
/// the function's list, adding it where it is new.
///
/// # Errors
/// The text of an operation that has no routine.
pub fn legalize(function: &mut Function, mut symbol: impl FnMut(Routine) -> u32) -> Result<(), String> {
    let call_conv = function.signature.call_conv;
    let mut references: BTreeMap<Routine, FuncRef> = BTreeMap::new();
    let insts: Vec<Inst> = function
        .layout
        .blocks()
        .flat_map(|block| function.layout.block_insts(block))
        .collect();
    for inst in insts {
        let data = function.dfg.insts[inst];
        let Some((routine, args)) = routine(function, inst, &data)? else {
            continue;
        };
        let reference = *references.entry(routine).or_insert_with(|| {
            let name = UserExternalName {
                namespace: 0,
                index: symbol(routine),
            };
            let name = ExternalName::user(function.declare_imported_user_function(name));
            let signature = function.import_signature(routine.signature(call_conv));
            function.import_function(ExtFuncData {
                name,
                signature,
                colocated: true,
                patchable: false,
            })
        });
        match data {
            InstructionData::FloatCompare { cond, .. } => {
                let mut cursor = FuncCursor::new(function).at_inst(inst);
                let call = cursor.ins().call(reference, &args);
                let order = cursor.func.dfg.first_result(call);
                replace_compare(&mut cursor, inst, order, cond);
            }
            InstructionData::Unary {
                opcode: Opcode::FcvtFromSint | Opcode::FcvtFromUint,
                ..
            } if function.dfg.value_type(args[0]) != types::I32 => {
                let mut cursor = FuncCursor::new(function).at_inst(inst);
                let wide = match routine {
                    Routine::FromSigned => cursor.ins().sextend(types::I32, args[0]),
                    _ => cursor.ins().uextend(types::I32, args[0]),
                };
                function.replace(inst).call(reference, &[wide]);
            }
            _ => {
                function.replace(inst).call(reference, &args);
            }
        }
    }
    Ok(())
}

/// The routine that an instruction needs, with its operands.
fn routine(function: &Function, inst: Inst, data: &InstructionData) -> Result<Option<(Routine, Vec<Value>)>, String> {
    let refused = || Err(function.dfg.display_inst(inst).to_string());
    let args = function.dfg.inst_args(inst).to_vec();
    let of_f32 = |index: usize| {
        args.get(index)
            .is_some_and(|value| function.dfg.value_type(*value) == types::F32)
    };
    let routine = match data.opcode() {
        Opcode::Fadd => Routine::Add,
        Opcode::Fsub => Routine::Sub,
        Opcode::Fmul => Routine::Mul,
        Opcode::Fdiv => Routine::Div,
        Opcode::Fcmp => Routine::Compare,
        Opcode::FcvtToSintSat => Routine::ToSigned,
        Opcode::FcvtToUintSat => Routine::ToUnsigned,
        Opcode::FcvtFromSint | Opcode::FcvtFromUint => {
            if function.dfg.value_type(args[0]).bits() > 32 {
                return refused();
            }
            let signed = data.opcode() == Opcode::FcvtFromSint;
            return Ok(Some((
                if signed {
                    Routine::FromSigned
                } else {
                    Routine::FromUnsigned
                },
                args,
            )));
        }
        Opcode::Fma
        | Opcode::Sqrt
        | Opcode::Fmin
        | Opcode::Fmax
        | Opcode::Ceil
        | Opcode::Floor
        | Opcode::Trunc
        | Opcode::Nearest => return refused(),
        _ => return Ok(None),
    };
    let whole = function.dfg.inst_results(inst).iter().all(|value| {
        let ty = function.dfg.value_type(*value);
        routine == Routine::Compare || ty == types::F32 || ty == types::I32
    });
    if of_f32(0) && whole {
        Ok(Some((routine, args)))
    } else {
        refused()
    }
}

/// Turns the comparison at the cursor into one of `order`: 0 less, 1 equal, 2 greater, 3 unordered.
fn replace_compare(cursor: &mut FuncCursor, inst: Inst, order: Value, cond: FloatCC) {
    let (value, compare, constant) = match cond {
        FloatCC::LessThan => (order, IntCC::Equal, 0),
        FloatCC::LessThanOrEqual => (order, IntCC::UnsignedLessThanOrEqual, 1),
        FloatCC::Equal => (order, IntCC::Equal, 1),
        FloatCC::GreaterThan => (order, IntCC::Equal, 2),
        FloatCC::UnorderedOrGreaterThan => (order, IntCC::UnsignedGreaterThanOrEqual, 2),
        FloatCC::UnorderedOrGreaterThanOrEqual => (order, IntCC::NotEqual, 0),
        FloatCC::NotEqual => (order, IntCC::NotEqual, 1),
        FloatCC::UnorderedOrLessThanOrEqual => (order, IntCC::NotEqual, 2),
        FloatCC::Ordered => (order, IntCC::NotEqual, 3),
        FloatCC::Unordered => (order, IntCC::Equal, 3),
        FloatCC::GreaterThanOrEqual => {
            // 1 or 2
            let one = cursor.ins().iconst(types::I32, 1);
            (cursor.ins().isub(order, one), IntCC::UnsignedLessThanOrEqual, 1)
        }
        FloatCC::UnorderedOrLessThan => {
            // 3 or 0, that is 0 or 1 modulo 4 after adding one
            let [one, three] = [1, 3].map(|constant| cursor.ins().iconst(types::I32, constant));
            let next = cursor.ins().iadd(order, one);
            (cursor.ins().band(next, three), IntCC::UnsignedLessThanOrEqual, 1)
        }
        FloatCC::UnorderedOrEqual | FloatCC::OrderedNotEqual => {
            let one = cursor.ins().iconst(types::I32, 1);
            let odd = cursor.ins().band(order, one);
            (
                odd,
                if cond == FloatCC::UnorderedOrEqual {
                    IntCC::NotEqual
                } else {
                    IntCC::Equal
                },
                0,
            )
        }
    };
    let constant = cursor.ins().iconst(types::I32, constant);
    cursor.func.replace(inst).icmp(compare, value, constant);
}

#[cfg(test)]
mod tests;
