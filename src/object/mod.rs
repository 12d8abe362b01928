//! Sections, symbols and relocations → files. One section plan, several writers.
//!
//! Nothing here knows what a graph is: bytes, symbols and relocations only.

use crate::codegen::Relocation;
use crate::data::Contents;

/// What a section holds; decides its flags in each format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SectionKind {
    /// Machine code.
    Text,
    /// Constants.
    ReadOnlyData,
    /// Zero-initialised memory, no bytes in the file.
    Zero,
}

/// A section.
#[derive(Clone, Debug)]
pub struct Section {
    /// Full name: `.text.kws.conv2d_1`.
    pub name: String,
    /// What it holds.
    pub kind: SectionKind,
    /// Alignment in bytes, a power of two.
    pub align: u64,
    /// Its bytes, streamed.
    pub contents: Contents,
    /// Relocations, by offset.
    pub relocations: Vec<Relocation>,
}

/// Who sees a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Only this object.
    Local,
    /// Every object of the link, but not a shared library's users.
    Hidden,
    /// Everyone.
    Exported,
}

/// A symbol: the whole of a section or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Name.
    pub name: String,
    /// Index into [`ObjectPlan::sections`]; `None` is undefined.
    pub section: Option<usize>,
    /// Offset in bytes in the section.
    pub offset: u64,
    /// Size in bytes (0 for labels).
    pub size: u64,
    /// Whether it is code.
    pub function: bool,
    /// Who sees it.
    pub visibility: Visibility,
}

/// An object file to be written.
#[derive(Clone, Debug, Default)]
pub struct ObjectPlan {
    /// Sections, in file order.
    pub sections: Vec<Section>,
    /// Symbols.
    pub symbols: Vec<Symbol>,
}
