//! `<model>_step`: one operator at a time.

use super::body::Body;
use super::frame::function;
use super::{ERROR_STEP, Location, MORE, Model, OK};
use crate::codegen::Input;
use crate::error::{Error, Result};
use crate::names::Helper;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, types};

/// `int32_t <model>_step(uint32_t *step, …)`, exported, with the arguments of `<model>_run` behind the first. `*step` is
/// the operator that runs: 0 begins a run, the function counts it up, and after the last operator it is 0 again.
///
/// # Errors
/// As [`entry`](super::entry).
pub(super) fn step(model: &Model) -> Result<Input> {
    if model.plan.steps.iter().any(|step| step.rows.is_some()) {
        return Err(Error::internal(
            "operators that run row by row do not run one at a time",
        ));
    }
    let params = vec![model.pointer(); 1 + model.arguments().len()];
    function(
        model,
        model.helper(Helper::Step),
        true,
        &params,
        Some(types::I32),
        |f| {
            let (counter, arguments) = (f.params[0], f.params[1..].to_vec());
            f.refuse_null(counter);
            let mut body = Body::new(f, &arguments)?;
            // A run that fails begins again.
            body.f.reset = Some(counter);
            let step = body.f.load(types::I32, counter, 0);
            let end = model.plan.order.len();
            let count = body.f.int(types::I32, end.max(1) as i64);
            let known = body.f.b.ins().icmp(IntCC::UnsignedLessThan, step, count);
            body.f.check(known, ERROR_STEP);
            if end == 0 {
                body.end()?;
                body.f.return_status(OK);
                return Ok(());
            }
            // A tree of comparisons; each leaf is an operator.
            let more = body.f.b.create_block();
            let mut open = vec![(body.f.b.create_block(), 0..end)];
            body.f.b.ins().jump(open[0].0, &[]);
            while let Some((block, range)) = open.pop() {
                body.f.b.switch_to_block(block);
                body.f.b.set_srcloc(Location::Checks.source());
                if range.len() > 1 {
                    let middle = range.start + range.len() / 2;
                    let bound = body.f.int(types::I32, middle as i64);
                    let first = body.f.b.ins().icmp(IntCC::UnsignedLessThan, step, bound);
                    let [low, high] = [body.f.b.create_block(), body.f.b.create_block()];
                    body.f.b.ins().brif(first, low, &[], high, &[]);
                    open.push((high, middle..range.end));
                    open.push((low, range.start..middle));
                    continue;
                }
                if range.start == 0 {
                    body.begin()?;
                }
                body.shared.forget(model);
                body.operator(range.start)?;
                if range.end < end {
                    body.f.b.ins().jump(more, &[]);
                    continue;
                }
                body.end()?;
                let zero = body.f.int(types::I32, 0);
                body.f.store(zero, counter, 0);
                body.f.return_status(OK);
            }
            if end > 1 {
                body.f.b.switch_to_block(more);
                body.f.b.set_srcloc(Location::Return.source());
                let one = body.f.int(types::I32, 1);
                let next = body.f.b.ins().iadd(step, one);
                body.f.store(next, counter, 0);
                body.f.return_status(MORE);
            }
            Ok(())
        },
    )
}
