//! Parameters that are not in the object: which they are, and what that means for the plan.

use super::Options;
use crate::error::{Error, Result};
use crate::graph::{Graph, OpId};
use crate::image::{self, Access, Image};
use crate::kernels::{Lowering, Operand, lower};
use crate::names::Names;
use crate::place::{Homes, homes};
use crate::plan::{Io, Place, Plan, check, plan_with};
use std::collections::{BTreeMap, BTreeSet};

/// The kernels of a graph, and where their parameters are.
pub(super) struct Lowered {
    pub lowering: Lowering,
    pub names: Names,
    /// The parameters that the options send outside, if there are any.
    pub image: Option<Image>,
}

/// Lowers a graph. Layers that would stream more at once than the options allow are cut into pieces.
pub(super) fn lower(graph: &Graph, options: &Options) -> Result<Lowered> {
    let (target, most) = (&options.target, options.stream_buffer);
    let mut lowering = lower::lower(graph, target)?;
    let mut names = Names::new(graph, &lowering);
    let homes = |lowering: &Lowering, names: &Names| homes(&options.place, options.params, graph, lowering, names);
    let Homes { access, mut outside } = homes(&lowering, &names)?;
    if access == Some(Access::Streamed) {
        whole(graph, &lowering, &outside)?;
        let large: BTreeSet<OpId> = (lowering.calls.iter())
            .filter(|call| image::at_once(&lowering, call, &outside) > most)
            .map(|call| call.op)
            .collect();
        if !large.is_empty() {
            lowering = lower::lower_in_pieces(graph, target, &large, most)?;
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
    Ok(Lowered { lowering, names, image })
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
/// kept in the arena until none can.
pub(super) fn plan(graph: &Graph, lowering: &Lowering, image: Option<&Image>, io: Io) -> Result<Plan> {
    let streamed = image.filter(|image| image.access == Access::Streamed);
    let mut plan = plan_with(graph, lowering, io, &[])?;
    if let Some(image) = streamed {
        // Another plan may have another order, in which others are early.
        let mut kept = Vec::new();
        loop {
            let more = early(graph, lowering, &plan, image);
            if more.is_empty() {
                break;
            }
            kept.extend(more);
            plan = plan_with(graph, lowering, io, &kept)?;
        }
        plan.stage(image.staging, image.align);
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
