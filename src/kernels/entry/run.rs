//! `<model>_run`: all operators, one after the other.

use super::Model;
use super::body::Body;
use super::frame::function;
use crate::codegen::Input;
use crate::error::Result;
use cranelift_codegen::ir::types;

/// The entry point `<model>_run`, exported.
///
/// # Errors
/// [`Code::Internal`](crate::error::Code::Internal) if plan, lowering and graph do not fit one another.
pub fn entry(model: &Model) -> Result<Input> {
    build(model, None)
}

/// [`entry`], but after every call it calls `void trace(uint32_t step, const void *data, uint64_t len)` with the result
/// of that call; `step` is the index in [`Plan::order`](crate::plan::Plan::order).
///
/// # Errors
/// As [`entry`].
pub fn traced_entry(model: &Model, trace: &str) -> Result<Input> {
    build(model, Some(trace))
}

fn build(model: &Model, trace: Option<&str>) -> Result<Input> {
    let params = vec![model.pointer(); model.arguments().len()];
    function(model, &model.names.run.symbol, true, &params, Some(types::I32), |f| {
        let arguments = f.params.clone();
        let mut body = Body::new(f, &arguments)?;
        body.begin()?;
        for step in 0..model.plan.order.len() {
            body.operator(step)?;
            if let Some(trace) = trace {
                body.trace(trace, step)?;
            }
        }
        body.end()?;
        body.f.return_status(super::OK);
        Ok(())
    })
}
