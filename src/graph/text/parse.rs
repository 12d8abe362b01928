//! Text → graph.

use super::cursor::{Cursor, Fault, Parsed};
use super::print::kernel_size;
use super::{ACTIVATIONS, lcg};
use crate::data::Bytes;
use crate::error::{Error, Result};
use crate::graph::external::{Argument, Convention, External, Port, Workspace};
use crate::graph::{
    Activation, BinaryOp, DType, Graph, Op, OpKind, Padding, PoolOp, Quantization, Shape, Tensor, TensorId, UnaryOp,
    Window, quant,
};
use crate::limits;
use std::ops::Range;

/// Largest constant in bytes that a generator (`fill`, `ramp`, `lcg`) makes.
const GENERATED_BYTES: usize = 1 << 28;
/// Attributes that stand alone.
const FLAGS: &[&str] = &["keep", "packed", "brief", "status", "allocated"];
const EXTERNAL: &[&str] = &[
    "call",
    "args",
    "packed",
    "brief",
    "status",
    "workspace",
    "align",
    "allocated",
    "resident",
];
/// Most errors that are reported at once.
const FINDINGS: usize = 16;

/// Reads the [text form](super). The graph is not verified.
///
/// # Errors
/// [`Code::Model`]: one finding for each line that is wrong, with line, column and the line itself.
pub fn parse(text: &str) -> Result<Graph> {
    let mut parser = Parser::default();
    for (number, line) in text.lines().enumerate() {
        parser.line = number;
        if let Err(fault) = parser.statement(&mut Cursor { line, at: 0 }) {
            parser.faults.push((number, fault));
        }
    }
    if parser.faults.is_empty() {
        parser.resolve();
    }
    if parser.faults.is_empty() {
        return Ok(parser.graph);
    }
    let lines: Vec<&str> = text.lines().collect();
    let render = |(number, fault): &(usize, Fault)| fault.render(*number, lines.get(*number).copied().unwrap_or(""));
    let errors = parser.faults.iter().take(FINDINGS).map(render).collect();
    Err(Error::collect(errors).unwrap_or_else(|| Error::model("not a graph")))
}

#[derive(Default)]
struct Parser {
    graph: Graph,
    line: usize,
    faults: Vec<(usize, Fault)>,
    /// Tensors by index, as far as they are defined.
    tensors: Vec<Option<Tensor>>,
    /// Every use of a tensor.
    uses: Vec<(usize, Range<usize>, TensorId)>,
    /// Operators whose window is that of their filter.
    windowless: Vec<usize>,
}

impl Parser {
    fn statement(&mut self, c: &mut Cursor) -> Parsed<()> {
        if c.done() {
            return Ok(());
        }
        if c.rest().starts_with('%') {
            self.op(c)?;
        } else {
            let start = c.at;
            match c.word() {
                "graph" => self.graph.name = c.string()?,
                "input" => {
                    let id = self.declare(c, |_, _| Ok(None))?;
                    self.graph.inputs.push(id);
                }
                "tensor" => {
                    self.declare(c, |_, _| Ok(None))?;
                }
                "const" => {
                    self.declare(c, |c, tensor| {
                        c.expect("=")?;
                        data(c, tensor).map(|bytes| Some(Bytes::from_vec(bytes)))
                    })?;
                }
                "output" => {
                    for (id, span) in c.list(Cursor::id)? {
                        self.uses.push((self.line, span, id));
                        self.graph.outputs.push(id);
                    }
                }
                _ => {
                    c.at = start;
                    return c
                        .fault("expected `graph`, `input`, `const`, `tensor`, `output` or an operator's `%` result");
                }
            }
        }
        if !c.done() {
            return c.fault("unexpected text after the statement");
        }
        Ok(())
    }

    /// `value`, and what follows it: the bytes of a constant.
    fn declare(
        &mut self,
        c: &mut Cursor,
        bytes: impl FnOnce(&mut Cursor, &Tensor) -> Parsed<Option<Bytes>>,
    ) -> Parsed<TensorId> {
        let (id, span) = c.id()?;
        if id.index() >= limits::TENSORS {
            return Fault::at(span, format!("at most {} tensors are supported", limits::TENSORS));
        }
        if self.tensors.len() <= id.index() {
            self.tensors.resize(id.index() + 1, None);
        }
        if self.tensors[id.index()].is_some() {
            return Fault::at(span, format!("%{} is defined already", id.0));
        }
        let mut tensor = value(c, id)?;
        tensor.data = bytes(c, &tensor)?;
        self.tensors[id.index()] = Some(tensor);
        Ok(id)
    }

    fn op(&mut self, c: &mut Cursor) -> Parsed<()> {
        let output = self.declare(c, |_, _| Ok(None))?;
        let mut outputs = vec![output];
        while c.eat(",") {
            outputs.push(self.declare(c, |_, _| Ok(None))?);
        }
        let dtype = self.tensors[output.index()]
            .as_ref()
            .map_or(DType::I8, |tensor| tensor.dtype);
        c.expect("=")?;
        c.space();
        let start = c.at;
        let name = c.word();
        let name_span = start..c.at;
        let Some((kind, allowed)) = operator(name) else {
            return Fault::at(name_span, format!("unknown operator `{name}`"));
        };
        c.expect("(")?;
        let operands = if c.eat(")") {
            Vec::new()
        } else {
            let operands = c.list(Cursor::id)?;
            c.expect(")")?;
            operands
        };
        let index = self.graph.ops.len();
        let mut op = Op {
            name: String::new(),
            source: index,
            kind,
            inputs: operands.iter().map(|(id, _)| *id).collect(),
            outputs,
        };
        let mut seen: Vec<&str> = Vec::new();
        let mut named = None;
        while !c.done() {
            let start = c.at;
            let attribute = c.word();
            let span = start..c.at;
            if seen.contains(&attribute) {
                return Fault::at(span, format!("`{attribute}` is given twice"));
            }
            seen.push(attribute);
            if !FLAGS.contains(&attribute) {
                c.expect("=")?;
            }
            match attribute {
                "source" => op.source = c.integer()?,
                "name" => named = Some(c.string()?),
                _ if allowed.contains(&attribute) => set(&mut op.kind, attribute, c, dtype)?,
                _ => return Fault::at(span, format!("{name} has no attribute `{attribute}`")),
            }
        }
        let tensor_name = self.tensors[output.index()].as_ref().map(|tensor| tensor.name.clone());
        op.name = named.or(tensor_name).unwrap_or_default();
        if matches!(op.kind, OpKind::Conv2d { .. } | OpKind::DepthwiseConv2d { .. }) && !seen.contains(&"window") {
            self.windowless.push(index);
        }
        self.uses
            .extend(operands.into_iter().map(|(id, span)| (self.line, span, id)));
        self.graph.ops.push(op);
        Ok(())
    }

    /// What needs the whole text: indices, and the windows of convolutions.
    fn resolve(&mut self) {
        for (line, span, id) in std::mem::take(&mut self.uses) {
            if self.tensors.get(id.index()).is_none_or(Option::is_none) {
                let message = format!("%{} is not defined", id.0);
                self.faults.push((line, Fault { span, message }));
            }
        }
        if let Some(gap) = self.tensors.iter().position(Option::is_none) {
            let message = format!("%{gap} is not defined: tensors are numbered without gaps");
            self.faults.push((self.line, Fault { span: 0..0, message }));
        }
        if !self.faults.is_empty() {
            return;
        }
        self.graph.tensors = std::mem::take(&mut self.tensors).into_iter().flatten().collect();
        for &index in &self.windowless {
            let op = &mut self.graph.ops[index];
            let filter = op
                .inputs
                .get(1)
                .map(|id| kernel_size(&self.graph.tensors[id.index()].shape));
            if let (Some(size), OpKind::Conv2d { window, .. } | OpKind::DepthwiseConv2d { window, .. }) =
                (filter, &mut op.kind)
            {
                window.size = size;
            }
        }
    }
}

/// `[STRING] ":" type [quantization]`
fn value(c: &mut Cursor, id: TensorId) -> Parsed<Tensor> {
    c.space();
    let name = match c.rest().starts_with('"') {
        true => c.string()?,
        false => format!("t{}", id.0),
    };
    c.expect(":")?;
    c.space();
    let start = c.at;
    let word = c.word();
    let Some(dtype) = DType::from_name(word) else {
        c.at = start;
        return c.fault("expected a type: int8, uint8, int16, int32, int64, float32 or bool");
    };
    c.expect("[")?;
    let mut shape = Vec::new();
    if !c.eat("]") {
        shape = c.list(Cursor::integer)?;
        c.expect("]")?;
    }
    let quantization = if c.eat("q(") { Some(quantization(c)?) } else { None };
    Ok(Tensor {
        name,
        dtype,
        shape: Shape(shape),
        quantization,
        data: None,
    })
}

fn quantization(c: &mut Cursor) -> Parsed<Quantization> {
    let mut quantization = Quantization {
        scale: Vec::new(),
        zero_point: Vec::new(),
        axis: None,
    };
    let per_axis = c.eat("axis");
    if per_axis {
        c.expect("=")?;
        quantization.axis = Some(c.integer()?);
    }
    while !per_axis || c.eat(",") {
        let start = c.at;
        quantization.scale.push(scale(c)?);
        if per_axis && c.rest().trim_start().starts_with("of") {
            return Fault::at(
                start..c.line.len(),
                "this listing leaves the scales out: print it in full",
            );
        }
        c.expect(if per_axis { ":" } else { "," })?;
        quantization.zero_point.push(c.number("a zero point")?);
        if !per_axis {
            break;
        }
    }
    c.expect(")")?;
    Ok(quantization)
}

fn scale(c: &mut Cursor) -> Parsed<f32> {
    element(c, DType::F32).map(|bits| f32::from_bits(bits as u32))
}

/// One element as bits.
fn element(c: &mut Cursor, dtype: DType) -> Parsed<u64> {
    c.space();
    let start = c.at;
    if c.eat("0x") {
        let word = c.word();
        let bits = u64::from_str_radix(word, 16).ok();
        let bits = bits.filter(|bits| dtype.bytes() == 8 || bits >> (8 * dtype.bytes()) == 0);
        let message = format!("expected the bits of one {} element", dtype.name());
        return bits.map_or_else(|| Fault::at(start..c.at, message), Ok);
    }
    if dtype == DType::F32 {
        return c.number::<f32>("a number").map(|x| u64::from(x.to_bits()));
    }
    if matches!(dtype, DType::F16 | DType::F64) {
        return c.fault("expected the bits of the element in hexadecimal");
    }
    if dtype == DType::U64 {
        return c.number("an integer");
    }
    let value: i64 = c.number("an integer")?;
    let (least, most) = match dtype {
        DType::I64 => (i64::MIN, i64::MAX),
        DType::U16 => (0, u16::MAX.into()),
        DType::U32 => (0, u32::MAX.into()),
        DType::Bool => (0, 1),
        _ => {
            let (least, most) = quant::range(dtype);
            (i64::from(least), i64::from(most))
        }
    };
    if !(least..=most).contains(&value) {
        return Fault::at(start..c.at, format!("{value} is not a value of {}", dtype.name()));
    }
    Ok(value as u64)
}

/// The bytes of a constant.
fn data(c: &mut Cursor, tensor: &Tensor) -> Parsed<Vec<u8>> {
    let Tensor { dtype, shape, .. } = tensor;
    let size = dtype.bytes();
    c.space();
    let start = c.at;
    let count = shape
        .0
        .iter()
        .try_fold(1usize, |product, dim| product.checked_mul(*dim));
    let generated = count.filter(|count| *count <= GENERATED_BYTES / size);
    let too_large = |end: usize| Fault {
        span: start..end,
        message: format!("a generated constant has at most {GENERATED_BYTES} bytes"),
    };
    let mut bytes = Vec::new();
    let mut push = |bits: u64| bytes.extend_from_slice(&bits.to_le_bytes()[..size]);
    if c.eat("[") {
        let mut elements = Vec::new();
        if !c.eat("]") {
            elements = c.list(|c| element(c, *dtype))?;
            c.expect("]")?;
        }
        if Some(elements.len()) != count {
            return Fault::at(
                start..c.at,
                format!("{} elements for the shape {shape}", elements.len()),
            );
        }
        elements.into_iter().for_each(push);
    } else if c.eat("fill(") {
        let bits = element(c, *dtype)?;
        c.expect(")")?;
        (0..generated.ok_or_else(|| too_large(c.at))?).for_each(|_| push(bits));
    } else if c.eat("ramp(") {
        let first = element(c, *dtype)?;
        c.expect(",")?;
        let step = element(c, *dtype)?;
        c.expect(")")?;
        let float = |bits: u64| f32::from_bits(bits as u32);
        for i in 0..generated.ok_or_else(|| too_large(c.at))? {
            push(match dtype {
                DType::F32 => u64::from((float(first) + float(step) * i as f32).to_bits()),
                _ => first.wrapping_add(step.wrapping_mul(i as u64)),
            });
        }
    } else if c.eat("lcg(") {
        let mut x: u64 = c.number("a seed")?;
        c.expect(",")?;
        let least = element(c, *dtype)?;
        c.expect(",")?;
        let most = element(c, *dtype)?;
        c.expect(")")?;
        let float = |bits: u64| f32::from_bits(bits as u32);
        for _ in 0..generated.ok_or_else(|| too_large(c.at))? {
            x = lcg(x);
            push(match dtype {
                DType::F32 => {
                    let unit = (x >> 40) as f32 / (1 << 24) as f32;
                    u64::from((float(least) + (float(most) - float(least)) * unit).to_bits())
                }
                // Elements are sign-extended: the difference is right. All 2^64 values are as good as 2^64 - 1.
                _ => least.wrapping_add((x >> 33) % most.wrapping_sub(least).saturating_add(1)),
            });
        }
    } else if c.eat("hex") {
        let digits = c.take(|c| c.is_ascii_hexdigit()).as_bytes();
        if !digits.len().is_multiple_of(2) || count.and_then(|count| count.checked_mul(2 * size)) != Some(digits.len())
        {
            return Fault::at(
                start..c.at,
                format!("{} hexadecimal digits for {}{shape}", digits.len(), dtype.name()),
            );
        }
        let nibble = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
        bytes = digits
            .chunks(2)
            .map(|pair| nibble(pair[0]) << 4 | nibble(pair[1]))
            .collect();
    } else if c.rest().starts_with("blake3:") {
        return Fault::at(
            start..c.line.len(),
            "this listing leaves the bytes out: print it in full",
        );
    } else {
        return c.fault("expected `[`, `fill(`, `ramp(`, `lcg(` or `hex`");
    }
    Ok(bytes)
}

/// An operator by its name, with every attribute at its default, and the names of its attributes.
fn operator(name: &str) -> Option<(OpKind, &'static [&'static str])> {
    let activation = Activation::None;
    let window = Window {
        size: [1, 1],
        stride: [1, 1],
        dilation: [1, 1],
        padding: Padding::default(),
    };
    let pool = |op| OpKind::Pool2d { op, window, activation };
    let binary = |op| OpKind::Binary { op, activation };
    let unary = |op| OpKind::Unary { op };
    const CONV: &[&str] = &["window", "stride", "dilation", "pad", "act"];
    const DEPTHWISE: &[&str] = &["window", "stride", "dilation", "pad", "act", "multiplier"];
    let (kind, attributes): (_, &[&str]) = match name {
        "conv2d" => (OpKind::Conv2d { window, activation }, CONV),
        "depthwise_conv2d" => {
            let kind = OpKind::DepthwiseConv2d {
                window,
                multiplier: 1,
                activation,
            };
            (kind, DEPTHWISE)
        }
        "fully_connected" => (OpKind::FullyConnected { activation }, &["act"]),
        "average_pool2d" => (pool(PoolOp::Average), CONV),
        "max_pool2d" => (pool(PoolOp::Max), CONV),
        "add" => (binary(BinaryOp::Add), &["act"]),
        "sub" => (binary(BinaryOp::Sub), &["act"]),
        "mul" => (binary(BinaryOp::Mul), &["act"]),
        "relu" => (unary(UnaryOp::Relu), &[]),
        "relu6" => (unary(UnaryOp::Relu6), &[]),
        "relu_n1_to_1" => (unary(UnaryOp::ReluN1To1), &[]),
        "logistic" => (unary(UnaryOp::Logistic), &[]),
        "tanh" => (unary(UnaryOp::Tanh), &[]),
        "lookup" => (OpKind::Lookup, &[]),
        "softmax" => (OpKind::Softmax { beta: 1.0 }, &["beta"]),
        "mean" => (
            OpKind::Mean {
                axes: Vec::new(),
                keep_dims: false,
            },
            &["axes", "keep"],
        ),
        "pad" => (
            OpKind::Pad {
                amounts: Vec::new(),
                value: 0,
            },
            &["amounts", "value"],
        ),
        "concat" => (OpKind::Concat { axis: 0 }, &["axis"]),
        "transpose" => {
            let permutation = Vec::new();
            (OpKind::Transpose { permutation }, &["permutation"])
        }
        "reshape" => (OpKind::Reshape, &[]),
        "copy" => (OpKind::Copy, &[]),
        "quantize" => (OpKind::Quantize, &[]),
        "dequantize" => (OpKind::Dequantize, &[]),
        "external" => {
            let external = External {
                symbol: String::new(),
                convention: Convention::Plain,
                arguments: Vec::new(),
                workspace: Workspace::default(),
                status: false,
                resident: Vec::new(),
                brief: false,
                module: None,
            };
            (OpKind::External(Box::new(external)), EXTERNAL)
        }
        _ => return None,
    };
    Some((kind, attributes))
}

/// Reads one attribute of `kind` into it. `dtype` is the result's.
fn set(kind: &mut OpKind, attribute: &str, c: &mut Cursor, dtype: DType) -> Parsed<()> {
    match kind {
        OpKind::Conv2d { window, activation } | OpKind::Pool2d { window, activation, .. } => {
            windowed(attribute, c, window, activation)?;
        }
        OpKind::DepthwiseConv2d { multiplier, .. } if attribute == "multiplier" => *multiplier = c.integer()?,
        OpKind::DepthwiseConv2d { window, activation, .. } => windowed(attribute, c, window, activation)?,
        OpKind::FullyConnected { activation } | OpKind::Binary { activation, .. } => *activation = act(c)?,
        OpKind::Softmax { beta } => *beta = scale(c)?,
        OpKind::Mean { keep_dims, .. } if attribute == "keep" => *keep_dims = true,
        OpKind::Mean { axes, .. } => *axes = c.list(Cursor::integer)?,
        OpKind::Pad { value, .. } if attribute == "value" => *value = bits(c, dtype)?,
        OpKind::Pad { amounts, .. } => {
            *amounts = c.list(|c| {
                let before = c.integer()?;
                c.expect(":")?;
                Ok([before, c.integer()?])
            })?;
        }
        OpKind::Concat { axis } => *axis = c.integer()?,
        OpKind::Transpose { permutation } => *permutation = c.list(Cursor::integer)?,
        OpKind::External(external) => match attribute {
            "call" => external.symbol = c.string()?,
            "args" => external.arguments = c.list(argument)?,
            "packed" => external.convention = Convention::Packed,
            "brief" => external.brief = true,
            "status" => external.status = true,
            "workspace" => external.workspace.size = c.number("a size")?,
            "align" => external.workspace.align = c.number("an alignment")?,
            "allocated" => external.workspace.allocated = true,
            _ => {
                external.resident = c.list(|c| {
                    let port = port(c)?;
                    c.expect("@")?;
                    Ok((port, c.number("an offset")?))
                })?;
            }
        },
        OpKind::Unary { .. }
        | OpKind::Lookup
        | OpKind::Reshape
        | OpKind::Copy
        | OpKind::Quantize
        | OpKind::Dequantize => {}
    }
    Ok(())
}

/// `in0` or `out0`.
fn port(c: &mut Cursor) -> Parsed<Port> {
    c.space();
    for (prefix, make) in [("in", Port::Input as fn(usize) -> Port), ("out", Port::Output)] {
        if c.eat(prefix) {
            return c.number("an index").map(make);
        }
    }
    c.fault("expected in0, out0, …")
}

/// One argument of an external function.
fn argument(c: &mut Cursor) -> Parsed<Argument> {
    c.space();
    if c.eat("workspace") {
        let offset = if c.eat("+") { c.number("an offset")? } else { 0 };
        return Ok(Argument::Workspace(offset));
    }
    if c.eat("&") {
        let symbol = c.take(|c| c.is_ascii_alphanumeric() || "_.$".contains(c));
        return Ok(Argument::Symbol(symbol.to_owned()));
    }
    if c.rest().starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return c.number("an integer").map(Argument::Integer);
    }
    port(c).map(Argument::Port)
}

/// An element in the low bytes, zeros above; or any 64 bits in hexadecimal.
fn bits(c: &mut Cursor, dtype: DType) -> Parsed<u64> {
    c.space();
    if c.rest().starts_with("0x") {
        return element(c, DType::I64);
    }
    let bits = element(c, dtype)?;
    Ok(bits & u64::MAX >> (64 - 8 * dtype.bytes()))
}

fn windowed(attribute: &str, c: &mut Cursor, window: &mut Window, activation: &mut Activation) -> Parsed<()> {
    match attribute {
        "window" => window.size = c.by()?,
        "stride" => window.stride = c.by()?,
        "dilation" => window.dilation = c.by()?,
        "pad" => {
            let start = c.at;
            let [top, bottom, left, right] = c.list(Cursor::integer)?[..] else {
                return Fault::at(start..c.at, "expected pad=TOP,BOTTOM,LEFT,RIGHT");
            };
            window.padding = Padding {
                top,
                bottom,
                left,
                right,
            };
        }
        _ => *activation = act(c)?,
    }
    Ok(())
}

fn act(c: &mut Cursor) -> Parsed<Activation> {
    c.space();
    let start = c.at;
    let word = c.word();
    let found = ACTIVATIONS.iter().find(|(_, name)| *name == word);
    found.map_or_else(
        || Fault::at(start..c.at, "expected relu, relu6 or relu_n1_to_1"),
        |(activation, _)| Ok(*activation),
    )
}
