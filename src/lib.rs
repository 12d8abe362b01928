//! corerope weaves a trained network into read-only memory: it reads a model and writes what a linker wants.
//!
//! The rooms, in the order in which data flows through them; each borrows what the one before made:
//!
//! | room | in → out |
//! |--|--|
//! | [`data`] | the mapped model file; bytes that are streamed, never held |
//! | [`frontend`] | bytes → graph, the only place where untrusted bytes are read |
//! | [`graph`] | tensors, types, operators; verifier, text form, evaluator |
//! | [`modules`] | external modules: functions of others in place of operators |
//! | [`passes`] | graph → graph |
//! | [`kernels`] | operator → kernel in CLIF, parameters in the kernel's layout |
//! | [`plan`](mod@plan) | order, lifetimes, arena, and an independent checker |
//! | [`codegen`] | CLIF → machine code |
//! | [`names`], [`place`], [`keep`], [`assemble`] | what everything is called and where it goes |
//! | [`debug`] | what debuggers want to know: a listing and DWARF |
//! | [`image`] | parameters that are kept outside the object |
//! | [`object`] | sections, symbols, relocations → ELF, COFF, Mach-O, archive, executable |
//! | [`output`] | header, linker script, depfile, report; the only place that writes files |
//! | [`harness`] | programs that run a model on Linux without a compiler, for `run` and `verify` |
//! | [`build`] | the pipeline through all of them, in one screen |
//! | [`verify`](mod@verify) | compiled code against the evaluator |
//! | [`link`] | a linked program or a linker's map against what was built |
//! | [`cli`] | one file per subcommand |
//!
//! Invariants:
//! 1. After [`graph::verify`] every index, shape, stride and offset is proven; nothing later re-checks or panics on input.
//! 2. Only the command line and [`output`] touch the file system. A build either leaves complete new files or the old ones.
//! 3. Equal inputs give equal bytes: no time stamps, no hash-map order, no host dependence.
//! 4. No recursion over input. No `unsafe` but the memory map of the input file (one function, with its reason).
//! 5. Every stage has a text form that can be printed (`--print-after=STAGE`).

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod assemble;
pub mod build;
pub mod cli;
pub mod codegen;
pub mod data;
pub mod debug;
pub mod error;
pub mod frontend;
pub mod graph;
pub mod harness;
pub mod image;
pub mod intrinsic;
pub mod keep;
pub mod kernels;
pub mod limits;
pub mod link;
pub mod modules;
pub mod names;
pub mod object;
pub mod output;
pub mod passes;
pub mod place;
pub mod plan;
pub mod target;
pub mod verify;
