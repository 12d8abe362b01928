//! What a build holds, for people (tables) and for scripts (JSON with a stable schema).

mod schedules;
#[cfg(test)]
mod tests;
mod text;

use super::table::thousands;
use crate::place;
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
    /// Modelled cycles of one run, where the core's table is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycles: Option<Cycles>,
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
    /// The parts of the arena in their memories, the fastest first; none where it is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<Pool>,
}

/// The part of the arena in one memory.
#[derive(Clone, Debug, Serialize)]
pub struct Pool {
    /// The memory.
    pub name: String,
    /// Symbol of the part, if it is static and not empty.
    pub symbol: Option<String>,
    /// Bytes.
    pub bytes: u64,
    /// Bytes of the memory that the model may use.
    pub capacity: u64,
    /// The least that what is in it can take in this order.
    pub lower_bound: u64,
    /// Bytes that a run reads and writes there, as the shapes of the layers say.
    pub accesses: u64,
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
    /// Offset in the arena, or in its part, if it lives there.
    pub offset: Option<u64>,
    /// The memory of the part of the arena where it lives, where that is divided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
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

/// Cycles by a table of what each kind of instruction takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cycles {
    /// At most.
    pub most: u64,
    /// The core.
    pub core: &'static str,
    /// Where the table is from, and what it leaves out.
    pub source: &'static str,
}

/// How the operands of a multiply-accumulate layer's kernel lie.
#[derive(Clone, Debug, Serialize)]
pub struct Layout {
    /// Output positions of a tile, where there are tiles.
    pub pixels: Option<usize>,
    /// Output channels of a tile.
    pub channels: Option<usize>,
    /// Steps of the sum in one round of the loop.
    pub unroll: Option<usize>,
    /// What the loop reads of the input.
    pub activations: &'static str,
    /// What it reads of the filter.
    pub weights: &'static str,
}

/// A schedule that a layer has or could have.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Whether it is the one that was chosen.
    pub chosen: bool,
    /// The schedule.
    pub schedule: String,
    /// What asks for it, or what it does without.
    pub asked_by: Vec<String>,
    /// Instructions of all calls, exact, where they are counted.
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
    /// Modelled cycles of the call, where the core's table is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycles: Option<u64>,
    /// How the kernel's operands lie, for multiply-accumulate layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// The schedule and its runners-up, the best first, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
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

impl Report {
    /// As JSON, with a line feed at the end.
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data with string keys is always JSON");
        text.push('\n');
        text
    }
}
