//! `cargo bench --bench objects`: what writing objects and libraries costs, in CPU time and memory.
//!
//! - Whole builds of generated models (`tests/support/big_model.rs`) against `cp` of the model, in pairs: each runs in a
//!   process of its own, one after the other, several times; the table shows medians, and the median of the pairs'
//!   ratios. CPU time is user and system time. Peak memory is the resident set, pages of the mapped model included.
//! - The writers alone: ranges of a file as sections, in the same pairs.
//! - 100,000 small tensors through the object writers.
//! - An object and a library of 5 GiB, read by GNU binutils.
//! - The same parameters as a C array, compiled by gcc.
//!
//! `cargo bench --bench objects -- quick` leaves out what takes gigabytes.

use corerope::data::{Bytes, Contents, Source, Transform};
use corerope::object::archive::{self, Member};
use corerope::object::{self, Datum, ObjectPlan, Visibility};
use corerope::output::{OutFile, write_all};
use corerope::target::Target;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[path = "../tests/support/big_model.rs"]
mod big_model;

use big_model::Kind;

const COREROPE: &str = env!("CARGO_BIN_EXE_corerope");
/// The argument that makes this program measure one command.
const MEASURE: &str = "--measure-one";

/// The argument that makes this program write an object of a file's ranges.
const WRITE: &str = "--write-ranges";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == MEASURE) {
        return measure_one(&arguments[at + 1..]);
    }
    if let Some(at) = arguments.iter().position(|argument| argument == WRITE) {
        return write_ranges(&arguments[at + 1..]);
    }
    let quick = arguments.iter().any(|argument| argument == "quick");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("objects");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("the target directory can be written");
    builds(&directory, quick);
    ranges(&directory, quick);
    symbols(&directory);
    if !quick {
        huge(&directory);
    }
    arrays(&directory);
    fs::remove_dir_all(directory).expect("the directory was just made");
}

/// What a command took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    /// User and system time.
    cpu: Duration,
    /// Peak of the resident set in KiB.
    memory: u64,
}

/// Runs a command and prints its CPU time in microseconds and the peak of its resident set in KiB.
fn measure_one(command: &[String]) {
    let status = Command::new(&command[0])
        .args(&command[1..])
        .stdout(Stdio::null())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?} failed");
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).expect("always available");
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    println!(
        "{} {}",
        micros(usage.user_time()) + micros(usage.system_time()),
        usage.max_rss()
    );
}

/// CPU time of this process so far.
fn own_time() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("always available");
    let micros = |time: nix::sys::time::TimeVal| (time.tv_sec() * 1_000_000 + time.tv_usec()) as u64;
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

/// The cost of one command, run by a fresh copy of this program.
fn measure(directory: &Path, command: &[&str]) -> Cost {
    let own = std::env::current_exe().expect("this program's path is known");
    let output = Command::new(own)
        .current_dir(directory)
        .arg(MEASURE)
        .args(command)
        .output()
        .expect("this program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("two numbers");
    let (time, memory) = text.trim().split_once(' ').expect("two numbers");
    Cost {
        cpu: Duration::from_micros(time.parse().expect("a number")),
        memory: memory.parse().expect("a number"),
    }
}

fn median<T: Copy + Ord>(values: impl IntoIterator<Item = T>) -> T {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort();
    values[values.len() / 2]
}

/// Writes a model of `layers` equal layers; its size in bytes.
fn model(path: &Path, kind: Kind, layers: usize, [odd, even]: [usize; 2]) -> u64 {
    let widths: Vec<usize> = (0..=layers).map(|i| if i % 2 == 0 { odd } else { even }).collect();
    let mut file = BufWriter::new(File::create(path).expect("the target directory can be written"));
    big_model::write(&mut file, kind, &widths).expect("there is room for the model");
    drop(file);
    path.metadata().expect("it was just written").len()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// `cp`, an object and a library of each model.
fn builds(directory: &Path, quick: bool) {
    println!("builds against cp of the model: CPU time (median), ratio of pairs (median), peak memory (median)");
    println!(
        "{:<34} {:>12} {:>9} | {:>9} {:>6} {:>9} | {:>9} {:>6} {:>9}",
        "model", "bytes", "cp", ".o", "ratio", "memory", ".a", "ratio", "memory"
    );
    let cases = [
        ("added float, 10 tensors", Kind::Added, 10, [3_276_800; 2], 15),
        ("dense float, 10 tensors", Kind::Float, 10, [2048, 1600], 15),
        ("dense int8, 8 + 8 tensors", Kind::Int8, 8, [4096, 4000], 9),
        ("added float, 2,000 tensors", Kind::Added, 2000, [16_384; 2], 9),
        ("dense float, 2,000 tensors", Kind::Float, 2000, [128; 2], 9),
        ("added float, 10 tensors, 1 GB", Kind::Added, 10, [26_214_400; 2], 3),
        ("dense float, 10 tensors, 1 GB", Kind::Float, 10, [8192, 3200], 3),
    ];
    for (name, kind, layers, widths, rounds) in cases {
        let large = name.ends_with("GB");
        if large && quick {
            continue;
        }
        let bytes = model(&directory.join("m.tflite"), kind, layers, widths);
        let mut costs: Vec<[Cost; 3]> = Vec::new();
        for _ in 0..rounds {
            for name in ["copy", "m.o", "m.a", "m.h", "m.ld"] {
                let _ = fs::remove_file(directory.join(name));
            }
            let cp = measure(directory, &["cp", "m.tflite", "copy"]);
            let object = measure(directory, &[COREROPE, "build", "m.tflite", "-q", "-o", "m.o"]);
            let archive = measure(directory, &[COREROPE, "build", "m.tflite", "-q", "-o", "m.a"]);
            costs.push([cp, object, archive]);
        }
        row(name, bytes, &costs);
        for name in ["m.tflite", "copy", "m.o", "m.a"] {
            let _ = fs::remove_file(directory.join(name));
        }
    }
    println!();
}

/// The writers without a compiler in front of them.
fn ranges(directory: &Path, quick: bool) {
    println!("ranges of a file as sections of an object or library, in the same pairs");
    let own = std::env::current_exe().expect("this program's path is known");
    let own = own.to_str().expect("paths here are UTF-8");
    for (bytes, counts) in [(131_072_000, &[10, 2000][..]), (1_048_576_000, &[10][..])] {
        if bytes > 200_000_000 && quick {
            continue;
        }
        let zeros = io::copy(
            &mut io::repeat(7).take(bytes),
            &mut File::create(directory.join("r")).expect("writable"),
        );
        zeros.expect("there is room");
        for count in counts {
            let mut costs: Vec<[Cost; 3]> = Vec::new();
            for _ in 0..if bytes > 200_000_000 { 3 } else { 15 } {
                for name in ["copy", "r.o", "r.a"] {
                    let _ = fs::remove_file(directory.join(name));
                }
                let cp = measure(directory, &["cp", "r", "copy"]);
                let count = count.to_string();
                let [object, archive] = ["r.o", "r.a"].map(|name| measure(directory, &[own, WRITE, "r", name, &count]));
                costs.push([cp, object, archive]);
            }
            row(&format!("{count} sections"), bytes, &costs);
        }
        for name in ["r", "copy", "r.o", "r.a"] {
            let _ = fs::remove_file(directory.join(name));
        }
    }
    println!();
}

/// `FILE OUTPUT COUNT`
fn write_ranges(arguments: &[String]) {
    let source = File::open(&arguments[0]).and_then(Source::map).expect("just written");
    let source = Arc::new(source);
    let count: u64 = arguments[2].parse().expect("a number");
    let each = source.bytes().len() as u64 / count;
    let range = |i: u64| Bytes::new(source.clone(), i * each..(i + 1) * each).expect("within the file");
    let plan = plan(
        (0..count)
            .map(|i| (format!("layer_{i}_weights"), Contents::Bytes(range(i))))
            .collect(),
    );
    let target = target("x86_64-unknown-linux-gnu");
    let file = OutFile::new(&arguments[1], |out| match arguments[1].ends_with(".o") {
        true => object::write(&plan, &target, out),
        false => archive::library(
            &[Member {
                name: "r.o",
                plan: &plan,
            }],
            &target,
            out,
        ),
    });
    write_all(vec![file.expecting(plan.bytes())]).expect("there is room");
}

/// A line of the table: medians of costs of `cp`, an object and a library.
fn row(name: &str, bytes: u64, costs: &[[Cost; 3]]) {
    let cpu = |i: usize| milliseconds(median(costs.iter().map(|c| c[i].cpu)));
    let memory = |i: usize| median(costs.iter().map(|c| c[i].memory)) as f64 / 1024.0;
    // Per mille, to be sortable.
    let ratio = |i: usize| {
        let pairs = costs
            .iter()
            .map(|c| c[i].cpu.as_micros() * 1000 / c[0].cpu.as_micros().max(1));
        median(pairs) as f64 / 1e3
    };
    println!(
        "{name:<34} {bytes:>12} {:>6.1} ms | {:>6.1} ms {:>6.2} {:>5.1} MiB | {:>6.1} ms {:>6.2} {:>5.1} MiB",
        cpu(0),
        cpu(1),
        ratio(1),
        memory(1),
        cpu(2),
        ratio(2),
        memory(2),
    );
}

fn plan(data: Vec<(String, Contents)>) -> ObjectPlan {
    let datum = |(name, contents): (String, Contents)| Datum {
        section: format!(".rodata.m.{name}"),
        symbol: format!("m_{name}"),
        align: 16,
        contents,
        visibility: Visibility::Hidden,
    };
    object::plan(Vec::new(), data.into_iter().map(datum).collect()).expect("all names are different")
}

fn target(triple: &str) -> Target {
    Target::new(Some(triple), None, None).expect("a known target")
}

/// Many small tensors: what a symbol with its section costs.
fn symbols(directory: &Path) {
    const COUNT: usize = 100_000;
    println!("{COUNT} tensors of 16 bytes, each a section and a symbol: CPU time for each (best of 5)");
    let bytes = |i: usize| Contents::Bytes(Bytes::from_vec((i as u128).to_le_bytes().to_vec()));
    let data: Vec<_> = (0..COUNT).map(|i| (format!("block_{i}_weights"), bytes(i))).collect();
    for triple in [
        "x86_64-unknown-linux-gnu",
        "thumbv7em-none-eabi",
        "aarch64-apple-darwin",
    ] {
        let target = target(triple);
        let mut best = [Duration::MAX; 3];
        for _ in 0..5 {
            let data = data.clone();
            let start = own_time();
            let plan = plan(data);
            best[0] = best[0].min(own_time() - start);
            for (i, name) in [(1, "s.o"), (2, "s.a")] {
                let mut out = File::create(directory.join(name)).expect("the directory can be written");
                let start = own_time();
                match i {
                    1 => object::write(&plan, &target, &mut out),
                    _ => archive::library(
                        &[Member {
                            name: "s.o",
                            plan: &plan,
                        }],
                        &target,
                        &mut out,
                    ),
                }
                .expect("within all limits");
                best[i] = best[i].min(own_time() - start);
            }
        }
        let each = |time: Duration| time.as_secs_f64() * 1e6 / COUNT as f64;
        println!(
            "{triple:<34} plan {:.2} us, .o {:.2} us, .a {:.2} us",
            each(best[0]),
            each(best[1]),
            each(best[2])
        );
    }
    println!();
}

/// Zeros, made as they are written.
#[derive(Debug)]
struct Zeros(u64);

impl Transform for Zeros {
    fn len(&self) -> u64 {
        self.0
    }
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        io::copy(
            &mut io::repeat(0).take(self.0),
            &mut BufWriter::with_capacity(256 << 10, out),
        )
        .map(drop)
    }
}

/// Leaves holes where long runs of zeros are written.
struct Sparse(File);

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() >= 4096 && bytes.iter().all(|byte| *byte == 0) {
            self.0.seek(SeekFrom::Current(bytes.len() as i64))?;
            return Ok(bytes.len());
        }
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// More than 32 bits can count.
fn huge(directory: &Path) {
    println!("5 GiB of constants in 5 sections, for x86-64 (zeros, written with holes)");
    let target = target("x86_64-unknown-linux-gnu");
    let data = (0..5).map(|i| (format!("w{i}"), Contents::Transform(Arc::new(Zeros(1 << 30)))));
    let mut plan = plan(data.collect());
    // The last symbol of a library lies behind 4 GiB as a member of its own.
    plan.symbols[4].visibility = Visibility::Exported;
    for name in ["huge.o", "huge.a"] {
        let mut out = Sparse(File::create(directory.join(name)).expect("the directory can be written"));
        let start = Instant::now();
        match name {
            "huge.o" => object::write(&plan, &target, &mut out),
            _ => archive::library(
                &[Member {
                    name: "huge.o",
                    plan: &plan,
                }],
                &target,
                &mut out,
            ),
        }
        .expect("within all limits");
        let time = start.elapsed();
        let bytes = directory.join(name).metadata().expect("just written").len();
        println!("{name}: {bytes} bytes in {:.1} s", time.as_secs_f64());
        let commands: &[&[&str]] = match name {
            "huge.o" => &[&["readelf", "-SW"], &["nm", "-S"], &["size", "-A"], &["objdump", "-h"]],
            _ => &[&["ar", "t"], &["nm", "-s"], &["readelf", "-hW"]],
        };
        for command in commands {
            match run(directory, command[0], &[&command[1..], &[name]].concat()) {
                None => println!("  {}: not installed", command[0]),
                Some(text) => {
                    let sound = !text.contains("arning") && !text.contains("rror") && text.contains(['w', 'h']);
                    println!("  {}: {}", command.join(" "), if sound { "reads it" } else { &*text });
                }
            }
        }
        fs::remove_file(directory.join(name)).expect("just written");
    }
    println!();
}

/// The way through C.
fn arrays(directory: &Path) {
    println!("the same parameters as a C array, compiled by gcc -c -O2: CPU time and peak memory (best of 3)");
    for megabytes in [4, 16] {
        let side = 1024 * (megabytes as f64 / 4.0).sqrt() as usize;
        let bytes = model(&directory.join("c.tflite"), Kind::Float, 1, [side; 2]);
        let mut weights = Vec::new();
        File::open(directory.join("c.tflite"))
            .and_then(|mut file| file.read_to_end(&mut weights))
            .expect("just written");
        let mut source = "const unsigned char weights[] = {".to_owned();
        for (i, byte) in weights.iter().enumerate() {
            let separator = if i % 12 == 0 { "\n  " } else { " " };
            write!(source, "{separator}0x{byte:02x},").expect("strings can be written to");
        }
        source += "\n};\n";
        fs::write(directory.join("c.c"), source).expect("the directory can be written");
        if run(directory, "gcc", &["--version"]).is_none() {
            return println!("gcc is not installed");
        }
        let best = |command: &[&str]| {
            (0..3)
                .map(|_| measure(directory, command))
                .min()
                .expect("three of them")
        };
        let c = best(&["gcc", "-O2", "-c", "c.c", "-o", "c.o"]);
        let own = best(&[COREROPE, "build", "c.tflite", "-q", "-o", "own.o"]);
        println!(
            "{bytes:>12} bytes: gcc {:>8.0} ms {:>6.0} MiB, corerope {:>5.1} ms {:>5.1} MiB: {:.0} times",
            milliseconds(c.cpu),
            c.memory as f64 / 1024.0,
            milliseconds(own.cpu),
            own.memory as f64 / 1024.0,
            c.cpu.as_secs_f64() / own.cpu.as_secs_f64()
        );
    }
}

/// What a command prints; `None` if it is not installed.
fn run(directory: &Path, program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .current_dir(directory)
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    Some(text)
}
