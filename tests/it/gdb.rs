//! Debug information as gdb understands it: on this machine and on emulated boards through QEMU's stub, a model is
//! stopped at a layer, stepped layer by layer, and its tensors are printed with their types, against the evaluator.

use crate::cases::root;
use crate::tools::{self, COREROPE, command, installed, run};
use corerope::data::Source;
use corerope::frontend::{ReadOptions, read};
use corerope::graph::evaluate::{Arithmetic, evaluate_with};
use corerope::graph::{Graph, TensorId};
use object::{Object, ObjectSection, SectionKind};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Where a program runs.
struct Machine {
    name: &'static str,
    /// For `corerope build`.
    target: &'static [&'static str],
    /// Prefix of the compiler, and its options.
    prefix: &'static str,
    flags: &'static [&'static str],
    /// Start-up code and linker script; none for this machine.
    board: Option<(&'static str, &'static str)>,
    /// The emulator, if there is one.
    qemu: &'static str,
    main: &'static str,
    /// How the program that calls the model is compiled.
    optimize: &'static str,
}

const HOST: Machine = Machine {
    name: "x86-64",
    target: &["--target", "x86_64-unknown-linux-gnu"],
    prefix: "",
    flags: &[],
    board: None,
    qemu: "",
    main: MAIN,
    optimize: "-O1",
};
const CORTEX_M4: Machine = Machine {
    name: "cortex-m4",
    target: &["--target", "thumbv7em-none-eabi"],
    prefix: "arm-none-eabi-",
    flags: &["-mcpu=cortex-m4", "-ffreestanding"],
    board: Some(("cortex-m.S", "mps2.ld")),
    qemu: "qemu-system-arm -M mps2-an386",
    ..HOST
};
const RV32: Machine = Machine {
    name: "rv32",
    target: &["--target", "riscv32imc-unknown-none-elf", "--optimize", "speed"],
    prefix: "riscv64-unknown-elf-",
    flags: &["-march=rv32imc_zicsr", "-mabi=ilp32", "-ffreestanding"],
    board: Some(("riscv.S", "riscv-virt.ld")),
    qemu: "qemu-system-riscv32 -M virt -bios none",
    ..HOST
};

/// `model`, `INPUT` and `OUTPUT` stand for names of the model and its header.
const MAIN: &str = "\
#include \"model.h\"
static int8_t image[INPUT_SIZE] = {1, 2, 3, -100, 5};
static int8_t scores[OUTPUT_SIZE];
int main(void) {
    const struct model_inputs inputs = {image};
    const struct model_outputs outputs = {scores};
    return model_run(&inputs, &outputs);
}
";
const MAIN_WITH_ARENA: &str = "\
#include \"model.h\"
static int8_t image[INPUT_SIZE] = {1, 2, 3, -100, 5};
static int8_t scores[OUTPUT_SIZE];
static unsigned char arena[MODEL_ARENA_SIZE] __attribute__((aligned(64)));
int main(void) {
    const struct model_inputs inputs = {image};
    const struct model_outputs outputs = {scores};
    return model_run(&inputs, &outputs, arena);
}
";
/// With an arena in two memories, A and B.
const MAIN_WITH_ARENAS: &str = "\
#include \"model.h\"
static int8_t image[INPUT_SIZE] = {1, 2, 3, -100, 5};
static int8_t scores[OUTPUT_SIZE];
static unsigned char a[MODEL_ARENA_A_SIZE] __attribute__((aligned(64)));
static unsigned char b[MODEL_ARENA_B_SIZE] __attribute__((aligned(64)));
int main(void) {
    const struct model_inputs inputs = {image};
    const struct model_outputs outputs = {scores};
    const struct model_arenas arenas = {a, b};
    return model_run(&inputs, &outputs, &arenas);
}
";
const IMAGE: [i8; 5] = [1, 2, 3, -100, 5];

/// A program with debug information, and what it should show.
struct Program {
    directory: std::path::PathBuf,
    machine: Machine,
    listing: Vec<String>,
    graph: Graph,
    /// By the name of the variable: a tensor and its bytes after a run.
    values: BTreeMap<String, (TensorId, Vec<u8>)>,
}

/// The number of the only line that starts with `start`, from 1.
fn line(listing: &[String], start: &str) -> usize {
    let mut found = (1..).zip(listing).filter(|(_, line)| line.starts_with(start));
    let (number, _) = found.next().unwrap_or_else(|| panic!("no line {start}"));
    assert!(found.next().is_none(), "two lines {start}");
    number
}

impl Program {
    fn new(machine: Machine, model: &str, version: &str) -> Option<Self> {
        let what = format!("gdb on {}", machine.name);
        let gcc = format!("{}gcc", machine.prefix);
        let emulator = machine.qemu.split(' ').next().unwrap_or_default();
        let mut needed = vec!["gdb-multiarch", &gcc];
        needed.extend(Some(emulator).filter(|emulator| !emulator.is_empty()));
        if !installed(&what, &needed) {
            return None;
        }
        let directory = tools::directory(&format!("gdb-{}-{model}{version}", machine.name));
        let path = root().join(format!("fixtures/{model}.tflite"));
        let archive = format!("{model}.a");
        let build = ["build", path.to_str().unwrap(), "-o", &archive, "-q", version];
        run(&directory, COREROPE, &[&build[..], machine.target].concat());
        let header = fs::read_to_string(directory.join(format!("{model}.h"))).unwrap();
        let macros = |which: &str| {
            let (_, members) = header.split_once(&format!("struct {model}_{which} {{\n")).unwrap();
            let member = members.split(';').next().unwrap().rsplit('*').next().unwrap();
            format!("{}_{}", model.to_uppercase(), member.to_uppercase())
        };
        let main = machine
            .main
            .replace("INPUT", &macros("inputs"))
            .replace("OUTPUT", &macros("outputs"));
        let main = main.replace("MODEL", &model.to_uppercase()).replace("model", model);
        fs::write(directory.join("main.c"), main).unwrap();
        let compile = [
            "-g",
            machine.optimize,
            "-Wl,--gc-sections",
            "-Wl,--fatal-warnings",
            "main.c",
        ];
        let mut arguments: Vec<String> = [machine.flags, &compile]
            .concat()
            .iter()
            .map(|s| (*s).to_owned())
            .collect();
        if let Some((startup, script)) = machine.board {
            let scripts = root().join("linker-scripts");
            arguments.push("-nostdlib".into());
            arguments.push(scripts.join("startup").join(startup).to_str().unwrap().into());
            arguments.push("-T".into());
            arguments.push(scripts.join("qemu").join(script).to_str().unwrap().into());
        }
        arguments.extend([&archive, "-o", "program"].map(str::to_owned));
        run(&directory, &gcc, &arguments);

        let listing = fs::read_to_string(directory.join(format!("{model}.lst"))).unwrap();
        let source = Arc::new(Source::Memory(fs::read(&path).unwrap()));
        let mut graph = read(source, &ReadOptions::default()).unwrap();
        let arithmetic = Arithmetic {
            fused_multiply_add: false,
        };
        corerope::passes::run(&mut graph, arithmetic, None, &mut |_, _| {}).unwrap();
        let mut image = vec![0u8; graph.tensor(graph.inputs[0]).bytes()];
        image.iter_mut().zip(IMAGE).for_each(|(to, from)| *to = from as u8);
        // What the variables are called is in the comments below the tensors.
        let lines: Vec<String> = listing.lines().map(str::to_owned).collect();
        let names = variables(&lines);
        let mut values = BTreeMap::new();
        let mut add = |id: TensorId, bytes: &[u8]| {
            let name = names.get(&graph.tensor(id).name);
            let name = name.unwrap_or_else(|| panic!("no variable for {}", graph.tensor(id).describe()));
            values.insert(name.clone(), (id, bytes.to_vec()));
        };
        add(graph.inputs[0], &image);
        for (id, tensor) in (0..).map(TensorId).zip(&graph.tensors) {
            if let Some(data) = &tensor.data
                && names.contains_key(&tensor.name)
            {
                add(id, data.as_slice());
            }
        }
        let mut results = Vec::new();
        evaluate_with(&graph, &[&image], arithmetic, &mut |op, bytes| {
            results.push((graph.op(op).output(), bytes.to_vec()));
        })
        .unwrap();
        results.iter().for_each(|(id, bytes)| add(*id, bytes));
        Some(Program {
            directory,
            machine,
            listing: lines,
            values,
            graph,
        })
    }

    /// Lines of the operators that have code, in order.
    fn layers(&self) -> Vec<usize> {
        let numbered = (1..).zip(self.listing.windows(2));
        let called = numbered.filter(|(_, pair)| pair[0].starts_with('%') && !pair[1].starts_with("#   no code"));
        called.map(|(number, _)| number).collect()
    }

    /// Runs commands from the first instruction of the program on; returns what gdb prints.
    fn debug(&self, commands: &[&str]) -> String {
        let start = match self.machine.qemu {
            // Stopped at the entry of `main`: this far an emulator is where it starts.
            "" => "start".to_owned(),
            qemu => format!(
                "target remote | exec timeout 100 {qemu} -display none -monitor none -serial null -S -gdb stdio -kernel program"
            ),
        };
        let mut script = vec![
            "set pagination off",
            "set confirm off",
            "set width 0",
            "set print elements 0",
            "set print repeats unlimited",
            &start,
        ];
        script.extend(commands);
        script.push("echo <done>\\n");
        // Without it an emulator would run on.
        script.push("kill");
        fs::write(self.directory.join("script.gdb"), script.join("\n") + "\n").unwrap();
        let output = command("gdb-multiarch")
            .current_dir(&self.directory)
            .args(["-nx", "-q", "-batch", "-x", "script.gdb", "program"])
            .output()
            .unwrap();
        let text = tools::text(&output);
        fs::write(self.directory.join("transcript.txt"), &text).unwrap();
        // After that an emulator that is killed may leave gdb with an error.
        assert!(text.contains("\n<done>\n"), "{text}");
        text
    }

    /// The declaration of a symbol in the listing: `const int8_t kws_w[2][3]` → `const int8_t [2][3]`. A structure's comes
    /// without what the dimensions count: `const struct { int8_t a[2]; }`.
    fn declared(&self, symbol: &str) -> String {
        let structure = |line: &String| {
            let line = line.trim_start_matches("#   ");
            let line = line
                .strip_prefix("const struct {")?
                .split(&format!(" {symbol}"))
                .next()?;
            line.ends_with('}').then(|| line.to_owned())
        };
        if let Some(members) = self
            .listing
            .iter()
            .filter(|line| line.contains(symbol))
            .find_map(structure)
        {
            let pieces = members
                .split(" in the order [")
                .map(|piece| piece.split_once("];").map_or(piece, |(_, after)| after));
            return format!("const struct {{{}", pieces.collect::<Vec<_>>().join(";"));
        }
        let declares = |line: &&String| line.contains(&format!(" {symbol}["));
        let line = self
            .listing
            .iter()
            .find(declares)
            .unwrap_or_else(|| panic!("{symbol} is not declared"));
        let (before, after) = line.trim_start_matches("#   ").split_once(symbol).unwrap();
        let dims = after.split([' ', ',']).next().unwrap();
        format!("{before}{dims}")
    }

    /// What `print /d` of a tensor gives, as one list.
    fn numbers(&self, variable: &str) -> Vec<i64> {
        let (id, bytes) = &self.values[variable];
        match self.graph.tensor(*id).dtype.bytes() {
            1 => bytes.iter().map(|byte| i64::from(*byte as i8)).collect(),
            4 => (bytes.as_chunks().0.iter())
                .map(|word| i64::from(i32::from_le_bytes(*word)))
                .collect(),
            other => panic!("elements of {other} bytes"),
        }
    }
}

/// From the names of tensors to those of their variables: in the last comment below the line of each.
fn variables(listing: &[String]) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut tensor = None;
    for line in listing {
        match line.strip_prefix("#   ") {
            None => {
                let name = line.split('"').nth(1).filter(|_| line.contains('%'));
                tensor = name.map(str::to_owned);
            }
            Some(note) => {
                let variable = note
                    .split('[')
                    .next()
                    .and_then(|declaration| declaration.split(' ').next_back());
                if let (Some(tensor), Some(variable)) = (&tensor, variable) {
                    names.insert(tensor.clone(), variable.to_owned());
                }
            }
        }
    }
    names
}

/// The line numbers of the sources that gdb showed, in order.
fn shown_lines(text: &str) -> Vec<usize> {
    let numbers = text.lines().filter_map(|line| line.split_once('\t')?.0.parse().ok());
    numbers.collect()
}

/// What was printed between two `echo`ed marks.
fn part<'a>(text: &'a str, mark: &str) -> &'a str {
    let rest = text
        .split_once(&format!("<{mark}>\n"))
        .unwrap_or_else(|| panic!("no {mark} in {text}"))
        .1;
    rest.split_once("\n<").map_or(rest, |(part, _)| part)
}

/// The numbers of `$1 = {{1, 2}, {3, 4}}`.
fn list(text: &str) -> Vec<i64> {
    let (_, list) = text.split_once(" = ").unwrap_or_else(|| panic!("no list in {text}"));
    let numbers = list.split(['{', '}', ',', ' ', '\n']).filter(|word| !word.is_empty());
    numbers
        .map(|word| word.parse().unwrap_or_else(|_| panic!("{word} in {text}")))
        .collect()
}

/// Parameters whose declarations in the listing are one line of gdb's.
const SYMBOLS: [&str; 3] = [
    "digits_sequential_conv2d_conv2d",
    "digits_sequential_conv2d_2_conv2d",
    "digits_identity_exp",
];

/// All of it on one machine.
fn check(machine: Machine, version: &str) {
    let Some(program) = Program::new(machine, "digits", version) else {
        return;
    };
    verify(&program.directory, "program");
    let layers = program.layers();
    let listing = &program.listing;
    let (input, output) = (line(listing, "input "), line(listing, "output "));
    let names = variables(listing);
    let [first, weights, dense] = [
        "sequential/conv2d_1/Conv2D",
        "sequential/conv2d/Conv2D",
        "sequential/dense/MatMul",
    ]
    .map(|tensor| names[tensor].as_str());
    let kernel = line(listing, "#   digits_kernel_conv2d_1");
    let results: Vec<&str> = (program.graph.ops.iter())
        .map(|op| names[&program.graph.tensor(op.outputs[0]).name].as_str())
        .collect();

    let mut commands: Vec<String> = Vec::new();
    let mut say = |mark: &str, more: &[String]| {
        commands.push(format!("echo <{mark}>\\n"));
        commands.extend_from_slice(more);
    };
    // Break on the model, and on a layer by its line: one place each.
    say(
        "break",
        &["tbreak digits_run".into(), format!("tbreak digits.lst:{}", layers[3])],
    );
    say("model", &["continue".into()]);
    say("caller", &["backtrace".into()]);
    // Layer by layer.
    say("next", &["next".into(), "next".into()]);
    say(
        "made",
        &[format!("print/d {}", results[0]), format!("print/d {}", results[1])],
    );
    // Into a kernel, and from the midst of it to the caller.
    say("step", &["step".into()]);
    say("kernel", &["backtrace".into()]);
    say("midst", &["stepi 40".into(), "backtrace".into()]);
    say("frame", &["up".into(), format!("print/d {first}[3][1][1]")]);
    say("finish", &["down".into(), "finish".into()]);
    say("continue", &["continue".into()]);
    say("list", &["list".into()]);
    // By the kernel's name and by the layer's.
    say(
        "named",
        &[
            "tbreak digits_kernel_dense_5".into(),
            "continue".into(),
            format!("tbreak digits_run:{}", results[6]),
            "continue".into(),
        ],
    );
    // Weights: types, and values in the model's order and in the kernel's.
    say(
        "types",
        &[format!("ptype {weights}"), format!("ptype digits_run::{first}")],
    );
    for symbol in SYMBOLS {
        say(symbol, &[format!("ptype {symbol}")]);
    }
    for (name, (id, _)) in &program.values {
        if program.graph.tensor(*id).data.is_some() {
            say(name, &[format!("print/d {name}")]);
        }
    }
    say("end", &["next".into(), "next".into()]);
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let text = program.debug(&commands);

    let breaks = part(&text, "break");
    assert!(!breaks.contains("locations"), "{breaks}");
    assert!(breaks.contains(&format!("line {input}.")), "{breaks}");
    assert!(breaks.contains(&format!("line {}.", layers[3])), "{breaks}");
    assert_eq!(shown_lines(part(&text, "model")), [input]);
    let caller = part(&text, "caller");
    assert!(
        caller.contains("#0  digits_run (") && caller.contains(" in main () at main.c:7"),
        "{caller}"
    );
    assert_eq!(shown_lines(part(&text, "next")), layers[..2]);
    let (made, later) = part(&text, "made").split_once('\n').unwrap();
    assert_eq!(list(made), program.numbers(results[0]));
    assert_eq!(later, "$2 = <optimized out>");
    assert_eq!(shown_lines(part(&text, "step")), [kernel]);
    for (mark, lines) in [("kernel", 3), ("midst", 4)] {
        let trace = part(&text, mark);
        assert_eq!(trace.lines().count(), lines, "{trace}");
        assert!(trace.contains("digits_kernel_conv2d_1 () at "), "{trace}");
        assert!(trace.contains(&format!("digits.lst:{}\n", layers[1])), "{trace}");
        assert!(trace.ends_with(" in main () at main.c:7"), "{trace}");
    }
    let frame = part(&text, "frame");
    let expected = program.numbers(first);
    let run = expected.len() / 24 / 9;
    assert_eq!(
        list(frame.lines().last().unwrap()),
        expected[(3 * 9 + 4) * run..][..run]
    );
    assert_eq!(shown_lines(part(&text, "finish")), [kernel, layers[2]]);
    assert_eq!(shown_lines(part(&text, "continue")), [layers[3]]);
    let around = shown_lines(part(&text, "list"));
    assert!(around.len() == 10 && around.contains(&layers[3]), "{around:?}");
    let dense_line = line(listing, "#   digits_kernel_dense_5");
    assert_eq!(shown_lines(part(&text, "named")), [dense_line, layers[5]]);
    assert_eq!(
        part(&text, "types"),
        "type = const int8_t [16][3][3][1]\ntype = const int8_t [24][3][3][16]"
    );
    for symbol in SYMBOLS {
        let shown = part(&text, symbol).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(shown, format!("type = {}", program.declared(symbol)));
    }
    for (name, (id, _)) in &program.values {
        if program.graph.tensor(*id).data.is_some() {
            assert_eq!(list(part(&text, name)), program.numbers(name), "{name}");
        }
    }
    assert!(program.numbers(dense).len() > 5, "{dense}");
    assert_eq!(shown_lines(part(&text, "end"))[0], output);
}

/// Layers that run row by row: a breakpoint stops at every row, `next` goes on to another line; what is whole after the
/// last row is shown, and rows are not.
fn check_rows(machine: Machine) {
    let Some(program) = Program::new(machine, "digits", "-g") else {
        return;
    };
    verify(&program.directory, "program");
    let layers = program.layers();
    let names = variables(&program.listing);
    let variable = |layer: usize| {
        let ops = (program.graph.ops.iter()).filter(|op| op.kind != corerope::graph::OpKind::Reshape);
        let op = ops.take(layer + 1).last().unwrap();
        names[&program.graph.tensor(op.output()).name].as_str()
    };
    let rows = |layer: usize| {
        let op = (program.graph.ops.iter()).filter(|op| op.kind != corerope::graph::OpKind::Reshape);
        program
            .graph
            .tensor(op.take(layer + 1).last().unwrap().output())
            .shape
            .nhwc()[1]
    };
    let text = program.debug(&[
        "echo <stop>\\n",
        &format!("break digits.lst:{}", layers[1]),
        "continue",
        "next",
        "ignore 1 1000",
        &format!("tbreak digits.lst:{}", layers[4]),
        "continue",
        "echo <hits>\\n",
        "info breakpoints",
        "echo <values>\\n",
        &format!("print/d {}", variable(3)),
        &format!("print/d {}", variable(0)),
    ]);
    let shown = shown_lines(part(&text, "stop"));
    assert_eq!(shown[0], layers[1], "{text}");
    assert_ne!(shown[1], layers[1], "{text}");
    let hits = format!("breakpoint already hit {} times", rows(1));
    assert!(part(&text, "hits").contains(&hits), "{hits}: {text}");
    let (whole, by_rows) = part(&text, "values").split_once('\n').unwrap();
    assert_eq!(list(whole), program.numbers(variable(3)));
    assert_eq!(by_rows, "$2 = <optimized out>");
}

/// What `llvm-dwarfdump` finds wrong: nothing.
fn verify(directory: &Path, file: &str) {
    if installed("the verifier of DWARF", &["llvm-dwarfdump"]) {
        let text = run(directory, "llvm-dwarfdump", &["--verify", file]);
        assert!(text.contains("No errors."), "{file}: {text}");
    }
}

#[test]
fn on_this_machine() {
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        check(HOST, "-gdwarf-4");
        check(HOST, "-g");
    }
}

#[test]
fn on_a_cortex_m4() {
    check(CORTEX_M4, "-gdwarf-4");
    check(CORTEX_M4, "-g");
}

#[test]
fn on_riscv_32() {
    check(RV32, "-g");
}

#[test]
fn row_by_row() {
    check_rows(Machine {
        name: "cortex-m4-rows",
        target: &["--target", "thumbv7em-none-eabi", "--optimize", "ram"],
        ..CORTEX_M4
    });
    check_rows(Machine {
        name: "rv32-rows",
        target: &["--target", "riscv32imc-unknown-none-elf", "--optimize", "ram"],
        ..RV32
    });
}

/// At every layer every tensor is what the evaluator says, or it is not shown. Those that the layer reads are shown.
#[test]
fn nothing_wrong_is_shown() {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return;
    }
    let linux = ["--target", "x86_64-unknown-linux-gnu"];
    let caller = [&linux[..], &["--arena", "caller"]].concat();
    let divided = [&linux[..], &["--memory", "a=8K,b=1M"]].concat();
    let both = [&caller[..], &["--memory", "a=1K,b=1M"]].concat();
    for (model, name, target, main) in [
        ("digits", "walk", HOST.target, MAIN),
        ("resnet8", "walk", HOST.target, MAIN),
        ("resnet8", "walk", divided.leak(), MAIN),
        ("dscnn", "walk", caller.leak(), MAIN_WITH_ARENA),
        ("digits", "walk", both.leak(), MAIN_WITH_ARENAS),
    ] {
        let machine = Machine {
            name,
            target,
            main,
            ..HOST
        };
        let Some(program) = Program::new(machine, model, "-g") else {
            return;
        };
        let layers = program.layers();
        let activation = |id: &TensorId| program.graph.tensor(*id).data.is_none();
        let all = program.values.iter().filter(|(_, (id, _))| activation(id));
        let names: Vec<&String> = all.map(|(name, _)| name).collect();
        let mut commands = vec![format!("tbreak {model}_run"), "continue".to_owned()];
        for step in 0..layers.len() {
            commands.push(format!("echo <{step}>\\n"));
            commands.push("next".into());
            for name in &names {
                commands.push(format!("echo <{step} {name}>\\n"));
                commands.push(format!("print/d {name}"));
            }
        }
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let text = program.debug(&commands);
        let mut shown = 0;
        let mut seen = Vec::new();
        for step in 0..layers.len() {
            let line = shown_lines(part(&text, &step.to_string()))[0];
            seen.push(line);
            for name in &names {
                let printed = part(&text, &format!("{step} {name}"));
                let printed = printed.lines().next().unwrap();
                if printed.ends_with(" = <optimized out>") {
                    continue;
                }
                assert!(
                    list(printed) == program.numbers(name),
                    "{model}, line {line}: {name}: {printed}"
                );
                shown += 1;
            }
            let op = program.graph.op_ids().find(|op| {
                let result = &program.graph.tensor(program.graph.op(*op).output()).name;
                program.listing[line - 1].contains(&format!("{result:?} : "))
            });
            let op = program.graph.op(op.expect("an operator on the line"));
            for id in op.inputs.iter().filter(|id| activation(id)) {
                let name = variables(&program.listing)[&program.graph.tensor(*id).name].clone();
                let printed = part(&text, &format!("{step} {name}"));
                assert!(!printed.contains("<optimized out>"), "{model}, line {line}: {name}");
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, layers, "{model}");
        assert!(shown > 2 * layers.len(), "{model}: {shown}");
    }
}

/// With an arena of the caller's, tensors are found if the caller's debug information says what it has passed, and
/// otherwise nothing is shown.
#[test]
fn arena_of_the_caller() {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return;
    }
    for (name, optimize) in [("caller-known", "-O1"), ("caller-unknown", "-O0")] {
        let machine = Machine {
            name,
            target: &["--target", "x86_64-unknown-linux-gnu", "--arena", "caller"],
            main: MAIN_WITH_ARENA,
            optimize,
            ..HOST
        };
        let Some(program) = Program::new(machine, "digits", "-g") else {
            return;
        };
        let names = variables(&program.listing);
        let result = |op: usize| names[&program.graph.tensor(program.graph.ops[op].outputs[0]).name].as_str();
        let stop = format!("tbreak digits_run:{}", result(2));
        let [input, made, later] = ["input", result(1), result(2)].map(|name| format!("print/d {name}"));
        let mark = |name: &str| format!("echo <{name}>\\n");
        let marks = ["input", "made", "later"].map(mark);
        let commands = [
            &stop, "continue", &marks[0], &input, &marks[1], &made, &marks[2], &later,
        ];
        let text = program.debug(&commands);
        if optimize == "-O1" {
            assert_eq!(list(part(&text, "input")), program.numbers("input"));
            assert_eq!(list(part(&text, "made")), program.numbers(result(1)));
        } else {
            assert_eq!(part(&text, "input"), "$1 = <optimized out>");
            assert_eq!(part(&text, "made"), "$2 = <optimized out>");
        }
        assert_eq!(part(&text, "later"), "$3 = <optimized out>");
    }
}

/// With and without `-g`, what is loaded is the same; and debug information of every target is in order, in the object
/// and linked, by linkers that drop what is not used.
#[test]
fn nothing_loaded_changes() {
    let directory = tools::directory("gdb-sections");
    for model in ["digits", "mobilenet025", "attention_float", "names", "wide_io"] {
        let path = root().join(format!("fixtures/{model}.tflite"));
        for target in [
            "x86_64-unknown-linux-gnu",
            "aarch64-unknown-none",
            "riscv64gc-unknown-none-elf",
            "riscv32imc-unknown-none-elf",
            "thumbv7m-none-eabi",
            "x86_64-pc-windows-gnu",
        ] {
            let build = |options: &[&str]| {
                let all = ["build", path.to_str().unwrap(), "-o", "m.o", "-q", "--target", target];
                run(&directory, COREROPE, &[&all[..], options].concat());
                fs::read(directory.join("m.o")).unwrap()
            };
            let plain = loaded(&build(&[]));
            assert!(plain.len() > 3, "{model} for {target}");
            for version in ["-gdwarf-4", "-gdwarf-5"] {
                let with = build(&[version]);
                assert!(loaded(&with) == plain, "{model} for {target} {version}");
                let file = object::File::parse(&*with).unwrap();
                assert!(
                    file.section_by_name(".debug_line").is_some(),
                    "{model} for {target} {version}"
                );
                assert_eq!(build(&[version]), with, "{model} for {target} {version}");
                verify(&directory, "m.o");
            }
        }
    }
}

/// Names and bytes of the sections that are loaded.
fn loaded(object: &[u8]) -> Vec<(String, u64, Vec<u8>)> {
    let file = object::File::parse(object).unwrap();
    let kept = file.sections().filter(|section| {
        use SectionKind::{ReadOnlyData, Text, UninitializedData};
        matches!(section.kind(), Text | ReadOnlyData | UninitializedData)
    });
    let debug = |name: &str| name.starts_with(".debug_");
    kept.map(|section| {
        let name = section.name().unwrap().to_owned();
        (name, section.size(), section.data().unwrap().to_vec())
    })
    .filter(|(name, ..)| !debug(name))
    .collect()
}
