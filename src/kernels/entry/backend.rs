//! What kernels that TVM compiled call in its runtime, as far as kernels do.

use super::{Symbols, c_signature, frontend_config};
use crate::codegen::Input;
use crate::graph::external::WORKSPACE_ALIGN;
use crate::kernels::emit::{Emitter, pointer_type};
use crate::target::Target;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, Signature, StackSlotData, StackSlotKind, Type, UserFuncName, Value, types,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

/// Where kernels get memory: last in, first out, on [`STATE`].
const ALLOCATE: &str = "TVMBackendAllocWorkspace";
/// What they give it back to.
const FREE: &str = "TVMBackendFreeWorkspace";
/// What they report the reason of a failure to; their result says that there is one. The text is forgotten.
const SET_ERROR: &str = "TVMAPISetLastError";
/// What runs the tasks of a parallel loop, which LLVM's kernels have: one, in the caller's thread.
const LAUNCH: &str = "TVMBackendParallelLaunch";
/// Where the tasks wait for one another.
const BARRIER: &str = "TVMBackendParallelBarrier";

/// All functions.
pub const FUNCTIONS: [&str; 5] = [ALLOCATE, FREE, SET_ERROR, LAUNCH, BARRIER];

/// Two pointers: the free end of the running call's workspace, and its end. Every library of ours has the same, so the
/// linker keeps one.
pub const STATE: &str = "corerope_tvm_workspace";

/// [`FUNCTIONS`]. Arguments that a function does not need are left out where they are passed behind the others.
pub fn functions(target: &Target) -> [Input; FUNCTIONS.len()] {
    let pointer = pointer_type(target);
    let convention = CallConv::triple_default(&target.triple);
    // uint64_t nbytes is the third argument: one register, or an even pair of registers.
    let word = AbiParam::new(types::I32);
    let size = if pointer == types::I64 {
        vec![AbiParam::new(types::I64)]
    } else {
        vec![word; 2]
    };
    let mut allocate = Signature::new(convention);
    allocate.params = [vec![word; 2], size].concat();
    allocate.returns.push(AbiParam::new(pointer));
    let mut free = Signature::new(convention);
    free.params = vec![word, word, AbiParam::new(pointer)];
    free.returns.push(word);
    let mut set_error = Signature::new(convention);
    set_error.params = vec![AbiParam::new(pointer)];
    let task = c_signature(target, &[types::I32, pointer, pointer], Some(types::I32));
    let launch = c_signature(target, &[pointer, pointer], Some(types::I32));
    let barrier = c_signature(target, &[types::I32, pointer], Some(types::I32));
    [
        function(ALLOCATE, allocate, target, |b, args, symbols| {
            let state = symbols.address(b, pointer, STATE, 0);
            let width = pointer.bytes() as i32;
            let next = b.ins().load(pointer, Emitter::flags(), state, 0);
            let end = b.ins().load(pointer, Emitter::flags(), state, width);
            let left = b.ins().isub(end, next);
            let fits = b.ins().icmp(IntCC::UnsignedLessThanOrEqual, args[2], left);
            let (take, refuse) = (b.create_block(), b.create_block());
            b.ins().brif(fits, take, &[], refuse, &[]);
            b.switch_to_block(take);
            // What is left is a multiple of the alignment, so the rounded size fits where the size does.
            let size = b.ins().iadd_imm_s(args[2], WORKSPACE_ALIGN as i64 - 1);
            let mask = b.ins().iconst(pointer, mask(pointer, WORKSPACE_ALIGN));
            let size = b.ins().band(size, mask);
            let after = b.ins().iadd(next, size);
            b.ins().store(Emitter::flags(), after, state, 0);
            b.ins().return_(&[next]);
            b.switch_to_block(refuse);
            let none = b.ins().iconst(pointer, 0);
            b.ins().return_(&[none]);
        }),
        function(FREE, free, target, |b, args, symbols| {
            let state = symbols.address(b, pointer, STATE, 0);
            b.ins().store(Emitter::flags(), args[2], state, 0);
            let ok = b.ins().iconst(types::I32, 0);
            b.ins().return_(&[ok]);
        }),
        function(SET_ERROR, set_error, target, |b, _, _| {
            b.ins().return_(&[]);
        }),
        function(LAUNCH, launch, target, |b, args, symbols| {
            // TVMParallelGroupEnv: `void *sync_handle; int32_t num_task`. The one task is number 0.
            let size = 2 * pointer.bytes();
            let slot = b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, size, 3));
            let (none, first) = (b.ins().iconst(pointer, 0), b.ins().iconst(types::I32, 0));
            let one = b.ins().iconst(types::I32, 1);
            let environment = b.ins().stack_addr(pointer, slot, 0);
            b.ins().store(Emitter::flags(), none, environment, 0);
            b.ins()
                .store(Emitter::flags(), one, environment, pointer.bytes() as i32);
            let results = symbols.call_at(b, args[0], &task, &[first, environment, args[1]]);
            b.ins().return_(&results);
        }),
        function(BARRIER, barrier, target, |b, _, _| {
            let ok = b.ins().iconst(types::I32, 0);
            b.ins().return_(&[ok]);
        }),
    ]
}

/// The bits of an address that is aligned.
fn mask(pointer: Type, align: u64) -> i64 {
    let mask = !(align - 1);
    if pointer == types::I64 {
        mask as i64
    } else {
        i64::from(mask as u32)
    }
}

fn function(
    name: &str,
    signature: Signature,
    target: &Target,
    body: impl FnOnce(&mut FunctionBuilder, &[Value], &mut Symbols),
) -> Input {
    let mut function = Function::with_name_signature(UserFuncName::default(), signature);
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut function, &mut context);
    let start = b.create_block();
    b.append_block_params_for_function_params(start);
    b.switch_to_block(start);
    let args = b.block_params(start).to_vec();
    let mut symbols = Symbols::default();
    body(&mut b, &args, &mut symbols);
    b.seal_all_blocks();
    b.finalize(frontend_config(target));
    Input {
        name: name.to_owned(),
        exported: true,
        function,
        symbols: symbols.into_names(),
    }
}
