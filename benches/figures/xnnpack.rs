//! Inference on this machine against LiteRT's XNNPACK, one thread: both in turns of a millisecond, many times. Where other
//! work on the machine slows some turns, the least times of both are what to compare; else medians say the same.

use super::{Model, program, shared};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A model, and how many times XNNPACK's time it should take at most with AVX-VNNI, and on x86-64-v2.
const BOUNDS: [(&str, [f64; 2]); 4] = [
    ("kws", [1.4, 3.3]),
    ("vww", [1.4, 3.3]),
    ("resnet", [3.1, 7.2]),
    ("ad", [1.4, 5.5]),
];
const CPUS: [&str; 2] = ["x86-64-v3-vnni", "x86-64-v2"];
/// Turns of each.
const TURNS: usize = 200;
/// Nanoseconds of a turn.
const TURN: f64 = 1e6;

/// A process that runs models when it is told to.
struct Told {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Told {
    /// `None` if it does not get ready.
    fn new(mut command: Command) -> Option<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let (to, from) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        let mut told = Told { child, to, from };
        let line = told.line();
        if line.as_deref() == Some("ready") {
            return Some(told);
        }
        let _ = told.child.wait();
        None
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.from.read_line(&mut line).ok()?;
        Some(line.trim().to_owned())
    }

    /// Nanoseconds of each of `runs`.
    fn run(&mut self, model: usize, runs: u64) -> f64 {
        writeln!(self.to, "{model} {runs}").expect("the process waits for it");
        let line = self.line().expect("the process answers");
        line.parse().expect("a number")
    }

    /// How many runs are a turn.
    fn runs(&mut self, model: usize) -> u64 {
        let one = self.run(model, 20).min(self.run(model, 20));
        (TURN / one) as u64 + 1
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Prints both times and their ratio, of pairs and of the least, for every model and CPU.
pub fn compare(directory: &Path) {
    if !cfg!(target_arch = "x86_64") {
        return println!("\nthis is no x86-64 machine: no comparison with XNNPACK");
    }
    let models: Vec<Model> = BOUNDS
        .iter()
        .map(|(name, _)| shared().join(format!("models/{name}.json")))
        .filter(|path| path.is_file())
        .map(|path| super::model(&path))
        .collect();
    if models.len() < BOUNDS.len() {
        return println!(
            "\nthe models of {} are not there: no comparison with XNNPACK",
            shared().display()
        );
    }
    fs::create_dir_all(directory).expect("the target directory can be written");
    let vnni = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("avx_vnni"));
    let builds: Vec<(&Model, String, [&str; 2])> = (CPUS.iter())
        .filter(|cpu| vnni || !cpu.ends_with("vnni"))
        .flat_map(|cpu| {
            let id = cpu.replace('-', "_");
            models
                .iter()
                .map(move |model| (model, format!("{id}_{}", model.name), ["--cpu", *cpu]))
        })
        .collect();
    let named: Vec<(&Model, String, &[&str])> = builds
        .iter()
        .map(|(model, id, options)| (*model, id.clone(), &options[..]))
        .collect();
    let Some(bench) = program(directory, &named, "told.c") else {
        return println!("\ngcc is not installed: no comparison with XNNPACK");
    };
    let mut own = Command::new(bench);
    own.arg("in").current_dir(directory);
    let python = std::env::var_os("COREROPE_PYTHON").unwrap_or_else(|| "python3".into());
    let mut litert = Command::new(python);
    litert.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/figures/litert.py"));
    for model in &models {
        let inputs = directory.join(format!("{}.in", model.name));
        fs::write(&inputs, model.inputs.concat()).expect("the directory can be written");
        litert.arg(&model.path).arg(inputs);
    }
    let Some(mut litert) = Told::new(litert) else {
        return println!(
            "\nPython has no ai-edge-litert (COREROPE_PYTHON names one that has): no comparison with XNNPACK"
        );
    };
    let mut own = Told::new(own).expect("just linked");
    println!(
        "\n{:<8} {:<15} {:>12} {:>12} {:>6} {:>12} {:>12} {:>6} {:>6}",
        "model", "cpu", "median", "XNNPACK", "ratio", "least", "XNNPACK", "ratio", "goal"
    );
    for (index, (_, id, [_, cpu])) in builds.iter().enumerate() {
        let at = index % models.len();
        let (name, bounds) = BOUNDS[at];
        let bound = bounds[usize::from(!cpu.ends_with("vnni"))];
        let runs = [own.runs(index), litert.runs(at)];
        let pairs: Vec<[f64; 2]> = (0..TURNS)
            .map(|_| [own.run(index, runs[0]), litert.run(at, runs[1])])
            .collect();
        let side = |side: usize| pairs.iter().map(|pair| pair[side]).collect::<Vec<f64>>();
        let ratio = median(pairs.iter().map(|[own, other]| own / other).collect());
        let [own_least, other_least] = [0, 1].map(|of| least(&side(of)));
        let micros = |n: f64| format!("{:.2} us", n / 1e3);
        assert!(id.ends_with(name), "models are in the order of the bounds");
        println!(
            "{name:<8} {cpu:<15} {:>12} {:>12} {ratio:>6.2} {:>12} {:>12} {:>6.2} {bound:>6.1}",
            micros(median(side(0))),
            micros(median(side(1))),
            micros(own_least),
            micros(other_least),
            own_least / other_least,
        );
    }
}
