//! Machine code on emulated boards: an object with what our back ends emit, linked by GNU ld with the firmware under
//! `tests/firmware`, run by QEMU.

use crate::build::{self, Machine};
use crate::generate::Options;
use crate::program::{BUFFER, Program, TABLE};
use corerope::codegen::native::{self, emit::Fixup};
use corerope::codegen::rv32::{Extensions, Rv32};
use corerope::codegen::soft_float::{self, ROUTINES, Routine};
use corerope::codegen::thumb2::{Core, Thumb2};
use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::CallConv;
use object::write::{Object, Relocation, StandardSection, Symbol, SymbolFlags, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, FileFlags, RelocationFlags, SymbolKind, SymbolScope};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What code is generated for.
#[derive(Clone, Copy, Debug)]
pub enum Isa {
    Thumb2(Core),
    Rv32(Extensions),
}

impl Isa {
    /// Compiles a function; a refusal comes with its text. `routine` gives the symbol of a routine for soft floats.
    pub fn compile(&self, func: &Function, routine: impl FnMut(Routine) -> u32) -> Result<native::Machine, String> {
        let mut func = native::select::without_unreachable(func.clone());
        native::expand::expand(&mut func, self.counts_zeros());
        if !self.floats() {
            soft_float::legalize(&mut func, routine)?;
        }
        let result = match self {
            Isa::Thumb2(core) => native::compile(&Thumb2::new(*core), &func),
            Isa::Rv32(extensions) => native::compile(&Rv32::new(*extensions), &func),
        };
        result.map_err(|refused| format!("{}\n{func}", refused.0))
    }

    /// Whether counting leading zeros is one instruction.
    fn counts_zeros(&self) -> bool {
        matches!(self, Isa::Thumb2(_))
    }

    /// Whether there are instructions for floats.
    pub fn floats(&self) -> bool {
        match self {
            Isa::Thumb2(core) => core.fpu,
            Isa::Rv32(extensions) => extensions.float,
        }
    }

    /// What random programs may contain.
    pub fn options(&self) -> Options {
        let thumb = matches!(self, Isa::Thumb2(_));
        Options {
            floats: true,
            fused: self.floats(),
            quads: thumb,
            straight: false,
        }
    }

    fn intrinsics(&self) -> bool {
        matches!(self, Isa::Thumb2(Core { dsp: true, .. }))
    }

    /// What computes the same as `programs` on this ISA.
    pub fn machine(&self, programs: &[Program]) -> Machine {
        Machine::device(self.intrinsics(), programs.len())
    }
}

/// An emulated board.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    pub name: &'static str,
    pub isa: Isa,
    /// Prefix of the tools.
    tools: &'static str,
    /// Flags of the C compiler for the firmware.
    flags: &'static [&'static str],
    /// Emulation that the linker is asked for.
    emulation: &'static str,
    script: &'static str,
    qemu: &'static [&'static str],
    /// Nanoseconds of a tick of the firmware's clock, 0 if it counts instructions. `None` if there is none.
    tick: Option<u64>,
}

const ARM: Board = Board {
    name: "",
    isa: Isa::Thumb2(Core {
        dsp: true,
        fpu: true,
        timing: None,
    }),
    tools: "arm-none-eabi-",
    flags: &[],
    emulation: "armelf",
    script: "mps2.ld",
    qemu: &[],
    tick: Some(40),
};
const VIRT: Board = Board {
    name: "",
    isa: Isa::Rv32(Extensions {
        compressed: true,
        float: true,
        float_abi: true,
    }),
    tools: "riscv64-unknown-elf-",
    flags: &[],
    emulation: "elf32lriscv",
    script: "riscv-virt.ld",
    qemu: &["qemu-system-riscv32", "-M", "virt", "-bios", "none"],
    tick: Some(0),
};

/// Every board, with the code that runs on it.
pub const BOARDS: &[Board] = &[
    Board {
        name: "cortex-m3",
        isa: Isa::Thumb2(Core {
            dsp: false,
            fpu: false,
            timing: None,
        }),
        flags: &["-mcpu=cortex-m3"],
        qemu: &["qemu-system-arm", "-M", "mps2-an385"],
        ..ARM
    },
    Board {
        name: "cortex-m4",
        isa: Isa::Thumb2(Core {
            dsp: true,
            fpu: false,
            timing: None,
        }),
        flags: &["-mcpu=cortex-m4", "-mfloat-abi=soft"],
        qemu: &["qemu-system-arm", "-M", "mps2-an386"],
        ..ARM
    },
    Board {
        name: "cortex-m4f",
        flags: &["-mcpu=cortex-m4", "-mfloat-abi=hard"],
        qemu: &["qemu-system-arm", "-M", "mps2-an386"],
        ..ARM
    },
    Board {
        name: "cortex-m7",
        flags: &["-mcpu=cortex-m7", "-mfloat-abi=softfp", "-mfpu=fpv5-sp-d16"],
        qemu: &["qemu-system-arm", "-M", "mps2-an500"],
        ..ARM
    },
    Board {
        name: "cortex-m33",
        flags: &["-mcpu=cortex-m33", "-mfloat-abi=hard"],
        qemu: &["qemu-system-arm", "-M", "mps2-an505"],
        script: "mps2-an505.ld",
        tick: None,
        ..ARM
    },
    Board {
        name: "cortex-m33-nodsp",
        isa: Isa::Thumb2(Core {
            dsp: false,
            fpu: true,
            timing: None,
        }),
        flags: &["-mcpu=cortex-m33+nodsp", "-mfloat-abi=hard"],
        qemu: &["qemu-system-arm", "-M", "mps2-an505"],
        script: "mps2-an505.ld",
        tick: None,
        ..ARM
    },
    Board {
        name: "rv32im",
        isa: Isa::Rv32(Extensions {
            compressed: false,
            float: false,
            float_abi: false,
        }),
        flags: &["-march=rv32im_zicsr", "-mabi=ilp32"],
        ..VIRT
    },
    Board {
        name: "rv32imc",
        isa: Isa::Rv32(Extensions {
            compressed: true,
            float: false,
            float_abi: false,
        }),
        flags: &["-march=rv32imc_zicsr", "-mabi=ilp32"],
        ..VIRT
    },
    Board {
        name: "rv32imafc",
        flags: &["-march=rv32imafc_zicsr", "-mabi=ilp32f"],
        ..VIRT
    },
    Board {
        name: "rv32gc",
        flags: &["-march=rv32gc", "-mabi=ilp32d"],
        ..VIRT
    },
    Board {
        name: "rv32imafc-ilp32",
        isa: Isa::Rv32(Extensions {
            compressed: true,
            float: true,
            float_abi: false,
        }),
        flags: &["-march=rv32imafc_zicsr", "-mabi=ilp32"],
        ..VIRT
    },
];

/// What one call left behind.
#[derive(Clone, Debug)]
pub struct Record {
    /// Not 0 if registers that must be kept were not.
    pub spoiled: u32,
    /// Instructions, if they were counted.
    pub instructions: u64,
    /// The buffer.
    pub buffer: [u8; BUFFER],
}

impl Board {
    /// Whether instructions can be counted.
    pub fn counts(&self) -> bool {
        self.tick.is_some()
    }

    /// Tools that are not installed.
    pub fn missing(&self) -> Vec<String> {
        [
            format!("{}gcc", self.tools),
            format!("{}ld", self.tools),
            self.qemu[0].to_owned(),
        ]
        .into_iter()
        .filter(|tool| {
            Command::new(tool)
                .arg("--version")
                .stdout(Stdio::null())
                .status()
                .is_err()
        })
        .collect()
    }

    /// Compiles programs, entries behind them, what they need of the routines for soft floats, and the table.
    pub fn compile(&self, programs: &[Program]) -> Result<Image, String> {
        let machine = self.isa.machine(programs);
        // The symbols that functions refer to, by index.
        let mut symbols: Vec<String> = (0..programs.len()).map(|index| format!("f{index}")).collect();
        symbols.push("table".to_owned());
        let first = symbols.len() as u32;
        symbols.extend(ROUTINES.iter().map(|routine| routine.name().to_owned()));
        let mut image = Image {
            symbols,
            ..Image::default()
        };
        let mut needed = BTreeSet::new();
        let mut routine = |routine: Routine| {
            needed.insert(routine);
            first + routine as u32
        };
        for index in 0..programs.len() {
            let code = self
                .isa
                .compile(&build::function(programs, index, &machine), &mut routine);
            let code = code.map_err(|error| format!("program {index}, seed {}: {error}", programs[index].seed))?;
            image.codes.push((format!("f{index}"), code));
        }
        for index in 0..programs.len() {
            let code = self
                .isa
                .compile(&build::entry(programs, index, &machine), &mut routine)?;
            image.entries.push(image.codes.len());
            image.codes.push((format!("e{index}"), code));
        }
        for routine in needed {
            let body = routine.function(CallConv::SystemV, self.isa.counts_zeros());
            let code = self
                .isa
                .compile(&body, |_| unreachable!("routines compute with integers"))?;
            image.codes.push((routine.name().to_owned(), code));
        }
        Ok(image)
    }

    fn e_flags(&self) -> u32 {
        let Isa::Rv32(extensions) = self.isa else {
            return object::elf::EF_ARM_EABI_VER5.0;
        };
        let abi = if self.flags.contains(&"-mabi=ilp32d") {
            object::elf::EF_RISCV_FLOAT_ABI_DOUBLE.0
        } else if extensions.float_abi {
            object::elf::EF_RISCV_FLOAT_ABI_SINGLE.0
        } else {
            0
        };
        u32::from(extensions.compressed) | abi
    }

    /// Links an image and runs each of its entries on every input. Records come in the order of the calls; fewer than
    /// all mean that the next call failed, for the reason given.
    ///
    /// `counted` asks for exact numbers of instructions.
    pub fn run(&self, image: &Image, inputs: &[[u8; BUFFER]], counted: bool) -> (Vec<Record>, Result<(), String>) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let object = directory.path().join("functions.o");
        std::fs::write(&object, self.object(image, inputs)).expect("a writable temporary directory");
        let elf = directory.path().join("functions.elf");
        let mut link = Command::new(format!("{}ld", self.tools));
        link.args(["-m", self.emulation, "--fatal-warnings", "-T"])
            .arg(root().join("linker-scripts/qemu").join(self.script))
            .args(self.firmware())
            .arg(&object)
            .arg("-o")
            .arg(&elf);
        checked(link);
        if let Ok(keep) = std::env::var("COREROPE_KEEP") {
            std::fs::copy(&elf, keep).expect("a writable place to keep the image");
        }
        let mut qemu = Command::new(self.qemu[0]);
        qemu.args(&self.qemu[1..])
            .args(["-display", "none", "-serial", "none", "-monitor", "none"])
            .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
            .arg(&elf);
        // An instruction takes 2^shift nanoseconds, so that a tick of the clock is a fraction of one.
        let tick = self.tick.unwrap_or_default();
        let shift = if tick == 0 { 0 } else { 10 };
        if counted {
            qemu.args(["-icount", &format!("shift={shift}")]);
        }
        // A program runs for a few milliseconds; the machine may have much else to do.
        let limit = Duration::from_secs(10) + Duration::from_secs(2) * image.entries.len() as u32;
        let (output, status) = watched(qemu, limit);
        let size = BUFFER + 16;
        let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let records = output
            .chunks_exact(size)
            .map(|bytes| {
                let ticks = u64::from(word(&bytes[4..]));
                Record {
                    spoiled: word(bytes),
                    // Beyond an empty function, which is one instruction.
                    instructions: 1 + if tick == 0 {
                        ticks
                    } else {
                        (ticks * tick + (1 << shift) / 2) >> shift
                    },
                    buffer: bytes[16..].try_into().expect("the rest of a record"),
                }
            })
            .collect();
        (records, status)
    }

    /// Start-up code and the caller, compiled once.
    fn firmware(&self) -> Vec<PathBuf> {
        static BUILT: OnceLock<tempfile::TempDir> = OnceLock::new();
        static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _one_at_a_time = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let directory = BUILT
            .get_or_init(|| tempfile::tempdir().expect("a temporary directory"))
            .path();
        let [startup, watch] = if matches!(self.isa, Isa::Thumb2(_)) {
            ["cortex-m", "arm"]
        } else {
            ["riscv", "riscv"]
        };
        let sources = [
            format!("linker-scripts/startup/{startup}.S"),
            format!("tests/firmware/{watch}/watch.S"),
            "tests/firmware/functions.c".to_owned(),
        ];
        sources
            .iter()
            .enumerate()
            .map(|(at, source)| {
                let path = directory.join(format!("{}-{at}.o", self.name));
                if !path.exists() {
                    let mut gcc = Command::new(format!("{}gcc", self.tools));
                    gcc.args(self.flags)
                        .args(["-O2", "-ffreestanding", "-Wall", "-Wextra", "-Werror", "-c", "-o"])
                        .arg(&path)
                        .arg(root().join(source));
                    checked(gcc);
                }
                path
            })
            .collect()
    }

    fn object(&self, image: &Image, inputs: &[[u8; BUFFER]]) -> Vec<u8> {
        let arm = matches!(self.isa, Isa::Thumb2(_));
        let architecture = if arm { Architecture::Arm } else { Architecture::Riscv32 };
        let mut object = Object::new(BinaryFormat::Elf, architecture, Endianness::Little);
        object.flags = FileFlags::Elf {
            os_abi: object::elf::ELFOSABI_NONE,
            abi_version: 0,
            e_flags: object::elf::FileFlags(self.e_flags()),
        };
        let define = |object: &mut Object, name: &str, section, value, size, kind, scope| {
            object.add_symbol(Symbol {
                name: name.as_bytes().to_vec(),
                value,
                size,
                kind,
                scope,
                weak: false,
                section: SymbolSection::Section(section),
                flags: SymbolFlags::None,
            })
        };
        let text = object.section_id(StandardSection::Text);
        if arm {
            define(
                &mut object,
                "$t",
                text,
                0,
                0,
                SymbolKind::Label,
                SymbolScope::Compilation,
            );
        }
        let mut symbols = std::collections::BTreeMap::new();
        let mut placed = Vec::new();
        for (name, code) in &image.codes {
            let at = object.append_section_data(text, &code.bytes, 4);
            placed.push(at);
            let value = at | u64::from(arm);
            let size = code.bytes.len() as u64;
            let symbol = define(
                &mut object,
                name,
                text,
                value,
                size,
                SymbolKind::Text,
                SymbolScope::Linkage,
            );
            symbols.insert(name.clone(), symbol);
        }
        let data = object.section_id(StandardSection::ReadOnlyData);
        let bytes = |object: &mut Object, name: &str, bytes: &[u8]| {
            let at = object.append_section_data(data, bytes, 8);
            define(
                object,
                name,
                data,
                at,
                bytes.len() as u64,
                SymbolKind::Data,
                SymbolScope::Linkage,
            )
        };
        let table: Vec<u8> = TABLE.iter().flat_map(|word| word.to_le_bytes()).collect();
        let table = bytes(&mut object, "table", &table);
        symbols.insert("table".to_owned(), table);
        bytes(&mut object, "inputs", &inputs.concat());
        bytes(&mut object, "input_count", &(inputs.len() as u32).to_le_bytes());
        bytes(
            &mut object,
            "function_count",
            &(image.entries.len() as u32).to_le_bytes(),
        );
        let pointers = bytes(&mut object, "functions", &vec![0; 4 * image.entries.len()]);
        let pointers = object.symbol(pointers).value;
        let absolute = if arm {
            object::elf::R_ARM_ABS32
        } else {
            object::elf::R_RISCV_32
        };
        for (at, entry) in image.entries.iter().enumerate() {
            let relocation = Relocation {
                offset: pointers + 4 * at as u64,
                symbol: symbols[&image.codes[*entry].0],
                addend: 0,
                flags: RelocationFlags::Elf { r_type: absolute },
            };
            object
                .add_relocation(data, relocation)
                .expect("a relocation of the target");
        }
        for ((_, code), at) in image.codes.iter().zip(placed) {
            for Fixup {
                offset,
                symbol,
                kind,
                addend,
            } in &code.relocations
            {
                let relocation = Relocation {
                    offset: at + u64::from(*offset),
                    symbol: symbols[&image.symbols[*symbol as usize]],
                    // Arm's relocations carry their addend in the instruction.
                    addend: if arm { 0 } else { *addend },
                    flags: RelocationFlags::Elf {
                        r_type: object::elf::RelocationType(*kind),
                    },
                };
                object
                    .add_relocation(text, relocation)
                    .expect("a relocation of the target");
            }
        }
        object.write().expect("an object that can be written")
    }
}

/// Compiled functions.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Names and code.
    pub codes: Vec<(String, native::Machine)>,
    /// Which of them are called with the buffer.
    pub entries: Vec<usize>,
    /// Symbols that they refer to.
    pub symbols: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn checked(mut command: Command) {
    let output = command.output().expect("an installed tool");
    assert!(
        output.status.success(),
        "{command:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a command to its end, or for `limit`.
fn watched(mut command: Command, limit: Duration) -> (Vec<u8>, Result<(), String>) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("an installed emulator");
    let mut stdout = child.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    });
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child of ours") {
            Some(status) if status.success() => break Ok(()),
            Some(status) => break Err(format!("it ended with {status}")),
            None if start.elapsed() > limit => {
                child.kill().expect("a child of ours");
                child.wait().expect("a child of ours");
                break Err("it does not end".to_owned());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let bytes = reader
        .join()
        .expect("a reader that does not panic")
        .expect("a readable pipe");
    (bytes, status)
}
