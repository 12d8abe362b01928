//! Objects are read by other people's tools: linkers, readelf, objdump, llvm-readobj. A tool that is not installed is
//! named and skipped.

use super::archive::{self, Member};
use super::{ObjectPlan, write};
use crate::assemble;
use crate::codegen;
use crate::harness::fixture::{self, LEN, Model};
use crate::kernels::entry::{ArenaKind, entry};
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
    let run = entry(&graph, &lowering, &plan, target, arena, &names).unwrap();
    let run = codegen::compile(vec![run], target).unwrap().remove(0);
    let data = assemble::data(&graph, &lowering, &plan, arena, &names);
    assemble::object(kernels, run, data, &names).unwrap()
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
        (Io::Arena, _) => {
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

const VARIANTS: [(Io, ArenaKind); 3] = [
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
        let undefined = tool(dir, &[&format!("{prefix}nm"), "-u", "tiny.o"]).unwrap_or_default();
        assert_eq!(undefined.trim(), "");
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
#[test]
fn zz_keep() {
    for t in [
        "x86_64-unknown-linux-gnu",
        "aarch64-unknown-none",
        "riscv64gc-unknown-none-elf",
        "x86_64-pc-windows-gnu",
        "x86_64-unknown-none-elf",
    ] {
        let target = Target::new(Some(t), None, None).unwrap();
        let d = Path::new("/tmp/objs").join(t);
        std::fs::create_dir_all(&d).unwrap();
        write_files(&d, &target, &object(&target, Io::Pointers, ArenaKind::Static));
    }
}
