//! Objects for Cortex-M and RISC-V 32, read and linked by the tools of applications for them.

use super::*;

const ARM: [(&str, Option<&str>); 6] = [
    ("thumbv7m-none-eabi", None),
    ("thumbv7em-none-eabi", None),
    ("thumbv7em-none-eabihf", None),
    ("thumbv7em-none-eabihf", Some("cortex-m7")),
    ("thumbv8m.main-none-eabihf", None),
    ("thumbv8m.main-none-eabi", Some("cortex-m33+nodsp")),
];
const RISCV: [&str; 5] = [
    "riscv32im-unknown-none-elf",
    "riscv32imc-unknown-none-elf",
    "riscv32imac-unknown-none-elf",
    "riscv32imafc-unknown-none-elf",
    "riscv32gc-unknown-none-elf",
];

/// Links alone and together with a caller compiled with `flags`, whole and partly, with both linkers.
fn links(target: &Target, prefix: &str, emulation: &str, flags: &[&str]) {
    let script = if emulation == "armelf" {
        "mps2.ld"
    } else {
        "riscv-virt.ld"
    };
    let script = format!("{}/linker-scripts/qemu/{script}", env!("CARGO_MANIFEST_DIR"));
    for (io, arena) in [VARIANTS[1], VARIANTS[3]] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write_files(dir, target, &object(target, io, arena));
        let own = |name: &str| format!("{prefix}{name}");
        let source = "int tiny_run(void *, void *, void *); float half(float x) { return x / 2; }
            int start(void) { return tiny_run(0, 0, 0) + (int)half(3); }";
        std::fs::write(dir.join("main.c"), source).unwrap();
        let gcc = own("gcc");
        if tool(dir, &[&[&*gcc, "-O2", "-c", "main.c"], flags].concat()).is_none() {
            return;
        }
        for linker in [&*own("ld"), "ld.lld"] {
            let common = [linker, "-m", emulation, "--fatal-warnings"];
            let script = ["-T", &script, "-e", "start"];
            for (script, arguments) in [
                (&[][..], &["-r", "-o", "again.o", "tiny.o"][..]),
                (&[], &["-r", "-o", "both.o", "main.o", "tiny.o"]),
                (&script, &["--gc-sections", "main.o", "tiny.a", "-o", "main"]),
                (&script, &["main.o", "again.o", "-o", "main"]),
                (&script, &["--gc-sections", "both.o", "-o", "main"]),
            ] {
                tool(dir, &[&common[..], script, arguments].concat());
            }
            let text = tool(dir, &[&own("objdump"), "-d", "main"])
                .unwrap_or_default()
                .to_lowercase();
            assert!(
                text.contains("<tiny_run>:") && !text.contains("undefined") && !text.contains("unknown"),
                "{text}"
            );
        }
        let undefined = tool(dir, &[&own("nm"), "-u", "tiny.o"]).unwrap_or_default();
        assert_eq!(undefined.trim(), "");
        let all = tool(dir, &[&own("readelf"), "-aW", "tiny.o"]).unwrap_or_default();
        assert!(!all.contains("arning") && !all.contains("rror"), "{all}");
        if let Some(text) = tool(dir, &["llvm-readobj-14", "--all", "tiny.o"]) {
            assert!(!text.contains("arning") && !text.contains("rror:"), "{text}");
        }
        std::fs::copy(dir.join("tiny.a"), dir.join("copy.a")).unwrap();
        if tool(dir, &[&own("ranlib"), "-D", "copy.a"]).is_some() {
            assert!(std::fs::read(dir.join("tiny.a")).unwrap() == std::fs::read(dir.join("copy.a")).unwrap());
        }
    }
}

#[test]
fn arm_links_with_every_float_abi() {
    for (triple, cpu) in ARM {
        let target = Target::new(Some(triple), cpu, None).unwrap();
        let core = match target.cpu.name.split('+').next().unwrap() {
            "cortex-m3" => "-mcpu=cortex-m3",
            "cortex-m4" => "-mcpu=cortex-m4",
            "cortex-m7" => "-mcpu=cortex-m7",
            _ => "-mcpu=cortex-m33",
        };
        links(
            &target,
            "arm-none-eabi-",
            "armelf",
            &[core, "-mfloat-abi=soft", "-Dfloat=int"],
        );
        if core != "-mcpu=cortex-m3" {
            for abi in ["-mfloat-abi=softfp", "-mfloat-abi=hard"] {
                links(&target, "arm-none-eabi-", "armelf", &[core, abi]);
            }
        }
    }
}

#[test]
fn riscv32_links_with_its_abi() {
    for triple in RISCV {
        let target = Target::new(Some(triple), None, None).unwrap();
        let march = format!("-march={}", triple.split('-').next().unwrap().replace("riscv", "rv"));
        let abi = target.abi.unwrap();
        let mabi = format!("-mabi={abi}");
        // Without libgcc, a caller without float instructions computes with integers.
        let soft: &[&str] = if abi == "ilp32" { &["-Dfloat=int"] } else { &[] };
        links(
            &target,
            "riscv64-unknown-elf-",
            "elf32lriscv",
            &[&[&*march, &mabi], soft].concat(),
        );
    }
}

/// What readelf says of the build attributes, a line for each target.
#[test]
fn attributes() {
    let of = |triple: &str, cpu: Option<&str>, float: bool| -> Option<String> {
        let target = Target::new(Some(triple), cpu, None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut plan = object(&target, Io::Pointers, ArenaKind::Static);
        plan.float = float;
        write_files(dir.path(), &target, &plan);
        let readelf = if triple.starts_with("thumb") {
            "arm-none-eabi-readelf"
        } else {
            "riscv64-unknown-elf-readelf"
        };
        let text = tool(dir.path(), &[readelf, "-A", "tiny.o"])?;
        let tags = text.lines().filter_map(|line| line.trim().strip_prefix("Tag_"));
        Some(tags.collect::<Vec<_>>().join("; "))
    };
    let arm = |arch: &str, thumb: &str, fp: &str, hard: &str, dsp: &str| {
        format!(
            "CPU_arch: {arch}; CPU_arch_profile: Microcontroller; THUMB_ISA_use: {thumb}; {fp}ABI_FP_denormal: Needed; \
             ABI_FP_exceptions: Needed; ABI_FP_number_model: IEEE 754; ABI_align_needed: 8-byte; \
             ABI_align_preserved: 8-byte, except leaf SP; {hard}ABI_VFP_args: compatible; CPU_unaligned_access: v6{dsp}"
        )
    };
    let single = "ABI_HardFP_use: SP only; ";
    for (triple, cpu, float, expected) in [
        ("thumbv7m-none-eabi", None, false, arm("v7", "Thumb-2", "", "", "")),
        (
            "thumbv7em-none-eabihf",
            None,
            false,
            arm("v7E-M", "Thumb-2", "", "", ""),
        ),
        (
            "thumbv7em-none-eabihf",
            None,
            true,
            arm("v7E-M", "Thumb-2", "FP_arch: VFPv4-D16; ", single, ""),
        ),
        (
            "thumbv7em-none-eabihf",
            Some("cortex-m7"),
            true,
            arm("v7E-M", "Thumb-2", "FP_arch: FPv5/FP-D16 for ARMv8; ", single, ""),
        ),
        (
            "thumbv8m.main-none-eabi",
            None,
            false,
            arm("v8-M.mainline", "Yes", "", "", "; DSP_extension: Allowed"),
        ),
        (
            "riscv32imc-unknown-none-elf",
            None,
            false,
            "RISCV_stack_align: 16-bytes; RISCV_arch: \"rv32i2p1_m2p0_c2p0\"".to_owned(),
        ),
        (
            "riscv32gc-unknown-none-elf",
            None,
            false,
            "RISCV_stack_align: 16-bytes; RISCV_arch: \"rv32i2p1_m2p0_a2p1_f2p2_d2p2_c2p0_zicsr2p0\"".to_owned(),
        ),
    ] {
        match of(triple, cpu, float) {
            None => return,
            Some(text) => assert_eq!(text, expected, "{triple} {cpu:?}"),
        }
    }
}

/// Little-endian words of an ELF header: type and machine, and flags.
fn header(target: &Target, plan: &ObjectPlan) -> (u32, u32, Vec<u8>) {
    let mut bytes = Vec::new();
    write(plan, target, &mut bytes).unwrap();
    let word = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    (word(16), word(36), bytes)
}

#[test]
fn flags() {
    for (triple, abi, machine, flags) in [
        ("thumbv7em-none-eabihf", None, 40, 0x0500_0000),
        ("riscv32im-unknown-none-elf", None, 243, 0),
        ("riscv32imc-unknown-none-elf", None, 243, 1),
        ("riscv32imafc-unknown-none-elf", None, 243, 3),
        ("riscv32imafc-unknown-none-elf", Some("ilp32"), 243, 1),
        ("riscv32gc-unknown-none-elf", None, 243, 5),
        ("riscv32gc-unknown-none-elf", Some("ilp32f"), 243, 3),
    ] {
        let target = Target::new(Some(triple), None, abi).unwrap();
        let (kind, found, bytes) = header(&target, &data(1, 1));
        assert_eq!((kind >> 16, found, bytes[4]), (machine, flags, 1), "{triple} {abi:?}");
    }
}

/// Data alone carries no demands on Arm, but on RISC-V.
#[test]
fn attributes_of_data() {
    for (triple, expected) in [("thumbv7em-none-eabi", false), ("riscv32imc-unknown-none-elf", true)] {
        let target = Target::new(Some(triple), None, None).unwrap();
        let (_, _, bytes) = header(&target, &data(1, 1));
        let found = bytes.windows(11).any(|window| window == b".attributes");
        assert_eq!(found, expected, "{triple}");
    }
}

#[test]
fn thumb_functions_are_marked() {
    use ::object::{Object, ObjectSymbol};
    let target = Target::new(Some("thumbv7em-none-eabihf"), None, None).unwrap();
    let (_, _, bytes) = header(&target, &object(&target, Io::Pointers, ArenaKind::Static));
    let file = ::object::File::parse(&*bytes).unwrap();
    let symbols = |name: &'static str| file.symbols().filter(move |symbol| symbol.name() == Ok(name));
    assert_eq!(symbols("tiny_run").next().unwrap().address(), 1);
    let code = file
        .symbols()
        .filter(|symbol| symbol.kind() == ::object::SymbolKind::Text && symbol.size() > 0);
    assert_eq!(symbols("$t").count(), code.count());
    assert!(symbols("$d").count() > 0);
    assert!(symbols("tiny_w").all(|symbol| symbol.address() == 0));
}

/// Five GiB of weights.
#[derive(Debug)]
struct Huge;

impl Transform for Huge {
    fn len(&self) -> u64 {
        5 << 30
    }
    fn write_to(&self, _: &mut dyn std::io::Write) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Other.into())
    }
}

#[test]
fn objects_over_4_gib_are_refused() {
    let mut plan = data(1, 1);
    plan.sections[0].contents = Contents::Transform(std::sync::Arc::new(Huge));
    for triple in ["thumbv7em-none-eabi", "riscv32imc-unknown-none-elf"] {
        let target = Target::new(Some(triple), None, None).unwrap();
        let error = super::super::size(&plan, &target).unwrap_err();
        assert_eq!(
            (error.code, &*error.message),
            (Code::Limit, "an ELF32 object is smaller than 4 GiB")
        );
    }
}
