//! What a build holds, as text and as a report.

use super::{Build, Goal};
use crate::codegen::Code;
use crate::codegen::counts::Instructions;
use crate::codegen::timing::Timing;
use crate::data::Bytes;
use crate::graph::{Graph, OpId, OpKind, TensorId};
use crate::image::Access;
use crate::kernels::entry::{self, ArenaKind};
use crate::kernels::{Call, KernelId, Lowering, Operand, ParameterId, ParameterKind};
use crate::names::{Helper, Names};
use crate::object::{ObjectPlan, SectionKind};
use crate::output::header::Header;
use crate::output::linker::{Dialect, Fragment, Part};
use crate::output::report::{self, Dropped, Report};
use crate::output::table::thousands;
use crate::output::timeline::{self, Bar, Kind, Timeline};
use crate::plan::{Io, Place, Plan};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A text that formatting cannot fail to fill.
fn text(fill: impl FnOnce(&mut String) -> std::fmt::Result) -> String {
    let mut text = String::new();
    fill(&mut text).expect("writing to a string cannot fail");
    text
}

/// Kernels with their CLIF, parameters, and calls.
pub(super) fn kernels(graph: &Graph, lowering: &Lowering) -> String {
    text(|out| {
        for kernel in &lowering.kernels {
            writeln!(out, "kernel {} ; {}", kernel.name, kernel.schedule)?;
            writeln!(out, "{}", kernel.function.display())?;
        }
        for parameter in &lowering.parameters {
            let (name, kind) = (&parameter.name, parameter.kind);
            writeln!(
                out,
                "parameter {name:?} {kind:?} {} bytes align {}",
                parameter.contents.len(),
                parameter.align
            )?;
        }
        for call in lowering.all_calls() {
            match (call.kernel, &graph.op(call.op).kind) {
                (Some(kernel), _) => write!(out, "call {}", lowering.kernel(kernel).name)?,
                (None, OpKind::External(external)) => write!(out, "call {}", external.symbol)?,
                (None, _) => write!(out, "call ?")?,
            }
            for operand in &call.operands {
                match operand {
                    Operand::Tensor(id) => write!(out, " {:?}", graph.tensor(*id).name)?,
                    Operand::Parameter(id) => write!(out, " {:?}", lowering.parameter(*id).name)?,
                    Operand::Scratch => write!(out, " scratch({})", call.scratch.map_or(0, |scratch| scratch.size))?,
                    Operand::Row(id) => write!(out, " row {:?}", graph.tensor(*id).name)?,
                    Operand::Window(id) => write!(out, " rows {:?}", graph.tensor(*id).name)?,
                    Operand::State => write!(out, " state")?,
                }
            }
            writeln!(out, " ; {}", graph.op(call.op).describe())?;
            for launch in &call.launches {
                let kernel = &lowering.kernel(launch.kernel).name;
                let (count, bytes, piece) = (launch.count, launch.bytes, launch.piece);
                writeln!(
                    out,
                    "  {count} of {kernel}, {bytes} bytes each, from {} by {piece}",
                    launch.start
                )?;
            }
        }
        Ok(())
    })
}

/// The order of the operators and the buffers of the arena.
pub(super) fn plan(graph: &Graph, plan: &Plan) -> String {
    text(|out| {
        writeln!(
            out,
            "arena {} bytes align {}, lower bound {}",
            plan.arena_size, plan.arena_align, plan.lower_bound
        )?;
        for pool in &plan.pools {
            writeln!(
                out,
                "pool {:?} bytes {}..{} of {}, lower bound {}",
                pool.name,
                pool.start,
                pool.end(),
                pool.capacity,
                pool.lower_bound
            )?;
        }
        for (at, (step, live)) in plan.steps.iter().zip(&plan.live).enumerate() {
            let row = step.rows.map_or(String::new(), |rows| format!(" row {}", rows.row));
            writeln!(
                out,
                "step {at} {}{row} ; {live} bytes live",
                graph.op(step.op).describe()
            )?;
        }
        for buffer in &plan.buffers {
            let what = match buffer.scratch_of {
                Some(op) => format!("scratch of {:?}", graph.op(op).name),
                None => {
                    let names = buffer.tensors.iter().map(|id| format!("{:?}", graph.tensor(*id).name));
                    names.collect::<Vec<_>>().join(" = ")
                }
            };
            let end = buffer.offset + buffer.size;
            writeln!(
                out,
                "bytes {}..{end} steps {}..={} {what}",
                buffer.offset, buffer.first, buffer.last
            )?;
        }
        Ok(())
    })
}

/// Functions with sizes, frames, relocations and bytes.
pub(super) fn code(codes: &[Code]) -> String {
    text(|out| {
        for code in codes {
            let (name, bytes) = (&code.name, code.bytes.len());
            writeln!(
                out,
                "function {name} {bytes} bytes align {} frame {}",
                code.align, code.frame
            )?;
            for relocation in &code.relocations {
                let (offset, symbol) = (relocation.offset, &relocation.symbol);
                writeln!(
                    out,
                    "  at {offset:#x}: {symbol}{:+} {:?}",
                    relocation.addend, relocation.flags
                )?;
            }
            for (i, line) in code.bytes.chunks(32).enumerate() {
                let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(out, "  {:06x} {hex}", i * 32)?;
            }
        }
        Ok(())
    })
}

/// Sections and symbols.
pub(super) fn object(object: &ObjectPlan) -> String {
    text(|out| {
        for (i, section) in object.sections.iter().enumerate() {
            let (name, kind, bytes) = (&section.name, section.kind, section.contents.len());
            writeln!(out, "section {name} {kind:?} {bytes} bytes align {}", section.align)?;
            for symbol in object.symbols.iter().filter(|symbol| symbol.section == Some(i)) {
                let (name, visibility) = (&symbol.name, symbol.visibility);
                writeln!(
                    out,
                    "  symbol {name} at {} {} bytes {visibility:?}",
                    symbol.offset, symbol.size
                )?;
            }
        }
        Ok(())
    })
}

/// A hash of the bytes, read in pieces: pages of the model do not stay in memory for it. `None` for a file that cannot
/// be read any more, which fails where it is written.
fn hash(data: &Bytes) -> Option<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    data.write_to(&mut hasher).ok()?;
    Some(*hasher.finalize().as_bytes())
}

/// Where bytes lie in the model file or in memory.
fn range(data: &Bytes) -> (*const u8, *const u8) {
    let range = data.as_slice().as_ptr_range();
    (range.start, range.end)
}

/// The constants of `model` that the object does not hold, and why.
pub(super) fn dropped(model: &Graph, graph: &Graph, lowering: &Lowering, names: &Names) -> Vec<Dropped> {
    let made_from = lowering.parameters.iter().flat_map(|parameter| &parameter.tensors);
    let held = made_from.chain(names.constants.keys()).map(|id| graph.tensor(*id));
    let held: Vec<(&Bytes, &str)> = held
        .filter_map(|tensor| Some((tensor.data.as_ref()?, tensor.name.as_str())))
        .collect();
    let places: BTreeSet<_> = held.iter().map(|(data, _)| range(data)).collect();
    let mut by_size: BTreeMap<u64, Vec<(&Bytes, &str)>> = BTreeMap::new();
    for (data, name) in held {
        by_size.entry(data.len()).or_default().push((data, name));
    }
    // Bytes are read only where a size occurs on both sides.
    let mut hashes: BTreeMap<u64, BTreeMap<[u8; 32], &str>> = BTreeMap::new();
    let mut twin = |data: &Bytes| {
        let same = by_size.get(&data.len())?;
        let of_size = hashes.entry(data.len()).or_insert_with(|| {
            let first = same.iter().rev();
            first.filter_map(|(data, name)| Some((hash(data)?, *name))).collect()
        });
        of_size.get(&hash(data)?).copied()
    };
    let users = model.users();
    let constants = model.tensors.iter().zip(&users).filter_map(|(tensor, users)| {
        let data = tensor.data.as_ref().filter(|data| !data.is_empty())?;
        if places.contains(&range(data)) {
            return None;
        }
        let owned = model.foreign.owned.iter().find(|owned| owned.name == tensor.name);
        let reason = if let Some(owned) = owned.filter(|_| users.is_empty()) {
            owned.owner.clone()
        } else if users.is_empty() {
            "no operator reads it".into()
        } else if let Some(twin) = twin(data) {
            format!("equal to {twin:?}")
        } else {
            "what depends on it is computed when compiling, or needed by no output".into()
        };
        Some(Dropped {
            name: tensor.name.clone(),
            bytes: data.len(),
            reason,
        })
    });
    constants.collect()
}

pub(super) fn counted(instructions: Instructions) -> report::Instructions {
    report::Instructions {
        least: instructions.least(),
        most: instructions.most,
    }
}

impl Build {
    /// What the functions of the model are made from.
    pub fn model_code(&self) -> entry::Model<'_> {
        let image = self.image.as_ref();
        (self.options).model_code(&self.graph, &self.lowering, &self.plan, &self.names, image)
    }

    /// The C header, `file` being its name.
    ///
    /// # Errors
    /// [`Code::Internal`](crate::error::Code::Internal) if the template is wrong.
    pub fn header(&self, file: &str) -> crate::error::Result<String> {
        let header = Header {
            file,
            source: &self.options.file,
            model: self.model_code(),
            shared: self.options.shared_arena.is_some(),
            stack: self.stack,
            float: self.object.float,
            id: &self.id,
        };
        header.text()
    }

    /// The linker-script fragment in a dialect, `file` being its name.
    ///
    /// # Errors
    /// As [`Fragment::text`].
    pub fn fragment(&self, file: &str, dialect: Dialect) -> crate::error::Result<String> {
        let fragment = Fragment {
            file,
            titles: &[&self.graph.name],
            placement: &self.placement,
            parts: &[Part {
                model: &self.names.model,
                object: &self.object,
            }],
        };
        fragment.text(dialect)
    }

    /// Whether a parameter is in the object and not in an image.
    fn holds(&self, id: usize) -> bool {
        let image = self.image.as_ref();
        !image.is_some_and(|image| image.holds(ParameterId(id as u32)))
    }

    /// Bytes of the model's biases in parameters that hold them beside other constants.
    fn biases(&self) -> u64 {
        let of_kind = self.lowering.parameters.iter().enumerate();
        let of_kind = of_kind.filter(|(id, parameter)| parameter.kind == ParameterKind::Bias && self.holds(*id));
        of_kind
            .map(|(_, parameter)| {
                let users = self.graph.ops.iter().filter(|op| {
                    let filter = op.inputs.get(1);
                    filter.is_some_and(|filter| parameter.tensors.contains(filter))
                });
                let biases = users.filter_map(|op| op.inputs.get(2));
                let bytes = biases.map(|bias| self.graph.tensor(*bias).bytes() as u64).max();
                bytes.unwrap_or(0).min(parameter.contents.len())
            })
            .sum()
    }

    /// The report.
    pub fn report(&self) -> Report {
        let Build {
            options, graph, plan, ..
        } = self;
        let parameters = |kind: fn(ParameterKind) -> bool| -> u64 {
            let all = self.lowering.parameters.iter().enumerate();
            let of_kind = all.filter(|(id, parameter)| kind(parameter.kind) && self.holds(*id));
            of_kind.map(|(_, parameter)| parameter.contents.len()).sum()
        };
        let constants = self.names.constants.keys().map(|id| graph.tensor(*id).bytes() as u64);
        let weights = parameters(|kind| kind == ParameterKind::Weights);
        let header = [Helper::Header, Helper::Table].map(|helper| self.names.helper(helper).symbol.as_str());
        let held = self
            .object
            .symbols
            .iter()
            .filter(|symbol| header.contains(&symbol.name.as_str()));
        let held: u64 = held.map(|symbol| symbol.size).sum();
        let other = parameters(|kind| kind != ParameterKind::Weights) + constants.sum::<u64>() + held;
        let code = self.object.size(SectionKind::Text);
        let biases = self.biases();
        let scales = parameters(|kind| kind == ParameterKind::Bias) - biases;
        Report {
            schema: report::SCHEMA,
            corerope: env!("CARGO_PKG_VERSION"),
            model: report::Model {
                name: self.names.model.clone(),
                file: options.file.clone(),
                bytes: self.model_bytes,
                operators: self.model.ops.len(),
                macs: graph.op_ids().map(|op| graph.macs(op)).sum(),
            },
            target: report::Target {
                triple: options.target.name.clone(),
                cpu: options.target.cpu.name.to_owned(),
                abi: options.target.abi.map(str::to_owned),
            },
            flash: report::Flash {
                code,
                weights,
                biases,
                scales,
                tables: other - biases - scales,
                other,
                total: code + weights + other,
            },
            outside: self.image.as_ref().map(|image| report::Outside {
                access: match image.access {
                    Access::External => "external",
                    Access::Streamed => "streamed",
                },
                image: image.size,
                buffer: (image.access == Access::Streamed).then_some(image.staging),
            }),
            ram: report::Ram {
                arena: plan.arena_size,
                arena_align: plan.arena_align,
                lower_bound: plan.lower_bound,
                optimal: plan.optimal,
                provided_by: if options.arena == ArenaKind::Static {
                    "static"
                } else {
                    "caller"
                },
                io: if options.io == Io::Pointers {
                    "pointers"
                } else {
                    "arena"
                },
                stack: self.stack,
                pools: self.pools(),
            },
            inputs: self.ports(&graph.inputs, &self.names.inputs),
            outputs: self.ports(&graph.outputs, &self.names.outputs),
            instructions: self.run_instructions.map(counted),
            cycles: self.cycles(),
            layers: self.layers(),
            peak: self.peak(),
            dropped: self.dropped.clone(),
            external: self.external(),
            sections: self.sections(),
            memory: self.placement.memory.iter().map(report::Memory::new).collect(),
            placement: self.placement.taken.iter().map(report::Placed::new).collect(),
        }
    }

    /// Modelled cycles of a run.
    fn cycles(&self) -> Option<report::Cycles> {
        let timing = Timing::of(&self.options.target)?;
        Some(report::Cycles {
            most: self.run_instructions?.cycles,
            core: timing.core(),
            source: timing.source(),
        })
    }

    fn ports(&self, ids: &[TensorId], members: &[String]) -> Vec<report::Port> {
        let place = |id: TensorId| match self.plan.places[id.index()] {
            Place::Arena(offset) => Some(self.plan.locate(offset)),
            _ => None,
        };
        let port = |(id, member): (&TensorId, &String)| {
            let tensor = self.graph.tensor(*id);
            let quantization = tensor.quantization.as_ref().filter(|q| q.scale.len() == 1);
            report::Port {
                name: tensor.name.clone(),
                member: member.clone(),
                dtype: tensor.dtype.name(),
                shape: tensor.shape.0.clone(),
                bytes: tensor.bytes() as u64,
                scale: quantization.map(|q| q.scale[0]),
                zero_point: quantization.map(|q| q.zero_point[0]),
                offset: place(*id).map(|(_, offset)| offset),
                pool: place(*id).and_then(|(pool, _)| Some(self.plan.pools.get(pool)?.name.clone())),
            }
        };
        ids.iter().zip(members).map(port).collect()
    }

    /// The parts of the arena.
    fn pools(&self) -> Vec<report::Pool> {
        let pools = self.plan.pools.iter().enumerate();
        pools
            .map(|(i, pool)| report::Pool {
                name: pool.name.clone(),
                symbol: (self.options.arena == ArenaKind::Static && pool.size > 0)
                    .then(|| self.names.pool(i).symbol.clone()),
                bytes: pool.size,
                capacity: pool.capacity,
                lower_bound: pool.lower_bound,
                accesses: pool.accesses,
            })
            .collect()
    }

    fn layers(&self) -> Vec<report::Layer> {
        let mut calls: BTreeMap<OpId, Vec<(&Call, u64)>> = BTreeMap::new();
        for call in &self.lowering.calls {
            calls.entry(call.op).or_default().push((call, 1));
        }
        for (number, runs) in self.lowering.streams.runs.iter().flat_map(|run| &run.calls) {
            let call = &self.lowering.row_calls[*number];
            calls.entry(call.op).or_default().push((call, *runs));
        }
        let mut most: BTreeMap<OpId, (u64, usize)> = BTreeMap::new();
        for (step, live) in self.plan.steps.iter().zip(&self.plan.live) {
            let (known, rows) = most.entry(step.op).or_default();
            *known = (*known).max(*live);
            *rows += usize::from(step.rows.is_some());
        }
        let mut seen = BTreeSet::new();
        let modelled = Timing::of(&self.options.target).is_some();
        let layers = self.plan.order.iter().enumerate().filter_map(|(index, id)| {
            let calls = calls.get(id)?;
            // Of an operator in rows, the call that is made most.
            let (call, _) = calls.iter().max_by_key(|(_, runs)| *runs)?;
            let (live, rows) = most.get(id).copied().unwrap_or_default();
            let instructions = calls.iter().try_fold(Instructions::default(), |sum, (call, runs)| {
                Some(sum.plus(self.call_instructions(call)?, *runs))
            });
            let op = self.graph.op(*id);
            let result = self.graph.tensor(op.output());
            let kernel = call.kernel.map(|kernel| self.lowering.kernel(kernel));
            let (name, schedule) = match (kernel, &op.kind) {
                (Some(kernel), _) => (kernel.name.clone(), kernel.schedule.clone()),
                (None, OpKind::External(external)) => (external.symbol.clone(), "external".to_owned()),
                (None, _) => Default::default(),
            };
            let launched = call.launches.iter().map(|launch| launch.kernel);
            let kernels: BTreeSet<KernelId> = launched.chain(call.kernel).collect();
            let parameters: BTreeSet<ParameterId> = (call.operands.iter())
                .filter_map(|operand| match operand {
                    Operand::Parameter(id) => Some(*id),
                    _ => None,
                })
                .collect();
            Some(report::Layer {
                index,
                source: op.source,
                name: op.name.clone(),
                operator: op.kind.name(),
                dtype: result.dtype.name(),
                shape: result.shape.0.clone(),
                macs: self.graph.macs(*id),
                kernel: name.clone(),
                schedule,
                instructions: instructions.map(counted),
                cycles: instructions.filter(|_| modelled).map(|sum| sum.cycles),
                layout: kernel.and_then(|kernel| kernel.layouts).map(|layouts| report::Layout {
                    pixels: layouts.tile.map(|tile| tile.pixels),
                    channels: layouts.tile.map(|tile| tile.channels),
                    unroll: layouts.tile.map(|tile| tile.k_unroll),
                    activations: layouts.activations,
                    weights: layouts.weights,
                }),
                candidates: Vec::new(),
                code: kernels
                    .iter()
                    .map(|kernel| self.kernels[kernel.0 as usize].bytes.len() as u64)
                    .sum(),
                shared: !seen.insert(name),
                parameters: (parameters.iter())
                    .map(|id| self.lowering.parameter(*id).contents.len())
                    .sum(),
                live,
                rows,
                scratch: call.scratch.map_or(0, |scratch| scratch.size),
            })
        });
        layers.collect()
    }

    /// Instructions of all launches of a call.
    fn call_instructions(&self, call: &Call) -> Option<Instructions> {
        if call.launches.is_empty() {
            return self.instructions[call.kernel?.0 as usize];
        }
        call.launches.iter().try_fold(Instructions::default(), |sum, launch| {
            Some(sum.plus(self.instructions[launch.kernel.0 as usize]?, launch.count))
        })
    }

    /// Where the most bytes are live, and why.
    fn peak(&self) -> Option<report::Peak> {
        let Build {
            plan, graph, options, ..
        } = self;
        let live = plan.live.iter().copied().max().filter(|live| *live > 0)?;
        let at = plan.live.iter().position(|found| *found == live)?;
        let step = plan.steps.get(at)?;
        let mut bytes: BTreeMap<(&str, &'static str), u64> = BTreeMap::new();
        let mut scratch = 0;
        for buffer in plan
            .buffers
            .iter()
            .filter(|buffer| (buffer.first..=buffer.last).contains(&at))
        {
            let op = |op: OpId| graph.op(op).name.as_str();
            let what = match (buffer.scratch_of, buffer.state_of, buffer.tensors.first()) {
                (Some(of), _, _) => {
                    scratch += buffer.size;
                    (op(of), "scratch")
                }
                (_, Some(of), _) => (op(of), "sums"),
                (_, _, Some(id)) if buffer.row.is_some() || buffer.part => (graph.tensor(*id).name.as_str(), "rows"),
                (_, _, Some(id)) => (graph.tensor(*id).name.as_str(), "tensor"),
                _ => continue,
            };
            *bytes.entry(what).or_default() += buffer.size;
        }
        let mut buffers: Vec<report::Live> = bytes
            .into_iter()
            .map(|((name, kind), bytes)| report::Live {
                name: name.to_owned(),
                kind,
                bytes,
            })
            .collect();
        buffers.sort_by(|a, b| (b.bytes, &a.name).cmp(&(a.bytes, &b.name)));
        let mut advice = Vec::new();
        let streamed = self
            .image
            .as_ref()
            .is_some_and(|image| image.access == Access::Streamed);
        let whole = [
            (options.steps, "--step"),
            (options.hooks, "--hooks"),
            (streamed, "streamed parameters"),
        ];
        let whole: Vec<&str> = whole
            .into_iter()
            .filter_map(|(has, what)| has.then_some(what))
            .collect();
        let image = |call: &&Call| {
            call.kernel.is_some() && self.graph.tensor(self.graph.op(call.op).output()).shape.0.len() == 4
        };
        if !whole.is_empty() {
            advice.push(format!("with {} no layer runs row by row", whole.join(" and ")));
        } else if options.goal != Goal::Ram && self.lowering.calls.iter().filter(image).count() > 1 {
            advice.push("--optimize ram runs chains of layers row by row where that makes it smaller".to_owned());
        }
        let input = |id: &TensorId| {
            let of =
                |buffer: &&crate::plan::Buffer| buffer.tensors.contains(id) && buffer.first <= at && at <= buffer.last;
            plan.buffers.iter().filter(of).map(|buffer| buffer.size).sum::<u64>()
        };
        let inputs: u64 = graph.inputs.iter().map(input).sum();
        if inputs * 2 > live {
            advice.push(format!(
                "most of it are inputs: {} bytes that --io pointers leaves where the application has them",
                thousands(inputs)
            ));
        }
        if scratch * 4 > live {
            advice.push(format!(
                "{} bytes of it are scratch of the layer's kernel",
                thousands(scratch)
            ));
        }
        if plan.arena_size > plan.lower_bound {
            let lost = plan.arena_size - plan.lower_bound;
            advice.push(format!(
                "{} bytes more than that are lost between buffers",
                thousands(lost)
            ));
        }
        Some(report::Peak {
            layer: plan.order.iter().position(|op| *op == step.op)?,
            row: step.rows.map(|rows| rows.row),
            live,
            buffers,
            advice,
        })
    }

    /// All buffers over time, as a picture.
    pub fn timeline(&self) -> String {
        let Build { plan, graph, .. } = self;
        let bars = plan.buffers.iter().map(|buffer| {
            let (kind, name) = match (buffer.scratch_of.or(buffer.state_of), buffer.tensors.first()) {
                (Some(op), _) => (Kind::Scratch, graph.op(op).name.clone()),
                (_, Some(id)) if graph.inputs.contains(id) => (Kind::Input, graph.tensor(*id).name.clone()),
                (_, Some(id)) if buffer.tensors.iter().any(|id| graph.outputs.contains(id)) => {
                    (Kind::Output, graph.tensor(*id).name.clone())
                }
                (_, Some(id)) => (Kind::Tensor, graph.tensor(*id).name.clone()),
                _ => (Kind::Tensor, String::new()),
            };
            Bar {
                kind,
                name: match buffer.row {
                    Some(row) => format!("{name} row {row}"),
                    None => name,
                },
                steps: buffer.first..buffer.last + 1,
                bytes: buffer.offset..buffer.offset + buffer.size,
            }
        });
        let mut layers: Vec<(usize, String)> = Vec::new();
        for (at, step) in plan.steps.iter().enumerate() {
            let before = at.checked_sub(1).map(|before| plan.steps[before].op);
            if step.rows.is_none() && before != Some(step.op) {
                layers.push((at, graph.op(step.op).kind.name().to_owned()));
            }
        }
        timeline::svg(&Timeline {
            title: format!("{}: {} bytes of arena", graph.name, plan.arena_size),
            steps: plan.steps.len(),
            bytes: plan.arena_size,
            live: &plan.live,
            layers,
            bars: bars.collect(),
        })
    }

    fn sections(&self) -> Vec<report::Section> {
        let mut symbols = vec![""; self.object.sections.len()];
        for symbol in self
            .object
            .symbols
            .iter()
            .filter(|symbol| symbol.offset == 0 && symbol.size > 0)
        {
            // The first name: functions have another one for the header.
            if let Some(section) = symbol.section.filter(|section| symbols[*section].is_empty()) {
                symbols[section] = &symbol.name;
            }
        }
        let sections = self.object.sections.iter().zip(symbols);
        let section = |(section, symbol): (&crate::object::Section, &str)| report::Section {
            name: section.name.clone(),
            symbol: symbol.to_owned(),
            kind: match section.kind {
                SectionKind::Text => "code",
                SectionKind::ReadOnlyData | SectionKind::RelocatedData => "constant",
                SectionKind::Zero => "zero",
                SectionKind::Debug => "debug",
            },
            bytes: section.contents.len(),
            align: section.align,
            memory: self.placement.memory_of(&section.name).map(str::to_owned),
        };
        sections.map(section).collect()
    }
}
