//! What a build holds, for people (tables) and for scripts (JSON with a stable schema).

use super::table::{Table, thousands};
use crate::place;
use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// Version of the JSON schema: raised when a field changes its meaning or goes, not when one is added.
pub const SCHEMA: u32 = 1;

/// A build, described.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of corerope.
    pub corerope: &'static str,
    /// The model.
    pub model: Model,
    /// The target.
    pub target: Target,
    /// Read-only memory.
    pub flash: Flash,
    /// Parameters outside the object, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<Outside>,
    /// Memory that is written.
    pub ram: Ram,
    /// Inputs, in the model's order.
    pub inputs: Vec<Port>,
    /// Outputs, in the model's order.
    pub outputs: Vec<Port>,
    /// Instructions of one run, where they are counted.
    pub instructions: Option<Instructions>,
    /// Layers in execution order.
    pub layers: Vec<Layer>,
    /// Where the most bytes of the arena are live; none if it is empty.
    pub peak: Option<Peak>,
    /// Parameters of the model that the object does not hold, and why.
    pub dropped: Vec<Dropped>,
    /// External functions that the model calls, and what comes with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// Sections of the object.
    pub sections: Vec<Section>,
    /// Memories that are described.
    pub memory: Vec<Memory>,
    /// What each rule of placement put where.
    pub placement: Vec<Placed>,
}

/// The model.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    /// Prefix of its symbols.
    pub name: String,
    /// File name.
    pub file: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Operators in the file.
    pub operators: usize,
    /// Multiply-accumulates of one run.
    pub macs: u64,
}

/// The target.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// Triple.
    pub triple: String,
    /// CPU.
    pub cpu: String,
    /// ABI, where there are several.
    pub abi: Option<String>,
}

/// Bytes of read-only memory.
#[derive(Clone, Debug, Serialize)]
pub struct Flash {
    /// Machine code.
    pub code: u64,
    /// Filters and matrices.
    pub weights: u64,
    /// Biases of the model, 4 bytes a channel; input zero points are folded into them.
    pub biases: u64,
    /// What makes results of sums, beside the biases: multipliers, shifts, rounding.
    pub scales: u64,
    /// Lookup tables and other constants.
    pub tables: u64,
    /// Biases, scales and tables.
    pub other: u64,
    /// All of it.
    pub total: u64,
}

/// Parameters outside the object.
#[derive(Clone, Debug, Serialize)]
pub struct Outside {
    /// `external` or `streamed`.
    pub access: &'static str,
    /// Bytes of the image.
    pub image: u64,
    /// Bytes that are read at once, at most, if they are streamed; there are two buffers of this size in the arena.
    pub buffer: Option<u64>,
}

/// Bytes of memory that is written.
#[derive(Clone, Debug, Serialize)]
pub struct Ram {
    /// The arena.
    pub arena: u64,
    /// Its alignment.
    pub arena_align: u64,
    /// The least arena that is possible for these buffers in this order: the peak of live bytes.
    pub lower_bound: u64,
    /// Whether no placement of these buffers in this order is smaller.
    pub optimal: bool,
    /// `static` or `caller`.
    pub provided_by: &'static str,
    /// `pointers` or `arena`.
    pub io: &'static str,
    /// Deepest stack.
    pub stack: u64,
}

/// Why the arena is as large as it is.
#[derive(Clone, Debug, Serialize)]
pub struct Peak {
    /// Position of the layer in which most bytes are live.
    pub layer: usize,
    /// The row of it, if it runs row by row.
    pub row: Option<u32>,
    /// Bytes that are live then; what overlaps counts once.
    pub live: u64,
    /// What is live, the largest first.
    pub buffers: Vec<Live>,
    /// What would lower it.
    pub advice: Vec<String>,
}

/// What is live at the peak.
#[derive(Clone, Debug, Serialize)]
pub struct Live {
    /// The model's name for the tensor, or for the layer whose scratch or sums it is.
    pub name: String,
    /// `tensor`, `rows`, `scratch` or `sums`.
    pub kind: &'static str,
    /// Bytes.
    pub bytes: u64,
}

/// An input or an output.
#[derive(Clone, Debug, Serialize)]
pub struct Port {
    /// The model's name for it.
    pub name: String,
    /// Member of the struct in the header.
    pub member: String,
    /// Element type.
    pub dtype: &'static str,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Size in bytes.
    pub bytes: u64,
    /// Scale, if quantized.
    pub scale: Option<f32>,
    /// Zero point, if quantized.
    pub zero_point: Option<i32>,
    /// Offset in the arena, if it lives there.
    pub offset: Option<u64>,
}

/// Executed instructions, known without running: equal bounds are exact.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Instructions {
    /// At least.
    pub least: u64,
    /// At most.
    pub most: u64,
}

impl std::fmt::Display for Instructions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bound = if self.least == self.most { "" } else { "≤ " };
        write!(f, "{bound}{}", thousands(self.most))
    }
}

/// One call of a kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Position in the run.
    pub index: usize,
    /// Index of the operator in the model's file.
    pub source: usize,
    /// The model's name for it.
    pub name: String,
    /// What it computes.
    pub operator: &'static str,
    /// Element type of its result.
    pub dtype: &'static str,
    /// Shape of its result.
    pub shape: Vec<usize>,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Kernel.
    pub kernel: String,
    /// The kernel's schedule.
    pub schedule: String,
    /// Instructions of the call, where they are counted.
    pub instructions: Option<Instructions>,
    /// Bytes of the kernel's code.
    pub code: u64,
    /// Whether an earlier layer has the same kernel.
    pub shared: bool,
    /// Bytes of parameters that it reads.
    pub parameters: u64,
    /// Bytes of the arena that are live while it runs: its input and output, what later layers need, and scratch.
    pub live: u64,
    /// Rows that it computes one by one; 0 if it runs as a whole.
    pub rows: usize,
    /// Bytes of scratch of the kernel's own.
    pub scratch: u64,
}

/// A parameter of the model that the object does not hold.
#[derive(Clone, Debug, Serialize)]
pub struct Dropped {
    /// The model's name for it.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Why.
    pub reason: String,
}

/// Functions of others.
#[derive(Clone, Debug, Serialize)]
pub struct External {
    /// The functions, in the order of their first calls.
    pub functions: Vec<ExternalFunction>,
    /// Files and members that go into the library, and who brought them.
    pub objects: Vec<ExternalObject>,
    /// Symbols that the application's link must supply.
    pub needs: Vec<String>,
    /// Memory of the framework that the model comes from, if it says.
    pub peer: Option<ExternalPeer>,
}

/// One function.
#[derive(Clone, Debug, Serialize)]
pub struct ExternalFunction {
    /// Its symbol.
    pub symbol: String,
    /// Its prototype in C.
    pub prototype: String,
    /// How many calls of it there are.
    pub calls: usize,
    /// Bytes of workspace.
    pub workspace: u64,
    /// The external module that it belongs to, if any.
    pub module: Option<String>,
}

/// An object that goes into the library.
#[derive(Clone, Debug, Serialize)]
pub struct ExternalObject {
    /// Name of the member.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Who brought it.
    pub origin: String,
}

/// What another framework needs.
#[derive(Clone, Debug, Serialize)]
pub struct ExternalPeer {
    /// Its name.
    pub name: String,
    /// Bytes of activations, inputs and outputs included, and the largest workspace.
    pub arena: u64,
    /// Bytes of parameters that it keeps in RAM.
    pub parameters: u64,
    /// The arena of this build and what inputs and outputs take outside of it.
    pub ours: u64,
}

/// A section of the object.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// Name.
    pub name: String,
    /// Symbol of what it holds.
    pub symbol: String,
    /// `code`, `constant` or `zero`.
    pub kind: &'static str,
    /// Size in bytes.
    pub bytes: u64,
    /// Alignment in bytes.
    pub align: u64,
    /// The memory that a rule names for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

/// A memory of the machine.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Name.
    pub name: String,
    /// First address.
    pub origin: u64,
    /// Bytes.
    pub length: u64,
    /// `r`, and `w` and `x` where it is written and executed.
    pub access: String,
}

impl Memory {
    pub(crate) fn new(region: &place::Region) -> Self {
        Memory {
            name: region.name.clone(),
            origin: region.origin,
            length: region.length,
            access: region.access(),
        }
    }
}

/// What a rule put into a section.
#[derive(Clone, Debug, Serialize)]
pub struct Placed {
    /// The rule, as it was given.
    pub rule: String,
    /// The section.
    pub section: String,
    /// The section's memory, if a rule names one.
    pub memory: Option<String>,
    /// What it took.
    pub items: Vec<PlacedItem>,
}

/// One of those.
#[derive(Clone, Debug, Serialize)]
pub struct PlacedItem {
    /// Symbol.
    pub symbol: String,
    /// `weights`, `bias`, `table`, `constant`, `code` or `arena`.
    pub kind: &'static str,
    /// Size in bytes.
    pub bytes: u64,
}

impl Placed {
    pub(crate) fn new(taken: &place::Taken) -> Self {
        let item = |(symbol, kind, bytes): &(String, place::Kind, u64)| PlacedItem {
            symbol: symbol.clone(),
            kind: kind.name(),
            bytes: *bytes,
        };
        Placed {
            rule: taken.rule.clone(),
            section: taken.section.clone(),
            memory: taken.memory.clone(),
            items: taken.items.iter().map(item).collect(),
        }
    }
}

/// Most things that a rule took which the text names one by one.
const PLACED: usize = 4;
/// Most layers that have a bar.
const BARS: usize = 80;
/// Width of the longest bar.
const BAR: u64 = 40;
/// Most buffers of the peak that the text names.
const LIVE: usize = 8;
/// Most dropped parameters that the text names one by one.
const DROPPED: usize = 12;

const TITLE: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();

fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

impl Report {
    /// As JSON, with a line feed at the end.
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data with string keys is always JSON");
        text.push('\n');
        text
    }

    /// The totals, with colours: print it through `anstream`.
    pub fn summary(&self) -> String {
        let Report {
            model,
            target,
            flash,
            ram,
            ..
        } = self;
        let n = thousands;
        let mut text = format!(
            "{}  {}, {} operators, {} MACs\n{}  {} ({}{})\n",
            styled(TITLE, "model "),
            model.file,
            model.operators,
            n(model.macs),
            styled(TITLE, "target"),
            target.triple,
            target.cpu,
            target.abi.as_ref().map(|abi| format!(", {abi}")).unwrap_or_default(),
        );
        text += &format!(
            "{}  {} bytes: {} weights, {} biases, {} scales, {} tables, {} code\n",
            styled(TITLE, "flash "),
            n(flash.total),
            n(flash.weights),
            n(flash.biases),
            n(flash.scales),
            n(flash.tables),
            n(flash.code),
        );
        if let Some(outside) = &self.outside {
            let how = match outside.buffer {
                Some(buffer) => format!("read in pieces of at most {} into two buffers of the arena", n(buffer)),
                None => "read in place".into(),
            };
            text += &format!(
                "{}  {} bytes of parameters outside the object, {how}\n",
                styled(TITLE, "image "),
                n(outside.image)
            );
        }
        let bound = if ram.arena == ram.lower_bound {
            styled(GOOD, "the least for this order of operators")
        } else if ram.optimal {
            format!(
                "{}, above the peak of live bytes, {}",
                styled(GOOD, "proven to be the least"),
                n(ram.lower_bound)
            )
        } else {
            format!("lower bound {}", n(ram.lower_bound))
        };
        let io = match ram.io {
            "arena" => "inputs and outputs inside",
            _ => "inputs and outputs not counted",
        };
        text += &format!(
            "{}  {} bytes: {} arena ({bound}; {io}), {} stack\n",
            styled(TITLE, "RAM   "),
            n(ram.arena + ram.stack),
            n(ram.arena),
            n(ram.stack),
        );
        if let Some(instructions) = self.instructions {
            let per_mac = instructions.most as f64 / model.macs.max(1) as f64;
            text += &format!(
                "{}  {instructions} instructions, {per_mac:.2} for each MAC\n",
                styled(TITLE, "run   ")
            );
        }
        text
    }

    /// Inputs and outputs, one line each.
    pub fn ports(&self) -> String {
        let mut text = String::new();
        for (word, ports) in [("input ", &self.inputs), ("output", &self.outputs)] {
            for port in ports {
                let quantization = match (port.scale, port.zero_point) {
                    (Some(scale), Some(zero)) => format!(", scale {scale}, zero point {zero}"),
                    _ => String::new(),
                };
                let offset = port
                    .offset
                    .map(|offset| format!(", at {} in the arena", thousands(offset)));
                text += &format!(
                    "{}  {} {}{:?}{quantization}{}\n",
                    styled(TITLE, word),
                    port.member,
                    port.dtype,
                    port.shape,
                    offset.unwrap_or_default()
                );
            }
        }
        text
    }

    /// One line for each layer.
    pub fn layers(&self) -> String {
        let counted = self.layers.iter().any(|layer| layer.instructions.is_some());
        let mut columns = vec![
            ">", "operator", "result", ">MACs", ">params", ">code", ">live", ">scratch", "kernel", "schedule",
        ];
        if counted {
            columns.insert(4, ">instructions");
        }
        let mut table = Table::new(&columns);
        for layer in &self.layers {
            let mut row = vec![
                layer.index.to_string(),
                layer.operator.to_owned(),
                format!("{}{:?}", layer.dtype, layer.shape).replace(' ', ""),
                thousands(layer.macs),
                thousands(layer.parameters),
                if layer.shared {
                    "shared".into()
                } else {
                    thousands(layer.code)
                },
                thousands(layer.live),
                thousands(layer.scratch),
                layer.kernel.clone(),
                layer.schedule.clone(),
            ];
            if counted {
                row.insert(
                    4,
                    layer.instructions.map_or_else(|| "?".into(), |count| count.to_string()),
                );
            }
            table.row(row);
        }
        let mut text = String::new();
        for (i, line) in table.lines().iter().enumerate() {
            text += &if i == 0 { styled(TITLE, line) } else { line.clone() };
            text.push('\n');
        }
        text
    }

    /// What each rule put where.
    pub fn placement(&self) -> String {
        let mut text = String::new();
        for Placed {
            rule,
            section,
            memory,
            items,
        } in &self.placement
        {
            let bytes: u64 = items.iter().map(|item| item.bytes).sum();
            let memory = memory
                .as_ref()
                .map(|memory| format!(" in {memory}"))
                .unwrap_or_default();
            let mut names: Vec<&str> = items.iter().take(PLACED).map(|item| item.symbol.as_str()).collect();
            let more = items.len().saturating_sub(PLACED);
            let rest = format!("and {more} more");
            if more > 0 {
                names.push(&rest);
            }
            let (places, list) = (styled(TITLE, "placed"), names.join(", "));
            text += &format!(
                "{places}  {rule}: {} bytes to {section}{memory}: {list}\n",
                thousands(bytes)
            );
        }
        text
    }

    /// The most live bytes of each layer as bars, and what is live at the peak.
    pub fn peak(&self) -> String {
        let Some(peak) = &self.peak else {
            return String::new();
        };
        let mut text = String::new();
        let most = self.layers.iter().map(|layer| layer.live).max().unwrap_or(0).max(1);
        for layer in self.layers.iter().take(BARS) {
            let bar = "█".repeat((layer.live * BAR).div_ceil(most) as usize);
            let rows = if layer.rows > 0 { " by rows" } else { "" };
            text += &format!(
                "{:>4}  {bar:<width$} {}{}\n",
                layer.index,
                thousands(layer.live),
                styled(FAINT, rows),
                width = BAR as usize
            );
        }
        if let Some(more @ 1..) = self.layers.len().checked_sub(BARS) {
            text += &format!("      {}\n", styled(FAINT, format_args!("and {more} more layers")));
        }
        let row = peak.row.map_or(String::new(), |row| format!(", row {row}"));
        text += &format!(
            "{}  {} bytes are live in layer {}{row}:\n",
            styled(TITLE, "peak  "),
            thousands(peak.live),
            peak.layer
        );
        for live in peak.buffers.iter().take(LIVE) {
            // Converters join the names of what they fused.
            let name = live.name.split(';').next().unwrap_or_default();
            text += &format!("  {:>10}  {} of {name:?}\n", thousands(live.bytes), live.kind);
        }
        let rest = peak.buffers.iter().skip(LIVE);
        if let Some(more @ 1..) = peak.buffers.len().checked_sub(LIVE) {
            let bytes = thousands(rest.map(|live| live.bytes).sum());
            text += &format!("  {bytes:>10}  {more} more\n");
        }
        let all: u64 = peak.buffers.iter().map(|live| live.bytes).sum();
        if all > peak.live {
            let shared = format!("-{}", thousands(all - peak.live));
            text += &format!("  {shared:>10}  of these are shared: a result grows over an input as that is read\n");
        }
        for advice in &peak.advice {
            text += &format!("  {advice}\n");
        }
        text
    }

    /// What is not in the object, and why.
    pub fn dropped(&self) -> String {
        if self.dropped.is_empty() {
            return String::new();
        }
        let bytes: u64 = self.dropped.iter().map(|dropped| dropped.bytes).sum();
        let mut text = format!(
            "{}  {} parameters, {} bytes\n",
            styled(TITLE, "left out"),
            self.dropped.len(),
            thousands(bytes)
        );
        for Dropped { name, bytes, reason } in self.dropped.iter().take(DROPPED) {
            text += &format!("  {name:?}, {} bytes: {reason}\n", thousands(*bytes));
        }
        if let Some(more @ 1..) = self.dropped.len().checked_sub(DROPPED) {
            text += &format!(
                "  {}\n",
                styled(FAINT, format_args!("and {more} more (--json lists them)"))
            );
        }
        text
    }

    /// External functions, what comes with them, and what the application must supply.
    pub fn external(&self) -> String {
        let Some(external) = &self.external else {
            return String::new();
        };
        let n = thousands;
        let mut text = String::new();
        if let Some(peer) = &external.peer {
            let parameters = match peer.parameters {
                0 => String::new(),
                bytes => format!(", and {} of parameters in RAM", n(bytes)),
            };
            text += &format!(
                "{}  {} needs {} bytes{parameters}; this build {}, inputs and outputs counted\n",
                styled(TITLE, "memory"),
                peer.name,
                n(peer.arena),
                n(peer.ours)
            );
        }
        text += &format!(
            "{}  {} external function{}; their instructions and stack are not counted\n",
            styled(TITLE, "calls "),
            external.functions.len(),
            if external.functions.len() == 1 { "" } else { "s" }
        );
        for function in &external.functions {
            let calls = match function.calls {
                1 => String::new(),
                calls => format!(", {calls} calls"),
            };
            let module = function.module.as_ref().map(|module| format!(", of {module}"));
            text += &format!(
                "  {}\n    {} bytes of workspace{calls}{}\n",
                function.prototype,
                n(function.workspace),
                module.unwrap_or_default()
            );
        }
        for object in &external.objects {
            text += &format!(
                "{}  {}, {} bytes, of {}\n",
                styled(TITLE, "object"),
                object.name,
                n(object.bytes),
                object.origin
            );
        }
        if !external.needs.is_empty() {
            let needs = external.needs.join(", ");
            text += &format!("{}  your link must supply {needs}\n", styled(TITLE, "needs "));
        }
        text
    }

    /// The whole text.
    pub fn text(&self) -> String {
        let parts = [
            self.summary(),
            self.ports(),
            format!("\n{}", self.layers()),
            format!("\n{}", self.peak()),
            self.placement(),
            self.dropped(),
            self.external(),
        ];
        parts.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::super::assert_golden;
    use super::*;

    fn report() -> Report {
        let layer = |index: usize, operator, kernel: &str, shared: bool| Layer {
            index,
            source: index,
            name: format!("model/layer{index}"),
            operator,
            dtype: "int8",
            shape: vec![1, 25, 5, 64],
            macs: 320_000 * (index as u64 + 1),
            instructions: (!shared).then_some(Instructions {
                least: 400_000,
                most: 400_000 + 1_234 * index as u64,
            }),
            kernel: kernel.into(),
            schedule: "pairs16 4px x 8ch".into(),
            code: 1240,
            shared,
            parameters: 3072,
            live: 16_000,
            rows: 0,
            scratch: 64,
        };
        Report {
            schema: SCHEMA,
            corerope: "0.0.0",
            model: Model {
                name: "kws".into(),
                file: "kws.tflite".into(),
                bytes: 53_936,
                operators: 13,
                macs: 2_656_768,
            },
            target: Target {
                triple: "riscv64gc-unknown-none-elf".into(),
                cpu: "rv64gc".into(),
                abi: Some("lp64f".into()),
            },
            flash: Flash {
                code: 9_000,
                weights: 22_000,
                biases: 1_000,
                scales: 976,
                tables: 1_024,
                other: 3_000,
                total: 34_000,
            },
            outside: None,
            ram: Ram {
                arena: 16_000,
                arena_align: 16,
                lower_bound: 16_000,
                optimal: true,
                provided_by: "static",
                io: "pointers",
                stack: 208,
            },
            inputs: vec![Port {
                name: "input_1".into(),
                member: "input_1".into(),
                dtype: "int8",
                shape: vec![1, 49, 10, 1],
                bytes: 490,
                scale: Some(0.5),
                zero_point: Some(83),
                offset: None,
            }],
            outputs: vec![Port {
                name: "Identity".into(),
                member: "identity".into(),
                dtype: "float32",
                shape: vec![1, 12],
                bytes: 48,
                scale: None,
                zero_point: None,
                offset: Some(496),
            }],
            instructions: Some(Instructions {
                least: 3_600_000,
                most: 3_659_457,
            }),
            layers: vec![
                layer(0, "conv2d", "conv2d_0", false),
                layer(1, "conv2d", "conv2d_0", true),
            ],
            peak: Some(Peak {
                layer: 1,
                row: Some(3),
                live: 16_000,
                buffers: vec![
                    Live {
                        name: "model/layer0".into(),
                        kind: "tensor",
                        bytes: 8_000,
                    },
                    Live {
                        name: "model/layer1".into(),
                        kind: "scratch",
                        bytes: 64,
                    },
                ],
                advice: vec!["--optimize ram runs chains of layers row by row".into()],
            }),
            dropped: (0..14)
                .map(|i| Dropped {
                    name: format!("w{i}"),
                    bytes: 64,
                    reason: "equal to \"w\"".into(),
                })
                .collect(),
            external: None,
            sections: vec![Section {
                name: ".text.kws.conv2d_0".into(),
                symbol: "kws_kernel_conv2d_0".into(),
                kind: "code",
                bytes: 1240,
                align: 16,
                memory: None,
            }],
            memory: vec![Memory::new(&"QSPI=0x90000000:16M".parse().unwrap())],
            placement: vec![Placed {
                rule: "kind=weights=.qspi>QSPI".into(),
                section: ".qspi".into(),
                memory: Some("QSPI".into()),
                items: (0..6)
                    .map(|i| PlacedItem {
                        symbol: format!("kws_w{i}"),
                        kind: "weights",
                        bytes: 1024,
                    })
                    .collect(),
            }],
        }
    }

    /// The text without its colours.
    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn texts() {
        let mut report = report();
        assert_golden("src/output/golden/report.txt", &plain(&report.text()));
        report.ram.lower_bound = 15_000;
        report.ram.optimal = false;
        assert!(plain(&report.summary()).contains("(lower bound 15,000;"));
        report.ram.optimal = true;
        assert!(plain(&report.summary()).contains("proven to be the least"));
        assert_ne!(plain(&report.text()), report.text());
    }

    #[test]
    fn json_is_stable() {
        assert_golden("src/output/golden/report.json", &report().json());
    }
}
