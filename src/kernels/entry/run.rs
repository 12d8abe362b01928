//! `<model>_run`: all operators, one after the other.

use super::Model;
use super::body::Body;
use super::frame::counted_function;
use crate::codegen::Input;
use crate::error::{Error, Result};
use crate::graph::OpId;
use cranelift_codegen::ir::{Block, types};
use std::collections::BTreeMap;

/// The entry point `<model>_run`, exported.
///
/// # Errors
/// [`Code::Internal`](crate::error::Code::Internal) if plan, lowering and graph do not fit one another.
pub fn entry(model: &Model) -> Result<Input> {
    Ok(counted_entry(model)?.0)
}

/// [`entry`], and how often each of its blocks runs in a run that succeeds, for plans with rows.
///
/// # Errors
/// As [`entry`].
pub fn counted_entry(model: &Model) -> Result<(Input, Vec<(Block, u64)>)> {
    build(model, None)
}

/// [`entry`], but after every call it calls `void trace(uint32_t step, const void *data, uint64_t len)` with the bytes of
/// [`stream::result`](super::stream::result) that the call has made; `step` is the index in
/// [`Plan::steps`](crate::plan::Plan::steps).
///
/// # Errors
/// As [`entry`].
pub fn traced_entry(model: &Model, trace: &str) -> Result<Input> {
    Ok(build(model, Some(trace))?.0)
}

fn build(model: &Model, trace: Option<&str>) -> Result<(Input, Vec<(Block, u64)>)> {
    let params = vec![model.pointer(); model.arguments().len()];
    let plan = model.plan;
    let operators: BTreeMap<OpId, usize> = plan.order.iter().enumerate().map(|(i, op)| (*op, i)).collect();
    let run = &model.names.run.symbol;
    counted_function(model, run, true, &params, Some(types::I32), |f| {
        let arguments = f.params.clone();
        let mut body = Body::new(f, &arguments)?;
        body.begin()?;
        let mut runs = model.lowering.streams.runs.iter();
        let mut at = 0;
        while let Some(step) = plan.steps.get(at) {
            if step.rows.is_some() {
                let run = runs.next().filter(|run| run.steps.start == at);
                let run = run.ok_or_else(|| Error::internal("rows without a tape"))?;
                body.rows(run, trace)?;
                at = run.steps.end;
                continue;
            }
            let operator = operators.get(&step.op).copied();
            body.operator(operator.ok_or_else(|| Error::internal("a step without an operator"))?)?;
            if let Some(trace) = trace {
                body.trace(trace, at, step.op)?;
            }
            at += 1;
        }
        body.end()?;
        body.f.return_status(super::OK);
        Ok(())
    })
}
