//! Compiled code, parameters and names → the object's plan.
//!
//! `codegen` does not know where code goes and `object` does not know what a parameter is: here they meet.

pub mod external;

use crate::codegen::{Code, Input};
use crate::data::{Bytes, Contents};
use crate::error::Code::Limit;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::{self, Image};
use crate::kernels::entry::ArenaKind;
use crate::kernels::{Lowering, ParameterId};
use crate::names::{Helper, Named, Names};
use crate::object::{Datum, ObjectPlan, Placed, Visibility};
use crate::plan::Plan;
use crate::target::{Arch, FAR_CONSTANTS, Format, Target};
use external::Externals;

/// Alignment of constants that kernels read as they are in the graph: that of the widest load.
const CONSTANT_ALIGN: u64 = 16;

/// The kernels as inputs of [`crate::codegen::compile`], in their order.
pub fn kernels(lowering: &Lowering, names: &Names) -> Vec<Input> {
    (lowering.kernels.iter().zip(&names.kernels))
        .map(|(kernel, named)| Input {
            name: named.symbol.clone(),
            exported: false,
            function: kernel.function.clone(),
            symbols: Vec::new(),
        })
        .collect()
}

/// Bytes of constants that code reaches in any case: 2 GiB, without room for the code and for what others link.
const NEAR: u64 = (1 << 31) - (64 << 20);
/// Constants from this size on are moved away where all of them are too many, as with GCC's `-mlarge-data-threshold`.
const FAR: u64 = 64 << 10;

/// Parts constants that code reaches from those that are too far away, if there are that many: on x86-64 the large ones
/// go to sections of their own kind. Whether there are any.
///
/// # Errors
/// [`Limit`](crate::error::Code::Limit) where the target's code has no way to reach all of them.
pub fn part(graph: &Graph, lowering: &Lowering, target: &Target, names: &mut Names) -> Result<bool> {
    part_beyond(NEAR, graph, lowering, target, names)
}

/// [`part`] with another limit.
pub(crate) fn part_beyond(
    near: u64,
    graph: &Graph,
    lowering: &Lowering,
    target: &Target,
    names: &mut Names,
) -> Result<bool> {
    let parameters = lowering.parameters.iter().map(|parameter| parameter.contents.len());
    let constants: Vec<u64> = names
        .constants
        .keys()
        .map(|id| graph.tensor(*id).bytes() as u64)
        .collect();
    let total: u64 = parameters.clone().chain(constants.iter().copied()).sum();
    let reach = match target.arch() {
        Arch::X86_64 | Arch::Riscv64 => near,
        // Addresses of pages reach 4 GiB; the others have no more than that.
        Arch::Aarch64 | Arch::Thumb2 | Arch::Riscv32 => 2 * near,
    };
    if total <= reach {
        return Ok(false);
    }
    if target.arch() != Arch::X86_64 || target.format() != Format::Elf {
        let message = format!("the model has {total} bytes of constants, code for {target} reaches {reach}");
        return Err(Error::new(Limit, message).help("split the model, or build for x86-64 in ELF"));
    }
    let sized = (names.parameters.iter_mut().zip(parameters)).chain(names.constants.values_mut().zip(constants));
    for (named, _) in sized.filter(|(_, size)| *size >= FAR.min(near)) {
        if let Some(rest) = named.section.strip_prefix(".rodata") {
            named.section = format!("{FAR_CONSTANTS}{rest}");
        }
    }
    Ok(true)
}

/// All data of a model: parameters that are not in `image`, constants of the graph, what the code knows of the image
/// and, if it is static and not empty, the arena.
pub fn data(
    graph: &Graph,
    lowering: &Lowering,
    plan: &Plan,
    arena: ArenaKind,
    image: Option<&Image>,
    names: &Names,
) -> Vec<Datum> {
    let hidden = |named: &Named, align, contents| Datum {
        symbol: named.symbol.clone(),
        section: named.section.clone(),
        align,
        contents,
        visibility: Visibility::Hidden,
    };
    let outside = |index: usize| image.is_some_and(|image| image.holds(ParameterId(index as u32)));
    let mut data: Vec<Datum> = (lowering.parameters.iter().zip(&names.parameters).enumerate())
        .filter(|(index, _)| !outside(*index))
        .map(|(_, (parameter, named))| hidden(named, parameter.align, parameter.contents.clone()))
        .collect();
    for (id, named) in &names.constants {
        if let Some(bytes) = &graph.tensor(*id).data {
            data.push(hidden(named, CONSTANT_ALIGN, Contents::Bytes(bytes.clone())));
        }
    }
    if let Some(image) = image {
        let table: Vec<u8> = image::TABLE.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        for (helper, bytes) in [(Helper::Header, image.header().to_vec()), (Helper::Table, table)] {
            data.push(hidden(names.helper(helper), 8, Contents::Bytes(Bytes::from_vec(bytes))));
        }
    }
    if arena == ArenaKind::Static {
        for (pool, (_, bytes)) in plan
            .areas()
            .into_iter()
            .enumerate()
            .filter(|(_, (_, bytes))| *bytes > 0)
        {
            data.push(hidden(names.pool(pool), plan.arena_align, Contents::Zero(bytes)));
        }
    }
    data
}

/// Puts compiled kernels, routines and other helpers, and the entry point into their sections.
pub fn place(kernels: Vec<Code>, routines: Vec<Code>, entry: Code, names: &Names) -> Vec<Placed> {
    let sections = names.kernels.iter().map(|named| named.section.clone());
    let kernels = kernels.into_iter().zip(sections);
    let routines = routines.into_iter().map(|code| {
        let mut helpers = names.routines.iter().chain(&names.helpers);
        let named = helpers.find(|named| named.symbol == code.name);
        let section = named.map_or_else(|| ".text".to_owned(), |named| named.section.clone());
        (code, section)
    });
    (kernels.chain(routines))
        .chain([(entry, names.run.section.clone())])
        .map(|(code, section)| Placed { code, section })
        .collect()
}

/// The object of a model: kernels (as compiled from [`kernels`]), routines, entry point and data.
///
/// # Errors
/// [`Code::Internal`](crate::error::Code::Internal) if something is defined twice or not at all: an object of ours
/// needs nothing from anybody but the symbols that are `elsewhere` in its library. [`Externals::object`] is for those
/// with external functions.
pub fn object(
    kernels: Vec<Code>,
    routines: Vec<Code>,
    entry: Code,
    data: Vec<Datum>,
    names: &Names,
    elsewhere: &[&str],
) -> Result<ObjectPlan> {
    Externals::default().object(place(kernels, routines, entry, names), data, elsewhere)
}
