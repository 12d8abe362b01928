//! What differs between formats: Mach-O, members of libraries, what is kept, constants that are far away.

use super::super::unit::{Share, shares};
use super::*;
use ::object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};

const APPLE: [(&str, &str); 2] = [("x86_64-apple-darwin", "x86_64"), ("aarch64-apple-darwin", "arm64")];

/// Every relocation refers to what the plan's does, with the same addend.
#[test]
fn macho_says_what_the_plan_says() {
    for (triple, _) in APPLE {
        let target = Target::new(Some(triple), None, None).unwrap();
        let plan = object(&target, Io::Pointers, ArenaKind::Static);
        let mut bytes = Vec::new();
        write(&plan, &target, &mut bytes).unwrap();
        let file = ::object::File::parse(&*bytes).unwrap();
        let text = file.section_by_name("__text").unwrap();
        let symbol = |name: &str| file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
        let mut expected = Vec::new();
        for (i, section) in plan.sections.iter().enumerate() {
            let own = plan.symbols.iter().find(|symbol| symbol.section == Some(i)).unwrap();
            let address = symbol(&format!("_{}", own.name)).address();
            assert!(address.is_multiple_of(section.align), "{triple} {}", own.name);
            for relocation in &section.relocations {
                expected.push((
                    address + relocation.offset,
                    format!("_{}", relocation.symbol),
                    relocation.addend,
                ));
            }
        }
        let mut found = Vec::new();
        for (offset, relocation) in text.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else {
                panic!("{relocation:?}")
            };
            let symbol = file.symbol_by_index(index).unwrap();
            // The reader leaves x86-64's addends in the code, relative to the next instruction.
            let at = offset as usize;
            let implicit = match triple.starts_with("x86") {
                true => i64::from(i32::from_le_bytes(*text.data().unwrap()[at..].first_chunk().unwrap())) - 4,
                false => relocation.addend(),
            };
            found.push((text.address() + offset, symbol.name().unwrap().to_owned(), implicit));
        }
        found.sort();
        expected.sort();
        assert!(!expected.is_empty());
        assert_eq!(found, expected, "{triple}");
    }
}

#[test]
fn macho_is_read_and_linked() {
    for (triple, arch) in APPLE {
        let target = Target::new(Some(triple), None, None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut plan = object(&target, Io::Pointers, ArenaKind::Static);
        unused(&mut plan, 1 << 20);
        plan.tag("1a2b3c4d");
        write_files(dir, &target, &plan);
        let mut library = Vec::new();
        archive::library(
            &[Member {
                name: "tiny.o",
                plan: &plan,
            }],
            &target,
            &mut library,
        )
        .unwrap();
        std::fs::write(dir.join("library.a"), library).unwrap();
        for file in ["tiny.o", "tiny.a", "library.a"] {
            for line in [
                &["llvm-readobj", "--all", file][..],
                &["llvm-objdump", "-dr", file],
                &["llvm-nm", file],
            ] {
                if let Some(text) = tool(dir, line) {
                    assert!(!text.contains("arning") && !text.contains("rror:"), "{text}");
                }
            }
            let version = ["-platform_version", "macos", "11.0", "11.0", "-fatal_warnings"];
            let line = [
                "ld64.lld-14",
                "-arch",
                arch,
                "-dylib",
                "-dead_strip",
                "-u",
                "_tiny_run",
                "-o",
                "out",
                file,
            ];
            if tool(dir, &[&line[..], &version].concat()).is_none() {
                continue;
            }
            let bytes = std::fs::read(dir.join("out")).unwrap();
            assert!(
                bytes.len() < 1 << 18,
                "{file}: the unused parameter was kept: {}",
                bytes.len()
            );
            let names = tool(dir, &["llvm-nm", "out"]).unwrap();
            for name in ["T _tiny_run", "T _tiny_run_build_1a2b3c4d", "t _tiny_kernel_"] {
                assert!(names.contains(name), "{names}");
            }
            // Undefined is only what every dynamic library refers to.
            assert!(!names.contains(" U _"), "{names}");
        }
        // GNU's and LLVM's tools agree about the index.
        if let Some(index) = tool(dir, &["llvm-nm", "--print-armap", "library.a"]) {
            assert!(
                index.contains("_tiny_run in tiny.o") || index.contains("_tiny_run"),
                "{index}"
            );
        }
    }
}

#[test]
fn macho_limits() {
    let target = Target::new(Some("aarch64-apple-darwin"), None, None).unwrap();
    let refused = |plan: &ObjectPlan| {
        let error = super::super::size(plan, &target).unwrap_err();
        assert_eq!(error.code, Code::Limit);
        error.message
    };
    assert!(refused(&zeros(5 << 30)).contains("smaller than 4 GiB"));
    let mut plan = data(1, 1);
    plan.sections[0].align = 1 << 16;
    assert!(refused(&plan).contains("aligned to at most 32768"));
    plan.sections[0].align = 1;
    plan.sections[0].name = ".external_memory".into();
    assert!(refused(&plan).contains("at most 16 bytes, .external_memory becomes __external_memory"));
    let mut plan = data(300, 1);
    for (i, section) in plan.sections.iter_mut().enumerate() {
        section.name = format!(".own{i}");
    }
    assert!(refused(&plan).contains("at most 255 sections, this one needs 300"));
}

/// Functions `run` and `step` that share a kernel, a table that only `step` needs, and one that nobody needs.
fn two_entries() -> ObjectPlan {
    let code = |name: &str, exported, uses: &[&str]| {
        let relocations = uses.iter().map(|symbol| codegen::Relocation {
            offset: 0,
            symbol: (*symbol).to_owned(),
            addend: 0,
            flags: ::object::RelocationFlags::Elf {
                r_type: ::object::elf::R_X86_64_64,
            },
        });
        super::super::Placed {
            code: codegen::Code {
                name: name.to_owned(),
                exported,
                bytes: vec![0x90; 8],
                align: 16,
                relocations: relocations.collect(),
                labels: Vec::new(),
                frame: 0,
                calls: Vec::new(),
                costs: Vec::new(),
                float: false,
                debug: codegen::debug::DebugMap::default(),
            },
            section: format!(".text.m.{name}"),
        }
    };
    let datum = |name: &str| Datum {
        symbol: name.into(),
        section: format!(".rodata.m.{name}"),
        align: 16,
        contents: Contents::Bytes(Bytes::from_vec(vec![1; 64])),
        visibility: Visibility::Hidden,
    };
    let codes = vec![
        code("kernel", false, &["weights"]),
        code("run", true, &["kernel"]),
        code("step", true, &["kernel", "table"]),
    ];
    super::super::plan(codes, ["weights", "table", "spare"].map(datum).into()).unwrap()
}

#[test]
fn members_are_what_is_needed_together() {
    let mut plan = two_entries();
    let share = |suffix: &str, sections: &[usize]| Share {
        suffix: suffix.into(),
        sections: sections.into(),
    };
    // `kernel` and its weights are needed by both entries, `table` by one, `spare` by none.
    let found = shares(&plan);
    let of = |section: usize| found.iter().find(|share| share.sections.contains(&section)).unwrap();
    assert_eq!(found[0], share("", &[1]));
    assert_eq!(of(2).suffix, "-step");
    assert_eq!(of(4), &share("-step-parameters", &[4]));
    assert_eq!(of(5), &share("-unused-parameters", &[5]));
    assert!(of(0).suffix.starts_with("-shared") && of(0).sections == [0]);
    assert!(of(3).suffix.starts_with("-shared") && of(3).sections == [3]);
    plan.retain(["spare", "no such symbol"]);
    let kept = shares(&plan);
    assert!(kept.iter().any(|s| *s == share("", &[1, 5])), "{kept:?}");

    let target = Target::new(Some("x86_64-unknown-linux-gnu"), None, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut bytes = Vec::new();
    archive::library(
        &[Member {
            name: "m.o",
            plan: &two_entries(),
        }],
        &target,
        &mut bytes,
    )
    .unwrap();
    std::fs::write(dir.join("m.a"), bytes).unwrap();
    for linker in ["ld", "ld.lld", "mold"] {
        for (entry, absent) in [("run", &["table", "spare", "step"][..]), ("step", &["spare", "run"])] {
            // Nothing is dropped by the linker: what is not taken was not asked for.
            if tool(
                dir,
                &[linker, "-m", "elf_x86_64", "-e", entry, "-u", entry, "m.a", "-o", "out"],
            )
            .is_none()
            {
                continue;
            }
            let names = tool(dir, &["nm", "out"]).unwrap();
            let defines = |name: &str| names.lines().any(|line| line.ends_with(&format!(" {name}")));
            assert!(defines("weights"), "{linker}: {names}");
            for name in absent {
                assert!(!defines(name), "{linker} took {name}: {names}");
            }
        }
    }
}

/// Retained sections are there although nobody refers to them and the linker drops such sections.
#[test]
fn what_is_kept() {
    let links = |triple: &str, line: &[&str], nm: &str, prefix: &str| {
        let target = Target::new(Some(triple), None, None).unwrap();
        for kept in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            let mut plan = object(&target, Io::Pointers, ArenaKind::Static);
            unused(&mut plan, 100);
            if kept {
                plan.retain(["tiny_unused"]);
            }
            write_files(dir, &target, &plan);
            let mut bytes = Vec::new();
            archive::library(
                &[Member {
                    name: "tiny.o",
                    plan: &plan,
                }],
                &target,
                &mut bytes,
            )
            .unwrap();
            std::fs::write(dir.join("tiny.lib"), bytes).unwrap();
            for file in ["tiny.o", "tiny.lib"] {
                if tool(dir, &[line, &[file]].concat()).is_none() {
                    return;
                }
                // PE programs have no symbols: the contents tell.
                let found = match nm {
                    "" => std::fs::read(dir.join("out"))
                        .unwrap()
                        .windows(100)
                        .any(|bytes| bytes == [7; 100]),
                    nm => tool(dir, &[nm, "out"]).unwrap().contains("tiny_unused"),
                };
                // What a member of its own holds is asked for by nobody: it goes with the entry if it is to be kept.
                assert_eq!(found, kept, "{line:?} {file} {prefix}");
            }
        }
    };
    let unix = [
        "--fatal-warnings",
        "--gc-sections",
        "-e",
        "tiny_run",
        "-u",
        "tiny_run",
        "-o",
        "out",
    ];
    for linker in ["ld", "ld.lld", "mold"] {
        links(
            "x86_64-unknown-linux-gnu",
            &[&[linker, "-m", "elf_x86_64"][..], &unix].concat(),
            "nm",
            "",
        );
    }
    for (triple, linker, emulation, nm) in [
        ("thumbv7em-none-eabi", "arm-none-eabi-ld", "armelf", "arm-none-eabi-nm"),
        ("thumbv7em-none-eabi", "ld.lld", "armelf", "arm-none-eabi-nm"),
        (
            "riscv32imc-unknown-none-elf",
            "riscv64-unknown-elf-ld",
            "elf32lriscv",
            "riscv64-unknown-elf-nm",
        ),
        (
            "riscv64gc-unknown-none-elf",
            "riscv64-unknown-elf-ld",
            "elf64lriscv",
            "riscv64-unknown-elf-nm",
        ),
        (
            "aarch64-unknown-none",
            "aarch64-linux-gnu-ld",
            "aarch64linux",
            "aarch64-linux-gnu-nm",
        ),
    ] {
        links(triple, &[&[linker, "-m", emulation][..], &unix].concat(), nm, "");
    }
    let microsoft = [
        "lld-link-14",
        "/machine:x64",
        "/entry:tiny_run",
        "/subsystem:console",
        "/nodefaultlib",
        "/opt:ref",
        "/WX",
        "/out:out",
    ];
    links("x86_64-pc-windows-msvc", &microsoft, "", "");
    let mingw = [
        "x86_64-w64-mingw32-ld",
        "--fatal-warnings",
        "--gc-sections",
        "-e",
        "tiny_run",
        "-u",
        "tiny_run",
        "-o",
        "out",
    ];
    links("x86_64-pc-windows-gnu", &mingw, "x86_64-w64-mingw32-nm", "");
    let version = ["-platform_version", "macos", "11.0", "11.0", "-fatal_warnings"];
    let apple = [
        "ld64.lld-14",
        "-arch",
        "arm64",
        "-dylib",
        "-dead_strip",
        "-u",
        "_tiny_run",
        "-o",
        "out",
    ];
    links("aarch64-apple-darwin", &[&apple[..], &version].concat(), "llvm-nm", "");
}

/// Constants in sections for what is far away, reached through a table, in programs of both kinds.
#[test]
fn far_constants_are_reached() {
    let target = Target::new(Some("x86_64-unknown-linux-gnu"), None, None).unwrap();
    let Model { graph, lowering, plan } = fixture::model(&target, Io::Pointers);
    let mut names = Names::new(&graph, &lowering);
    let far = assemble::part_beyond(1, &graph, &lowering, &target, &mut names).unwrap();
    assert!(far);
    let kernels = codegen::compile(assemble::kernels(&lowering, &names), &target).unwrap();
    let run = entry::entry(&entry::Model::new(
        &graph,
        &lowering,
        &plan,
        &target,
        &names,
        ArenaKind::Static,
    ))
    .unwrap();
    let backend = codegen::backend_with(&target, far).unwrap();
    let run = codegen::compile_with(&*backend, &[run]).unwrap().remove(0);
    let data = assemble::data(&graph, &lowering, &plan, ArenaKind::Static, None, &names);
    let plan = assemble::object(kernels, Vec::new(), run, data, &names, &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_files(dir, &target, &plan);
    let Some(headers) = tool(dir, &["readelf", "-SW", "tiny.o"]) else {
        return;
    };
    assert!(
        headers
            .lines()
            .any(|line| line.contains(".lrodata.tiny.w") && line.contains(" Al ")),
        "{headers}"
    );
    std::fs::write(dir.join("main.c"), main_c(Io::Pointers, ArenaKind::Static)).unwrap();
    for linker in ["-fuse-ld=bfd", "-fuse-ld=lld", "-fuse-ld=mold"] {
        for kind in ["-no-pie", "-pie", "-static"] {
            let line = [
                "gcc",
                "-O1",
                "main.c",
                "tiny.a",
                "-o",
                "main",
                linker,
                kind,
                "-Wl,--gc-sections,--fatal-warnings",
            ];
            if linker == "-fuse-ld=mold" && tool(dir, &["mold", "--version"]).is_none() {
                continue;
            }
            if tool(dir, &line).is_some() {
                tool(dir, &["./main"]);
            }
        }
    }
    for (triple, part) in [
        ("riscv64gc-unknown-none-elf", "reaches 1"),
        ("aarch64-apple-darwin", "reaches 2"),
    ] {
        let target = Target::new(Some(triple), None, None).unwrap();
        let mut names = Names::new(&graph, &lowering);
        let error = assemble::part_beyond(1, &graph, &lowering, &target, &mut names).unwrap_err();
        assert_eq!(error.code, Code::Limit);
        assert!(error.message.contains(part), "{error}");
    }
}

/// A library with BSD's index of 64 bits.
#[test]
fn wide_index_of_bsd() {
    let target = Target::new(Some("x86_64-apple-darwin"), None, None).unwrap();
    let (large, small) = (zeros(3 << 30), data(1, 1));
    let member = |name, plan| Member { name, plan };
    let members = [member("a.o", &large), member("b.o", &large), member("c.o", &small)];
    let mut out = Counted::default();
    archive::write(&members, &target, &mut out).unwrap();
    assert_eq!(&out.head[8..24], b"#1/12           ");
    assert_eq!(&out.head[68..80], b"__.SYMDEF_64");
    let number = |at: usize| u64::from_le_bytes(*out.head[at..].first_chunk().unwrap());
    // Three pairs of 16 bytes; the last member's offset.
    assert_eq!(number(80), 48);
    let last = number(88 + 2 * 16 + 8);
    assert!(last > 6 << 30 && last.is_multiple_of(8) && last < out.len);
}
