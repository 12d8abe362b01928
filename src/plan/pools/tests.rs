use super::super::tests::{Random, parse, random_graph};
use super::super::{Io, Streaming, check, plan};
use super::*;

fn memories(list: &[(&str, u64)]) -> Vec<Memory> {
    let memory = |(name, bytes): &(&str, u64)| Memory {
        name: (*name).to_owned(),
        bytes: *bytes,
    };
    list.iter().map(memory).collect()
}

/// `fast: a@0 b@64 (128 of 200); slow: …`, and the plan has passed the checker.
fn show(text: &str, list: &[(&str, u64)]) -> Result<String> {
    let (graph, lowering) = parse(text);
    let mut plan = plan(&graph, &lowering, Io::Pointers, Streaming::Never).unwrap();
    plan.divide(&graph, &Accesses::new(&graph, &lowering), &memories(list), None)?;
    check(&graph, &lowering, &plan).unwrap();
    let pools = plan.pools.iter().enumerate().map(|(i, pool)| {
        let mut here: Vec<String> = Vec::new();
        for (tensor, place) in graph.tensors.iter().zip(&plan.places) {
            if let Place::Arena(offset) = place
                && plan.pool_of(*offset) == i
            {
                here.push(format!("{}@{}", tensor.name, plan.locate(*offset).1));
            }
        }
        format!("{}: {} ({} of {})", pool.name, here.join(" "), pool.size, pool.capacity)
    });
    Ok(pools.collect::<Vec<_>>().join("; "))
}

/// `a` is read three times, `b` and `c` once each.
const MODEL: &str = "in x 64; a 64 of x; b 128 of a; c 128 of a b; d 64 of a c; y 16 of d; out y";

#[test]
fn what_fits_the_first_memory_is_there_as_it_was() {
    let (graph, lowering) = parse(MODEL);
    let whole = plan(&graph, &lowering, Io::Pointers, Streaming::Never).unwrap();
    let mut divided = whole.clone();
    let accesses = Accesses::new(&graph, &lowering);
    divided
        .divide(&graph, &accesses, &memories(&[("a", 4096), ("b", 64)]), None)
        .unwrap();
    assert_eq!(divided.places, whole.places);
    assert_eq!((divided.arena_size, divided.optimal), (whole.arena_size, whole.optimal));
    assert_eq!(divided.areas(), [(0, whole.arena_size), (whole.arena_size, 0)]);
    // Without memories there is nothing to divide.
    let mut same = whole.clone();
    same.divide(&graph, &accesses, &[], None).unwrap();
    assert_eq!(same, whole);
}

#[test]
fn what_is_accessed_most_is_in_the_fastest() {
    assert_eq!(
        show(MODEL, &[("fast", 64), ("slow", 1024)]).unwrap(),
        "fast: a@0 (64 of 64); slow: b@0 c@128 d@0 (256 of 1024)"
    );
    assert_eq!(
        show(MODEL, &[("fast", 64), ("middle", 128), ("slow", 1024)]).unwrap(),
        "fast: a@0 (64 of 64); middle: b@0 d@0 (128 of 128); slow: c@0 (128 of 1024)"
    );
}

#[test]
fn what_does_not_fit_says_by_how_much_and_where() {
    let error = show(MODEL, &[("fast", 64), ("slow", 200)]).unwrap_err();
    assert_eq!(error.code, Code::Usage);
    assert_eq!(
        error.message,
        "the buffers do not fit the memories by 56 bytes: fast has 64, slow has 200; one arena would take 320"
    );
    assert!(error.location.unwrap().contains("\"c\""));
    assert_eq!(error.help.unwrap(), "slow of 256 bytes would do");
}

#[test]
fn streamed_parameters_have_their_place() {
    let (graph, lowering) = parse(MODEL);
    let accesses = Accesses::new(&graph, &lowering);
    let staged = |accesses| Staged {
        size: 40,
        align: 32,
        accesses,
    };
    for (often, pool) in [(1 << 20, 0), (1, 1)] {
        let mut plan = plan(&graph, &lowering, Io::Pointers, Streaming::Never).unwrap();
        plan.divide(
            &graph,
            &accesses,
            &memories(&[("fast", 128), ("slow", 1024)]),
            Some(staged(often)),
        )
        .unwrap();
        check(&graph, &lowering, &plan).unwrap();
        let staging = plan.staging.unwrap();
        assert_eq!(
            (staging.size, plan.pool_of(staging.offset), staging.offset % 32),
            (64, pool, 0)
        );
    }
}

/// Each way to break a divided plan is found.
#[test]
fn the_checker_knows_the_memories() {
    let (graph, lowering) = parse(MODEL);
    let mut good = plan(&graph, &lowering, Io::Pointers, Streaming::Never).unwrap();
    let accesses = Accesses::new(&graph, &lowering);
    good.divide(&graph, &accesses, &memories(&[("fast", 128), ("slow", 1024)]), None)
        .unwrap();
    check(&graph, &lowering, &good).unwrap();
    type Break = fn(&mut Plan);
    let cases: &[(&str, Break)] = &[
        ("follows", |plan| plan.pools[0].capacity = 1),
        ("follows", |plan| plan.pools[1].start += 16),
        ("the pools have", |plan| plan.pools[1].size += 16),
        ("the pools have", |plan| plan.arena_size += 16),
        // Half of it in one memory, half in the other.
        ("inside", |plan| {
            let start = plan.pools[1].start;
            let across = plan.places.iter_mut().find(|place| **place == Place::Arena(start));
            *across.unwrap() = Place::Arena(start - 16);
        }),
        ("is not in the arena", |plan| {
            plan.staging = Some(Staging {
                offset: plan.pools[1].start - 16,
                size: 16,
            })
        }),
    ];
    for (expected, spoil) in cases {
        let mut plan = good.clone();
        spoil(&mut plan);
        assert_ne!(plan, good, "{expected}");
        let error = check(&graph, &lowering, &plan).unwrap_err();
        assert!(error.message.contains(expected), "{expected}: {error}");
    }
}

/// `COREROPE_GRAPHS=10000` for more of them.
#[test]
fn random_graphs_in_random_memories() {
    let count = std::env::var("COREROPE_GRAPHS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60);
    let (mut divided, mut short) = (0, 0);
    for seed in 0..count {
        let mut random = Random(seed);
        let (graph, lowering) = parse(&random_graph(&mut random, 1 + seed as usize % 40));
        let accesses = Accesses::new(&graph, &lowering);
        for io in [Io::Pointers, Io::Arena] {
            let whole = plan(&graph, &lowering, io, Streaming::Never).unwrap();
            let names = ["a", "b", "c"];
            let part = |random: &mut Random| 1 + whole.arena_size * random.below(5) as u64 / 4;
            let list: Vec<(&str, u64)> = (names.iter().take(1 + random.below(3)))
                .map(|name| (*name, part(&mut random)))
                .collect();
            let staged = (random.below(3) == 0).then(|| Staged {
                size: 1 + random.below(100) as u64,
                align: 16 << random.below(3),
                accesses: random.below(10_000) as u64,
            });
            let mut plan = whole.clone();
            match plan.divide(&graph, &accesses, &memories(&list), staged) {
                Ok(()) => {
                    check(&graph, &lowering, &plan).unwrap_or_else(|error| panic!("seed {seed} {io:?}: {error}"));
                    divided += usize::from(plan.pools.iter().filter(|pool| pool.size > 0).count() > 1);
                }
                Err(error) => {
                    assert_eq!(error.code, Code::Usage, "seed {seed}: {error}");
                    assert!(
                        staged.is_some() || list.iter().all(|(_, bytes)| *bytes < whole.arena_size),
                        "seed {seed}"
                    );
                    short += 1;
                }
            }
        }
    }
    assert!(divided > 10 && short > 10, "{divided} divided, {short} too large");
}
