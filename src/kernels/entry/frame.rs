//! A function of a model under construction: blocks, symbols, early returns.

use super::super::emit::Emitter;
use super::symbols::Symbols;
use super::{Location, Model, c_signature, frontend_config};
use crate::codegen::Input;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, BlockArg, Function, InstBuilder, Type, UserFuncName, Value, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

/// A function that returns a status.
pub(super) struct Frame<'m, 'f> {
    pub b: FunctionBuilder<'f>,
    pub model: &'m Model<'m>,
    pub symbols: Symbols,
    /// The type of pointers.
    pub pointer: Type,
    pub params: Vec<Value>,
    /// Runs of each block in a call that succeeds, where no loop is around it.
    pub executions: Vec<(Block, u64)>,
    /// A counter that is set to 0 before a status is passed on.
    pub reset: Option<Value>,
    /// Returns its parameter.
    leave: Option<Block>,
    /// Returns these constants.
    errors: Vec<(i32, Block)>,
    /// The same, after [`Frame::reset`].
    failures: Vec<(i32, Block)>,
}

/// The round of a loop under construction.
pub(super) struct Loop {
    header: Block,
    exit: Block,
    /// Rounds that are left.
    left: Value,
    /// Values that the round begins with.
    pub carried: Vec<Value>,
}

/// Builds `name(params) -> result`; `body` ends its last block.
pub(super) fn function(
    model: &Model,
    name: &str,
    exported: bool,
    params: &[Type],
    result: Option<Type>,
    body: impl FnOnce(&mut Frame) -> crate::error::Result<()>,
) -> crate::error::Result<Input> {
    Ok(counted_function(model, name, exported, params, result, body)?.0)
}

/// [`function`], and how often each of its blocks runs in a call that succeeds. Loops count as one round.
pub(super) fn counted_function(
    model: &Model,
    name: &str,
    exported: bool,
    params: &[Type],
    result: Option<Type>,
    body: impl FnOnce(&mut Frame) -> crate::error::Result<()>,
) -> crate::error::Result<(Input, Vec<(Block, u64)>)> {
    let signature = c_signature(model.target, params, result);
    let mut function = Function::with_name_signature(UserFuncName::default(), signature);
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut function, &mut context);
    let start = b.create_block();
    b.append_block_params_for_function_params(start);
    b.switch_to_block(start);
    b.set_srcloc(Location::Checks.source());
    let mut frame = Frame {
        params: b.block_params(start).to_vec(),
        b,
        model,
        symbols: Symbols::default(),
        pointer: model.pointer(),
        executions: vec![(start, 1)],
        reset: None,
        leave: None,
        errors: Vec::new(),
        failures: Vec::new(),
    };
    body(&mut frame)?;
    let (symbols, executions) = frame.finish();
    let input = Input {
        name: name.to_owned(),
        exported,
        function,
        symbols,
    };
    Ok((input, executions))
}

impl Frame<'_, '_> {
    pub fn int(&mut self, ty: Type, value: i64) -> Value {
        let bits = ty.bits();
        let value = if bits < 64 { value & ((1 << bits) - 1) } else { value };
        self.b.ins().iconst(ty, value)
    }

    pub fn status(&mut self, status: i32) -> Value {
        self.int(types::I32, status.into())
    }

    /// `pointer + bytes`.
    pub fn offset(&mut self, pointer: Value, bytes: u64) -> Value {
        if bytes == 0 {
            return pointer;
        }
        let bytes = self.int(self.pointer, bytes as i64);
        self.b.ins().iadd(pointer, bytes)
    }

    /// Load of `ty` at `base + offset`, aligned.
    pub fn load(&mut self, ty: Type, base: Value, offset: i32) -> Value {
        self.b.ins().load(ty, Emitter::flags(), base, offset)
    }

    pub fn store(&mut self, value: Value, base: Value, offset: i32) {
        self.b.ins().store(Emitter::flags(), value, base, offset);
    }

    /// The address of a symbol.
    pub fn symbol(&mut self, symbol: &str) -> Value {
        self.symbols.address(&mut self.b, self.pointer, symbol, 0)
    }

    pub fn call(&mut self, symbol: &str, params: &[Type], result: Option<Type>, args: &[Value]) -> Vec<Value> {
        let signature = c_signature(self.model.target, params, result);
        self.symbols.call(&mut self.b, symbol, &signature, args)
    }

    pub fn call_at(&mut self, address: Value, params: &[Type], result: Option<Type>, args: &[Value]) -> Vec<Value> {
        let signature = c_signature(self.model.target, params, result);
        self.symbols.call_at(&mut self.b, address, &signature, args)
    }

    /// Goes on in `block`, which runs so often.
    pub fn switch(&mut self, block: Block, runs: u64) {
        self.b.switch_to_block(block);
        self.executions.push((block, runs));
    }

    /// Goes on in a new block if `condition` is not 0, in `other` if it is.
    pub fn require(&mut self, condition: Value, other: Block) {
        let next = self.b.create_block();
        self.b.ins().brif(condition, next, &[], other, &[]);
        self.switch(next, 1);
    }

    /// The block that returns `status`.
    pub fn error(&mut self, status: i32) -> Block {
        if let Some((_, block)) = self.errors.iter().find(|(known, _)| *known == status) {
            return *block;
        }
        let block = self.b.create_block();
        self.errors.push((status, block));
        block
    }

    /// Returns `status` if `condition` is 0.
    pub fn check(&mut self, condition: Value, status: i32) {
        let error = self.error(status);
        self.require(condition, error);
    }

    /// Returns `status` if `condition` is not 0.
    pub fn refuse(&mut self, condition: Value, status: i32) {
        self.refuse_each(condition, status, 1);
    }

    /// [`Frame::refuse`], in a block that runs so often.
    pub fn refuse_each(&mut self, condition: Value, status: i32, runs: u64) {
        let error = self.error(status);
        let next = self.b.create_block();
        self.b.ins().brif(condition, error, &[], next, &[]);
        self.switch(next, runs);
    }

    pub fn refuse_null(&mut self, pointer: Value) {
        self.check(pointer, super::ERROR_NULL_POINTER);
    }

    /// Returns `status` if it is not 0.
    pub fn leave_on(&mut self, status: Value) {
        let leave = *self.leave.get_or_insert_with(|| {
            let block = self.b.create_block();
            self.b.append_block_param(block, types::I32);
            block
        });
        let next = self.b.create_block();
        self.b.ins().brif(status, leave, &[BlockArg::from(status)], next, &[]);
        self.switch(next, 1);
    }

    /// Returns `status`, the counter set to 0, if `condition` is not 0.
    pub fn abandon(&mut self, condition: Value, status: i32) {
        let known = self.failures.iter().find(|(known, _)| *known == status);
        let failure = match known {
            Some((_, block)) => *block,
            None => {
                let block = self.b.create_block();
                self.failures.push((status, block));
                block
            }
        };
        let next = self.b.create_block();
        self.b.ins().brif(condition, failure, &[], next, &[]);
        self.switch(next, 1);
    }

    /// 1 if `a` and `b` are equal.
    pub fn equal(&mut self, a: Value, b: Value) -> Value {
        self.b.ins().icmp(IntCC::Equal, a, b)
    }

    /// A loop over `count` (a value of the pointer's type, not 0) rounds: `body(frame, carried) -> carried`.
    pub fn rounds(
        &mut self,
        count: Value,
        carried: &[Value],
        body: impl FnOnce(&mut Self, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let open = self.open(count, carried);
        let results = body(self, &open.carried);
        self.close(open, &results);
        results
    }

    /// Begins the round of a loop.
    pub fn open(&mut self, count: Value, carried: &[Value]) -> Loop {
        let [header, exit] = [self.b.create_block(), self.b.create_block()];
        let inside: Vec<Value> = (carried.iter())
            .map(|value| {
                let ty = self.b.func.dfg.value_type(*value);
                self.b.append_block_param(header, ty)
            })
            .collect();
        let left = self.b.append_block_param(header, self.pointer);
        let args: Vec<BlockArg> = carried.iter().chain([&count]).map(|v| BlockArg::from(*v)).collect();
        self.b.ins().jump(header, &args);
        self.switch(header, 1);
        Loop {
            header,
            exit,
            left,
            carried: inside,
        }
    }

    /// Ends the round of a loop.
    pub fn close(&mut self, open: Loop, results: &[Value]) {
        let less = self.int(self.pointer, -1);
        let left = self.b.ins().iadd(open.left, less);
        let args: Vec<BlockArg> = results.iter().chain([&left]).map(|v| BlockArg::from(*v)).collect();
        self.b.ins().brif(left, open.header, &args, open.exit, &[]);
        self.switch(open.exit, 1);
    }

    /// Returns `status` here.
    pub fn return_status(&mut self, status: i32) {
        let status = self.status(status);
        self.b.ins().return_(&[status]);
    }

    fn begin_again(&mut self) {
        if let Some(counter) = self.reset {
            let zero = self.int(types::I32, 0);
            self.store(zero, counter, 0);
        }
    }

    /// Ends the function; returns the symbols that it refers to, and the runs of its blocks.
    fn finish(mut self) -> (Vec<String>, Vec<(Block, u64)>) {
        self.b.set_srcloc(Location::Checks.source());
        for (status, block) in std::mem::take(&mut self.errors) {
            self.switch(block, 0);
            self.b.set_cold_block(block);
            self.return_status(status);
        }
        for (status, block) in std::mem::take(&mut self.failures) {
            self.switch(block, 0);
            self.b.set_cold_block(block);
            self.begin_again();
            self.return_status(status);
        }
        if let Some(block) = self.leave {
            self.switch(block, 0);
            self.b.set_cold_block(block);
            self.begin_again();
            let status = self.b.block_params(block)[0];
            self.b.ins().return_(&[status]);
        }
        self.b.seal_all_blocks();
        self.b.finalize(frontend_config(self.model.target));
        (self.symbols.into_names(), self.executions)
    }
}
