//! Parameters outside the object, single steps and hooks.

use crate::big::big_model;
use crate::cases::{self, root};
use crate::firmware::{ARM, Board, RISCV};
use crate::linking::{build, host};
use crate::matrix::WARNINGS;
use crate::tools::{self, COREROPE, installed, run};
use object::{Object, ObjectSection};
use std::collections::BTreeMap;
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CALLED: &[&str] = &["--step", "--hooks"];

/// Compiles `tests/c/outside.c`, links it and runs it.
fn outside(directory: &Path, compiler: &[&str], defines: &[&str]) {
    let source = root().join("tests/c/outside.c");
    let [program, rest @ ..] = compiler else {
        panic!("no compiler")
    };
    let files = [
        "-O1",
        "-I.",
        source.to_str().unwrap(),
        "-x",
        "none",
        "digits.a",
        "-o",
        "outside",
    ];
    run(directory, program, &[rest, &files[..], WARNINGS, defines].concat());
    run(directory, directory.join("outside").to_str().unwrap(), &[] as &[&str]);
}

/// Every error of images and callbacks, and a good run after each.
#[test]
fn every_error_of_images_and_callbacks() {
    if !host() || !installed("parameters outside", &["gcc", "g++"]) {
        return;
    }
    for (arena, caller) in [("static", &[][..]), ("caller", &["-DCALLER"])] {
        let external = ["--arena", arena, "--params", "external"];
        let streamed = ["--arena", arena, "--params", "streamed", "--stream-buffer", "2200"];
        let mut ways = vec![(external.to_vec(), &[][..]), (streamed.to_vec(), &["-DSTREAMED"])];
        if arena == "static" {
            ways.push(([&streamed[..], &["--memory", "a=2K,b=1M"]].concat(), &["-DSTREAMED"]));
        }
        for (arguments, defines) in ways {
            let directory = build("outside", "a", &[&arguments[..], CALLED].concat());
            let defines = [defines, caller].concat();
            outside(&directory, &["gcc", "-std=c99"], &defines);
            outside(&directory, &["g++", "-std=c++17", "-x", "c++"], &defines);
        }
    }
}

/// Bytes of every section of an object.
fn sections(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    // Relocations name symbols by their numbers.
    let named = |section: &object::Section| {
        section
            .name()
            .is_ok_and(|name| name.contains("digits") && !name.starts_with(".rela"))
    };
    let sections = file.sections().filter(named);
    sections
        .map(|section| (section.name().unwrap().to_owned(), section.data().unwrap().to_vec()))
        .collect()
}

/// What is not asked for costs nothing: `--step` adds a section and changes none, and with parameters outside, the
/// kernels are the same.
#[test]
fn what_is_not_asked_for_costs_nothing() {
    if !host() {
        return;
    }
    let plain = sections(&build("free-plain", "o", &[]).join("digits.o"));
    let mut steps = sections(&build("free-steps", "o", &["--step"]).join("digits.o"));
    assert!(steps.remove(".text.digits.step").is_some(), "{:?}", steps.keys());
    assert!(plain == steps);
    let outside = sections(&build("free-outside", "o", &["--params", "external"]).join("digits.o"));
    let kernels = |all: &BTreeMap<String, Vec<u8>>| -> Vec<Vec<u8>> {
        let kernels = all
            .iter()
            .filter(|(name, _)| name.starts_with(".text.digits.") && !name.ends_with(".run"));
        kernels.map(|(_, bytes)| bytes.clone()).collect()
    };
    let outside = kernels(&outside);
    assert!(kernels(&plain).iter().all(|kernel| outside.contains(kernel)));
}

/// Rules decide for single tensors.
#[test]
fn rules_say_what_is_outside() {
    let size = |arguments: &[&str]| {
        let directory = build("outside-rules", "o", arguments);
        let image = fs::metadata(directory.join("digits.params")).map_or(0, |file| file.len());
        let all = sections(&directory.join("digits.o"));
        let inside = all.iter().filter(|(name, _)| name.starts_with(".rodata.digits."));
        (image, inside.map(|(_, bytes)| bytes.len() as u64).sum::<u64>())
    };
    let (none, all) = size(&[]);
    assert_eq!(none, 0);
    let (image, rest) = size(&["--params", "external"]);
    // The header that is expected, and the table of the checksum.
    assert_eq!(rest, 128);
    assert!(image > all && image < all + 300, "{image} bytes for {all}");
    let (large, small) = size(&["--place", "size>2K=external"]);
    assert!(
        large > 13_000 && large + small < all + 400,
        "{large} + {small} of {all}"
    );
    assert_eq!(
        (large, small),
        size(&["--params", "external", "--place", "size<=2K=embedded"])
    );
}

const CORTEX_M7: Board = Board {
    name: "cortex-m7-streamed",
    arguments: &["--target", "thumbv7em-none-eabi", "--cpu", "cortex-m7+fp"],
    flags: &["-mcpu=cortex-m7", "-mfloat-abi=softfp", "-mfpu=fpv5-sp-d16"],
    qemu: &["qemu-system-arm", "-M", "mps2-an500"],
    ..ARM
};
const RV32: Board = Board {
    name: "rv32-streamed",
    arguments: &["--target", "riscv32imc-unknown-none-elf"],
    flags: &["-march=rv32imc_zicsr", "-mabi=ilp32"],
    ..RISCV
};

/// Builds `model` for a board, with its parameters streamed, and runs it on `inputs`: the outputs, and what each run
/// read: times, KiB, bytes at most.
fn on_board(board: &Board, model: &Path, buffer: &str, inputs: &[&[u8]], outputs: usize) -> (Vec<u8>, [u64; 3]) {
    let directory = tools::directory(&format!(
        "{}-{}",
        board.name,
        model.file_stem().unwrap().to_str().unwrap()
    ));
    let build = [
        "build",
        model.to_str().unwrap(),
        "-o",
        "net.a",
        "--name",
        "net",
        "-q",
        "--step",
    ];
    let streamed = ["--params", "streamed", "--stream-buffer", buffer];
    run(&directory, COREROPE, &[&build[..], &streamed, board.arguments].concat());
    fs::write(directory.join("in"), inputs.concat()).unwrap();
    let defines = [
        format!("-DINPUT_BYTES={}", inputs[0].len()),
        format!("-DOUTPUT_BYTES={outputs}"),
    ];
    let output = board.program(&directory, "streamed.c", &defines, "net.a");
    let text = tools::text(&output);
    assert!(
        output.status.success() && !text.contains("FAIL"),
        "{}: {text}",
        output.status
    );
    let numbers = |line: &str| -> Option<[u64; 3]> {
        let numbers: Vec<u64> = line
            .strip_prefix("READ ")?
            .split(' ')
            .map(|n| n.parse().unwrap())
            .collect();
        numbers.try_into().ok()
    };
    let read = text.lines().find_map(numbers).unwrap_or_else(|| panic!("{text}"));
    let results = fs::read(directory.join("out")).unwrap();
    fs::remove_dir_all(directory).unwrap();
    (results, read)
}

/// Real networks, streamed on 32-bit machines in pieces that no layer fits.
#[test]
fn streamed_on_boards() {
    for board in [CORTEX_M7, RV32] {
        if !board.available() {
            continue;
        }
        for (name, buffer, most) in [
            ("digits", "1100", 1100),
            ("dscnn", "1K", 1024),
            ("mobilenet025", "4K", 4096),
        ] {
            let case = cases::fixtures().into_iter().find(|case| case.name == name).unwrap();
            let inputs: Vec<&[u8]> = case.sets.iter().map(|set| set.inputs[0].as_slice()).collect();
            let expected = case
                .sets
                .iter()
                .flat_map(|set| set.outputs[0].clone())
                .collect::<Vec<u8>>();
            let (results, [reads, _, largest]) =
                on_board(&board, &case.model, buffer, &inputs, case.sets[0].outputs[0].len());
            assert!(results == expected, "{name} on {}", board.name);
            assert!(
                largest <= most && reads > 10,
                "{name} on {}: {reads} reads of {largest}",
                board.name
            );
        }
    }
}

/// Builds the model of dense layers between `widths`, and runs it on this machine: the result, and the KiB that were
/// resident when the parameters were bound and at the end.
fn on_this_machine(directory: &Path, arguments: &[&str], define: &str, widths: &[usize]) -> (Vec<u8>, [u64; 2]) {
    let build = ["build", "net.tflite", "-o", "net.a", "-q"];
    run(directory, COREROPE, &[&build[..], arguments].concat());
    let source = root().join("tests/c/big.c");
    let [input, output] = [
        format!("-DINPUT_BYTES={}", widths[0]),
        format!("-DOUTPUT_BYTES={}", widths[widths.len() - 1]),
    ];
    let files = [
        "-std=c99",
        "-O1",
        "-I.",
        source.to_str().unwrap(),
        "net.a",
        "-o",
        "big",
        &input,
        &output,
        define,
    ];
    run(directory, "gcc", &[&files[..], WARNINGS].concat());
    let text = run(directory, directory.join("big").to_str().unwrap(), &[] as &[&str]);
    let peaks = text
        .trim()
        .strip_prefix("PEAK ")
        .and_then(|peaks| peaks.split_once(' '));
    let (bound, end) = peaks.unwrap_or_else(|| panic!("{text}"));
    (
        fs::read(directory.join("out")).unwrap(),
        [bound, end].map(|kib| kib.parse().unwrap()),
    )
}

/// A generated model and an input.
fn large(name: &str, widths: &[usize]) -> (PathBuf, Vec<u8>) {
    let directory = tools::directory(name);
    let mut file = BufWriter::new(fs::File::create(directory.join("net.tflite")).unwrap());
    big_model::write(&mut file, big_model::Kind::Int8, widths).unwrap();
    let input: Vec<u8> = (0..widths[0]).map(|i| (i * i + i / 7) as u8).collect();
    fs::write(directory.join("in"), &input).unwrap();
    (directory, input)
}

/// A model streamed through two buffers of `buffer` bytes gives what it gives with its parameters in the program, on this
/// machine in memory that does not grow with the model, and on an emulated Cortex-M7.
fn streamed(name: &str, widths: &[usize], buffer: &str, most: u64) {
    if !host() || !installed("parameters outside", &["gcc"]) {
        return;
    }
    let bytes: usize = widths.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let (directory, input) = large(name, widths);
    let (expected, _) = on_this_machine(&directory, &[], "-DEMBEDDED", widths);
    let arguments = ["--params", "streamed", "--stream-buffer", buffer];
    let (result, [_, resident]) = on_this_machine(&directory, &arguments, "-DSTREAMED", widths);
    assert!(result == expected, "streamed and embedded differ");
    assert!(expected.iter().any(|byte| *byte != expected[0]));
    println!("{bytes} bytes of weights streamed on this machine: {resident} KiB resident at most");
    assert!(resident < 8 << 10, "{resident} KiB");
    if CORTEX_M7.available() {
        let model = directory.join("net.tflite");
        let (result, [reads, kib, largest]) = on_board(&CORTEX_M7, &model, buffer, &[&input], expected.len());
        assert!(result == expected, "the board differs");
        println!("on a Cortex-M7: {reads} reads of at most {largest} bytes, {kib} KiB");
        assert!(largest <= most && kib >= bytes as u64 / 1024, "{largest}, {kib}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn streamed_through_small_buffers() {
    streamed("streamed", &[1024, 1000, 1024, 1001, 512, 10], "8K", 8 << 10);
}

/// The model of the first user: 131 MB through 64 KB.
#[test]
#[ignore = "takes minutes: cargo test --release --test it outside -- --ignored --nocapture"]
fn streamed_131_megabytes() {
    let widths = [4096, 4000, 4096, 4000, 4096, 4000, 4096, 4000, 4096];
    streamed("streamed-131", &widths, "32K", 32 << 10);
}

/// An image read in place, layer by layer: only what a layer touches is resident.
fn mapped(name: &str, widths: &[usize]) {
    if !host() || !cfg!(target_os = "linux") || !installed("parameters outside", &["gcc"]) {
        return;
    }
    let (directory, _) = large(name, widths);
    let streams = ["--params", "streamed", "--stream-buffer", "64K"];
    let (expected, _) = on_this_machine(&directory, &streams, "-DSTREAMED", widths);
    let external = ["--params", "external", "--step"];
    let (result, [bound, end]) = on_this_machine(&directory, &external, "-DEXTERNAL", widths);
    assert!(result == expected, "external and streamed differ");
    let size = fs::metadata(directory.join("net.params")).unwrap().len();
    let layer = widths.windows(2).map(|pair| pair[0] * pair[1]).max().unwrap() as u64;
    println!("an image of {size} bytes, its largest layer {layer}: {bound} KiB resident when bound, {end} KiB at most");
    assert!(bound < 8 << 10, "{bound} KiB when bound");
    assert!(end < layer / 1024 + (8 << 10), "{end} KiB at the end");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn read_in_place() {
    mapped("mapped", &[2048; 9]);
}

/// 1 GiB.
#[test]
#[ignore = "takes minutes and 3 GB of disk: cargo test --release --test it outside -- --ignored --nocapture"]
fn a_gigabyte_read_in_place() {
    mapped("mapped-1024", &[8192; 17]);
}

/// New weights for code that is there: `corerope params` writes them, the same program computes what a build of the new
/// model would.
#[test]
fn new_parameters_for_unchanged_code() {
    if !host() || !installed("parameters outside", &["gcc"]) {
        return;
    }
    let directory = build("updated", "a", &[&["--params", "external"], CALLED].concat());
    let mut model = fs::read(root().join("fixtures/digits.tflite")).unwrap();
    let options = corerope::build::Options::new(corerope::target::Target::new(None, None, None).unwrap(), "digits");
    let source = Arc::new(corerope::data::Source::Memory(model.clone()));
    let graph = corerope::build::read(source.clone(), &options).unwrap();
    let start = source.bytes().as_ptr() as usize;
    let weights = graph.tensors.iter().filter_map(|tensor| tensor.data.as_ref());
    for data in weights.filter(|data| data.len() > 2000) {
        let at = data.as_slice().as_ptr() as usize - start;
        for byte in model[at..at + data.len() as usize].iter_mut().step_by(3) {
            // −128 is no weight of TFLite's.
            *byte ^= if *byte == 0x88 { 0 } else { 8 };
        }
    }
    fs::write(directory.join("new.tflite"), &model).unwrap();
    let case = cases::fixtures()
        .into_iter()
        .find(|case| case.name == "digits")
        .unwrap();
    fs::write(directory.join("in.bin"), &case.sets[0].inputs[0]).unwrap();
    run(
        &directory,
        COREROPE,
        &["run", "new.tflite", "-i", "in.bin", "-o", "expected.bin"],
    );
    let expected = fs::read(directory.join("expected.bin")).unwrap();
    assert!(
        expected != case.sets[0].outputs[0],
        "the new weights make no difference"
    );
    let list: Vec<String> = expected.iter().map(|byte| (*byte as i8).to_string()).collect();
    let data = fs::read_to_string(directory.join("data.h")).unwrap();
    let images = data.lines().filter(|line| !line.contains("expected"));
    let data = images.map(|line| format!("{line}\n")).collect::<String>();
    let array = format!(
        "static const int8_t expected[{}] = {{{}}};\n",
        list.len(),
        list.join(", ")
    );
    fs::write(directory.join("data.h"), data + &array).unwrap();
    let update = [
        "params",
        "new.tflite",
        "--name",
        "digits",
        "--params",
        "external",
        "--for",
        "digits.a",
    ];
    run(&directory, COREROPE, &[&update[..], &["-o", "digits.params"]].concat());
    outside(&directory, &["gcc", "-std=c99"], &[]);
}

/// Two networks in one library, with one arena, also divided between memories.
#[test]
fn networks_that_share_an_arena() {
    if !host() || !installed("a shared arena", &["gcc", "nm"]) {
        return;
    }
    let models: Vec<cases::Case> = cases::fixtures()
        .into_iter()
        .filter(|case| ["digits", "dscnn"].contains(&case.name.as_str()))
        .collect();
    let paths: Vec<&str> = models.iter().map(|case| case.model.to_str().unwrap()).collect();
    let divided = ["--memory", "a=1K,b=1M"];
    for (arena, memory, words) in [
        ("static", &[][..], &[""][..]),
        ("caller", &[], &[""]),
        ("static", &divided, &["_a", "_b"]),
        ("caller", &divided, &["_a", "_b"]),
    ] {
        let directory = tools::directory("shared-arena");
        let build = [
            &["build"],
            &paths[..],
            &["--share-arena", "-o", "both.a", "-q", "--arena", arena],
            memory,
        ]
        .concat();
        run(&directory, COREROPE, &build);
        let symbols = run(&directory, "nm", &["both.a"]);
        let arenas: Vec<&str> = symbols
            .lines()
            .filter(|line| line.contains(" B ") || line.contains(" D "))
            .collect();
        let wanted: Vec<String> = match arena {
            "static" => words.iter().map(|word| format!("both_arena{word}")).collect(),
            _ => Vec::new(),
        };
        let found: Vec<&str> = arenas.iter().filter_map(|line| line.split(' ').next_back()).collect();
        assert_eq!(found, wanted, "{symbols}");
        let size = |name: &str, word: &str| format!("{name}_ARENA{}_SIZE", word.to_uppercase());
        let mut program = "#include \"both.h\"\n#include <string.h>\n".to_owned();
        let argument = match (arena, memory) {
            ("static", _) => "",
            (_, []) => ", arena",
            _ => ", &arenas",
        };
        let parts: Vec<String> = words.iter().map(|word| format!("arena{word}")).collect();
        for (part, word) in parts.iter().zip(words).filter(|_| arena == "caller") {
            let size = size("BOTH", word);
            program += &format!("static uint8_t {part}[{size}] __attribute__((aligned(BOTH_ARENA_ALIGN)));\n");
        }
        let mut body = String::new();
        for case in &models {
            let name = &case.name;
            for (what, bytes) in [("in", &case.sets[0].inputs[0]), ("want", &case.sets[0].outputs[0])] {
                let list: Vec<String> = bytes.iter().map(|byte| (*byte as i8).to_string()).collect();
                program += &format!("static const int8_t {name}_{what}[] = {{{}}};\n", list.join(", "));
            }
            program += &format!("static int8_t {name}_out[sizeof {name}_want];\n");
            let arenas = match argument {
                ", &arenas" => format!(
                    "        const struct {name}_arenas arenas = {{{}}};\n",
                    parts.join(", ")
                ),
                _ => String::new(),
            };
            body += &format!(
                "    {{\n{arenas}        const struct {name}_inputs inputs = {{{name}_in}};\n        \
                 const struct {name}_outputs outputs = {{{name}_out}};\n        \
                 if ({name}_run(&inputs, &outputs{argument}) != 0 || memcmp({name}_out, {name}_want, sizeof {name}_want))\n            \
                 return 1;\n    }}\n"
            );
        }
        // Each part is that of one of the networks.
        for word in words {
            let [both, one, other] = ["BOTH", "DIGITS", "DSCNN"].map(|name| size(name, word));
            program += &format!(
                "typedef char large_enough{word}[{both} >= {one} && {both} >= {other} ? 1 : -1];\n\
                 typedef char no_larger{word}[{both} == {one} || {both} == {other} ? 1 : -1];\n"
            );
        }
        program += &format!("int main(void) {{\n{body}{body}    return 0;\n}}\n");
        fs::write(directory.join("main.c"), program).unwrap();
        run(
            &directory,
            "gcc",
            &[&["-std=c99", "main.c", "both.a", "-o", "main"], WARNINGS].concat(),
        );
        run(&directory, directory.join("main").to_str().unwrap(), &[] as &[&str]);
    }
}
