//! Parameters that are not in the object: which they are, and what that means for the plan.

use super::Options;
use super::memory::{self, Counts};
use super::pools;
use crate::error::{Error, Result};
use crate::graph::{Graph, OpId};
use crate::image::{self, Access, Image};
use crate::kernels::lower::{self, Forms};
use crate::kernels::{Lowering, Operand};
use crate::names::Names;
use crate::place::{Homes, homes};
use crate::plan::{Place, Plan, Streaming, check, plan_with};
use crate::target::Target;
use std::collections::{BTreeMap, BTreeSet};

/// The kernels of a graph, and where their parameters are.
pub(super) struct Lowered {
    pub lowering: Lowering,
    pub names: Names,
    /// The parameters that the options send outside, if there are any.
    pub image: Option<Image>,
    /// Instructions of its forms, where they were counted.
    pub counts: Option<Counts>,
}

/// Lowers a graph. Layers that would stream more at once than the options allow are cut into pieces. Where parameters are
/// streamed, or the application sees or runs single operators, none runs row by row.
pub(super) fn lower(graph: &Graph, target: &Target, options: &Options) -> Result<Lowered> {
    let most = options.stream_buffer;
    let homes = |lowering: &Lowering, names: &Names| homes(&options.place, options.params, graph, lowering, names);
    let (mut lowering, mut forms, mut counts) =
        memory::lower(graph, target, options, !options.steps && !options.hooks)?;
    let mut names = Names::new(graph, &lowering);
    let Homes {
        mut access,
        mut outside,
    } = homes(&lowering, &names)?;
    if access == Some(Access::Streamed) {
        if forms.rows {
            (lowering, forms, counts) = memory::lower(graph, target, options, false)?;
            names = Names::new(graph, &lowering);
            Homes { access, outside } = homes(&lowering, &names)?;
        }
        whole(graph, &lowering, &outside)?;
        let large: BTreeSet<OpId> = (lowering.calls.iter())
            .filter(|call| image::at_once(&lowering, call, &outside) > most)
            .map(|call| call.op)
            .collect();
        if !large.is_empty() {
            forms = Forms {
                cut: large,
                most,
                ..forms
            };
            lowering = lower::lower_with(graph, target, &forms)?;
            names = Names::new(graph, &lowering);
            outside = homes(&lowering, &names)?.outside;
            // What was cut is streamed, whatever rules say about the sum of its pieces.
            for call in lowering.calls.iter().filter(|call| !call.launches.is_empty()) {
                for operand in &call.operands {
                    if let Operand::Parameter(id) = operand {
                        outside[id.0 as usize] = true;
                    }
                }
            }
        }
    }
    let image = |access| Image::new(graph, &lowering, target, access, &outside, most);
    let image = access.map(image).transpose()?;
    Ok(Lowered {
        lowering,
        names,
        image,
        counts,
    })
}

/// Refuses to stream what an external function reads: it wants all of a parameter, where it stays.
fn whole(graph: &Graph, lowering: &Lowering, outside: &[bool]) -> Result<()> {
    for call in lowering.calls.iter().filter(|call| call.kernel.is_none()) {
        let streamed = call.operands.iter().find_map(|operand| match operand {
            Operand::Parameter(id) if outside[id.0 as usize] => Some(&lowering.parameter(*id).name),
            _ => None,
        });
        if let Some(name) = streamed {
            let message = format!("an external function reads {name:?} as a whole: it cannot be streamed");
            return Err(Error::unsupported(message)
                .at(graph.op(call.op).describe())
                .help(format!("keep it in the object: --place '{name}=embedded'")));
        }
    }
    Ok(())
}

/// A plan, checked, with buffers for what is streamed. Outputs that would be written while a read can still fail are
/// kept in the arena until none can. Of the lowering what the plan does not use is dropped.
pub(super) fn plan(graph: &Graph, lowered: &mut Lowered, target: &Target, options: &Options) -> Result<Plan> {
    let Lowered {
        lowering,
        names,
        image,
        counts,
    } = lowered;
    let by_rows = !lowering.row_calls.is_empty();
    let mut plan = memory::plan(graph, lowering, target, options, counts.as_ref())?;
    if by_rows {
        // Other parameters are left, and there are tapes and tables.
        *names = Names::new(graph, lowering);
        let Homes { access, outside } = homes(&options.place, options.params, graph, lowering, names)?;
        let new = |access| Image::new(graph, lowering, target, access, &outside, options.stream_buffer);
        *image = access.map(new).transpose()?;
    }
    if let Some(image) = image.as_ref().filter(|image| image.access == Access::Streamed) {
        // Another plan may have another order, in which others are early.
        let mut kept = Vec::new();
        loop {
            let more = early(graph, lowering, &plan, image);
            if more.is_empty() {
                break;
            }
            kept.extend(more);
            plan = plan_with(graph, lowering, options.io, Streaming::Never, &kept)?;
        }
        plan = pools::divide(plan, graph, lowering, options, Some(image))?;
    }
    check(graph, lowering, &plan)?;
    Ok(plan)
}

/// The outputs behind pointers that an operator writes before the last piece has been read.
fn early(graph: &Graph, lowering: &Lowering, plan: &Plan, image: &Image) -> Vec<usize> {
    let calls: BTreeMap<_, _> = lowering.calls.iter().map(|call| (call.op, call)).collect();
    // The steps whose call reads, and whether it does so after it has begun to write.
    let mut last = None;
    for (step, op) in plan.order.iter().enumerate() {
        let Some(call) = calls.get(op) else { continue };
        let reads = (call.operands.iter()).any(|o| matches!(o, Operand::Parameter(id) if image.holds(*id)));
        if reads {
            let pieces: u64 = call.launches.iter().map(|launch| launch.count).sum();
            last = Some((step, pieces > 1));
        }
    }
    let Some((last, again)) = last else { return Vec::new() };
    let mut early = Vec::new();
    for (step, op) in plan.order.iter().enumerate() {
        if step > last || step == last && !again {
            break;
        }
        if let Place::Output(i) = plan.places[graph.op(*op).output().index()]
            && !early.contains(&i)
        {
            early.push(i);
        }
    }
    early.sort_unstable();
    early
}
