//! CLIF → machine code.

pub mod counts;
pub mod intrinsic;
pub mod native;
pub mod rv32;
pub mod soft_float;
pub mod thumb2;

use cranelift_codegen::ir::Function;
use object::RelocationFlags;

/// A function to compile.
#[derive(Clone, Debug)]
pub struct Input {
    /// Symbol.
    pub name: String,
    /// Whether applications see it.
    pub exported: bool,
    /// Body; external names are resolved through `symbols`.
    pub function: Function,
    /// Symbols that the body refers to: `UserExternalName { namespace: 0, index }` is the one at that index.
    pub symbols: Vec<String>,
}

/// A relocation within a piece of code or data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Offset in bytes of the place.
    pub offset: u64,
    /// What it refers to.
    pub symbol: String,
    /// Addend (already in the instruction for COFF).
    pub addend: i64,
    /// The format's own type.
    pub flags: RelocationFlags,
}

/// A label inside a function that a relocation refers to (RISC-V's `PCREL_LO12`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Local symbol.
    pub name: String,
    /// Offset in bytes in the function.
    pub offset: u64,
}

/// Machine code of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Symbol.
    pub name: String,
    /// Whether applications see it.
    pub exported: bool,
    /// Machine code.
    pub bytes: Vec<u8>,
    /// Alignment in bytes.
    pub align: u64,
    /// Relocations, by offset.
    pub relocations: Vec<Relocation>,
    /// Labels that relocations refer to.
    pub labels: Vec<Label>,
    /// Bytes of stack that the function itself uses, its return address and saved registers included.
    pub frame: u32,
    /// Symbols it calls.
    pub calls: Vec<String>,
}
