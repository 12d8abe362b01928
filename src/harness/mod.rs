//! Programs that run a model on Linux without a compiler, a linker or a libc, for `corerope run` and `corerope verify`.
//!
//! A program reads its inputs one after the other from descriptor 0, runs the model and writes the outputs to
//! descriptor 1, until its input ends. A traced one also writes the result of every call, and fills with garbage what is
//! dead then. Inputs are write-protected
//! while the model runs, parameters always are, and every buffer has unmapped pages on both sides.

mod child;
#[cfg(test)]
pub(crate) mod fixture;
mod leaf;
mod parameters;
mod poison;
#[cfg(test)]
mod tests;

pub use child::default_runner;

use crate::assemble;
use crate::codegen::{self, Code, Input};
use crate::data::Contents;
use crate::error::{Error, Result};
use crate::graph::{Graph, TensorId};
use crate::image::{Access, Image};
use crate::kernels::emit::{Emitter, pointer_type};
use crate::kernels::entry::{self, ArenaKind, Symbols};
use crate::names::Names;
use crate::object::{Datum, ObjectPlan, Placed, Visibility, executable};
use crate::plan::{Io, Place, Plan};
use crate::target::{Arch, Target};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Block, Function, InstBuilder, Signature, StackSlotData, StackSlotKind, Type, UserFuncName, Value, types,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use poison::POISON;
use std::io::Write;

/// What a program tells about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The outputs.
    Run,
    /// The result of every call in plan order, then the outputs.
    Trace,
}

/// One run's results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The model's outputs, in its order.
    pub outputs: Vec<Vec<u8>>,
    /// For [`Kind::Trace`], the result of each step of the plan.
    pub trace: Vec<Vec<u8>>,
}

/// A program that is ready to be written and run.
#[derive(Clone, Debug)]
pub struct Program {
    plan: ObjectPlan,
    target: Target,
    /// Size in bytes of each input.
    pub inputs: Vec<usize>,
    /// Size in bytes of each output.
    pub outputs: Vec<usize>,
    /// For [`Kind::Trace`], size in bytes of each step's result.
    pub steps: Vec<usize>,
}

// Names that no model can have: they are no C identifiers.
const START: &str = "harness.start";
const MAIN: &str = "harness.main";
const SYSCALL: &str = "harness.syscall";
const TRANSFER: &str = "harness.transfer";
const TRACE: &str = "harness.trace";
const ROW: &str = "harness.row";

/// Exit code if an input ends in its middle.
const EXIT_READ: i64 = 80;
/// Exit code if an output cannot be written.
const EXIT_WRITE: i64 = 81;
/// Exit code if the model returns an error: this minus the (negative) status.
const EXIT_STATUS: i64 = 100;

/// Linux's numbers of the system calls that a program makes.
struct Calls {
    read: i64,
    write: i64,
    mprotect: i64,
}

impl Calls {
    fn of(target: &Target) -> Result<Self> {
        Ok(match target.arch() {
            Arch::X86_64 => Calls {
                read: 0,
                write: 1,
                mprotect: 10,
            },
            Arch::Aarch64 | Arch::Riscv64 => Calls {
                read: 63,
                write: 64,
                mprotect: 226,
            },
            Arch::Thumb2 | Arch::Riscv32 => return Err(no_program(target)),
        })
    }
}

/// Bare-metal targets have no program that this machine could run.
fn no_program(target: &Target) -> Error {
    Error::new(
        crate::error::Code::Target,
        format!("models for {target} run on a board or on an emulated one, not as a program of this machine"),
    )
    .help("link what `corerope build` writes with the firmware under linker-scripts/ and run that")
}

/// Builds a program around the compiled kernels of `model` (from [`assemble::kernels`], in their order), with an arena of
/// its own.
///
/// # Errors
/// [`Code::Internal`](crate::error::Code::Internal) if the parts do not fit one another.
pub fn program(model: &entry::Model, kernels: Vec<Code>, kind: Kind) -> Result<Program> {
    let arena = ArenaKind::Static;
    let model = entry::Model {
        arena,
        hooks: false,
        steps: false,
        ..*model
    };
    let entry::Model {
        graph,
        lowering,
        plan,
        target,
        names,
        image,
        ..
    } = model;
    let run = match kind {
        Kind::Run => entry::entry(&model)?,
        Kind::Trace => entry::traced_entry(&model, TRACE)?,
    };
    let host = Host {
        graph,
        plan,
        target,
        names,
        image,
        fed: lowering.feed.is_some(),
        pointer: pointer_type(target),
        calls: Calls::of(target)?,
    };
    let mut inputs = vec![run, host.main(), host.transfer()];
    if kind == Kind::Trace {
        inputs.extend([host.trace(), host.poison()]);
    }
    if lowering.feed.is_some() {
        inputs.push(host.row());
    }
    if image.is_some_and(|image| image.access == Access::Streamed) {
        inputs.extend([host.read(), host.wait()]);
    }
    let helpers = model.helpers()?;
    let beside = inputs.len();
    inputs.extend(helpers);
    let mut codes = codegen::compile(inputs, target)?;
    let helpers = codes.split_off(beside);
    let own = codes.split_off(1).into_iter().chain(leaf::codes(target)?);
    let run = codes
        .pop()
        .ok_or_else(|| Error::internal("the entry point was not compiled"))?;
    let mut placed = assemble::place(kernels, helpers, run, names);
    placed.extend(own.map(|code| Placed {
        section: format!(".text.{}", code.name),
        code,
    }));
    let mut data = assemble::data(graph, lowering, plan, arena, image, names);
    if let Some(image) = image {
        data.extend(host.image(image, lowering));
    }
    if kind == Kind::Trace {
        data.push(host.dead_bytes());
    }
    let pointers = plan.io == Io::Pointers;
    for (ids, direction, own) in [
        (&graph.inputs, "input", pointers || host.fed),
        (&graph.outputs, "output", pointers),
    ] {
        if own {
            data.extend(ids.iter().enumerate().map(|(i, id)| host.buffer(direction, i, *id)));
        }
    }
    let plan_ = crate::object::plan(placed, data)?;
    let bytes = |ids: &[TensorId]| ids.iter().map(|id| graph.tensor(*id).bytes()).collect();
    let steps = match kind {
        Kind::Run => Vec::new(),
        Kind::Trace => {
            let made = plan
                .steps
                .iter()
                .map(|step| entry::stream::result(graph, lowering, step).len());
            made.collect()
        }
    };
    Ok(Program {
        plan: plan_,
        target: target.clone(),
        inputs: bytes(&graph.inputs),
        outputs: bytes(&graph.outputs),
        steps,
    })
}

impl Program {
    /// Writes the executable.
    ///
    /// # Errors
    /// Those of [`executable::write`].
    pub fn write(&self, out: &mut dyn Write) -> Result<()> {
        executable::write(&self.plan, &self.target, START, out)
    }
}

/// Symbol of the buffer of an input or output.
fn buffer_name(direction: &str, i: usize) -> String {
    format!("harness.{direction}.{i}")
}

/// What the program's own functions are made from.
struct Host<'a> {
    graph: &'a Graph,
    plan: &'a Plan,
    target: &'a Target,
    names: &'a Names,
    image: Option<&'a Image>,
    /// Whether the input goes to the model row by row.
    fed: bool,
    pointer: Type,
    calls: Calls,
}

/// A function of the program under construction.
struct Body<'f> {
    b: FunctionBuilder<'f>,
    symbols: Symbols,
    pointer: Type,
    call_conv: CallConv,
    params: Vec<Value>,
}

impl Host<'_> {
    fn call_conv(&self) -> CallConv {
        CallConv::triple_default(&self.target.triple)
    }

    fn function(&self, name: &str, params: &[Type], result: Option<Type>, body: impl FnOnce(&mut Body)) -> Input {
        let signature = signature(self.call_conv(), params, result);
        let mut function = Function::with_name_signature(UserFuncName::default(), signature);
        let mut context = FunctionBuilderContext::new();
        let mut b = FunctionBuilder::new(&mut function, &mut context);
        let start = b.create_block();
        b.append_block_params_for_function_params(start);
        b.switch_to_block(start);
        let mut inner = Body {
            params: b.block_params(start).to_vec(),
            b,
            symbols: Symbols::default(),
            pointer: self.pointer,
            call_conv: self.call_conv(),
        };
        body(&mut inner);
        let Body { mut b, symbols, .. } = inner;
        b.seal_all_blocks();
        b.finalize(entry::frontend_config(self.target));
        Input {
            name: name.to_owned(),
            exported: false,
            function,
            symbols: symbols.into_names(),
        }
    }

    /// A buffer aligned for its elements and no better, as an application's may be.
    fn buffer(&self, direction: &str, i: usize, id: TensorId) -> Datum {
        let tensor = self.graph.tensor(id);
        let name = buffer_name(direction, i);
        Datum {
            section: format!(".bss.{name}"),
            symbol: name,
            align: tensor.dtype.bytes() as u64,
            contents: Contents::Zero(tensor.bytes() as u64),
            visibility: Visibility::Hidden,
        }
    }

    /// The address of an input or output.
    fn address(&self, f: &mut Body, direction: &str, i: usize, id: TensorId) -> Value {
        match (self.plan.io, self.plan.places.get(id.index())) {
            (Io::Arena, Some(Place::Arena(offset))) => {
                let (pool, offset) = self.plan.locate(*offset);
                f.symbol(&self.names.pool(pool).symbol, offset as i64)
            }
            _ => f.symbol(&buffer_name(direction, i), 0),
        }
    }

    /// `int32_t main(void)`: the exit code.
    fn main(&self) -> Input {
        self.function(MAIN, &[], Some(types::I32), |f| {
            let parameters = self.image.map(|image| self.bind(f, image));
            let again = f.b.create_block();
            f.b.ins().jump(again, &[]);
            f.b.switch_to_block(again);
            let total: usize = self.graph.inputs.iter().map(|id| self.graph.tensor(*id).bytes()).sum();
            let mut first = true;
            for (i, id) in self.graph.inputs.iter().enumerate() {
                let len = self.graph.tensor(*id).bytes();
                if len == 0 {
                    continue;
                }
                let at = self.address(f, "input", i, *id);
                self.protect(f, at, len, 3);
                let done = f.transfer(self.calls.read, 0, at, len);
                if first {
                    // The end of the input, where a run would begin.
                    first = false;
                    let (end, next) = (f.b.create_block(), f.b.create_block());
                    f.b.ins().brif(done, next, &[], end, &[]);
                    f.b.switch_to_block(end);
                    f.exit(0);
                    f.b.switch_to_block(next);
                }
                f.expect(done, len, EXIT_READ);
                self.protect(f, at, len, 1);
            }
            let mut args = Vec::new();
            let pointers = self.plan.io == Io::Pointers;
            if self.fed {
                let members = [f.symbol(ROW, 0), f.int(0)];
                args.push(f.structure(&members));
            }
            for (ids, direction, by_pointer) in [
                (&self.graph.inputs, "input", pointers && !self.fed),
                (&self.graph.outputs, "output", pointers),
            ] {
                if by_pointer {
                    let pointers: Vec<Value> = (ids.iter().enumerate())
                        .map(|(i, id)| self.address(f, direction, i, *id))
                        .collect();
                    args.push(f.structure(&pointers));
                }
            }
            args.extend(parameters);
            self.succeed(f, &self.names.run.symbol, &args);
            for (i, id) in self.graph.outputs.iter().enumerate() {
                let len = self.graph.tensor(*id).bytes();
                if len != 0 {
                    let at = self.address(f, "output", i, *id);
                    let done = f.transfer(self.calls.write, 1, at, len);
                    f.expect(done, len, EXIT_WRITE);
                }
            }
            if total == 0 {
                f.exit(0);
            } else {
                f.b.ins().jump(again, &[]);
            }
        })
    }

    /// Calls a function of the model; leaves with its status if that is an error.
    fn succeed(&self, f: &mut Body, symbol: &str, args: &[Value]) {
        let types: Vec<Type> = args.iter().map(|arg| f.b.func.dfg.value_type(*arg)).collect();
        let signature = signature(self.call_conv(), &types, Some(types::I32));
        let status = f.symbols.call(&mut f.b, symbol, &signature, args)[0];
        let (failed, ok) = (f.b.create_block(), f.b.create_block());
        f.b.ins().brif(status, failed, &[], ok, &[]);
        f.b.switch_to_block(failed);
        let code = f.b.ins().iconst(types::I32, EXIT_STATUS);
        let code = f.b.ins().isub(code, status);
        f.b.ins().return_(&[code]);
        f.b.switch_to_block(ok);
    }

    /// Makes the pages of an input's own buffer read-only (1) or writable (3). A failure shows as a fault.
    fn protect(&self, f: &mut Body, at: Value, len: usize, protection: i64) {
        if self.plan.io != Io::Pointers && !self.fed {
            return;
        }
        let page = executable::page(self.target);
        let mask = f.int(-(page as i64));
        let start = f.b.ins().band(at, mask);
        let len = f.int((len as u64).next_multiple_of(page) as i64);
        let protection = f.int(protection);
        f.syscall(self.calls.mprotect, &[start, len, protection]);
    }

    /// `int64_t transfer(int64_t number, int64_t descriptor, void *data, int64_t len)`: reads or writes until all is
    /// done, the other side ends or something fails; the bytes done.
    fn transfer(&self) -> Input {
        let word = self.pointer;
        self.function(TRANSFER, &[word; 4], Some(word), |f| {
            let [number, descriptor, data, len] = f.params[..] else {
                unreachable!("the function has four parameters")
            };
            let again = f.b.create_block();
            let done = f.b.append_block_param(again, word);
            let zero = f.int(0);
            f.b.ins().jump(again, &[zero.into()]);
            f.b.switch_to_block(again);
            let at = f.b.ins().iadd(data, done);
            let left = f.b.ins().isub(len, done);
            let signature = signature(f.call_conv, &[word; 4], Some(word));
            let n = f
                .symbols
                .call(&mut f.b, SYSCALL, &signature, &[number, descriptor, at, left])[0];
            let (some, other, end) = (f.b.create_block(), f.b.create_block(), f.b.create_block());
            let positive = f.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, n, 0);
            f.b.ins().brif(positive, some, &[], other, &[]);
            f.b.switch_to_block(some);
            let sum = f.b.ins().iadd(done, n);
            let more = f.b.ins().icmp(IntCC::SignedLessThan, sum, len);
            f.b.ins().brif(more, again, &[sum.into()], end, &[sum.into()]);
            // −EINTR: once more.
            f.b.switch_to_block(other);
            let interrupted = f.b.ins().icmp_imm_s(IntCC::Equal, n, -4);
            f.b.ins().brif(interrupted, again, &[done.into()], end, &[done.into()]);
            let result = f.b.append_block_param(end, word);
            f.b.switch_to_block(end);
            f.b.ins().return_(&[result]);
        })
    }

    /// `int32_t row(void *context, uint32_t row, void *destination)`: copies a row of the input.
    fn row(&self) -> Input {
        let input = self.graph.inputs.first().map(|id| self.graph.tensor(*id));
        let rows = input.map_or(1, |input| input.shape.nhwc()[1].max(1));
        let unit = input.map_or(0, |input| input.bytes() / rows).max(1);
        self.function(ROW, &[self.pointer, types::I32, self.pointer], Some(types::I32), |f| {
            let (row, destination) = (f.params[1], f.params[2]);
            let row = f.b.ins().uextend(f.pointer, row);
            let size = f.int(unit as i64);
            let skipped = f.b.ins().imul(row, size);
            let base = f.symbol(&buffer_name("input", 0), 0);
            let from = f.b.ins().iadd(base, skipped);
            let (again, end) = (f.b.create_block(), f.b.create_block());
            let at = f.b.append_block_param(again, f.pointer);
            let zero = f.int(0);
            f.b.ins().jump(again, &[zero.into()]);
            f.b.switch_to_block(again);
            let (source, target) = (f.b.ins().iadd(from, at), f.b.ins().iadd(destination, at));
            let byte = f.b.ins().load(types::I8, Emitter::flags(), source, 0);
            f.b.ins().store(Emitter::flags(), byte, target, 0);
            let one = f.int(1);
            let next = f.b.ins().iadd(at, one);
            let more = f.b.ins().icmp(IntCC::NotEqual, next, size);
            f.b.ins().brif(more, again, &[next.into()], end, &[]);
            f.b.switch_to_block(end);
            f.exit(0);
        })
    }

    /// `void trace(uint32_t step, const void *data, uint64_t len)`: writes step and length, eight bytes each, and the data;
    /// then spoils what is dead.
    fn trace(&self) -> Input {
        self.function(TRACE, &[types::I32, self.pointer, types::I64], None, |f| {
            let [step, data, len] = f.params[..] else {
                unreachable!("the function has three parameters")
            };
            let step = f.b.ins().uextend(types::I64, step);
            let header = f.structure(&[step, len]);
            f.transfer(self.calls.write, 1, header, 16);
            let (write, descriptor) = (f.int(self.calls.write), f.int(1));
            f.transfer_call(&[write, descriptor, data, len]);
            let signature = signature(f.call_conv, &[f.pointer], None);
            f.symbols.call(&mut f.b, POISON, &signature, &[step]);
            f.b.ins().return_(&[]);
        })
    }
}

fn signature(call_conv: CallConv, params: &[Type], result: Option<Type>) -> Signature {
    let mut signature = Signature::new(call_conv);
    signature.params = params.iter().copied().map(AbiParam::new).collect();
    signature.returns = result.into_iter().map(AbiParam::new).collect();
    signature
}

impl Body<'_> {
    fn int(&mut self, value: i64) -> Value {
        self.b.ins().iconst(self.pointer, value)
    }

    fn symbol(&mut self, symbol: &str, offset: i64) -> Value {
        self.symbols.address(&mut self.b, self.pointer, symbol, offset)
    }

    /// Values of eight bytes, one after the other on the stack; their address.
    fn structure(&mut self, members: &[Value]) -> Value {
        let size = 8 * members.len().max(1) as u32;
        let slot = self
            .b
            .create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, size, 3));
        let at = self.b.ins().stack_addr(self.pointer, slot, 0);
        for (i, member) in members.iter().enumerate() {
            self.b.ins().store(Emitter::flags(), *member, at, 8 * i as i32);
        }
        at
    }

    fn syscall(&mut self, number: i64, args: &[Value; 3]) -> Value {
        let number = self.int(number);
        let signature = signature(self.call_conv, &[self.pointer; 4], Some(self.pointer));
        let args = [number, args[0], args[1], args[2]];
        self.symbols.call(&mut self.b, SYSCALL, &signature, &args)[0]
    }

    fn transfer(&mut self, number: i64, descriptor: i64, data: Value, len: usize) -> Value {
        let (number, descriptor, len) = (self.int(number), self.int(descriptor), self.int(len as i64));
        self.transfer_call(&[number, descriptor, data, len])
    }

    fn transfer_call(&mut self, args: &[Value; 4]) -> Value {
        let signature = signature(self.call_conv, &[self.pointer; 4], Some(self.pointer));
        self.symbols.call(&mut self.b, TRANSFER, &signature, args)[0]
    }

    /// Goes on if `done` is `len`, returns `code` otherwise.
    fn expect(&mut self, done: Value, len: usize, code: i64) {
        let len = self.int(len as i64);
        let all = self.b.ins().icmp(IntCC::Equal, done, len);
        let (next, failed): (Block, Block) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(all, next, &[], failed, &[]);
        self.b.switch_to_block(failed);
        self.exit(code);
        self.b.switch_to_block(next);
    }

    fn exit(&mut self, code: i64) {
        let code = self.b.ins().iconst(types::I32, code);
        self.b.ins().return_(&[code]);
    }
}
