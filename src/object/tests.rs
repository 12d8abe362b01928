//! Objects are read by other people's tools: linkers, readelf, objdump, llvm-readobj. A tool that is not installed is
//! named and skipped.

mod embedded;
mod formats;

use super::archive::{self, Member};
use super::{Datum, ObjectPlan, Section, SectionKind, Symbol, Visibility, write};
use crate::assemble;
use crate::codegen;
use crate::data::{Bytes, Contents, Transform};
use crate::error::Code;
use crate::harness::fixture::{self, LEN, Model};
use crate::kernels::entry::{self, ArenaKind};
use crate::names::Names;
use crate::plan::Io;
use crate::target::Target;
use std::path::Path;
use std::process::Command;

/// Runs a program in `dir`; `None` if it is not installed. Panics with its output if it fails.
fn tool(dir: &Path, line: &[&str]) -> Option<String> {
    match Command::new(line[0]).args(&line[1..]).current_dir(dir).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {} is not installed", line[0]);
            None
        }
        Err(error) => panic!("{line:?}: {error}"),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{line:?}: {}\n{text}", output.status);
            Some(text)
        }
    }
}

fn object(target: &Target, io: Io, arena: ArenaKind) -> ObjectPlan {
    let Model { graph, lowering, plan } = fixture::model(target, io);
    let names = Names::new(&graph, &lowering);
    let kernels = codegen::compile(assemble::kernels(&lowering, &names), target).unwrap();
    let run = entry::entry(&entry::Model::new(&graph, &lowering, &plan, target, &names, arena)).unwrap();
    let run = codegen::compile(vec![run], target).unwrap().remove(0);
    let data = assemble::data(&graph, &lowering, &plan, arena, None, &names);
    assemble::object(kernels, Vec::new(), run, data, &names, &[]).unwrap()
}

fn write_files(dir: &Path, target: &Target, plan: &ObjectPlan) {
    let mut bytes = Vec::new();
    write(plan, target, &mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, super::size(plan, target).unwrap());
    let mut again = Vec::new();
    write(plan, target, &mut again).unwrap();
    assert_eq!(bytes, again);
    std::fs::write(dir.join("tiny.o"), bytes).unwrap();
    let mut bytes = Vec::new();
    archive::write(&[Member { name: "tiny.o", plan }], target, &mut bytes).unwrap();
    std::fs::write(dir.join("tiny.a"), bytes).unwrap();
}

/// A C program that runs the model and compares every byte.
fn main_c(io: Io, arena: ArenaKind) -> String {
    let w = fixture::parameter();
    let body = match (io, arena) {
        (Io::Pointers, ArenaKind::Static) => {
            "struct tiny_inputs { const int8_t *x; }; struct tiny_outputs { int8_t *y; };
             int32_t tiny_run(const struct tiny_inputs *, const struct tiny_outputs *);
             static int run(void) { struct tiny_inputs i = {x}; struct tiny_outputs o = {y}, none = {0};
               if (tiny_run(0, &o) != -1 || tiny_run(&i, 0) != -1 || tiny_run(&i, &none) != -1) return 3;
               return tiny_run(&i, &o); }"
        }
        (Io::Pointers, ArenaKind::Caller) => {
            "struct tiny_inputs { const int8_t *x; }; struct tiny_outputs { int8_t *y; };
             int32_t tiny_run(const struct tiny_inputs *, const struct tiny_outputs *, void *);
             static _Alignas(16) char arena[64];
             static int run(void) { struct tiny_inputs i = {x}; struct tiny_outputs o = {y};
               if (tiny_run(&i, &o, 0) != -1 || tiny_run(&i, &o, arena + 1) != -2) return 3;
               return tiny_run(&i, &o, arena); }"
        }
        (Io::Arena, ArenaKind::Static) => {
            "int32_t tiny_run(void); extern int8_t tiny_arena[];
             static int run(void) { memcpy(tiny_arena, x, N); int e = tiny_run(); memcpy(y, tiny_arena + 96, N); return e; }"
        }
        (Io::Arena, ArenaKind::Caller) => {
            "int32_t tiny_run(void *);
             static _Alignas(16) char arena[144];
             static int run(void) { memcpy(arena, x, N); int e = tiny_run(arena); memcpy(y, arena + 96, N); return e; }"
        }
    };
    format!(
        "#include <stdint.h>\n#include <string.h>\n#define N {LEN}
         static const uint8_t w[] = {{{}}};\nstatic int8_t x[N], y[N];\n{body}
         int main(void) {{ for (int i = 0; i < N; i++) x[i] = (int8_t)(i * 31 - 100);
           int e = run(); if (e) return e & 127;
           for (int i = 0; i < N; i++) if (y[i] != (int8_t)(x[i] + w[i] + w[i])) return 4;
           return 0; }}\n",
        w.iter().map(u8::to_string).collect::<Vec<_>>().join(",")
    )
}

const VARIANTS: [(Io, ArenaKind); 4] = [
    (Io::Arena, ArenaKind::Static),
    (Io::Pointers, ArenaKind::Static),
    (Io::Pointers, ArenaKind::Caller),
    (Io::Arena, ArenaKind::Caller),
];

/// Links with `gcc` in several ways and runs the result.
fn links_and_runs(triple: &str, prefix: &str, qemu: Option<&str>) {
    let target = Target::new(Some(triple), None, None).unwrap();
    for (io, arena) in VARIANTS {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write_files(dir, &target, &object(&target, io, arena));
        let (gcc, ld) = (format!("{prefix}gcc"), format!("{prefix}ld"));
        std::fs::write(dir.join("main.c"), main_c(io, arena)).unwrap();
        if tool(dir, &[&gcc, "-O1", "-Wall", "-Werror", "-c", "main.c"]).is_none() {
            return;
        }
        tool(dir, &[&ld, "-r", "-o", "again.o", "tiny.o"]);
        for (file, flags) in [
            ("tiny.o", &["-static"][..]),
            ("tiny.a", &["-static", "-Wl,--gc-sections"]),
            ("tiny.a", &["-pie", "-Wl,-z,text"]),
            ("again.o", &["-static", "-no-pie"]),
        ] {
            let line = [&[&*gcc, "-Wl,--fatal-warnings", "-o", "main", "main.o", file], flags].concat();
            tool(dir, &line);
            match qemu {
                None => tool(dir, &["./main"]),
                Some(qemu) => tool(
                    dir,
                    &[qemu, "-L", &format!("/usr/{}", prefix.trim_end_matches('-')), "./main"],
                ),
            };
        }
        // Nothing is undefined, so it links alone.
        let undefined = tool(dir, &[&format!("{prefix}nm"), "-u", "tiny.o"]).unwrap_or_default();
        assert_eq!(undefined.trim(), "");
        for linker in [&*ld, "ld.lld"] {
            let alone = [
                linker,
                "--fatal-warnings",
                "--gc-sections",
                "-e",
                "tiny_run",
                "-u",
                "tiny_run",
                "tiny.o",
            ];
            tool(dir, &[&alone[..], &["-o", "alone"]].concat());
        }
        let all = tool(dir, &[&format!("{prefix}readelf"), "-aW", "tiny.o"]).unwrap_or_default();
        assert!(!all.contains("arning") && !all.contains("rror"), "{all}");
        tool(dir, &[&format!("{prefix}objdump"), "-dr", "tiny.o"]);
        if let Some(text) = tool(dir, &["llvm-readobj-14", "--all", "tiny.o"]) {
            assert!(!text.contains("arning") && !text.contains("rror:"), "{text}");
        }
        // GNU's own index of the archive is ours.
        std::fs::copy(dir.join("tiny.a"), dir.join("copy.a")).unwrap();
        if tool(dir, &[&format!("{prefix}ranlib"), "-D", "copy.a"]).is_some() {
            assert!(std::fs::read(dir.join("tiny.a")).unwrap() == std::fs::read(dir.join("copy.a")).unwrap());
        }
    }
}

#[test]
fn x86_64_links_and_runs() {
    links_and_runs("x86_64-unknown-linux-gnu", "", None);
}

#[test]
fn aarch64_links_and_runs() {
    links_and_runs("aarch64-unknown-linux-gnu", "aarch64-linux-gnu-", Some("qemu-aarch64"));
}

#[test]
fn riscv64_links_and_runs() {
    links_and_runs(
        "riscv64gc-unknown-linux-gnu",
        "riscv64-linux-gnu-",
        Some("qemu-riscv64"),
    );
}
/// A Windows program without a C library: its entry point returns the exit code.
fn windows_main() -> String {
    let main = main_c(Io::Pointers, ArenaKind::Static);
    main.replace("#include <string.h>", "")
        .replace("int main(void)", "int start(void)")
}

#[test]
fn coff_links_and_runs() {
    let target = Target::new(Some("x86_64-pc-windows-gnu"), None, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut plan = object(&target, Io::Pointers, ArenaKind::Static);
    unused(&mut plan, 1 << 20);
    write_files(dir, &target, &plan);
    std::fs::rename(dir.join("tiny.a"), dir.join("tiny.lib")).unwrap();
    std::fs::write(dir.join("main.c"), windows_main()).unwrap();
    let gcc = "x86_64-w64-mingw32-gcc";
    if tool(dir, &[gcc, "-O1", "-Wall", "-Werror", "-ffreestanding", "-c", "main.c"]).is_none() {
        return;
    }
    let no_libc = ["-nostdlib", "-Wl,-e,start", "-Wl,--fatal-warnings", "-Wl,--gc-sections"];
    for file in ["tiny.o", "tiny.lib"] {
        tool(dir, &[&[gcc, "-o", "main.exe", "main.o", file][..], &no_libc].concat());
        tool(dir, &["wine", "main.exe"]);
        let line = [
            "lld-link-14",
            "/entry:start",
            "/subsystem:console",
            "/nodefaultlib",
            "/opt:ref",
            "/WX",
        ];
        if tool(dir, &[&line[..], &["/out:lld.exe", "main.o", file]].concat()).is_some() {
            tool(dir, &["wine", "lld.exe"]);
            let size = std::fs::metadata(dir.join("lld.exe")).unwrap().len();
            assert!(size < 1 << 16, "the unused parameter was kept: {size}");
        }
    }
    let undefined = tool(dir, &["x86_64-w64-mingw32-nm", "-u", "tiny.o"]).unwrap_or_default();
    assert_eq!(undefined.trim(), "");
    for line in [
        ["x86_64-w64-mingw32-objdump", "-xdr", "tiny.o"],
        ["llvm-readobj-14", "--all", "tiny.o"],
        ["llvm-readobj-14", "--all", "tiny.lib"],
    ] {
        let text = tool(dir, &line).unwrap_or_default();
        assert!(!text.contains("arning") && !text.contains("rror:"), "{text}");
    }
}

/// A parameter that nothing refers to.
fn unused(plan: &mut ObjectPlan, size: usize) {
    plan.symbols.push(Symbol {
        name: "tiny_unused".into(),
        section: Some(plan.sections.len()),
        offset: 0,
        size: size as u64,
        function: false,
        visibility: Visibility::Hidden,
    });
    plan.sections.push(Section {
        name: ".rodata.tiny.unused".into(),
        kind: SectionKind::ReadOnlyData,
        align: 64,
        contents: Contents::Bytes(Bytes::from_vec(vec![7; size])),
        relocations: Vec::new(),
    });
}

#[test]
fn unused_parameters_are_dropped() {
    let target = Target::new(Some("x86_64-unknown-linux-gnu"), None, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut plan = object(&target, Io::Pointers, ArenaKind::Static);
    unused(&mut plan, 1 << 20);
    write_files(dir, &target, &plan);
    std::fs::write(dir.join("main.c"), main_c(Io::Pointers, ArenaKind::Static)).unwrap();
    for linker in ["-fuse-ld=bfd", "-fuse-ld=lld"] {
        let line = [
            "gcc",
            "-O1",
            "-o",
            "main",
            "main.c",
            "tiny.a",
            "-Wl,--gc-sections,--fatal-warnings",
            linker,
        ];
        if tool(dir, &line).is_some() {
            tool(dir, &["./main"]);
            assert!(std::fs::metadata(dir.join("main")).unwrap().len() < 1 << 17);
        }
    }
}

/// One datum of `size` bytes each, in a section of its own.
fn data(count: usize, size: u64) -> ObjectPlan {
    let datum = |i| Datum {
        symbol: format!("d{i}"),
        section: format!(".rodata.m.d{i}"),
        align: 16,
        contents: Contents::Bytes(Bytes::from_vec(vec![i as u8; size as usize])),
        visibility: Visibility::Hidden,
    };
    super::plan(Vec::new(), (0..count).map(datum).collect()).unwrap()
}

#[test]
fn more_sections_than_sixteen_bits_number() {
    let target = Target::new(Some("x86_64-unknown-linux-gnu"), None, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let plan = data(66_000, 1);
    write_files(dir, &target, &plan);
    if let Some(symbols) = tool(dir, &["nm", "tiny.o"]) {
        assert_eq!(symbols.lines().count(), 66_000);
    }
    if let Some(text) = tool(dir, &["readelf", "-sW", "tiny.o"]) {
        assert!(!text.contains("arning"));
    }
    let windows = Target::new(Some("x86_64-pc-windows-msvc"), None, None).unwrap();
    let error = super::size(&plan, &windows).unwrap_err();
    assert_eq!(error.code, Code::Limit);
    assert!(error.message.contains("at most 65279 sections"), "{error}");
}

/// Zeros that cost nothing, as contents of a file.
#[derive(Debug)]
struct Zeros(u64);

impl Transform for Zeros {
    fn len(&self) -> u64 {
        self.0
    }
    fn write_to(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let zeros = vec![0; 1 << 20];
        let mut left = self.0;
        while left != 0 {
            let n = left.min(1 << 20);
            out.write_all(&zeros[..n as usize])?;
            left -= n;
        }
        Ok(())
    }
}

/// Counts what is written and keeps the beginning.
#[derive(Default)]
struct Counted {
    head: Vec<u8>,
    len: u64,
}

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.head.len() < 4096 {
            self.head.extend_from_slice(&bytes[..bytes.len().min(4096)]);
        }
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn zeros(size: u64) -> ObjectPlan {
    let mut plan = data(1, 1);
    plan.sections[0].contents = Contents::Transform(std::sync::Arc::new(Zeros(size)));
    plan
}

#[test]
fn sizes_beyond_four_gib() {
    let target = Target::new(Some("riscv64gc-unknown-none-elf"), None, None).unwrap();
    let (large, small) = (zeros(5 << 30), data(1, 1));
    assert!(super::size(&large, &target).unwrap() > 5 << 30);
    // A member behind 4 GiB needs the wide index.
    let members = [
        Member {
            name: "large.o",
            plan: &large,
        },
        Member {
            name: "small.o",
            plan: &small,
        },
    ];
    let mut out = Counted::default();
    archive::write(&members, &target, &mut out).unwrap();
    assert!(out.len > 5 << 30);
    assert_eq!(&out.head[8..24], b"/SYM64/         ");
    // Two symbols of 8 bytes each: the second member's offset is the end minus its size.
    let second = u64::from_be_bytes(*out.head[68 + 16..].first_chunk().unwrap());
    assert_eq!(
        second + 60 + super::size(&small, &target).unwrap().next_multiple_of(2),
        out.len
    );

    let windows = Target::new(Some("x86_64-pc-windows-msvc"), None, None).unwrap();
    for (plan, part) in [
        (zeros(5 << 30), "smaller than 4 GiB"),
        (zeros((4 << 30) - 50), "smaller than 4 GiB"),
    ] {
        assert!(super::size(&plan, &windows).unwrap_err().message.contains(part));
    }
    let mut plan = data(1, 1);
    plan.sections[0].align = 16384;
    assert!(
        super::size(&plan, &windows)
            .unwrap_err()
            .message
            .contains("aligned to at most 8192")
    );
}

#[test]
fn archives_of_several_members() {
    let (a, b, c) = (data(1, 3), data(2, 1), data(3, 2));
    let members = [
        Member { name: "a.o", plan: &a },
        Member {
            name: "a_name_of_more_than_15_bytes.o",
            plan: &b,
        },
        Member {
            name: "another_name_of_more_than_15_bytes.o",
            plan: &c,
        },
    ];
    for (triple, ar) in [
        ("x86_64-unknown-linux-gnu", "ar"),
        ("x86_64-pc-windows-gnu", "x86_64-w64-mingw32-ar"),
    ] {
        let target = Target::new(Some(triple), None, None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut bytes = Vec::new();
        archive::write(&members, &target, &mut bytes).unwrap();
        std::fs::write(dir.join("m.a"), bytes).unwrap();
        if let Some(list) = tool(dir, &[ar, "t", "m.a"]) {
            assert_eq!(list.lines().collect::<Vec<_>>(), members.map(|member| member.name));
        }
        if let Some(index) = tool(dir, &["nm", "-s", "m.a"]) {
            assert!(index.contains("d2 in another_name_of_more_than_15_bytes.o"), "{index}");
        }
        if let Some(text) = tool(dir, &["llvm-readobj-14", "--all", "m.a"]) {
            assert!(!text.contains("arning") && !text.contains("rror:"), "{text}");
        }
    }
}

#[test]
fn a_symbol_is_defined_once() {
    let datum = |symbol: &str| Datum {
        symbol: symbol.into(),
        section: ".rodata.x".into(),
        align: 1,
        contents: Contents::Zero(1),
        visibility: Visibility::Hidden,
    };
    let error = super::plan(Vec::new(), vec![datum("a"), datum("b"), datum("a")]).unwrap_err();
    assert_eq!(error.message, "symbol a is defined twice");
}

/// A transform that lies about its length.
#[derive(Debug)]
struct Short;

impl Transform for Short {
    fn len(&self) -> u64 {
        8
    }
    fn write_to(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        out.write_all(&[0; 7])
    }
}

#[test]
fn contents_keep_their_promise() {
    let target = Target::new(Some("x86_64-unknown-linux-gnu"), None, None).unwrap();
    let mut plan = data(1, 1);
    plan.sections[0].contents = Contents::Transform(std::sync::Arc::new(Short));
    let error = write(&plan, &target, &mut Vec::new()).unwrap_err();
    assert_eq!(
        error.message,
        "the contents of .rodata.m.d0 are 7 bytes long instead of 8"
    );
}

/// A full disk.
struct Full;

impl std::io::Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn failed_writes_are_reported() {
    for triple in ["x86_64-unknown-linux-gnu", "x86_64-pc-windows-gnu"] {
        let target = Target::new(Some(triple), None, None).unwrap();
        let plan = data(1, 1);
        for error in [
            write(&plan, &target, &mut Full).unwrap_err(),
            archive::write(&[Member { name: "m", plan: &plan }], &target, &mut Full).unwrap_err(),
        ] {
            assert_eq!(error.code, Code::Io);
        }
    }
}

#[test]
fn riscv_flags_follow_the_abi() {
    for (abi, cpu, flags) in [
        (None, None, 5),
        (Some("lp64"), None, 1),
        (Some("lp64f"), None, 3),
        (Some("lp64d"), Some("rv64g"), 4),
    ] {
        let target = Target::new(Some("riscv64gc-unknown-none-elf"), cpu, abi).unwrap();
        let mut bytes = Vec::new();
        write(&data(1, 1), &target, &mut bytes).unwrap();
        assert_eq!(
            u32::from_le_bytes(*bytes[48..].first_chunk().unwrap()),
            flags,
            "{abi:?}"
        );
    }
}

/// `COREROPE_MODEL=file COREROPE_OBJECT=file cargo test --lib -- --ignored --exact object::tests::stream_a_file` under
/// `/usr/bin/time -v`: time and memory of writing an object of a whole file, in sections of 1 MiB.
#[test]
#[ignore = "a measurement"]
fn stream_a_file() {
    let path = |name| std::env::var_os(name).unwrap_or_else(|| panic!("{name} names no file"));
    let target = Target::new(Some("x86_64-unknown-linux-gnu"), None, None).unwrap();
    let source = crate::data::Source::map(std::fs::File::open(path("COREROPE_MODEL")).unwrap()).unwrap();
    let source = std::sync::Arc::new(source);
    let len = source.bytes().len() as u64;
    let datum = |i: u64| Datum {
        symbol: format!("d{i}"),
        section: format!(".rodata.m.d{i}"),
        align: 16,
        contents: Contents::Bytes(Bytes::new(source.clone(), i << 20..len.min((i + 1) << 20)).unwrap()),
        visibility: Visibility::Hidden,
    };
    let plan = super::plan(Vec::new(), (0..len.div_ceil(1 << 20)).map(datum).collect()).unwrap();
    let mut out = std::fs::File::create(path("COREROPE_OBJECT")).unwrap();
    let start = std::time::Instant::now();
    write(&plan, &target, &mut out).unwrap();
    eprintln!("{len} bytes in {:?}", start.elapsed());
}
