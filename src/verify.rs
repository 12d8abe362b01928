//! Compiled code against the meaning of the model: every layer, bit for bit.
//!
//! Three computations have to agree: the model as it was read, by the evaluator; the graph after the passes, by the
//! evaluator; and the graph compiled, traced layer by layer in a program that is run on this machine.

use crate::build::Build;
use crate::error::{Error, Result};
use crate::graph::evaluate::{evaluate, evaluate_with};
use crate::graph::{DType, Graph, OpId, Tensor};
use crate::harness::{self, Kind, Run};
use crate::kernels::Call;
use crate::kernels::entry::stream;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A set of inputs, in the model's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What is in it: `zero`, `extremes`, `random 1`.
    pub name: String,
    /// Little-endian elements of each input.
    pub inputs: Vec<Vec<u8>>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Findings {
    /// Names of the input sets.
    pub sets: Vec<String>,
    /// Whether everything agrees.
    pub ok: bool,
    /// Outputs that differ between the model as it was read and the graph after the passes.
    pub passes: Vec<Difference>,
    /// Layers of the compiled code, in execution order.
    pub layers: Vec<Layer>,
}

/// A layer of the compiled code.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// Position in the run.
    pub index: usize,
    /// The model's name for the operator.
    pub name: String,
    /// What it computes.
    pub operator: &'static str,
    /// Its kernel.
    pub kernel: String,
    /// Elements compared, over all sets.
    pub elements: u64,
    /// The first difference, if any. Layers behind a layer that differs differ as well, as a rule.
    pub difference: Option<Difference>,
}

/// A tensor that is not as expected.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The input set.
    pub set: String,
    /// The model's name for the tensor.
    pub tensor: String,
    /// Index of the first element that differs.
    pub index: Vec<usize>,
    /// What it should be.
    pub expected: f64,
    /// What it is.
    pub got: f64,
    /// Elements of the tensor that differ.
    pub differing: u64,
    /// Elements of the tensor.
    pub elements: u64,
}

impl Findings {
    /// The first disagreement as an error, `None` if there is none.
    pub fn error(&self) -> Option<Error> {
        let describe = |what: String, difference: &Difference| {
            let Difference {
                set,
                index,
                expected,
                got,
                differing,
                elements,
                ..
            } = difference;
            let message = format!(
                "{what}: element {index:?} is {got}, expected {expected} \
                 ({differing} of {elements} elements differ on the inputs {set:?})"
            );
            Error::new(crate::error::Code::Mismatch, message)
        };
        if let Some(difference) = self.passes.first() {
            let what = format!("the passes changed the output {:?}", difference.tensor);
            return Some(describe(what, difference).help(BUG));
        }
        let (layer, difference) = self
            .layers
            .iter()
            .find_map(|layer| Some((layer, layer.difference.as_ref()?)))?;
        let what = format!("layer {} is the first that differs from the evaluator", layer.index);
        let place = format!("{} {:?}, kernel {}", layer.operator, layer.name, layer.kernel);
        Some(describe(what, difference).at(place).help(BUG))
    }
}

const BUG: &str = "this is a bug in corerope: please report it with the model";

/// Fixed sequence of numbers (Steele, Lea and Flood's SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [−1, 1).
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// How the elements of a set are chosen.
#[derive(Clone, Copy)]
enum Fill {
    /// Real zero.
    Zero,
    /// The least value everywhere.
    Lowest,
    /// The greatest value everywhere.
    Highest,
    /// Least and greatest values at random.
    Extremes,
    /// Any value.
    Random,
}

/// Real values beyond which float inputs are not tried: activations are of this size, and sums of their products finite.
const FLOAT_EXTREME: f32 = 1000.0;
const FLOAT_RANDOM: f32 = 4.0;

fn fill(tensor: &Tensor, fill: Fill, random: &mut Random) -> Vec<u8> {
    let zero = tensor.affine().1;
    let mut out = Vec::with_capacity(tensor.bytes());
    for _ in 0..tensor.shape.elements() {
        let bits = random.next();
        let fill = match fill {
            Fill::Extremes if bits & 1 == 0 => Fill::Lowest,
            Fill::Extremes => Fill::Highest,
            fill => fill,
        };
        match tensor.dtype {
            DType::F32 => {
                let value = match fill {
                    Fill::Zero => 0.0,
                    Fill::Lowest => -FLOAT_EXTREME,
                    Fill::Highest => FLOAT_EXTREME,
                    _ => random.unit() * FLOAT_RANDOM,
                };
                out.extend(value.to_le_bytes());
            }
            DType::Bool => out.push(match fill {
                Fill::Zero | Fill::Lowest => 0,
                Fill::Highest => 1,
                _ => (bits & 1) as u8,
            }),
            dtype => {
                let width = dtype.bytes();
                let signed = dtype != DType::U8;
                // Two's complement: the sign bit alone is the least, all others the greatest.
                let sign = if signed { 1u64 << (8 * width - 1) } else { 0 };
                let value = match fill {
                    Fill::Zero => i64::from(zero) as u64,
                    Fill::Lowest => sign,
                    Fill::Highest => !sign,
                    _ => bits,
                };
                out.extend(&value.to_le_bytes()[..width]);
            }
        }
    }
    out
}

/// Inputs that are the same at every run: zeros, extremes and `random` sets of random values.
pub fn sets(graph: &Graph, random: usize) -> Vec<Set> {
    let fixed = [
        ("zero", Fill::Zero),
        ("lowest", Fill::Lowest),
        ("highest", Fill::Highest),
        ("extremes", Fill::Extremes),
    ];
    let fixed = fixed.into_iter().map(|(name, fill)| (name.to_owned(), fill));
    let kinds = fixed.chain((1..=random).map(|i| (format!("random {i}"), Fill::Random)));
    let set = |(seed, (name, kind)): (usize, (String, Fill))| {
        let mut random = Random(seed as u64);
        let input = |id: &crate::graph::TensorId| fill(graph.tensor(*id), kind, &mut random);
        Set {
            name,
            inputs: graph.inputs.iter().map(input).collect(),
        }
    };
    kinds.enumerate().map(set).collect()
}

/// Runs compiled code and evaluator on every set and compares them, and the graph with the model as it was read.
/// `runner` starts programs of other machines; `progress` hears how many sets are done.
///
/// # Errors
/// If the program cannot be run or the evaluator fails. Disagreement is no error here: see [`Findings::error`].
pub fn verify(
    build: &Build,
    sets: &[Set],
    runner: Option<&[String]>,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Findings> {
    let kernels = build.kernels.clone();
    let program = harness::program(&build.model_code(), kernels, Kind::Trace)?;
    let inputs: Vec<Vec<Vec<u8>>> = sets.iter().map(|set| set.inputs.clone()).collect();
    let runs = program.run(runner, &inputs)?;

    let results = parallel(sets.len(), progress, |i| compare(build, &sets[i], &runs[i]))?;
    let mut layers = layers(build, sets.len());
    let mut passes = Vec::new();
    for Compared { outputs, steps } in results {
        passes.extend(outputs);
        for (layer, difference) in layers.iter_mut().zip(steps) {
            layer.difference = layer.difference.take().or(difference);
        }
    }
    Ok(Findings {
        sets: sets.iter().map(|set| set.name.clone()).collect(),
        ok: passes.is_empty() && layers.iter().all(|layer| layer.difference.is_none()),
        passes,
        layers,
    })
}

fn layers(build: &Build, sets: usize) -> Vec<Layer> {
    let graph = &build.graph;
    let calls: BTreeMap<OpId, &Call> = build.lowering.all_calls().map(|call| (call.op, call)).collect();
    let layer = |(index, id): (usize, &OpId)| {
        let op = graph.op(*id);
        let call = calls.get(id);
        Layer {
            index,
            name: op.name.clone(),
            operator: op.kind.name(),
            kernel: call.map_or(String::new(), |call| {
                call.kernel
                    .map_or(String::new(), |kernel| build.lowering.kernel(kernel).name.clone())
            }),
            elements: (graph.tensor(op.output()).shape.elements() * sets) as u64,
            difference: None,
        }
    };
    build.plan.order.iter().enumerate().map(layer).collect()
}

/// What one set shows.
struct Compared {
    outputs: Vec<Difference>,
    /// By step.
    steps: Vec<Option<Difference>>,
}

fn compare(build: &Build, set: &Set, run: &Run) -> Result<Compared> {
    let arithmetic = build.options.arithmetic();
    let inputs: Vec<&[u8]> = set.inputs.iter().map(Vec::as_slice).collect();
    let mut layer_of = vec![None; build.graph.ops.len()];
    for (layer, op) in build.plan.order.iter().enumerate() {
        layer_of[op.index()] = Some(layer);
    }
    // What each layer's steps have made, as pieces of its result.
    let mut made: Vec<Vec<(Range<usize>, &[u8])>> = vec![Vec::new(); build.plan.order.len()];
    for (step, bytes) in build.plan.steps.iter().zip(&run.trace) {
        if let Some(layer) = layer_of[step.op.index()] {
            made[layer].push((stream::result(&build.graph, &build.lowering, step), bytes));
        }
    }
    let mut steps = vec![None; build.plan.order.len()];
    let outputs = evaluate_with(&build.graph, &inputs, arithmetic, &mut |op, expected| {
        if let Some(layer) = layer_of[op.index()] {
            let tensor = build.graph.tensor(build.graph.op(op).output());
            // Rows that no window sees are not made.
            let mut found = expected.to_vec();
            for (range, bytes) in &made[layer] {
                found[range.clone()].copy_from_slice(bytes);
            }
            steps[layer] = difference(tensor, expected, &found, &set.name);
        }
    })?;
    let model = evaluate(&build.model, &inputs, arithmetic)?;
    let mut differences = Vec::new();
    for (i, id) in build.model.outputs.iter().enumerate() {
        differences.extend(difference(build.model.tensor(*id), &model[i], &outputs[i], &set.name));
    }
    // The trace shows what each call wrote; this is what reaches the application.
    for (i, id) in build.graph.outputs.iter().enumerate() {
        let found = difference(build.graph.tensor(*id), &outputs[i], &run.outputs[i], &set.name);
        if let (Some(found), Some(last @ None)) = (found, steps.last_mut()) {
            *last = Some(found);
        }
    }
    Ok(Compared {
        outputs: differences,
        steps,
    })
}

/// The first element that differs. NaNs are equal to one another, whatever their payload.
fn difference(tensor: &Tensor, expected: &[u8], got: &[u8], set: &str) -> Option<Difference> {
    if expected == got {
        return None;
    }
    let width = tensor.dtype.bytes();
    let value = |bytes: &[u8], i: usize| element(tensor.dtype, &bytes[i * width..(i + 1) * width]);
    let same = |i: &usize| {
        let at = *i * width..(*i + 1) * width;
        expected[at.clone()] == got[at] || (value(expected, *i).is_nan() && value(got, *i).is_nan())
    };
    let elements = expected.len().min(got.len()) / width;
    let mut wrong = (0..elements).filter(|i| !same(i));
    let first = wrong.next()?;
    let mut index = Vec::new();
    let mut rest = first;
    for dim in tensor.shape.0.iter().rev() {
        index.insert(0, rest % dim);
        rest /= dim;
    }
    Some(Difference {
        set: set.to_owned(),
        tensor: tensor.name.clone(),
        index,
        expected: value(expected, first),
        got: value(got, first),
        differing: 1 + wrong.count() as u64,
        elements: elements as u64,
    })
}

/// A little-endian element as a number.
pub(crate) fn element(dtype: DType, bytes: &[u8]) -> f64 {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(wide);
    match dtype {
        DType::F32 => f32::from_bits(bits as u32).into(),
        DType::U8 | DType::Bool => bits as f64,
        dtype => {
            let unused = 64 - 8 * dtype.bytes() as u32;
            ((bits << unused) as i64 >> unused) as f64
        }
    }
}

/// `work(0..n)` on all processors, results in order.
fn parallel<T: Send>(
    n: usize,
    progress: &(dyn Fn(usize) + Sync),
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(n);
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<(usize, Result<T>)>> = Mutex::new(Vec::with_capacity(n));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= n {
                        break;
                    }
                    let result = work(i);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((i, result));
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests;
