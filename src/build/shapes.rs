//! Common shapes of operators, built for a target one by one: what `corerope targets --shapes` prints.
//!
//! Each is a model of one operator with weights that a generator makes up, so that the whole pipeline chooses, as it does
//! for a model of a user.

use super::schedules::{counts_instructions, estimate};
use super::{Goal, Options, compile_graph};
use crate::codegen::timing::Timing;
use crate::error::{Error, Result};
use crate::graph::text;
use crate::graph::verify::verify;
use crate::output::report::Instructions;
use crate::output::table::{Table, thousands};
use crate::target::Target;
use serde::Serialize;

/// A shape and what it gets.
#[derive(Clone, Debug, Serialize)]
pub struct Shape {
    /// The operator.
    pub operator: String,
    /// Its shape, in words.
    pub shape: String,
    /// The schedule.
    pub schedule: String,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Elements of the input or the output, whichever has more.
    pub elements: u64,
    /// Instructions of one call, where they are counted.
    pub instructions: Option<Instructions>,
    /// Modelled cycles, where the core's table is known.
    pub cycles: Option<u64>,
    /// Executed instructions of the intermediate code, where no others are counted.
    pub estimate: Option<u64>,
    /// Bytes of code.
    pub code: u64,
    /// Bytes of scratch.
    pub scratch: u64,
}

impl Shape {
    /// Instructions, or the estimate, for each multiply-accumulate; for each element where there are none.
    pub fn each(&self) -> f64 {
        let cost = self.instructions.map(|count| count.most).or(self.estimate);
        let units = if self.macs > 0 { self.macs } else { self.elements };
        cost.unwrap_or(0) as f64 / units.max(1) as f64
    }
}

/// All shapes on a target.
#[derive(Clone, Debug, Serialize)]
pub struct Shapes {
    /// Version of the JSON schema.
    pub schema: u32,
    /// The triple.
    pub triple: String,
    /// The CPU.
    pub cpu: &'static str,
    /// What was chosen for, as `--optimize` takes it.
    pub optimize: &'static str,
    /// The shapes.
    pub shapes: Vec<Shape>,
}

/// A window over an image: height, width, input channels, output channels; rows and columns of the window, its stride
/// and dilation; whether the result keeps the size.
struct Windowed {
    input: [usize; 3],
    outputs: usize,
    size: [usize; 2],
    stride: usize,
    dilation: usize,
    same: bool,
}

impl Windowed {
    /// Rows or columns of the result, and of padding before and after.
    fn axis(&self, axis: usize) -> (usize, usize, usize) {
        let (length, reach) = (self.input[axis], (self.size[axis] - 1) * self.dilation + 1);
        if !self.same {
            return ((length - reach) / self.stride + 1, 0, 0);
        }
        let result = length.div_ceil(self.stride);
        let padding = ((result - 1) * self.stride + reach).saturating_sub(length);
        (result, padding / 2, padding - padding / 2)
    }

    /// The shape of the result, and the attributes.
    fn result(&self) -> ([usize; 2], String) {
        let ((rows, top, bottom), (columns, left, right)) = (self.axis(0), self.axis(1));
        let (stride, dilation) = (self.stride, self.dilation);
        let mut attributes = format!(" stride={stride}x{stride} dilation={dilation}x{dilation}");
        if top + bottom + left + right > 0 {
            attributes += &format!(" pad={top},{bottom},{left},{right}");
        }
        ([rows, columns], attributes)
    }

    fn describe(&self) -> String {
        let ([h, w, c], [rows, columns]) = (self.input, self.size);
        let stride = if self.stride > 1 {
            format!(" stride {}", self.stride)
        } else {
            String::new()
        };
        let dilation = if self.dilation > 1 {
            format!(" dilation {}", self.dilation)
        } else {
            String::new()
        };
        let outputs = if self.outputs > 0 {
            format!(" to {}", self.outputs)
        } else {
            String::new()
        };
        format!("{rows}x{columns}{stride}{dilation}, {h}x{w}x{c}{outputs}")
    }
}

/// int8 or float32.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int8,
    Float,
}

impl Kind {
    fn name(self) -> &'static str {
        if self == Kind::Int8 { "int8" } else { "float32" }
    }

    /// Quantization of activations.
    fn activations(self) -> &'static str {
        if self == Kind::Int8 { " q(0.0235,-128)" } else { "" }
    }

    /// Quantization and values of a filter.
    fn filter(self) -> (&'static str, &'static str) {
        match self {
            Kind::Int8 => (" q(0.0125,0)", "lcg(1, -64, 63)"),
            Kind::Float => ("", "lcg(1, -0.5, 0.5)"),
        }
    }

    fn bias(self, channels: usize) -> String {
        match self {
            Kind::Int8 => format!("const %2 \"bias\" : int32[{channels}] q(0.00029375,0) = lcg(2, -500, 500)"),
            Kind::Float => format!("const %2 \"bias\" : float32[{channels}] = lcg(2, -0.5, 0.5)"),
        }
    }
}

/// A shape's name and its graph in the text form.
type Described = (String, String);

/// A multiply-accumulate layer from an input of shape `from`, a filter and the shape of the result.
fn layer(kind: Kind, name: String, operator: &str, shapes: [&str; 3], channels: usize, attributes: &str) -> Described {
    let [from, filter, to] = shapes;
    let (ty, q, (of_filter, values), bias) = (kind.name(), kind.activations(), kind.filter(), kind.bias(channels));
    let result = if kind == Kind::Int8 { " q(0.05,-128)" } else { "" };
    let graph = format!(
        "graph \"shape\"\ninput %0 \"x\" : {ty}[{from}]{q}\nconst %1 \"w\" : {ty}[{filter}]{of_filter} = {values}\n{bias}\n\
         %3 \"y\" : {ty}[{to}]{result} = {operator}(%0, %1, %2){attributes} act=relu\noutput %3\n"
    );
    (name, graph)
}

fn convolution(kind: Kind, window: Windowed) -> Described {
    let ([h, w, c], [rows, columns]) = (window.input, window.size);
    let ([oh, ow], attributes) = window.result();
    let o = window.outputs;
    let shapes = [
        format!("1,{h},{w},{c}"),
        format!("{o},{rows},{columns},{c}"),
        format!("1,{oh},{ow},{o}"),
    ];
    layer(
        kind,
        window.describe(),
        "conv2d",
        shapes.each_ref().map(String::as_str),
        o,
        &attributes,
    )
}

fn depthwise(kind: Kind, multiplier: usize, window: Windowed) -> Described {
    let ([h, w, c], [rows, columns]) = (window.input, window.size);
    let ([oh, ow], attributes) = window.result();
    let o = c * multiplier;
    let shapes = [
        format!("1,{h},{w},{c}"),
        format!("1,{rows},{columns},{o}"),
        format!("1,{oh},{ow},{o}"),
    ];
    let name = match multiplier {
        1 => window.describe(),
        _ => format!("{}, multiplier {multiplier}", window.describe()),
    };
    let attributes = format!("{attributes} multiplier={multiplier}");
    layer(
        kind,
        name,
        "depthwise_conv2d",
        shapes.each_ref().map(String::as_str),
        o,
        &attributes,
    )
}

fn dense(kind: Kind, depth: usize, outputs: usize) -> Described {
    let shapes = [
        format!("1,{depth}"),
        format!("{outputs},{depth}"),
        format!("1,{outputs}"),
    ];
    let name = format!("{depth} to {outputs}");
    layer(
        kind,
        name,
        "fully_connected",
        shapes.each_ref().map(String::as_str),
        outputs,
        "",
    )
}

fn pool(kind: Kind, operator: &str, window: Windowed) -> Described {
    let ([h, w, c], [rows, columns]) = (window.input, window.size);
    let ([oh, ow], attributes) = window.result();
    let (ty, q) = (kind.name(), kind.activations());
    let graph = format!(
        "graph \"shape\"\ninput %0 \"x\" : {ty}[1,{h},{w},{c}]{q}\n\
         %1 \"y\" : {ty}[1,{oh},{ow},{c}]{q} = {operator}(%0) window={rows}x{columns}{attributes}\noutput %1\n"
    );
    (window.describe(), graph)
}

/// An operator without constants, on `inputs` of equal shapes whose scales differ.
fn plain(kind: Kind, operator: &str, inputs: usize, shape: [&str; 2], attributes: &str) -> Described {
    let ty = kind.name();
    let q = |scale: f32, zero: i32| match kind {
        Kind::Int8 => format!(" q({scale},{zero})"),
        Kind::Float => String::new(),
    };
    let [from, to] = shape;
    let mut graph = String::from("graph \"shape\"\n");
    for input in 0..inputs {
        let scale = q(0.0235 * (1.0 + 0.37 * input as f32), 3 - 11 * input as i32);
        graph += &format!("input %{input} \"x{input}\" : {ty}[{from}]{scale}\n");
    }
    let result = match operator {
        "softmax" | "logistic" => q(0.003_906_25, -128),
        "tanh" => q(0.007_812_5, 0),
        // Elements stay as they are.
        "pad" | "concat" | "transpose" => q(0.0235, 3),
        _ => q(0.0471, -5),
    };
    let arguments: Vec<String> = (0..inputs).map(|input| format!("%{input}")).collect();
    graph += &format!(
        "%{inputs} \"y\" : {ty}[{to}]{result} = {operator}({}){attributes}\noutput %{inputs}\n",
        arguments.join(", ")
    );
    (from.replace(',', "x").trim_start_matches("1x").to_owned(), graph)
}

/// The list.
fn described() -> Vec<Described> {
    use Kind::{Float, Int8};
    let window = |[h, w, c, outputs]: [usize; 4], size: [usize; 2], stride: usize| Windowed {
        input: [h, w, c],
        outputs,
        size,
        stride,
        dilation: 1,
        same: true,
    };
    let valid = |dims, size, stride| Windowed {
        same: false,
        ..window(dims, size, stride)
    };
    let mut all = Vec::new();
    // Pointwise layers, as of MobileNet and DS-CNN.
    for dims in [
        [48, 48, 8, 16],
        [24, 24, 32, 32],
        [25, 5, 64, 64],
        [12, 12, 64, 64],
        [6, 6, 128, 128],
        [3, 3, 256, 256],
        [1, 1, 128, 32],
    ] {
        all.push(convolution(Int8, window(dims, [1, 1], 1)));
    }
    all.push(convolution(Int8, window([32, 32, 16, 32], [1, 1], 2)));
    // First layers.
    all.push(convolution(Int8, window([49, 10, 1, 64], [10, 4], 2)));
    all.push(convolution(Int8, window([28, 28, 1, 32], [3, 3], 1)));
    all.push(convolution(Int8, window([32, 32, 2, 16], [5, 5], 1)));
    all.push(convolution(Int8, window([96, 96, 3, 8], [3, 3], 2)));
    all.push(convolution(Int8, window([32, 32, 3, 16], [3, 3], 1)));
    // Others.
    for dims in [[32, 32, 16, 16], [16, 16, 32, 32], [8, 8, 64, 64], [13, 13, 17, 19]] {
        all.push(convolution(Int8, window(dims, [3, 3], 1)));
    }
    all.push(convolution(Int8, valid([32, 32, 16, 16], [3, 3], 1)));
    all.push(convolution(Int8, window([32, 32, 16, 32], [3, 3], 2)));
    all.push(convolution(Int8, window([14, 14, 8, 16], [5, 5], 1)));
    all.push(convolution(Int8, window([64, 1, 16, 16], [5, 1], 1)));
    all.push(convolution(
        Int8,
        Windowed {
            dilation: 2,
            ..window([16, 16, 16, 16], [3, 3], 1)
        },
    ));
    // Depthwise.
    for dims in [
        [25, 5, 64, 0],
        [48, 48, 8, 0],
        [24, 24, 32, 0],
        [6, 6, 128, 0],
        [3, 3, 256, 0],
        [32, 32, 3, 0],
    ] {
        all.push(depthwise(Int8, 1, window(dims, [3, 3], 1)));
    }
    all.push(depthwise(Int8, 1, window([48, 48, 16, 0], [3, 3], 2)));
    all.push(depthwise(Int8, 1, window([12, 12, 24, 0], [5, 5], 1)));
    all.push(depthwise(Int8, 1, window([64, 1, 32, 0], [9, 1], 1)));
    all.push(depthwise(Int8, 8, window([49, 40, 1, 0], [10, 8], 2)));
    all.push(depthwise(Int8, 2, window([12, 12, 8, 0], [3, 3], 1)));
    // Dense.
    for (depth, outputs) in [(640, 128), (128, 128), (256, 2), (64, 12), (16, 16), (9, 1), (4000, 4)] {
        all.push(dense(Int8, depth, outputs));
    }
    for dims in [[32, 32, 16, 0], [8, 8, 64, 0]] {
        all.push(pool(Int8, "max_pool2d", window(dims, [2, 2], 2)));
    }
    all.push(pool(Int8, "max_pool2d", valid([31, 31, 8, 0], [3, 3], 2)));
    all.push(pool(Int8, "average_pool2d", valid([25, 5, 64, 0], [25, 5], 1)));
    all.push(pool(Int8, "average_pool2d", window([16, 16, 32, 0], [2, 2], 2)));
    for operator in ["add", "sub", "mul"] {
        all.push(plain(Int8, operator, 2, ["1,16,16,32"; 2], ""));
    }
    for shape in ["1,2", "1,12", "1,1000"] {
        all.push(plain(Int8, "softmax", 1, [shape; 2], ""));
    }
    for operator in ["logistic", "tanh", "relu6"] {
        all.push(plain(Int8, operator, 1, ["1,16,16,32"; 2], ""));
    }
    all.push(plain(Int8, "concat", 1, ["1,16,16,8"; 2], " axis=3"));
    all.push(convolution(Float, window([12, 12, 64, 64], [1, 1], 1)));
    all.push(convolution(Float, window([32, 32, 3, 16], [3, 3], 1)));
    all.push(depthwise(Float, 1, window([24, 24, 32, 0], [3, 3], 1)));
    all.push(dense(Float, 128, 128));
    all.push(pool(Float, "max_pool2d", window([32, 32, 16, 0], [2, 2], 2)));
    all.push(plain(Float, "add", 2, ["1,16,16,32"; 2], ""));
    all
}

impl Shapes {
    /// Builds each shape for a target.
    ///
    /// # Errors
    /// Those of building.
    pub fn new(target: &Target, goal: Goal) -> Result<Self> {
        let all = described();
        let shapes: Result<Vec<Shape>> = all
            .into_iter()
            .map(|(name, graph)| shape(target, goal, name, &graph))
            .collect();
        Ok(Shapes {
            schema: 1,
            triple: target.name.clone(),
            cpu: target.cpu.name,
            optimize: goal.name(),
            shapes: shapes?,
        })
    }

    /// As a table.
    pub fn text(&self) -> String {
        let counted = self.shapes.iter().any(|shape| shape.instructions.is_some());
        let modelled = self.shapes.iter().any(|shape| shape.cycles.is_some());
        let mut titles = vec!["operator", "shape", ">MACs"];
        titles.push(if counted { ">instructions" } else { ">estimate" });
        titles.push(">each");
        if modelled {
            titles.push(">cycles (modelled)");
        }
        titles.extend([">code", ">scratch", "schedule"]);
        let mut table = Table::new(&titles);
        for shape in &self.shapes {
            let cost = shape.instructions.map(|count| count.most).or(shape.estimate);
            let macs = if shape.macs > 0 {
                thousands(shape.macs)
            } else {
                String::new()
            };
            let mut row = vec![shape.operator.clone(), shape.shape.clone(), macs];
            row.push(cost.map_or_else(String::new, thousands));
            row.push(format!("{:.2}", shape.each()));
            if modelled {
                row.push(shape.cycles.map_or_else(String::new, thousands));
            }
            row.extend([thousands(shape.code), thousands(shape.scratch), shape.schedule.clone()]);
            table.row(row);
        }
        let bold = anstyle::Style::new().bold();
        let mut text = format!(
            "{bold}{} ({}), --optimize {}{bold:#}\n",
            self.triple, self.cpu, self.optimize
        );
        for (index, line) in table.lines().iter().enumerate() {
            text += &if index == 0 {
                format!("{bold}{line}{bold:#}")
            } else {
                line.clone()
            };
            text.push('\n');
        }
        text += match counted {
            true => {
                "\neach: instructions for each MAC; for each element of the larger of input and output where there are none\n"
            }
            false => {
                "\nestimate: executed instructions of the intermediate code, as this target's are not counted; vectors are one\n\
                 each: for each MAC; for each element of the larger of input and output where there are none\n"
            }
        };
        text
    }

    /// As JSON, with a line feed at the end.
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data with string keys is always JSON");
        text.push('\n');
        text
    }
}

fn shape(target: &Target, goal: Goal, name: String, graph: &str) -> Result<Shape> {
    let graph = text::parse(graph)?;
    verify(&graph)?;
    let options = Options {
        goal,
        ..Options::new(target.clone(), "shape")
    };
    let build = compile_graph(graph, 0, &options, &mut |_, _| {})?;
    let build = build.ok_or_else(|| Error::internal("a build that nothing stops is complete"))?;
    let report = build.report();
    let largest = report
        .inputs
        .iter()
        .chain(&report.outputs)
        .map(|port| port.shape.iter().product::<usize>());
    let elements = largest.max().unwrap_or(0) as u64;
    let layer = report.layers.into_iter().next();
    let layer = layer.ok_or_else(|| Error::internal(format!("{name} has no kernel")))?;
    let kernel = build.lowering.kernels.first();
    Ok(Shape {
        operator: match layer.dtype {
            "int8" => layer.operator.to_owned(),
            dtype => format!("{} {dtype}", layer.operator),
        },
        shape: name,
        schedule: layer.schedule,
        macs: layer.macs,
        elements,
        instructions: layer.instructions,
        cycles: Timing::of(target).and(layer.cycles),
        estimate: kernel.filter(|_| !counts_instructions(target)).map(estimate),
        code: layer.code,
        scratch: layer.scratch,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{Dot, LoopForm};

    /// What has no better loop yet than one product at a time, or than one output at a time: CPU, operator, shape.
    const KNOWN: &[(&str, &str, &str)] = &[
        // SMLAD over pairs of rows and columns of three takes one output channel for each.
        ("cortex-m4+fp", "depthwise_conv2d", "3x3, 12x12x8, multiplier 2"),
        // One column: nothing to share along a row.
        ("cortex-m3", "depthwise_conv2d", "9x1, 64x1x32"),
    ];

    /// Elements whose kernels have no multiplication by a weight: the most instructions for each. Products of two int8
    /// tensors need 64 bits where the machine has no vectors.
    const MOST: [(&str, f64); 8] = [
        ("add", 21.0),
        ("sub", 21.0),
        ("mul", 64.0),
        ("max_pool2d", 9.0),
        ("average_pool2d", 8.0),
        ("lookup", 6.0),
        ("concat", 5.0),
        ("softmax", 260.0),
    ];

    fn shapes(triple: &str, cpu: Option<&str>) -> (Target, Shapes) {
        let target = Target::new(Some(triple), cpu, None).expect("a known target");
        let shapes = Shapes::new(&target, Goal::Balanced).expect("every shape has a kernel");
        (target, shapes)
    }

    /// Positions and channels of the first tile of a loop that takes one product at a time.
    fn scalar_tile(schedule: &str) -> Option<(usize, usize)> {
        let (pixels, rest) = schedule.strip_prefix("scalar ")?.split_once("px x ")?;
        let channels = rest.split("ch").next()?;
        Some((pixels.parse().ok()?, channels.parse().ok()?))
    }

    #[test]
    fn no_common_shape_falls_back_to_a_scalar_loop() {
        for (triple, cpu) in [
            ("thumbv7em-none-eabihf", None),
            ("thumbv7m-none-eabi", None),
            ("riscv32imc-unknown-none-elf", None),
            ("riscv64gc-unknown-none-elf", None),
            ("aarch64-unknown-none", None),
            ("aarch64-unknown-none", Some("a64-dotprod")),
            ("x86_64-unknown-linux-gnu", None),
            ("x86_64-unknown-linux-gnu", Some("x86-64-v3-vnni")),
        ] {
            let (target, shapes) = shapes(triple, cpu);
            let machine = target.machine();
            let mut found = Vec::new();
            for shape in &shapes.shapes {
                let at = format!("{} {} {}: {}", shapes.cpu, shape.operator, shape.shape, shape.schedule);
                assert_eq!(shape.instructions.is_some(), counts_instructions(&target), "{at}");
                if shape.operator.ends_with("float32") {
                    continue;
                }
                if shape.macs == 0 {
                    let (_, most) = MOST
                        .into_iter()
                        .find(|(operator, _)| *operator == shape.operator)
                        .expect(&at);
                    assert!(shape.each() <= most, "{at}: {:.2} for each element", shape.each());
                    continue;
                }
                let Some((pixels, channels)) = scalar_tile(&shape.schedule) else {
                    assert!(!shape.schedule.starts_with("scalar"), "{at}");
                    continue;
                };
                let several = !shape.shape.ends_with(" to 1");
                if machine.dsp || machine.simd128 || pixels * channels == 1 && several {
                    found.push((shapes.cpu, shape.operator.as_str(), shape.shape.as_str()));
                }
            }
            let known: Vec<_> = KNOWN.iter().copied().filter(|(cpu, ..)| *cpu == shapes.cpu).collect();
            assert_eq!(found, known);
        }
    }

    /// The list has what it is for, and every form of loop of the machines is on it.
    #[test]
    fn forms_of_loops_are_on_the_list() {
        let has = |triple: &str, cpu: Option<&str>, form: &str| {
            let (_, shapes) = shapes(triple, cpu);
            assert!(
                shapes.shapes.iter().any(|shape| shape.schedule.starts_with(form)),
                "{triple} {form}"
            );
            shapes
        };
        let m4 = has("thumbv7em-none-eabi", None, LoopForm::Paired.name());
        for form in LoopForm::ALL {
            let triple = match form {
                LoopForm::Paired | LoopForm::RowPairs | LoopForm::Columns => "thumbv7em-none-eabi",
                LoopForm::Planes | LoopForm::Packed | LoopForm::Lanes16 => "riscv32imc-unknown-none-elf",
                LoopForm::Lanes21 | LoopForm::Rows21 => "riscv64gc-unknown-none-elf",
                // Only for weights that are mostly small, as trained ones are.
                LoopForm::Quads => continue,
            };
            has(triple, None, form.name());
        }
        let dots = [Dot::Signed, Dot::Unsigned].map(|dot| crate::kernels::schedule::Inner::Dot4(dot).to_string());
        has("aarch64-unknown-none", Some("a64-dotprod"), &dots[0]);
        has("x86_64-unknown-linux-gnu", Some("x86-64-v3-vnni"), &dots[1]);
        let text = m4.text();
        for word in ["conv2d", "1x1, 12x12x64 to 64", "cycles (modelled)", "table", "each"] {
            assert!(text.contains(word), "{word}");
        }
        let json: serde_json::Value = serde_json::from_str(&m4.json()).expect("JSON");
        assert_eq!(json["shapes"].as_array().map(Vec::len), Some(m4.shapes.len()));
        assert!(m4.shapes.len() > 50);
    }
}
