//! A model input that the application gives row by row (`--input rows`), for what comes from cameras and microphones.
//!
//! An operator in front of all others copies the input. Its kernel asks the application for a row:
//! `int32_t (*read)(void *context, uint32_t row, void *destination)`.

use super::super::Call;
use super::super::emit::{Built, Emitter, pointer_type};
use super::super::lowered::{Lowered, LoweredOperand};
use super::body::Body;
use super::{ERROR_INPUT, c_signature, frontend_config};
use crate::error::{Error, Result};
use crate::graph::{Graph, OpId};
use crate::target::Target;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{BlockArg, Function, InstBuilder, Signature, UserFuncName, Value, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

/// `int32_t feed(const struct <model>_rows *rows, uint32_t row, void *destination)`.
pub(super) fn signature(target: &Target) -> Signature {
    let pointer = pointer_type(target);
    c_signature(target, &[pointer, types::I32, pointer], Some(types::I32))
}

/// The copy `op` of a model input as a call of the application. Its operands are those of the copy, or rows of them.
pub fn lower(graph: &Graph, op: OpId, target: &Target, by_rows: bool) -> Lowered {
    let pointer = pointer_type(target);
    let mut function = Function::with_name_signature(UserFuncName::default(), signature(target));
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut function, &mut context);
    let block = b.create_block();
    b.append_block_params_for_function_params(block);
    b.switch_to_block(block);
    let [rows, row, destination] = b.block_params(block)[..] else {
        unreachable!("the function has three parameters")
    };
    let read = b.ins().load(pointer, Emitter::flags(), rows, 0);
    let to = b.ins().load(pointer, Emitter::flags(), rows, pointer.bytes() as i32);
    let callback = b.import_signature(c_signature(target, &[pointer, types::I32, pointer], Some(types::I32)));
    let call = b.ins().call_indirect(callback, read, &[to, row, destination]);
    let status = b.inst_results(call)[0];
    b.ins().return_(&[status]);
    b.seal_all_blocks();
    b.finalize(frontend_config(target));
    let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
    let operand = if by_rows {
        LoweredOperand::Row
    } else {
        LoweredOperand::Tensor
    };
    Lowered {
        built: Built {
            function,
            executions: vec![(block, 1)],
            layouts: None,
        },
        stem: "input_rows",
        schedule: "the application's rows".into(),
        operands: vec![operand(input), operand(output)],
        scratch: None,
        overlaps: vec![],
    }
}

impl Body<'_, '_, '_> {
    /// Whether a call asks the application for the input.
    pub(super) fn feeds(&self, call: &Call) -> bool {
        self.f.model.lowering.feed == Some(call.op)
    }

    /// Asks for a row, in a block that runs so often.
    pub(super) fn feed_row(&mut self, call: &Call, row: Value, to: Value, runs: u64) -> Result<()> {
        let model = self.f.model;
        let kernel = call
            .kernel
            .ok_or_else(|| Error::internal("nothing asks for the rows of the input"))?;
        let symbol = &model.names.kernel(kernel).symbol;
        let rows = self.rows_of_input()?;
        let row = match self.f.pointer {
            types::I32 => row,
            _ => self.f.b.ins().ireduce(types::I32, row),
        };
        let signature = signature(model.target);
        let status = self.f.symbols.call(&mut self.f.b, symbol, &signature, &[rows, row, to])[0];
        self.f.refuse_each(status, ERROR_INPUT, runs);
        Ok(())
    }

    /// Asks for all rows, one after the other.
    pub(super) fn feed(&mut self, call: &Call) -> Result<()> {
        let output = self.f.model.graph.op(call.op).output();
        let tensor = self.f.model.graph.tensor(output);
        let count = tensor.shape.nhwc()[1].max(1);
        let (pointer, unit) = (self.f.pointer, tensor.bytes() / count);
        let start = self.tensor(output)?;
        let (header, exit) = (self.f.b.create_block(), self.f.b.create_block());
        let row = self.f.b.append_block_param(header, pointer);
        let to = self.f.b.append_block_param(header, pointer);
        let zero = self.f.int(pointer, 0);
        (self.f.b.ins()).jump(header, &[BlockArg::from(zero), BlockArg::from(start)]);
        self.f.switch(header, count as u64);
        self.feed_row(call, row, to, count as u64)?;
        let next = self.f.offset(row, 1);
        let to = self.f.offset(to, unit as u64);
        let end = self.f.int(pointer, count as i64);
        let more = self.f.b.ins().icmp(IntCC::NotEqual, next, end);
        (self.f.b.ins()).brif(more, header, &[BlockArg::from(next), BlockArg::from(to)], exit, &[]);
        self.f.switch(exit, 1);
        Ok(())
    }
}
