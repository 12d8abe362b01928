//! The rooms of the house: who may import whom.

use crate::cases::root;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// For each room, what it may import. Everything may import the ground floor; what is not listed composes the rooms
/// and may import all of them.
const GROUND: &[&str] = &["data", "error", "intrinsic", "limits", "target"];
const ROOMS: &[(&str, &[&str])] = &[
    ("data", &[]),
    ("error", &[]),
    ("intrinsic", &[]),
    ("limits", &[]),
    ("target", &[]),
    ("frontend", &["graph"]),
    ("graph", &[]),
    ("passes", &["graph"]),
    ("kernels", &["graph"]),
    // The entry point calls the kernels where the plan has put their operands: it comes after both.
    ("kernels/entry", &["graph", "plan", "names", "codegen", "image"]),
    ("image", &["graph", "kernels"]),
    ("names.rs", &["graph", "kernels", "codegen"]),
    ("plan", &["graph", "kernels"]),
    ("codegen", &[]),
    ("object", &["codegen"]),
    ("debug", &["graph", "kernels", "plan", "names", "codegen", "object"]),
    (
        "place",
        &["graph", "kernels", "plan", "names", "codegen", "object", "image"],
    ),
    ("link", &["place", "output"]),
];

/// Modules that are compiled for tests only.
const TESTS: &[&str] = &["tests", "testing", "checks", "fixture"];

/// Directories of siblings, which do not import one another, and what is common to them.
const SIBLINGS: &[(&str, &[&str])] = &[
    ("frontend", &[]),
    ("passes", &["edit"]),
    (
        "kernels",
        &[
            "emit",
            "lanes",
            "lowered",
            "math",
            "overlap",
            "requantize",
            "schedule",
            "span",
            "threshold",
            "vector",
        ],
    ),
];

/// Siblings that are one shape, with files that carry their names on (`pool_runtime`): a window that is reduced, and
/// an elementwise map.
const SHAPES: &[&[&str]] = &[
    &["average", "pool", "reduce"],
    &["affine", "binary", "lookup", "quantize", "unary"],
];

/// Files of such a directory that bring the siblings together.
const DISPATCH: &[&str] = &["mod.rs", "lower.rs", "rows.rs"];

/// Every source file: its path below `src/` and its text without the tests at its end.
fn sources() -> BTreeMap<String, String> {
    let src = root().join("src");
    let mut files = BTreeMap::new();
    let mut directories = vec![src.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            // Tests may use every room.
            if path
                .file_stem()
                .is_some_and(|stem| TESTS.iter().any(|name| stem == *name))
            {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
                files.insert(path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned(), text);
            }
        }
    }
    files
}

/// Paths that start with `crate::`, in code: `["kernels", "emit"]`, one for each leaf of a nested `use`.
fn paths(text: &str) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            expand(rest, &mut found);
        }
    }
    found
}

fn expand(rest: &str, found: &mut BTreeSet<Vec<String>>) {
    let name = |text: &str| {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    if let Some(group) = rest.strip_prefix('{') {
        let mut depth = 0;
        let mut start = true;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && !c.is_whitespace() => {
                    start = false;
                    expand(&group[i..], found);
                }
                _ => {}
            }
        }
        return;
    }
    let first = name(rest);
    let after = rest[first.len()..].strip_prefix("::").unwrap_or_default();
    let second = name(after);
    found.insert(vec![first, second]);
}

fn room(file: &str) -> &str {
    Path::new(file)
        .iter()
        .next()
        .unwrap()
        .to_str()
        .unwrap()
        .trim_end_matches(".rs")
}

#[test]
fn stages_look_back_only() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let inside = ROOMS.iter().filter(|(name, _)| Path::new(&file).starts_with(name));
        let exact = inside.max_by_key(|(name, _)| name.len());
        let Some((_, allowed)) = exact.or_else(|| ROOMS.iter().find(|(name, _)| *name == room(&file))) else {
            continue;
        };
        for path in paths(&text) {
            let other = path[0].as_str();
            if other != room(&file) && !GROUND.contains(&other) && !allowed.contains(&other) {
                wrong.push(format!("src/{file} imports crate::{}", path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn siblings_do_not_import_one_another() {
    let sources = sources();
    let sibling = |file: &str| -> Option<String> {
        let name = Path::new(file).iter().nth(1)?.to_str()?;
        Some(name.trim_end_matches(".rs").to_owned())
    };
    let mut wrong = Vec::new();
    for (file, text) in &sources {
        let Some((parent, common)) = SIBLINGS.iter().find(|(name, _)| *name == room(file)) else {
            continue;
        };
        let own = sibling(file).unwrap_or_default();
        if DISPATCH.iter().any(|name| *file == format!("{parent}/{name}")) {
            continue;
        }
        // `super` of a file in the directory, `super::super` of one that is a folder deeper, is the directory.
        let up = "super::".repeat(Path::new(file).iter().count() - 1);
        let text = text.replace(&up, &format!("crate::{parent}::"));
        for path in paths(&text) {
            let other = &path[1];
            let is_sibling = sources
                .keys()
                .any(|file| room(file) == *parent && sibling(file).as_ref() == Some(other));
            let one = |name: &str| {
                SHAPES
                    .iter()
                    .position(|shape| shape.iter().any(|part| name.split('_').next() == Some(part)))
            };
            let apart = *other != own && (one(other).is_none() || one(other) != one(&own));
            if path[0] == *parent && is_sibling && apart && !common.contains(&other.as_str()) {
                wrong.push(format!("src/{file} imports crate::{}", path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Only the memory map of the input is unsafe.
#[test]
fn unsafe_is_in_one_place() {
    let places: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| {
            text.lines().any(|line| {
                !line.trim_start().starts_with("//") && (line.contains("unsafe {") || line.contains("unsafe fn"))
            })
        })
        .map(|(file, _)| file)
        .filter(|file| !file.contains("schema"))
        .collect();
    assert_eq!(places, ["data.rs"]);
}

/// Only the command line and `output` touch the file system.
#[test]
fn files_are_written_by_output_only() {
    for (file, text) in sources() {
        if ["cli", "output", "main", "data", "harness"].contains(&room(&file)) {
            continue;
        }
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            assert!(
                !line.contains("fs::") && !line.contains("File::open") && !line.contains("File::create"),
                "src/{file}: {line}"
            );
        }
    }
}

#[test]
fn paths_are_found() {
    let text = "use crate::graph::{Graph, quant};\n// crate::cli\nuse crate::{error::Result, plan::{Plan, Io}};\nlet x = crate::data::CHUNK;";
    let found: Vec<String> = paths(text).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["data::CHUNK", "error::Result", "graph::", "plan::"]);
}
