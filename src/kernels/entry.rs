//! The entry point of a model: what calls the kernels, in plan order, and knows where everything lives.
//!
//! ```c
//! int32_t kws_run(const struct kws_inputs *inputs, const struct kws_outputs *outputs);               // --io pointers
//! int32_t kws_run(const struct kws_inputs *inputs, const struct kws_outputs *outputs, void *arena);  // and --arena caller
//! int32_t kws_run(void);                                                                             // --io arena
//! int32_t kws_run(void *arena);                                                                      // and --arena caller
//! ```

use super::emit::{Emitter, pointer_type, signature};
use super::{Call, Lowering, Operand};
use crate::codegen::Input;
use crate::error::{Error, Result};
use crate::graph::{Graph, OpId, TensorId};
use crate::names::Names;
use crate::plan::{Io, Place, Plan};
use crate::target::Target;
use cranelift_codegen::ir::{
    AbiParam, Block, ExtFuncData, ExternalName, FuncRef, Function, GlobalValueData, InstBuilder, SigRef, Signature,
    SourceLoc, Type, UserExternalName, UserFuncName, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use std::collections::BTreeMap;

/// The run succeeded: `<MODEL>_OK`.
pub const OK: i32 = 0;
/// A pointer is null: `<MODEL>_ERROR_NULL_POINTER`.
pub const ERROR_NULL_POINTER: i32 = -1;
/// The caller's arena is not aligned: `<MODEL>_ERROR_ARENA_ALIGNMENT`.
pub const ERROR_ARENA_ALIGNMENT: i32 = -2;

/// Every result of an entry point: the end of its macro, its value, and its meaning.
pub const STATUS: &[(&str, i32, &str)] = &[
    ("OK", OK, "The run succeeded."),
    (
        "ERROR_NULL_POINTER",
        ERROR_NULL_POINTER,
        "A pointer is null; nothing was computed.",
    ),
    (
        "ERROR_ARENA_ALIGNMENT",
        ERROR_ARENA_ALIGNMENT,
        "The arena is not aligned; nothing was computed.",
    ),
];

/// What a piece of the entry point is for: the source locations of its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// Reading and checking the arguments.
    Checks,
    /// Returning success.
    Return,
    /// The call for an operator.
    Op(OpId),
}

impl Location {
    /// As the CLIF carries it.
    pub fn source(self) -> SourceLoc {
        SourceLoc::new(match self {
            Location::Checks => 0,
            Location::Return => 1,
            Location::Op(op) => op.0 + 2,
        })
    }

    /// From the bits of [`Location::source`].
    pub fn of(bits: u32) -> Self {
        match bits {
            0 => Location::Checks,
            1 => Location::Return,
            op => Location::Op(OpId(op - 2)),
        }
    }
}

/// Who provides the arena (`--arena`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ArenaKind {
    /// A symbol in `.bss`.
    #[default]
    Static,
    /// The caller, by pointer.
    Caller,
}

/// The entry point `<model>_run`, exported.
///
/// # Errors
/// [`Code::Internal`](crate::error::Code::Internal) if plan, lowering and graph do not fit one another.
pub fn entry(
    graph: &Graph,
    lowering: &Lowering,
    plan: &Plan,
    target: &Target,
    arena: ArenaKind,
    names: &Names,
) -> Result<Input> {
    build(graph, lowering, plan, target, arena, names, None)
}

/// [`entry`], but after every call it calls `void trace(uint32_t step, const void *data, uint64_t len)` with the result
/// of that call; `step` is the index in [`Plan::order`].
///
/// # Errors
/// As [`entry`].
pub fn traced_entry(
    graph: &Graph,
    lowering: &Lowering,
    plan: &Plan,
    target: &Target,
    arena: ArenaKind,
    names: &Names,
    trace: &str,
) -> Result<Input> {
    build(graph, lowering, plan, target, arena, names, Some(trace))
}

/// Signature of the trace function.
pub fn trace_signature(target: &Target) -> Signature {
    let mut signature = Signature::new(CallConv::triple_default(&target.triple));
    signature.params = [types::I32, pointer_type(target), types::I64]
        .map(AbiParam::new)
        .to_vec();
    signature
}

/// What Cranelift's builder wants to know about `target`.
pub fn frontend_config(target: &Target) -> TargetFrontendConfig {
    TargetFrontendConfig {
        default_call_conv: CallConv::triple_default(&target.triple),
        pointer_width: if target.machine().pointer_bytes == 8 {
            target_lexicon::PointerWidth::U64
        } else {
            target_lexicon::PointerWidth::U32
        },
        page_size_align_log2: 12,
    }
}

/// References from a function to symbols: equal ones are declared once.
#[derive(Default)]
pub struct Symbols {
    names: Vec<String>,
    index: BTreeMap<String, u32>,
    functions: BTreeMap<(String, SigRef), FuncRef>,
    signatures: Vec<(Signature, SigRef)>,
}

impl Symbols {
    fn name(&mut self, function: &mut Function, symbol: &str) -> ExternalName {
        let index = *self.index.entry(symbol.to_owned()).or_insert_with(|| {
            self.names.push(symbol.to_owned());
            self.names.len() as u32 - 1
        });
        ExternalName::user(function.declare_imported_user_function(UserExternalName { namespace: 0, index }))
    }

    /// The address of `symbol + offset`.
    pub fn address(&mut self, b: &mut FunctionBuilder, pointer: Type, symbol: &str, offset: i64) -> Value {
        let name = self.name(b.func, symbol);
        let global = b.create_global_value(GlobalValueData::Symbol {
            name,
            offset: offset.into(),
            colocated: true,
            tls: false,
        });
        b.ins().symbol_value(pointer, global)
    }

    /// Calls `symbol`; returns its results.
    pub fn call(&mut self, b: &mut FunctionBuilder, symbol: &str, signature: &Signature, args: &[Value]) -> Vec<Value> {
        let signature = match self.signatures.iter().find(|(known, _)| known == signature) {
            Some((_, reference)) => *reference,
            None => {
                let reference = b.import_signature(signature.clone());
                self.signatures.push((signature.clone(), reference));
                reference
            }
        };
        let function = match self.functions.get(&(symbol.to_owned(), signature)) {
            Some(function) => *function,
            None => {
                let name = self.name(b.func, symbol);
                let function = b.import_function(ExtFuncData {
                    name,
                    signature,
                    colocated: true,
                    patchable: false,
                });
                self.functions.insert((symbol.to_owned(), signature), function);
                function
            }
        };
        let call = b.ins().call(function, args);
        b.inst_results(call).to_vec()
    }

    /// The symbols, in the order of their indices.
    pub fn into_names(self) -> Vec<String> {
        self.names
    }
}

/// Where a tensor's bytes are, in values of the function under construction.
struct Builder<'a, 'f> {
    b: FunctionBuilder<'f>,
    symbols: Symbols,
    pointer: Type,
    graph: &'a Graph,
    plan: &'a Plan,
    names: &'a Names,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    /// The caller's arena.
    arena: Option<Value>,
    /// Offset of each operator's scratch.
    scratch: BTreeMap<OpId, u64>,
    fail: Option<Block>,
}

fn build(
    graph: &Graph,
    lowering: &Lowering,
    plan: &Plan,
    target: &Target,
    arena: ArenaKind,
    names: &Names,
    trace: Option<&str>,
) -> Result<Input> {
    let structs = if plan.io == Io::Pointers { 2 } else { 0 };
    let from_caller = arena == ArenaKind::Caller;
    let signature = signature(target, structs + usize::from(from_caller), true);
    let mut function = Function::with_name_signature(UserFuncName::default(), signature);
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut function, &mut context);
    let start = b.create_block();
    b.append_block_params_for_function_params(start);
    b.switch_to_block(start);
    let params = b.block_params(start).to_vec();
    let mut builder = Builder {
        b,
        symbols: Symbols::default(),
        pointer: pointer_type(target),
        graph,
        plan,
        names,
        inputs: Vec::new(),
        outputs: Vec::new(),
        arena: from_caller.then(|| params[structs]),
        scratch: (plan.buffers.iter())
            .filter_map(|buffer| Some((buffer.scratch_of?, buffer.offset)))
            .collect(),
        fail: None,
    };
    builder.b.set_srcloc(Location::Checks.source());
    if structs != 0 {
        builder.read_structs(params[0], params[1]);
    }
    builder.check_arena();

    let calls: BTreeMap<OpId, &Call> = lowering.calls.iter().map(|call| (call.op, call)).collect();
    for (step, op) in plan.order.iter().enumerate() {
        let call = calls.get(op).ok_or_else(|| {
            Error::internal("the plan runs an operator that was not lowered").at(graph.op(*op).describe())
        })?;
        builder.b.set_srcloc(Location::Op(*op).source());
        builder.call(call, lowering, target)?;
        if let Some(trace) = trace {
            builder.trace(trace, step, *op, target)?;
        }
    }
    let symbols = builder.finish(target);
    Ok(Input {
        name: names.run.symbol.clone(),
        exported: true,
        function,
        symbols,
    })
}

impl Builder<'_, '_> {
    /// Loads the pointers of both structs and leaves with an error if one is null.
    fn read_structs(&mut self, inputs: Value, outputs: Value) {
        let width = i32::from(self.pointer.bytes() as u16);
        for (structure, count, is_input) in [
            (inputs, self.graph.inputs.len(), true),
            (outputs, self.graph.outputs.len(), false),
        ] {
            if count == 0 {
                continue;
            }
            self.refuse_null(structure);
            for i in 0..count {
                let pointer = self
                    .b
                    .ins()
                    .load(self.pointer, Emitter::flags(), structure, i as i32 * width);
                self.refuse_null(pointer);
                if is_input {
                    self.inputs.push(pointer);
                } else {
                    self.outputs.push(pointer);
                }
            }
        }
    }

    fn refuse_null(&mut self, pointer: Value) {
        let fail = *self.fail.get_or_insert_with(|| self.b.create_block());
        let next = self.b.create_block();
        self.b.ins().brif(pointer, next, &[], fail, &[]);
        self.b.switch_to_block(next);
    }

    /// A caller's arena is neither null nor misaligned. One of no bytes may be anything.
    fn check_arena(&mut self) {
        let Some(arena) = self.arena else { return };
        if self.plan.arena_size == 0 {
            return;
        }
        self.refuse_null(arena);
        if self.plan.arena_align > 1 {
            let mask = self.b.ins().iconst(self.pointer, self.plan.arena_align as i64 - 1);
            let low = self.b.ins().band(arena, mask);
            let (fail, next) = (self.b.create_block(), self.b.create_block());
            self.b.ins().brif(low, fail, &[], next, &[]);
            self.b.switch_to_block(fail);
            self.b.set_cold_block(fail);
            let status = self.status(ERROR_ARENA_ALIGNMENT);
            self.b.ins().return_(&[status]);
            self.b.switch_to_block(next);
        }
    }

    fn status(&mut self, status: i32) -> Value {
        self.b.ins().iconst(types::I32, i64::from(status as u32))
    }

    fn arena(&mut self, offset: u64) -> Value {
        match self.arena {
            None => {
                let Builder {
                    b,
                    symbols,
                    names,
                    pointer,
                    ..
                } = self;
                symbols.address(b, *pointer, &names.arena.symbol, offset as i64)
            }
            Some(arena) if offset == 0 => arena,
            Some(arena) => {
                let offset = self.b.ins().iconst(self.pointer, offset as i64);
                self.b.ins().iadd(arena, offset)
            }
        }
    }

    fn symbol(&mut self, symbol: &str) -> Value {
        self.symbols.address(&mut self.b, self.pointer, symbol, 0)
    }

    fn tensor(&mut self, id: TensorId) -> Result<Value> {
        let place = self.plan.places.get(id.index()).copied().unwrap_or(Place::None);
        let missing = || {
            Error::internal(format!("a kernel uses a tensor that the plan puts nowhere ({place:?})")).at(format!(
                "tensor {} {}",
                id.0,
                self.graph.tensor(id).describe()
            ))
        };
        match place {
            Place::Arena(offset) => Ok(self.arena(offset)),
            Place::Input(i) => self.inputs.get(i).copied().ok_or_else(missing),
            Place::Output(i) => self.outputs.get(i).copied().ok_or_else(missing),
            Place::Constant => {
                let named = self.names.constants.get(&id).ok_or_else(missing)?;
                Ok(self.symbol(&named.symbol))
            }
            Place::None => Err(missing()),
        }
    }

    fn call(&mut self, call: &Call, lowering: &Lowering, target: &Target) -> Result<()> {
        let at = |error: Error| error.at(self.graph.op(call.op).describe());
        let signature = &lowering.kernel(call.kernel).function.signature;
        if signature.params.len() != call.operands.len()
            || *signature != super::emit::signature(target, call.operands.len(), false)
        {
            return Err(at(Error::internal("a kernel's signature does not fit its call")));
        }
        let mut args = Vec::with_capacity(call.operands.len());
        for operand in &call.operands {
            args.push(match operand {
                Operand::Tensor(id) => self.tensor(*id)?,
                Operand::Parameter(id) => self.symbol(&self.names.parameter(*id).symbol),
                Operand::Scratch => {
                    let offset = self.scratch.get(&call.op).copied();
                    self.arena(offset.ok_or_else(|| at(Error::internal("the plan has no scratch for a kernel")))?)
                }
            });
        }
        let symbol = &self.names.kernel(call.kernel).symbol;
        self.symbols.call(&mut self.b, symbol, signature, &args);
        Ok(())
    }

    fn trace(&mut self, trace: &str, step: usize, op: OpId, target: &Target) -> Result<()> {
        let output = self.graph.op(op).output();
        let step = self.b.ins().iconst(types::I32, step as i64);
        let data = self.tensor(output)?;
        let len = self
            .b
            .ins()
            .iconst(types::I64, self.graph.tensor(output).bytes() as i64);
        let signature = trace_signature(target);
        self.symbols.call(&mut self.b, trace, &signature, &[step, data, len]);
        Ok(())
    }

    /// Ends the function; returns the symbols that it refers to.
    fn finish(mut self, target: &Target) -> Vec<String> {
        self.b.set_srcloc(Location::Return.source());
        let ok = self.status(OK);
        self.b.ins().return_(&[ok]);
        if let Some(fail) = self.fail {
            self.b.switch_to_block(fail);
            self.b.set_cold_block(fail);
            self.b.set_srcloc(Location::Checks.source());
            let status = self.status(ERROR_NULL_POINTER);
            self.b.ins().return_(&[status]);
        }
        self.b.seal_all_blocks();
        self.b.finalize(frontend_config(target));
        self.symbols.into_names()
    }
}
