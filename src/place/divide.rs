//! What goes to the memories of `--memory` that no rule has placed: the parts of the arena, and parameters.
//!
//! Parameters that are read most for each of their bytes ([`Accesses`]) choose first among the memories for parameters,
//! the fastest first. Those that found no place let the largest choose first, once.

use super::{Built, Kind, Pool, Taken, kind_of};
use crate::error::{Code, Error, Result};
use crate::kernels::ParameterId;
use crate::kernels::entry::ArenaKind;
use crate::names::Names;
use crate::plan::Accesses;
use std::collections::BTreeSet;

/// What chooses a memory.
struct Chooser {
    symbol: String,
    kind: Kind,
    bytes: u64,
    align: u64,
    accesses: u64,
}

/// Gives what is not in `moved` by rules a section in its memory, and says what is where.
///
/// # Errors
/// [`Code::Usage`] if the parameters do not fit the memories for them.
pub(super) fn divide(built: &Built, names: &mut Names, moved: &BTreeSet<String>) -> Result<Vec<Taken>> {
    let mut taken = Vec::new();
    let label = |pool: &Pool| format!("--memory {}", pool.name);
    let writable = built.pools.iter().filter(|pool| pool.writable);
    if built.arena == ArenaKind::Static {
        for (i, (pool, part)) in writable
            .zip(&built.plan.pools)
            .enumerate()
            .filter(|(_, (_, part))| part.size > 0)
        {
            let named = names.pool(i);
            if !moved.contains(&named.symbol) {
                taken.push(Taken {
                    rule: label(pool),
                    section: named.section.clone(),
                    memory: pool.region.clone(),
                    items: vec![(named.symbol.clone(), Kind::Arena, part.size)],
                });
            }
        }
    }
    let pools: Vec<&Pool> = built.pools.iter().filter(|pool| !pool.writable).collect();
    if pools.is_empty() {
        return Ok(taken);
    }
    let mut hot = choosers(built, names, moved);
    hot.sort_by_key(|one| {
        let density = (u128::from(one.accesses) << 32) / u128::from(one.bytes.max(1));
        std::cmp::Reverse((density, one.accesses))
    });
    let mut chosen = choose(&hot, &pools);
    if chosen.iter().any(Option::is_none) {
        hot.sort_by_key(|one| std::cmp::Reverse(one.bytes));
        chosen = choose(&hot, &pools);
    }
    let left = hot
        .iter()
        .zip(&chosen)
        .filter(|(_, pool)| pool.is_none())
        .map(|(one, _)| one);
    let missing: u64 = left.clone().map(|one| one.bytes).sum();
    if let Some(largest) = left.max_by_key(|one| one.bytes) {
        let all: Vec<String> = pools
            .iter()
            .map(|pool| format!("{} has {}", pool.name, pool.bytes))
            .collect();
        let message = format!(
            "the parameters do not fit the memories for them by {missing} bytes: {}",
            all.join(", ")
        );
        return Err(Error::new(Code::Usage, message)
            .at(format!("{}, {} bytes", largest.symbol, largest.bytes))
            .help("name a further memory for parameters, or keep some outside: --params external or streamed"));
    }
    for (i, pool) in pools.iter().enumerate() {
        let section = format!(".rodata.{}.memory.{}", names.model, pool.name.to_ascii_lowercase());
        let here = || {
            hot.iter()
                .zip(&chosen)
                .filter(|(_, chosen)| **chosen == Some(i))
                .map(|(one, _)| one)
        };
        let symbols: BTreeSet<&str> = here().map(|one| one.symbol.as_str()).collect();
        for named in names.parameters.iter_mut().chain(names.constants.values_mut()) {
            if symbols.contains(named.symbol.as_str()) {
                named.section.clone_from(&section);
            }
        }
        if !symbols.is_empty() {
            taken.push(Taken {
                rule: label(pool),
                section,
                memory: pool.region.clone(),
                items: here().map(|one| (one.symbol.clone(), one.kind, one.bytes)).collect(),
            });
        }
    }
    Ok(taken)
}

/// The parameters and constants in the object that no rule has placed.
fn choosers(built: &Built, names: &Names, moved: &BTreeSet<String>) -> Vec<Chooser> {
    let Built { graph, lowering, .. } = built;
    let accesses = Accesses::new(graph, lowering);
    let outside = |id| built.image.is_some_and(|image| image.holds(id));
    let mut all = Vec::new();
    for (i, (parameter, named)) in lowering.parameters.iter().zip(&names.parameters).enumerate() {
        let id = ParameterId(i as u32);
        if !outside(id) && !moved.contains(&named.symbol) {
            all.push(Chooser {
                symbol: named.symbol.clone(),
                kind: kind_of(parameter.kind),
                bytes: parameter.contents.len(),
                align: parameter.align,
                accesses: accesses.parameter(id),
            });
        }
    }
    for (id, named) in names
        .constants
        .iter()
        .filter(|(_, named)| !moved.contains(&named.symbol))
    {
        all.push(Chooser {
            symbol: named.symbol.clone(),
            kind: Kind::Constant,
            bytes: graph.tensor(*id).bytes() as u64,
            align: crate::plan::ALIGN,
            accesses: accesses.tensors(&[*id]),
        });
    }
    all
}

/// For each the first memory that has room.
fn choose(all: &[Chooser], pools: &[&Pool]) -> Vec<Option<usize>> {
    let mut ends = vec![0u64; pools.len()];
    let place = |one: &Chooser| {
        for (end, (i, pool)) in ends.iter_mut().zip(pools.iter().enumerate()) {
            // Gaps in front of it and behind it, in whatever order they are stored.
            let bytes = one.bytes.saturating_add(one.align - 1);
            if end.checked_add(bytes).is_some_and(|end| end <= pool.bytes) {
                *end += bytes;
                return Some(i);
            }
        }
        None
    };
    all.iter().map(place).collect()
}
