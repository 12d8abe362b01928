//! Graph → text.

use super::{ACTIVATIONS, element, float};
use crate::data::{Bytes, CHUNK};
use crate::graph::external::{Argument, Convention, External, Workspace};
use crate::graph::{Activation, DType, Graph, Op, OpId, OpKind, Padding, Quantization, Shape, TensorId, Window};
use std::fmt::{self, Write};

/// Constants of up to this many elements are printed whole in the listing.
const SMALL_ELEMENTS: u64 = 32;
/// As many scales are printed in the listing.
const SMALL_AXIS: usize = 8;
/// `print_full` writes constants of up to this many elements as numbers, larger ones in hexadecimal.
const NUMBERS: u64 = 1024;

/// The listing for people: bytes of large constants and long lists of scales are left out, hashes stand for them.
pub fn print(graph: &Graph) -> String {
    Printer::new(graph, false).run()
}

/// What a line of the listing is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The model's name.
    Graph,
    /// An operator and what it produces.
    Op(OpId),
    /// An input, a constant or a tensor that nobody uses.
    Tensor(TensorId),
    /// The outputs.
    Outputs,
}

/// The lines of [`print`], each with its end and what it is about.
pub fn lines(graph: &Graph) -> Vec<(Subject, String)> {
    let mut printer = Printer::new(graph, false);
    printer.write().expect("writing to a string cannot fail");
    let lines = printer.text.split_inclusive('\n').map(str::to_owned);
    printer.subjects.into_iter().zip(lines).collect()
}

/// The whole graph, so that [`parse`](super::parse) gives it back.
pub fn print_full(graph: &Graph) -> String {
    Printer::new(graph, true).run()
}

struct Printer<'g> {
    graph: &'g Graph,
    full: bool,
    text: String,
    /// Of every line, and only they contain line breaks: names are escaped.
    subjects: Vec<Subject>,
    printed: Vec<bool>,
}

impl<'g> Printer<'g> {
    fn new(graph: &'g Graph, full: bool) -> Self {
        Printer {
            graph,
            full,
            text: String::new(),
            subjects: Vec::new(),
            printed: vec![false; graph.tensors.len()],
        }
    }

    fn run(mut self) -> String {
        self.write().expect("writing to a string cannot fail");
        self.text
    }

    /// Inputs, then every operator with the constants that it is the first to read in front, then what is unused.
    fn write(&mut self) -> fmt::Result {
        let graph = self.graph;
        self.subjects.push(Subject::Graph);
        writeln!(self.text, "graph {:?}", graph.name)?;
        for &id in &graph.inputs {
            self.tensor("input", id)?;
        }
        for (index, op) in graph.ops.iter().enumerate() {
            for &id in &op.inputs {
                if graph
                    .tensors
                    .get(id.index())
                    .is_some_and(|tensor| tensor.data.is_some())
                {
                    self.tensor("const", id)?;
                }
            }
            self.op(index, op)?;
        }
        for id in (0..graph.tensors.len() as u32).map(TensorId) {
            let constant = graph.tensor(id).data.is_some();
            self.tensor(if constant { "const" } else { "tensor" }, id)?;
        }
        if !graph.outputs.is_empty() {
            let ids: Vec<String> = graph.outputs.iter().map(|id| format!("%{}", id.0)).collect();
            self.subjects.push(Subject::Outputs);
            writeln!(self.text, "output {}", ids.join(", "))?;
        }
        Ok(())
    }

    /// The line of a tensor that no operator produces, once.
    fn tensor(&mut self, keyword: &str, id: TensorId) -> fmt::Result {
        match self.printed.get_mut(id.index()) {
            Some(printed) if !*printed => *printed = true,
            _ => return Ok(()),
        }
        self.subjects.push(Subject::Tensor(id));
        write!(self.text, "{keyword} ")?;
        self.value(id)?;
        let tensor = self.graph.tensor(id);
        if let (Some(data), "const") = (&tensor.data, keyword) {
            self.text.write_str(" = ")?;
            self.data(tensor.dtype, data)?;
        }
        self.text.write_char('\n')
    }

    /// `%3 "name" : int8[1,2] q(0.5,-3)`
    fn value(&mut self, id: TensorId) -> fmt::Result {
        write!(self.text, "%{}", id.0)?;
        let Some(tensor) = self.graph.tensors.get(id.index()) else {
            return Ok(());
        };
        write!(
            self.text,
            " {:?} : {}{}",
            tensor.name,
            tensor.dtype.name(),
            tensor.shape
        )?;
        match &tensor.quantization {
            Some(quantization) => self.quantization(quantization),
            None => Ok(()),
        }
    }

    fn quantization(
        &mut self,
        Quantization {
            scale,
            zero_point,
            axis,
        }: &Quantization,
    ) -> fmt::Result {
        if let (None, [scale], [zero]) = (axis, &scale[..], &zero_point[..]) {
            return write!(self.text, " q({},{zero})", float(*scale));
        }
        self.text.write_str(" q(")?;
        if let Some(axis) = axis {
            write!(self.text, "axis={axis}")?;
        }
        if !self.full && scale.len() > SMALL_AXIS {
            let mut hasher = blake3::Hasher::new();
            for (scale, zero) in scale.iter().zip(zero_point) {
                hasher.update(&scale.to_bits().to_le_bytes());
                hasher.update(&zero.to_le_bytes());
            }
            let least = scale.iter().copied().fold(f32::INFINITY, f32::min);
            let most = scale.iter().copied().fold(0.0, f32::max);
            let hash = short(&hasher.finalize());
            return write!(self.text, ", {} of {least:e}..{most:e} {hash})", scale.len());
        }
        for (scale, zero) in scale.iter().zip(zero_point) {
            write!(self.text, ", {}:{zero}", float(*scale))?;
        }
        self.text.write_char(')')
    }

    fn data(&mut self, dtype: DType, data: &Bytes) -> fmt::Result {
        let size = dtype.bytes();
        let count = data.len() / size as u64;
        let whole = count * size as u64 == data.len();
        let numbers = if self.full { NUMBERS } else { SMALL_ELEMENTS };
        match uniform(size, data) {
            Some(bits) if whole && count > 1 => return write!(self.text, "fill({})", element(dtype, bits)),
            _ => {}
        }
        if whole && count <= numbers {
            let elements: Vec<String> = data
                .as_slice()
                .chunks(size)
                .map(|bytes| element(dtype, bits(bytes)))
                .collect();
            return write!(self.text, "[{}]", elements.join(", "));
        }
        if self.full {
            self.text.write_str("hex ")?;
            for byte in data.as_slice() {
                write!(self.text, "{byte:02x}")?;
            }
            return Ok(());
        }
        let mut hasher = blake3::Hasher::new();
        match data.write_to(&mut hasher) {
            Ok(()) => write!(self.text, "{} bytes={}", short(&hasher.finalize()), data.len()),
            Err(error) => write!(self.text, "unreadable bytes={} # {error}", data.len()),
        }
    }

    fn op(&mut self, index: usize, op: &Op) -> fmt::Result {
        self.subjects.push(Subject::Op(OpId(index as u32)));
        for (i, &id) in op.outputs.iter().enumerate() {
            if i > 0 {
                self.text.write_str(", ")?;
            }
            self.value(id)?;
            if let Some(printed) = self.printed.get_mut(id.index()) {
                *printed = true;
            }
        }
        let inputs: Vec<String> = op.inputs.iter().map(|id| format!("%{}", id.0)).collect();
        write!(self.text, " = {}({})", op.kind.name(), inputs.join(", "))?;
        self.attributes(op)?;
        if op.source != index {
            write!(self.text, " source={}", op.source)?;
        }
        let result = op.outputs.first().and_then(|id| self.graph.tensors.get(id.index()));
        if result.is_none_or(|tensor| tensor.name != op.name) {
            write!(self.text, " name={:?}", op.name)?;
        }
        self.text.write_char('\n')
    }

    fn attributes(&mut self, op: &Op) -> fmt::Result {
        match &op.kind {
            OpKind::Conv2d { window, activation } => {
                self.window(window, self.filter_size(op))?;
                self.activation(*activation)
            }
            OpKind::DepthwiseConv2d {
                window,
                multiplier,
                activation,
            } => {
                self.window(window, self.filter_size(op))?;
                if *multiplier != 1 {
                    write!(self.text, " multiplier={multiplier}")?;
                }
                self.activation(*activation)
            }
            OpKind::Pool2d { window, activation, .. } => {
                self.window(window, [1, 1])?;
                self.activation(*activation)
            }
            OpKind::FullyConnected { activation } | OpKind::Binary { activation, .. } => self.activation(*activation),
            OpKind::Softmax { beta } if beta.to_bits() != 1f32.to_bits() => {
                write!(self.text, " beta={}", float(*beta))
            }
            OpKind::Mean { axes, keep_dims } => {
                let axes: Vec<String> = axes.iter().map(usize::to_string).collect();
                if !axes.is_empty() {
                    write!(self.text, " axes={}", axes.join(","))?;
                }
                self.text.write_str(if *keep_dims { " keep" } else { "" })
            }
            OpKind::Pad { amounts, value } => {
                let pairs: Vec<String> = amounts
                    .iter()
                    .map(|[before, after]| format!("{before}:{after}"))
                    .collect();
                if !pairs.is_empty() {
                    write!(self.text, " amounts={}", pairs.join(","))?;
                }
                let dtype = op
                    .outputs
                    .first()
                    .and_then(|id| self.graph.tensors.get(id.index()))
                    .map(|t| t.dtype);
                match dtype {
                    _ if *value == 0 => Ok(()),
                    Some(dtype) if *value >> (8 * dtype.bytes() - 1) <= 1 => {
                        write!(self.text, " value={}", element(dtype, *value))
                    }
                    _ => write!(self.text, " value={value:#x}"),
                }
            }
            OpKind::Concat { axis } => write!(self.text, " axis={axis}"),
            OpKind::Transpose { permutation } if !permutation.is_empty() => {
                let axes: Vec<String> = permutation.iter().map(usize::to_string).collect();
                write!(self.text, " permutation={}", axes.join(","))
            }
            OpKind::External(external) => self.external(external),
            OpKind::Softmax { .. }
            | OpKind::Unary { .. }
            | OpKind::Lookup
            | OpKind::Transpose { .. }
            | OpKind::Reshape
            | OpKind::Copy
            | OpKind::Quantize
            | OpKind::Dequantize => Ok(()),
        }
    }

    fn external(&mut self, external: &External) -> fmt::Result {
        let list = |items: Vec<String>| items.join(",");
        write!(self.text, " call={:?}", external.symbol)?;
        if !external.arguments.is_empty() {
            let arguments = external.arguments.iter().map(Argument::to_string).collect();
            write!(self.text, " args={}", list(arguments))?;
        }
        if external.convention == Convention::Packed {
            self.text.write_str(" packed")?;
        }
        if external.brief {
            self.text.write_str(" brief")?;
        }
        if external.status {
            self.text.write_str(" status")?;
        }
        let Workspace { size, align, allocated } = external.workspace;
        if size != 0 {
            write!(self.text, " workspace={size}")?;
        }
        if align != 0 {
            write!(self.text, " align={align}")?;
        }
        if allocated {
            self.text.write_str(" allocated")?;
        }
        if !external.resident.is_empty() {
            let resident = external
                .resident
                .iter()
                .map(|(port, offset)| format!("{port}@{offset}"));
            write!(self.text, " resident={}", list(resident.collect()))?;
        }
        Ok(())
    }

    /// A convolution's window is that of its filter, and then not printed.
    fn filter_size(&self, op: &Op) -> [usize; 2] {
        let filter = op.inputs.get(1).and_then(|id| self.graph.tensors.get(id.index()));
        filter.map_or([1, 1], |filter| kernel_size(&filter.shape))
    }

    fn window(&mut self, window: &Window, default: [usize; 2]) -> fmt::Result {
        let pairs = [
            ("window", window.size, default),
            ("stride", window.stride, [1, 1]),
            ("dilation", window.dilation, [1, 1]),
        ];
        for (name, [h, w], default) in pairs {
            if [h, w] != default {
                write!(self.text, " {name}={h}x{w}")?;
            }
        }
        let Padding {
            top,
            bottom,
            left,
            right,
        } = window.padding;
        if window.padding != Padding::default() {
            write!(self.text, " pad={top},{bottom},{left},{right}")?;
        }
        Ok(())
    }

    fn activation(&mut self, activation: Activation) -> fmt::Result {
        match ACTIVATIONS.iter().find(|(known, _)| *known == activation) {
            Some((_, name)) => write!(self.text, " act={name}"),
            None => Ok(()),
        }
    }
}

/// Height and width of a filter `[_,kh,kw,_]`.
pub(super) fn kernel_size(filter: &Shape) -> [usize; 2] {
    [filter.last(2), filter.last(1)]
}

fn short(hash: &blake3::Hash) -> String {
    format!("blake3:{}", &hash.to_hex()[..16])
}

/// Little-endian bytes of one element as a number.
fn bits(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

/// The element that all elements equal, if there is one. Large constants are read in pieces.
fn uniform(size: usize, data: &Bytes) -> Option<u64> {
    let mut buffer = vec![0; data.len().min(CHUNK as u64) as usize];
    let mut first = None;
    let mut done = 0;
    while done < data.len() {
        let n = (data.len() - done).min(CHUNK as u64) as usize;
        data.read_at(done, &mut buffer[..n]).ok()?;
        for bytes in buffer[..n].chunks(size) {
            let bits = bits(bytes);
            if *first.get_or_insert(bits) != bits {
                return None;
            }
        }
        done += n as u64;
    }
    first
}
