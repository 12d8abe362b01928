//! Debug information (`-g`): the compiled model as a program that a debugger steps through layer by layer.
//!
//! The source file is the model's [listing](listing), written beside the output: an operator is a line, and below it, in
//! comments, is what became of it. [`describe`] adds DWARF to an object: a line table and a subprogram for every
//! function, a variable for every parameter and the arena with the layout that the bytes have in memory, and in the
//! entry point a variable for every tensor of the model with its shape there, for as long as it holds its values.
//! Nothing of the object that is loaded depends on it.
//!
//! | file | what |
//! |--|--|
//! | [`listing`] | the text and what stands on which line |
//! | `unit` | functions and lines |
//! | `variables` | parameters, the arena, tensors and how long they live |
//! | `types` | [`Layout`] → types |
//! | `frames` | how to find the caller |
//! | `sections` | DWARF → sections and relocations |
//!
//! Format: DWARF 5 and DWARF 4 (dwarfstd.org).

mod frames;
pub mod listing;
mod sections;
#[cfg(test)]
mod tests;
mod types;
mod unit;
mod variables;

use crate::codegen::Code;
use crate::data::{Layout, Scalar};
use crate::error::{Error, Result};
use crate::graph::{DType, Tensor};
use crate::kernels::ParameterId;
use crate::kernels::entry;
use crate::object::ObjectPlan;
use crate::target::Format;
use listing::Listing;

/// Version of the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Of 2010: for older debuggers and vendors' tools.
    Dwarf4,
    /// Of 2017.
    #[default]
    Dwarf5,
}

impl Version {
    fn number(self) -> u16 {
        match self {
            Version::Dwarf4 => 4,
            Version::Dwarf5 => 5,
        }
    }
}

/// What the user chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Version of DWARF.
    pub version: Version,
    /// Name of the listing's file, without a folder: debuggers look for it where they look for sources.
    pub file: String,
}

/// A compiled model.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// What its functions are made from.
    pub code: entry::Model<'a>,
    /// Machine code by [`KernelId`](crate::kernels::KernelId).
    pub kernels: &'a [Code],
    /// The functions beside the entry point: what runs one operator, what reads an image.
    pub helpers: &'a [Code],
    /// Routines that kernels call.
    pub routines: &'a [Code],
    /// The entry point.
    pub entry: &'a Code,
}

impl Model<'_> {
    /// Whether a parameter is not in the object.
    fn is_outside(&self, id: ParameterId) -> bool {
        self.code.image.is_some_and(|image| image.holds(id))
    }
}

/// Adds the debug information of `model` to its `object` and returns the listing that it refers to.
///
/// # Errors
/// [`Code::Io`](crate::error::Code::Io) if the model's constants cannot be read.
pub fn describe(model: &Model, options: &Options, object: &mut ObjectPlan) -> Result<Listing> {
    if model.code.target.format() == Format::MachO {
        let message = format!("there is no debug information for {} yet", model.code.target);
        return Err(Error::unsupported(message).help("build without -g, or for an ELF or COFF target"));
    }
    let listing = listing::listing(model);
    let mut addresses = sections::Addresses::new(object);
    let mut unit = unit::Unit::new(model, options, &listing, &mut addresses)?;
    variables::globals(&mut unit)?;
    variables::tensors(&mut unit)?;
    let dwarf = unit.finish();
    let frames = frames::table(model, &mut addresses)?;
    sections::add(object, &addresses, dwarf, &frames, model.code.target)?;
    Ok(listing)
}

/// A tensor's shape and type as the model has them.
fn shape(tensor: &Tensor) -> Layout {
    let dims: Vec<_> = tensor.shape.0.iter().map(|len| ("", *len)).collect();
    // A number that is reached through memory is an array of one.
    let dims = if dims.is_empty() { vec![("", 1)] } else { dims };
    Layout::array(&dims, Layout::Scalar(scalar(tensor.dtype)))
}

fn scalar(dtype: DType) -> Scalar {
    match dtype {
        DType::I8 => Scalar::I8,
        DType::U8 => Scalar::U8,
        DType::Bool => Scalar::Bool,
        DType::I16 => Scalar::I16,
        // Half floats are shown as their bits, as C has no type for them.
        DType::U16 | DType::F16 => Scalar::U16,
        DType::I32 => Scalar::I32,
        DType::U32 => Scalar::U32,
        DType::I64 => Scalar::I64,
        DType::U64 => Scalar::U64,
        DType::F32 => Scalar::F32,
        DType::F64 => Scalar::F64,
    }
}

/// What gimli refuses although it was checked.
fn refused(error: gimli::write::Error) -> Error {
    Error::internal(format!("cannot write debug information: {error}"))
}
