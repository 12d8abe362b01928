//! Operators one row at a time: kernels that make one row of the result, from rows that need not adjoin.
//!
//! The kernel of a row is that of the same operator on tensors of one row, with one exception: where the window has
//! several rows, the kernel reads them through a table of pointers. A row above or below the input is a row of constants.
//! A pool over the whole height is several kernels that add one row of the input each to sums that are kept in between.

use super::average::Average;
use super::emit::{self, Emitter};
use super::lanes;
use super::lower::lower_op;
use super::lowered::{Lowered, LoweredOperand};
use super::pool::{self, Patch};
use super::reduce::Rescale;
use super::{Parameter, ParameterKind, Scratch, copy, mac, pool_dsp, pool_rows};
use crate::data::{Bytes, Contents};
use crate::error::Result;
use crate::graph::quant::activation_range;
use crate::graph::{Activation, DType, Graph, Op, OpId, OpKind, PoolOp, Shape, TensorId, Window};
use crate::target::Target;
use cranelift_codegen::ir::Value;

/// Most rows of a window.
const TAPS: usize = 16;
/// Most kernels of a pool, with those for windows that reach over an edge.
const EDGES: usize = 5;

/// Which rows of the input a row of the output needs: `row·stride − top + tap·dilation`, if it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taps {
    /// Rows of the window.
    pub count: u32,
    /// From one output's first row to the next's.
    pub stride: u32,
    /// From one row of the window to the next.
    pub dilation: u32,
    /// Rows above the input.
    pub top: u32,
}

/// Which of an operator's steps a call makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// Those for rows `first .. end` of the result.
    Rows {
        /// First row.
        first: u32,
        /// One past the last.
        end: u32,
    },
    /// Those that are `first .. end` in the order in which they run, whichever rows of the input they take.
    Turns {
        /// First turn.
        first: u32,
        /// One past the last.
        end: u32,
    },
}

impl Steps {
    /// How many they are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        match *self {
            Steps::Rows { first, end } | Steps::Turns { first, end } => end - first,
        }
    }

    /// Whether the step for `row` that runs as number `turn` is one of them.
    pub fn contains(&self, row: u32, turn: u32) -> bool {
        match *self {
            Steps::Rows { first, end } => (first..end).contains(&row),
            Steps::Turns { first, end } => (first..end).contains(&turn),
        }
    }
}

/// An operator row by row.
pub struct RowForm {
    /// Steps in all: rows of the result, or of the input if it is summed up.
    pub steps: u32,
    /// The windows, if the input is read through a table of pointers.
    pub taps: Option<Taps>,
    /// The row that stands for rows outside the input.
    pub outside: Option<Parameter>,
    /// What is kept from step to step.
    pub state: Option<Scratch>,
    /// The calls.
    pub calls: Vec<(Steps, Lowered)>,
}

/// The row form of an operator; `None` if it has none, or if its tensors have one row only.
///
/// # Errors
/// As [`lower_op`].
pub fn row_form(graph: &Graph, op: OpId, target: &Target) -> Result<Option<RowForm>> {
    let (input, output) = (graph.op(op).inputs.first(), graph.op(op).output());
    let Some(input) = input.map(|id| graph.tensor(*id)) else {
        return Ok(None);
    };
    let image = |shape: &Shape| shape.0.len() == 4 && shape.0[0] == 1;
    let to = graph.tensor(output);
    if !image(&input.shape) || input.data.is_some() {
        return Ok(None);
    }
    let height = input.shape.0[1];
    if height > u16::MAX as usize || height < 2 {
        return Ok(None);
    }
    if let OpKind::Mean { axes, .. } = &graph.op(op).kind {
        let image = axes.len() == 2 && axes.contains(&1) && axes.contains(&2);
        let int8 = input.dtype == DType::I8 && to.dtype == DType::I8;
        return match image && int8 {
            true => sums(graph, op, target, Mean::Rescaled),
            false => Ok(None),
        };
    }
    if !image(&to.shape) {
        return Ok(None);
    }
    let rows = to.shape.0[1];
    match &graph.op(op).kind {
        OpKind::Conv2d { window, .. } | OpKind::DepthwiseConv2d { window, .. } if rows > 1 => {
            windows(graph, op, target, window)
        }
        OpKind::Pool2d {
            op: PoolOp::Average,
            window,
            activation,
        } if rows == 1 && input.dtype == DType::I8 && window.size[0] >= height => {
            whole(graph, op, target, window, *activation)
        }
        OpKind::Pool2d { window, .. } if rows > 1 => pools(graph, op, target, window),
        OpKind::Pad { amounts, value } if rows > 1 && amounts[0] == [0, 0] && amounts[1] != [0, 0] => {
            pads(graph, op, target, amounts[1], *value)
        }
        kind if is_by_row(kind) => {
            let same = |id: &TensorId| {
                let tensor = graph.tensor(*id);
                let row = tensor.shape.0.len() == 4 && tensor.shape.0[..2] == to.shape.0[..2];
                // A constant that is the same for all rows.
                let dims = tensor.shape.0.as_slice();
                row && tensor.data.is_none()
                    || tensor.data.is_some() && dims.iter().rev().skip(2).all(|dim| *dim == 1)
                    || graph.op(op).kind == OpKind::Lookup && tensor.data.is_some()
            };
            if rows < 2 || !graph.op(op).inputs.iter().all(same) {
                return Ok(None);
            }
            let row = Derived::new(graph, op, 1, None);
            let lowered = lower_op(&row.graph, OpId(0), target)?;
            Ok(lowered.map(|lowered| RowForm {
                steps: rows as u32,
                taps: None,
                outside: None,
                state: None,
                calls: vec![(
                    Steps::Rows {
                        first: 0,
                        end: rows as u32,
                    },
                    row.lowered(lowered, false),
                )],
            }))
        }
        _ => Ok(None),
    }
}

/// Whether a row of the result depends on the rows of the same number alone.
fn is_by_row(kind: &OpKind) -> bool {
    match kind {
        OpKind::Binary { .. }
        | OpKind::Unary { .. }
        | OpKind::Lookup
        | OpKind::Quantize
        | OpKind::Dequantize
        | OpKind::Copy
        | OpKind::Softmax { .. } => true,
        OpKind::Concat { axis } => *axis > 1,
        OpKind::Pad { amounts, .. } => amounts.iter().take(2).all(|amount| *amount == [0, 0]),
        _ => false,
    }
}

/// The operator alone in a graph of one row.
struct Derived {
    graph: Graph,
    /// For every tensor of it, the original.
    original: Vec<TensorId>,
}

impl Derived {
    /// With `rows` rows of activations, one of the result, and another window.
    fn new(graph: &Graph, op: OpId, rows: usize, window: Option<Window>) -> Self {
        let op = graph.op(op);
        let mut derived = Graph {
            name: graph.name.clone(),
            ..Graph::default()
        };
        let mut original = Vec::new();
        let mut add = |id: TensorId, rows: usize| {
            let mut tensor = graph.tensor(id).clone();
            if tensor.data.is_none() {
                tensor.shape.0[1] = rows;
            }
            original.push(id);
            derived.add_tensor(tensor)
        };
        // An operand that is there twice is one tensor.
        let mut inputs: Vec<TensorId> = Vec::new();
        for (i, id) in op.inputs.iter().enumerate() {
            let before = op.inputs[..i].iter().position(|known| known == id);
            let new = before.map_or_else(|| add(*id, rows), |before| inputs[before]);
            inputs.push(new);
        }
        let output = add(op.output(), 1);
        let mut kind = op.kind.clone();
        if let Some(with) = window {
            match &mut kind {
                OpKind::Conv2d { window, .. }
                | OpKind::DepthwiseConv2d { window, .. }
                | OpKind::Pool2d { window, .. } => *window = with,
                _ => {}
            }
        }
        derived.ops.push(Op {
            name: op.name.clone(),
            source: op.source,
            kind,
            inputs,
            outputs: vec![output],
        });
        Derived {
            graph: derived,
            original,
        }
    }

    /// A kernel of it in terms of the original's tensors. `table` if the first input is read through pointers.
    fn lowered(&self, mut lowered: Lowered, table: bool) -> Lowered {
        let original = |id: &TensorId| self.original[id.index()];
        let input = self.graph.ops[0].inputs[0];
        for operand in &mut lowered.operands {
            if let LoweredOperand::Tensor(id) = operand {
                *operand = match self.graph.tensor(*id).data {
                    Some(_) => LoweredOperand::Tensor(original(id)),
                    None if table && *id == input => LoweredOperand::Window(original(id)),
                    None => LoweredOperand::Row(original(id)),
                };
            }
        }
        for parameter in lowered.operands.iter_mut().filter_map(|operand| match operand {
            LoweredOperand::Parameter(parameter) => Some(parameter),
            _ => None,
        }) {
            parameter.tensors = parameter.tensors.iter().map(original).collect();
        }
        lowered
            .overlaps
            .iter_mut()
            .for_each(|overlap| overlap.input = original(&overlap.input));
        lowered
    }
}

/// Convolutions.
fn windows(graph: &Graph, op: OpId, target: &Target, window: &Window) -> Result<Option<RowForm>> {
    let input = graph.tensor(graph.op(op).inputs[0]);
    let rows = graph.tensor(graph.op(op).output()).shape.0[1] as u32;
    let taps = window.size[0];
    if taps > TAPS {
        return Ok(None);
    }
    let mut one = *window;
    (one.padding.top, one.padding.bottom, one.stride[0], one.dilation[0]) = (0, 0, 1, 1);
    let row = Derived::new(graph, op, taps, Some(one));
    let table = taps > 1;
    // A single tap still steps over rows.
    let taps = Taps {
        count: taps as u32,
        stride: window.stride[0] as u32,
        dilation: window.dilation[0] as u32,
        top: window.padding.top as u32,
    };
    let above_or_below = window.padding.top + window.padding.bottom > 0;
    let aside = window.padding.left + window.padding.right > 0;
    if !table && above_or_below {
        return Ok(None);
    }
    let outside = (above_or_below || table && aside).then(|| {
        outside(
            input.dtype,
            input.shape.0[2..].iter().product::<usize>() * input.dtype.bytes(),
            input.affine().1,
        )
    });
    let lowered = match (&row.graph.ops[0].kind, table) {
        (_, false) => lower_op(&row.graph, OpId(0), target)?,
        (OpKind::Conv2d { .. }, _) => Some(mac::conv2d_rows(&row.graph, OpId(0), target, outside.as_ref())?),
        _ => Some(mac::depthwise_rows(&row.graph, OpId(0), target, outside.as_ref())?),
    };
    Ok(lowered.map(|lowered| RowForm {
        steps: rows,
        taps: Some(taps),
        outside,
        state: None,
        calls: vec![(Steps::Rows { first: 0, end: rows }, row.lowered(lowered, table))],
    }))
}

/// A row of positions outside the input.
fn outside(dtype: DType, bytes: usize, zero: i32) -> Parameter {
    let zero = if dtype == DType::F32 { 0 } else { zero as u8 };
    Parameter {
        name: format!("outside.{}", zero as i8),
        kind: ParameterKind::Table,
        tensors: vec![],
        align: 4,
        contents: Contents::Bytes(Bytes::from_vec(vec![zero; bytes])),
    }
}

/// Pools. Rows of the result whose windows reach over the upper or the lower edge have kernels of their own, which leave
/// out what is outside.
fn pools(graph: &Graph, op: OpId, target: &Target, window: &Window) -> Result<Option<RowForm>> {
    let height = graph.tensor(graph.op(op).inputs[0]).shape.0[1];
    let rows = graph.tensor(graph.op(op).output()).shape.0[1];
    let (taps, stride, top) = (window.size[0], window.stride[0], window.padding.top);
    if taps > TAPS || window.dilation[0] != 1 {
        return Ok(None);
    }
    let mut one = *window;
    (one.padding.top, one.padding.bottom, one.stride[0]) = (0, 0, 1);
    let row = Derived::new(graph, op, taps, Some(one));
    let table = taps > 1;
    let OpKind::Pool2d {
        op: kind, activation, ..
    } = row.graph.ops[0].kind
    else {
        return Ok(None);
    };
    // Which rows of the window are inside, for each row of the result.
    let inside = |y: usize| {
        let first = top.saturating_sub(y * stride);
        first..(height + top).saturating_sub(y * stride).min(taps)
    };
    let mut calls: Vec<(Steps, Lowered)> = Vec::new();
    let mut y = 0;
    while y < rows {
        let taken = inside(y);
        let end = (y + 1..rows).find(|y| inside(*y) != taken).unwrap_or(rows);
        let lowered = match table {
            _ if taken.is_empty() => None,
            true => pool_rows::pool(&row.graph, OpId(0), target, (kind, activation), &one, taken),
            false => lower_op(&row.graph, OpId(0), target)?,
        };
        let Some(lowered) = lowered.filter(|_| calls.len() < EDGES) else {
            return Ok(None);
        };
        let steps = Steps::Rows {
            first: y as u32,
            end: end as u32,
        };
        calls.push((steps, row.lowered(lowered, table)));
        y = end;
    }
    Ok(Some(RowForm {
        steps: rows as u32,
        taps: Some(Taps {
            count: taps as u32,
            stride: stride as u32,
            dilation: 1,
            top: top as u32,
        }),
        outside: None,
        state: None,
        calls,
    }))
}

/// Constant padding above and below, and aside.
fn pads(graph: &Graph, op: OpId, target: &Target, [above, below]: [usize; 2], value: u64) -> Result<Option<RowForm>> {
    let rows = graph.tensor(graph.op(op).output()).shape.0[1];
    let mut row = Derived::new(graph, op, 1, None);
    if let OpKind::Pad { amounts, .. } = &mut row.graph.ops[0].kind {
        amounts[1] = [0, 0];
    }
    let Some(inner) = lower_op(&row.graph, OpId(0), target)? else {
        return Ok(None);
    };
    let mut calls = Vec::new();
    for (first, end) in [(0, above), (rows - below, rows)]
        .into_iter()
        .filter(|(first, end)| first < end)
    {
        let steps = Steps::Rows {
            first: first as u32,
            end: end as u32,
        };
        calls.push((steps, copy::pad_row(graph, op, target, value)));
    }
    let steps = Steps::Rows {
        first: above as u32,
        end: (rows - below) as u32,
    };
    calls.push((steps, row.lowered(inner, false)));
    Ok(Some(RowForm {
        steps: rows as u32,
        taps: Some(Taps {
            count: 1,
            stride: 1,
            dilation: 1,
            top: above as u32,
        }),
        outside: None,
        state: None,
        calls,
    }))
}

/// Average pools over all rows and columns.
fn whole(graph: &Graph, op: OpId, target: &Target, window: &Window, activation: Activation) -> Result<Option<RowForm>> {
    let [_, height, width, _] = graph.tensor(graph.op(op).inputs[0]).shape.nhwc();
    let whole = window.size == [height, width] && window.padding == Default::default();
    match whole {
        true => sums(graph, op, target, Mean::Average(activation)),
        false => Ok(None),
    }
}

/// What the sums of all positions become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mean {
    /// Their average, in the input's scale.
    Average(Activation),
    /// Their mean in the output's scale.
    Rescaled,
}

/// [`Mean`], with its constants at hand.
enum Ending {
    Average(Average),
    Rescaled(Rescale),
}

impl Ending {
    fn emit(&self, e: &mut Emitter, sum: Value) -> Value {
        match self {
            Ending::Average(average) => average.emit(e, sum),
            Ending::Rescaled(rescale) => rescale.emit(e, sum),
        }
    }
}

/// Means over all rows: the first kernel starts the sums, the last one ends them.
fn sums(graph: &Graph, op: OpId, target: &Target, mean: Mean) -> Result<Option<RowForm>> {
    let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
    let (from, to) = (graph.tensor(input), graph.tensor(output));
    let [_, height, width, channels] = from.shape.nhwc();
    let count = (height * width) as u64;
    let (most, activation) = match mean {
        Mean::Average(activation) => (super::average::MOST, activation),
        Mean::Rescaled => (super::reduce::MOST, Activation::None),
    };
    if count > most || height > u16::MAX as usize {
        return Ok(None);
    }
    let steps = height as u32;
    let range = to
        .quantization
        .as_ref()
        .map_or((-128, 127), |q| activation_range(activation, DType::I8, q));
    let patch = Patch {
        rows: 1,
        columns: width as u64,
        row: (width * channels) as i64,
        column: channels as i64,
    };
    let stems = match mean {
        Mean::Average(_) => ["average_first", "average_next", "average_last"],
        Mean::Rescaled => ["mean_first", "mean_next", "mean_last"],
    };
    let kernel = |begins: bool, ends: bool| {
        let mut operands = vec![LoweredOperand::Row(input), LoweredOperand::State];
        if ends {
            operands.push(LoweredOperand::Tensor(output));
        }
        let built = emit::build(target, operands.len(), |e| {
            let ending = ends.then(|| match mean {
                Mean::Average(_) => Ending::Average(Average::new(e, count)),
                Mean::Rescaled => Ending::Rescaled(Rescale::new(e, from, to, count)),
            });
            let mut streams = vec![(e.args[0], 1), (e.args[1], 4)];
            streams.extend(ends.then(|| (e.args[2], 1)));
            let step = |e: &mut Emitter, p: &[Value], mut sums: Vec<Value>, at: i32, width: usize| {
                let lane = |i: usize| 4 * (at + if width == 1 { i as i32 } else { 4 * i as i32 });
                for (i, sum) in sums.iter_mut().enumerate().filter(|_| !begins) {
                    let ty = e.b.func.dfg.value_type(*sum);
                    let before = e.load(ty, p[1], lane(i));
                    *sum = cranelift_codegen::ir::InstBuilder::iadd(e.b.ins(), before, *sum);
                }
                match &ending {
                    Some(ending) => {
                        let means: Vec<Value> = sums.into_iter().map(|sum| ending.emit(e, sum)).collect();
                        match width {
                            1 => (means.iter().enumerate()).for_each(|(i, mean)| {
                                e.store_narrow(&[*mean], DType::I8, range, p[2], at + i as i32, 1)
                            }),
                            _ => e.store_narrow(&means, DType::I8, range, p[2], at, width),
                        }
                    }
                    None => (sums.into_iter().enumerate()).for_each(|(i, sum)| e.store(sum, p[1], lane(i))),
                }
            };
            // Four channels in a word.
            let fours = if pool_dsp::fits(e.target, DType::I8, patch) {
                channels / 4
            } else {
                0
            };
            let moving: Vec<(Value, i64)> = streams.iter().map(|(p, unit)| (*p, 4 * unit)).collect();
            let (_, after) = e.counted(fours as u64, &moving, &[], |e, p, _| {
                let sums = pool_dsp::sums(e, p[0], patch);
                step(e, p, sums.to_vec(), 0, 1);
                vec![]
            });
            let rest = (channels - 4 * fours) as u64;
            let streams: Vec<(Value, i64)> = after
                .into_iter()
                .zip(&streams)
                .map(|(p, (_, unit))| (p, *unit))
                .collect();
            e.sweep_unrolled(1, rest, &streams, lanes::BYTES, &mut |e, p, at, width| {
                let sums = pool::sums(e, p[0], at as i32, patch, width);
                step(e, p, sums, at as i32, width);
            });
        });
        Lowered {
            built,
            stem: match (begins, ends) {
                (true, _) => stems[0],
                (_, true) => stems[2],
                _ => stems[1],
            },
            schedule: lanes::name(target, 16).to_owned(),
            operands,
            scratch: None,
            overlaps: vec![],
        }
    };
    // A vector's width at the end is computed twice, which sums must not be.
    if target.machine().simd128 && !channels.is_multiple_of(16) {
        return Ok(None);
    }
    let turns = |first, end| Steps::Turns { first, end };
    let mut calls = vec![(turns(0, 1), kernel(true, false))];
    if steps > 2 {
        calls.push((turns(1, steps - 1), kernel(false, false)));
    }
    calls.push((turns(steps - 1, steps), kernel(false, true)));
    Ok(Some(RowForm {
        steps,
        taps: None,
        outside: None,
        state: Some(Scratch {
            size: 4 * channels as u64,
            align: 4,
        }),
        calls,
    }))
}
