//! The C interface of a model: C99, and C++ from 98 on.

use super::{comment, render};
use crate::error::Result;
use crate::graph::external::External;
use crate::graph::{OpId, OpKind, Tensor};
use crate::image::{self, Access, Image};
use crate::kernels::entry::{self, ArenaKind, Argument, STATUS, When};
use crate::names::{Helper, Names};
use crate::object;
use crate::plan::{Io, Place};
use crate::target::{Arch, Target};
use minijinja::{Value, context};

/// What the header says beside what the graph and the plan know.
pub struct Header<'a> {
    /// The header's own file name.
    pub file: &'a str,
    /// The model's file name, without folders: equal builds in different places give equal bytes.
    pub source: &'a str,
    /// What the model's functions are made from.
    pub model: entry::Model<'a>,
    /// Whether the arena, if it is static, is another object's and serves other models as well.
    pub shared: bool,
    /// Bytes of stack of the functions.
    pub stack: u64,
    /// Whether the code needs a floating-point unit that the target's architecture has as an option.
    pub float: bool,
    /// What tells the build from others.
    pub id: &'a str,
}

impl Header<'_> {
    /// The header's text.
    ///
    /// # Errors
    /// [`Code::Internal`](crate::error::Code::Internal) if the template is wrong.
    pub fn text(&self) -> Result<String> {
        let names = self.model.names;
        let p = names.macros();
        let pointers = self.model.plan.io == Io::Pointers;
        let caller = self.model.arena == ArenaKind::Caller;
        let ports = |members: &[String], ids: &[crate::graph::TensorId]| -> Vec<Value> {
            let place = |i: usize| match self.model.plan.places[ids[i].index()] {
                Place::Arena(offset) if !pointers => {
                    let (pool, offset) = self.model.plan.locate(offset);
                    let pool = self.model.plan.pools.get(pool);
                    Some((unsigned(offset), pool.map(|pool| pool.name.as_str())))
                }
                _ => None,
            };
            (0..ids.len())
                .map(|i| port(&p, &members[i], self.model.graph.tensor(ids[i]), place(i)))
                .collect()
        };
        let taken = self.model.arguments();
        let mut parameters: Vec<String> = taken.iter().map(|argument| declaration(*argument, names)).collect();
        let arguments: Vec<&str> = taken.iter().map(|argument| example(*argument, names)).collect();
        let step_parameters = [vec!["uint32_t *step".to_owned()], parameters.clone()].concat();
        let step_arguments = [vec!["&step"], arguments.clone()].concat();
        if parameters.is_empty() {
            parameters.push("void".into());
        }
        let statuses: Vec<Value> = STATUS
            .iter()
            .filter(|(.., when)| self.has(*when))
            .map(|(name, value, about, _)| context! { name, value => signed(i64::from(*value)), about })
            .collect();
        render(
            include_str!("templates/interface.h"),
            context! {
                file => comment(self.file),
                title => comment(&self.model.graph.name),
                version => env!("CARGO_PKG_VERSION"),
                source => comment(self.source),
                target => self.model.target.to_string(),
                guards => guards(self.model.target, self.float.then_some(p.as_str())),
                model => names.model,
                run => names.run.symbol,
                functions => self.functions(),
                arena => names.arena.symbol,
                pools => self.pools(),
                inputs => ports(&names.inputs, &self.model.graph.inputs),
                outputs => ports(&names.outputs, &self.model.graph.outputs),
                parameters => parameters.join(", "),
                arguments => arguments.join(", "),
                arena_size => unsigned(self.model.plan.arena_size),
                arena_align => unsigned(self.model.plan.arena_align),
                stack => unsigned(self.stack),
                step => self.model.steps.then(|| context! {
                    function => names.helper(Helper::Step).symbol,
                    parameters => step_parameters.join(", "),
                    arguments => step_arguments.join(", "),
                }),
                steps => (self.model.steps || self.model.hooks).then(|| self.step_names()),
                outside => self.model.image.map(|image| self.outside(image)),
                hooks => self.model.hooks,
                callbacks => self.model.hooks
                    || self.fed()
                    || self.model.image.is_some_and(|image| image.access == Access::Streamed),
                external => self.external().next().is_some(),
                allocates => self.external().any(|external| external.workspace.allocated),
                rows => self.fed().then(|| self.rows()),
                shared => self.shared,
                p, pointers, caller, statuses,
            },
        )
    }
}

/// The part of a shared arena in one memory, or all of it.
pub struct SharedPart<'a> {
    /// What its macros are called after, where there are several.
    pub word: Option<&'a str>,
    /// Its symbol, where inputs and outputs lie in it.
    pub symbol: Option<&'a str>,
    /// Bytes.
    pub size: u64,
}

/// What a header says of an arena that several models share.
///
/// # Errors
/// [`Code::Internal`](crate::error::Code::Internal) if the template is wrong.
pub fn shared_arena(prefix: &str, parts: &[SharedPart], align: u64) -> Result<String> {
    let p = prefix.to_ascii_uppercase();
    let part = |part: &SharedPart| {
        let infix = part
            .word
            .map_or(String::new(), |word| format!("_{}", word.to_ascii_uppercase()));
        context! { macro => format!("{p}_ARENA{infix}_SIZE"), symbol => part.symbol, size => unsigned(part.size) }
    };
    let parts: Vec<Value> = parts.iter().map(part).collect();
    let first = parts
        .first()
        .map(|part| part.get_attr("macro"))
        .transpose()
        .ok()
        .flatten();
    render(
        include_str!("templates/arena.h"),
        context! {
            first,
            symbols => parts.iter().any(|part| part.get_attr("symbol").is_ok_and(|symbol| !symbol.is_none())),
            parts,
            p,
            align => unsigned(align),
        },
    )
}

impl Header<'_> {
    /// Whether a status can occur.
    fn has(&self, when: When) -> bool {
        let pointers = self.model.plan.io == Io::Pointers;
        let caller = self.model.arena == ArenaKind::Caller;
        let access = self.model.image.map(|image| image.access);
        match when {
            When::Always => true,
            When::Pointers => pointers || caller || self.model.steps || access.is_some() || self.fed(),
            When::Rows => self.fed(),
            When::Arena => caller,
            When::Step => self.model.steps,
            When::Parameters => access.is_some(),
            When::External => access == Some(Access::External),
            When::Streamed => access == Some(Access::Streamed),
            When::Calls => self.external().next().is_some(),
        }
    }

    /// The memories that the arena is divided between.
    fn pools(&self) -> Vec<Value> {
        let names = self.model.names;
        let pools = self.model.plan.pools.iter().zip(&names.pool_members).enumerate();
        pools
            .map(|(i, (pool, member))| {
                context! {
                    name => pool.name,
                    member,
                    macro => format!("{}_ARENA_{}", names.macros(), names.pool_word(i).to_ascii_uppercase()),
                    symbol => names.pool(i).symbol,
                    size => unsigned(pool.size),
                    used => pool.size > 0,
                }
            })
            .collect()
    }

    /// The functions of others that the model calls.
    fn external(&self) -> impl Iterator<Item = &External> {
        self.model.graph.ops.iter().filter_map(|op| match &op.kind {
            OpKind::External(external) => Some(&**external),
            _ => None,
        })
    }

    /// Rows of the input, and elements and bytes of each.
    fn rows(&self) -> Value {
        let input = self.model.graph.inputs.first().map(|id| self.model.graph.tensor(*id));
        let shape = input.map_or([1; 4], |input| input.shape.nhwc());
        let bytes = input.map_or(0, |input| input.bytes());
        context! {
            count => unsigned(shape[1] as u64),
            elements => unsigned((shape[2] * shape[3]) as u64),
            bytes => unsigned((bytes / shape[1].max(1)) as u64),
        }
    }

    /// Whether the input comes row by row.
    fn fed(&self) -> bool {
        self.model.lowering.feed.is_some()
    }

    /// The functions of the interface, and what they are called in this build.
    fn functions(&self) -> Vec<Value> {
        let helper = |helper| &self.model.names.helper(helper).symbol;
        let outside = self.model.image.map(|_| [helper(Helper::Bind), helper(Helper::Check)]);
        [
            Some(&self.model.names.run.symbol),
            self.model.steps.then(|| helper(Helper::Step)),
        ]
        .into_iter()
        .flatten()
        .chain(outside.into_iter().flatten())
        .map(|name| context! { name, own => object::tagged(name, self.id) })
        .collect()
    }

    /// What the steps of a run are, in words.
    fn step_names(&self) -> Vec<String> {
        let op = |id: &OpId| {
            let op = self.model.graph.op(*id);
            comment(&format!("{} \"{}\"", op.kind.name(), op.name))
        };
        self.model.plan.order.iter().map(op).collect()
    }

    fn outside(&self, image: &Image) -> Value {
        let fingerprint: String = image.header()[image::FINGERPRINT_AT]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        context! {
            streamed => image.access == Access::Streamed,
            bind => self.model.names.helper(Helper::Bind).symbol,
            check => self.model.names.helper(Helper::Check).symbol,
            size => unsigned(image.size),
            align => unsigned(image.align),
            header => unsigned(image::HEADER),
            buffer => unsigned(image.staging),
            kept => !self.model.plan.kept.is_empty(),
            fingerprint,
        }
    }
}

/// A parameter of the functions that take `argument`.
fn declaration(argument: Argument, names: &Names) -> String {
    let structure = |name: &str| format!("const struct {}_{name} *{name}", names.model);
    match argument {
        Argument::Inputs => structure("inputs"),
        Argument::Rows => structure("rows"),
        Argument::Outputs => structure("outputs"),
        Argument::Parameters => structure("parameters"),
        Argument::Arena => "void *arena".to_owned(),
        Argument::Arenas => structure("arenas"),
        Argument::Hooks => structure("hooks"),
    }
}

/// What the header's example passes for `argument`.
fn example(argument: Argument, names: &Names) -> &'static str {
    match argument {
        Argument::Inputs if names.inputs.is_empty() => "0",
        Argument::Inputs => "&inputs",
        Argument::Rows => "&rows",
        Argument::Outputs => "&outputs",
        Argument::Parameters => "&parameters",
        Argument::Arena => "arena",
        Argument::Arenas => "&arenas",
        Argument::Hooks => "0",
    }
}

fn port(prefix: &str, member: &str, tensor: &Tensor, place: Option<(String, Option<&str>)>) -> Value {
    let (offset, pool) = place.map_or((None, None), |(offset, pool)| (Some(offset), pool));
    let quantization = tensor.quantization.as_ref().filter(|q| q.scale.len() == 1);
    context! {
        member,
        name => comment(&tensor.name),
        macro => format!("{prefix}_{}", member.to_ascii_uppercase()),
        ctype => tensor.dtype.c_name(),
        dtype => tensor.dtype.name(),
        dims => tensor.shape.to_string(),
        shape => tensor.shape.0,
        rank => tensor.shape.rank(),
        elements => unsigned(tensor.shape.elements() as u64),
        bytes => unsigned(tensor.bytes() as u64),
        scale => quantization.map(|q| float(q.scale[0])),
        zero_point => quantization.map(|q| signed(q.zero_point[0].into())),
        offset,
        pool,
    }
}

/// A constant of type `unsigned`, or of `unsigned long long` where 32 bits do not hold it.
fn unsigned(value: u64) -> String {
    format!("{value}{}", if value > u64::from(u32::MAX) { "ull" } else { "u" })
}

/// A constant of type `int`.
fn signed(value: i64) -> String {
    if value < 0 {
        format!("({value})")
    } else {
        value.to_string()
    }
}

/// The shortest decimal that reads back as the same `float`.
fn float(value: f32) -> String {
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, "0")) if mantissa.contains('.') => format!("{mantissa}f"),
        Some((mantissa, exponent)) if mantissa.contains('.') => format!("{mantissa}e{exponent}f"),
        Some((mantissa, exponent)) => format!("{mantissa}.0e{exponent}f"),
        None => format!("{text}f"),
    }
}

/// What an application must be compiled for. Linkers find neither a foreign machine in headers nor a lesser one: GNU ld
/// takes Cortex-M4 code into a program for Cortex-M0. On 64-bit machines, a CPU within the architecture is the
/// application's own business, as it may choose at run time. `fpu` is the macros' prefix if the code needs an optional
/// floating-point unit.
fn guards(target: &Target, fpu: Option<&str>) -> Vec<Value> {
    let guard = |unless: &str, message: &str| context! { unless, message };
    let machine = |unless: &str| guard(unless, &format!("the code is for {}", target.arch().name()));
    match target.arch() {
        Arch::X86_64 => vec![machine("!defined(__x86_64__) && !defined(_M_X64)")],
        Arch::Aarch64 => vec![machine("!defined(__aarch64__) && !defined(_M_ARM64)")],
        Arch::Thumb2 => {
            let cpu = target.cpu.name;
            let lesser = |unless: &str| guard(unless, &format!("the code is for {cpu}, -mcpu asks for less"));
            let mut guards = vec![
                machine("!defined(__ARM_ARCH) || !defined(__ARM_ARCH_ISA_THUMB)"),
                lesser(if target.has("v8m.main") {
                    "__ARM_ARCH_ISA_THUMB < 2 || __ARM_ARCH < 8"
                } else {
                    "__ARM_ARCH_ISA_THUMB < 2 || __ARM_ARCH < 7"
                }),
            ];
            if target.has("dsp") {
                guards.push(lesser("!defined(__ARM_FEATURE_DSP)"));
            }
            if let Some(prefix) = fpu {
                let message = format!(
                    "the code needs the FPU, and the compiler is told of none: define {prefix}_FPU if the application \
                     enables it"
                );
                let unless = format!("!defined({prefix}_FPU) && (!defined(__ARM_FP) || !(__ARM_FP & 4))");
                guards.push(guard(&unless, &message));
            }
            guards
        }
        Arch::Riscv64 | Arch::Riscv32 => {
            let bits = 8 * target.machine().pointer_bytes;
            let mut guards = vec![machine(&format!("!defined(__riscv) || __riscv_xlen != {bits}"))];
            if target.has("has_c") || target.has("c") {
                let message = "the code has compressed instructions, which -march leaves out";
                guards.push(guard("!defined(__riscv_compressed)", message));
            }
            if fpu.is_some() {
                let message = "the code needs the F extension, which -march leaves out";
                guards.push(guard("!defined(__riscv_flen)", message));
            }
            if let Some(abi) = target.abi {
                let float = match abi.as_bytes().last() {
                    Some(b'd') => "double",
                    Some(b'f') => "single",
                    _ => "soft",
                };
                let message = format!("the code is for -mabi={abi}");
                guards.push(guard(&format!("!defined(__riscv_float_abi_{float})"), &message));
            }
            guards
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::assert_golden;
    use super::*;
    use crate::graph::{DType, Graph, Quantization, Shape, TensorId};
    use crate::kernels::Lowering;
    use crate::plan::Plan;
    use crate::plan::Pool;

    fn graph() -> Graph {
        let mut graph = Graph {
            name: "kws".into(),
            ..Graph::default()
        };
        let mut tensor = |name: &str, dtype, shape: &[usize], scale: Option<(f32, i32)>| {
            graph.add_tensor(Tensor {
                name: name.into(),
                dtype,
                shape: Shape(shape.to_vec()),
                quantization: scale.map(|(scale, zero)| Quantization::per_tensor(scale, zero)),
                data: None,
            })
        };
        tensor("input_1", DType::I8, &[1, 49, 10, 1], Some((0.584_707_5, 83)));
        tensor("*/ class:0", DType::F32, &[], None);
        tensor("Identity", DType::I8, &[1, 12], Some((1.0 / 256.0, -128)));
        tensor("identity", DType::F32, &[1, 5], None);
        graph.inputs = vec![TensorId(0), TensorId(1)];
        graph.outputs = vec![TensorId(2), TensorId(3)];
        graph
    }

    fn header(io: Io, arena: ArenaKind, target: &Target) -> String {
        divided(io, arena, target, &[])
    }

    /// With memories of these names, each of 48 bytes more than the one before, the first of none.
    fn divided(io: Io, arena: ArenaKind, target: &Target, memories: &[&str]) -> String {
        let graph = graph();
        let places = match io {
            Io::Pointers => vec![Place::Input(0), Place::Input(1), Place::Output(0), Place::Output(1)],
            Io::Arena => [0, 496, 0, 16].map(Place::Arena).to_vec(),
        };
        let plan = Plan {
            io,
            places,
            arena_size: 16000,
            pools: pools(memories),
            arena_align: 16,
            ..Plan::default()
        };
        let lowering = Lowering::default();
        let mut names = Names::new(&graph, &lowering);
        names.divide_arena(memories.iter().copied());
        let header = Header {
            file: "kws.h",
            source: "kws.tflite",
            model: entry::Model::new(&graph, &lowering, &plan, target, &names, arena),
            shared: false,
            stack: 208,
            float: true,
            id: "1a2b3c4d",
        };
        header.text().unwrap()
    }

    fn pools(memories: &[&str]) -> Vec<Pool> {
        let pool = |(i, name): (u64, &&str)| Pool {
            name: (*name).to_owned(),
            start: 24 * i.saturating_sub(1) * i,
            size: 48 * i,
            capacity: 4096,
            ..Pool::default()
        };
        (0..).zip(memories).map(pool).collect()
    }

    /// Names that are keywords, and that differ in case from others.
    const MEMORIES: &[&str] = &["none", "DTCM", "register"];
    const DIVIDED: [(&str, Io, ArenaKind); 2] = [
        ("memories-static", Io::Arena, ArenaKind::Static),
        ("memories-caller", Io::Pointers, ArenaKind::Caller),
    ];

    const CASES: [(&str, Io, ArenaKind); 4] = [
        ("pointers-static", Io::Pointers, ArenaKind::Static),
        ("pointers-caller", Io::Pointers, ArenaKind::Caller),
        ("arena-static", Io::Arena, ArenaKind::Static),
        ("arena-caller", Io::Arena, ArenaKind::Caller),
    ];

    #[test]
    fn headers() {
        let target = Target::new(Some("x86_64-unknown-linux-gnu"), None, None).unwrap();
        for (name, io, arena) in CASES {
            assert_golden(&format!("src/output/golden/{name}.h"), &header(io, arena, &target));
        }
        for (name, io, arena) in DIVIDED {
            let text = divided(io, arena, &target, MEMORIES);
            assert_golden(&format!("src/output/golden/{name}.h"), &text);
        }
    }

    #[test]
    fn guards_name_the_machine() {
        let text = |triple, abi| {
            let target = Target::new(Some(triple), None, abi).unwrap();
            header(Io::Pointers, ArenaKind::Static, &target)
        };
        assert!(text("aarch64-unknown-none", None).contains("the code is for AArch64"));
        let k210 = text("riscv64gc-unknown-none-elf", Some("lp64f"));
        assert!(k210.contains("#if !defined(__riscv_float_abi_single)\n#error \"kws.h: the code is for -mabi=lp64f\""));
        assert!(k210.contains("compressed"));
        let m4 = text("thumbv7em-none-eabihf", None);
        for guard in ["__ARM_ARCH < 7", "!defined(__ARM_FEATURE_DSP)", "!defined(KWS_FPU)"] {
            assert!(m4.contains(guard), "{m4}");
        }
        assert!(text("riscv32imc-unknown-none-elf", None).contains("__riscv_float_abi_soft"));
    }

    #[test]
    fn constants_read_back() {
        for (value, text) in [
            (1.0f32, "1.0e0f"),
            (0.584_707_5, "5.847075e-1f"),
            (1.5, "1.5f"),
            (f32::MIN_POSITIVE, "1.1754944e-38f"),
        ] {
            assert_eq!(float(value), text);
            assert_eq!(
                text.trim_end_matches('f').parse::<f32>().unwrap().to_bits(),
                value.to_bits()
            );
        }
        assert_eq!(unsigned(u64::from(u32::MAX) + 1), "4294967296ull");
        assert_eq!(signed(-128), "(-128)");
    }

    /// The host's compilers, where there are any, take every header as C99 and C++17 without a warning.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn headers_compile() {
        let target = Target::new(Some("x86_64-unknown-linux-gnu"), None, None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let whole = CASES.map(|case| (case, &[][..]));
        for ((name, io, arena), memories) in whole.into_iter().chain(DIVIDED.map(|case| (case, MEMORIES))) {
            let path = folder.path().join(format!("{name}.h"));
            std::fs::write(&path, divided(io, arena, &target, memories)).unwrap();
            for (compiler, standard, language) in [("gcc", "-std=c99", "c"), ("g++", "-std=c++17", "c++")] {
                let source = format!(
                    "#include \"{name}.h\"\n#include \"{name}.h\"\n\
                     int main(void) {{ static const int shape[] = KWS_INPUT_1_SHAPE; \
                     return shape[0] + KWS_IDENTITY_ZERO_POINT - (int)sizeof(KWS_IDENTITY_SCALE); }}\n"
                );
                let file = folder.path().join("main.txt");
                std::fs::write(&file, source).unwrap();
                let output = std::process::Command::new(compiler)
                    .args([
                        standard,
                        "-Wall",
                        "-Wextra",
                        "-Wpedantic",
                        "-Werror",
                        "-fsyntax-only",
                        "-x",
                        language,
                    ])
                    .arg(&file)
                    .output();
                match output {
                    Err(_) => eprintln!("{compiler} is not installed: not tried"),
                    Ok(output) => assert!(
                        output.status.success(),
                        "{compiler} {name}: {}",
                        String::from_utf8_lossy(&output.stderr)
                    ),
                }
            }
        }
    }
}
