//! What goes into one file: a whole plan, or the part of it that is one member of an archive.

use super::{ObjectPlan, Section, SectionKind, Symbol, Visibility};
use std::collections::{BTreeMap, HashMap};

/// Sections and symbols of one file.
pub(super) struct Unit<'a> {
    pub sections: Vec<&'a Section>,
    /// Whether each section stays even if nothing refers to it.
    pub retained: Vec<bool>,
    pub symbols: Vec<Entry<'a>>,
    /// Whether code here has instructions of an optional floating-point unit.
    pub float: bool,
}

/// A symbol of a file.
pub(super) struct Entry<'a> {
    pub symbol: &'a Symbol,
    /// Index into [`Unit::sections`]; `None` if it is not defined here.
    pub section: Option<usize>,
}

impl Entry<'_> {
    pub fn is_local(&self) -> bool {
        matches!(self.symbol.visibility, Visibility::Local | Visibility::Section)
    }
}

impl<'a> Unit<'a> {
    /// Everything.
    pub fn whole(plan: &'a ObjectPlan) -> Self {
        Unit {
            sections: plan.sections.iter().collect(),
            retained: (0..plan.sections.len()).map(|i| plan.retained.contains(&i)).collect(),
            symbols: (plan.symbols.iter())
                .map(|symbol| Entry {
                    symbol,
                    section: symbol.section,
                })
                .collect(),
            float: plan.float,
        }
    }

    /// Whether there is code.
    pub fn has_code(&self) -> bool {
        self.sections.iter().any(|section| section.kind == SectionKind::Text)
    }

    /// Index of each symbol by name; empty if nothing is referred to.
    pub fn index(&self) -> HashMap<&'a str, usize> {
        if self.sections.iter().all(|section| section.relocations.is_empty()) && !self.retained.contains(&true) {
            return HashMap::new();
        }
        let names = self.symbols.iter().map(|entry| entry.symbol.name.as_str());
        names.enumerate().map(|(i, name)| (name, i)).collect()
    }

    /// The symbols of each section, in order.
    pub fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.sections.len()];
        for (i, entry) in self.symbols.iter().enumerate() {
            if let Some(section) = entry.section {
                members[section].push(i);
            }
        }
        members
    }
}

/// A member of an archive to be: what its name ends with, and its sections by index in the plan.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub suffix: String,
    pub sections: Vec<usize>,
}

/// Splits a plan so that a linker takes from an archive what it needs and nothing else: sections share a member if the
/// same exported or weak symbols need them, and code is apart from data. What none of these needs is a member that nobody
/// asks for, but for sections to be retained, which go with the first.
///
/// With debug information everything is one member: it refers to sections by symbols that no other file sees.
pub(super) fn shares(plan: &ObjectPlan) -> Vec<Share> {
    if plan.sections.iter().any(|section| section.kind == SectionKind::Debug) {
        return vec![Share {
            suffix: String::new(),
            sections: (0..plan.sections.len()).collect(),
        }];
    }
    let targets = plan.references();
    // The class of a section changes with every root that reaches it.
    let mut classes = vec![0u32; plan.sections.len()];
    let mut roots: BTreeMap<u32, &str> = BTreeMap::new();
    let mut next = 1;
    let exported = plan
        .symbols
        .iter()
        .filter(|symbol| matches!(symbol.visibility, Visibility::Exported | Visibility::Weak));
    for (root, symbol) in exported.filter_map(|symbol| Some((symbol.section?, symbol))) {
        let mut split: BTreeMap<u32, u32> = BTreeMap::new();
        let mut seen = vec![false; plan.sections.len()];
        let mut work = vec![root];
        seen[root] = true;
        while let Some(section) = work.pop() {
            let class = split.entry(classes[section]).or_insert_with(|| {
                next += 1;
                next - 1
            });
            classes[section] = *class;
            for &target in &targets[section] {
                if !std::mem::replace(&mut seen[target], true) {
                    work.push(target);
                }
            }
        }
        roots.entry(classes[root]).or_insert(&symbol.name);
    }
    let first = (plan.symbols.iter())
        .filter(|symbol| symbol.visibility == Visibility::Exported && symbol.function)
        .find_map(|symbol| symbol.section)
        .map_or(0, |section| classes.get(section).copied().unwrap_or(0));
    let mut members: BTreeMap<(bool, u32, bool), Vec<usize>> = BTreeMap::new();
    for (i, section) in plan.sections.iter().enumerate() {
        // What is retained stands beside the code, which somebody asks for.
        let retained = plan.retained.contains(&i);
        let class = if retained { first } else { classes[i] };
        let constant = matches!(section.kind, SectionKind::ReadOnlyData | SectionKind::RelocatedData);
        let data = constant && !retained;
        members.entry((class != first, class, data)).or_default().push(i);
    }
    (members.into_iter())
        .map(|((other, class, data), sections)| {
            let mut suffix = match (other, roots.get(&class)) {
                (false, _) => String::new(),
                (true, Some(symbol)) => format!("-{symbol}"),
                (true, None) if class == 0 => "-unused".to_owned(),
                (true, None) => format!("-shared{class}"),
            };
            if data {
                suffix += "-parameters";
            }
            Share { suffix, sections }
        })
        .collect()
}

/// The units of the shares of a plan.
pub(super) fn units<'a>(plan: &'a ObjectPlan, shares: &[Share]) -> Vec<Unit<'a>> {
    if let [share] = shares
        && share.sections.len() == plan.sections.len()
    {
        return vec![Unit::whole(plan)];
    }
    let mut defined: Vec<Vec<&Symbol>> = vec![Vec::new(); plan.sections.len()];
    for symbol in &plan.symbols {
        if let Some(section) = symbol.section {
            defined[section].push(symbol);
        }
    }
    let names: HashMap<&str, &Symbol> = plan
        .symbols
        .iter()
        .map(|symbol| (symbol.name.as_str(), symbol))
        .collect();
    (shares.iter())
        .map(|share| {
            let mut place = HashMap::with_capacity(share.sections.len());
            let mut symbols = Vec::new();
            for (i, section) in share.sections.iter().enumerate() {
                place.insert(*section, i);
                symbols.extend(defined[*section].iter().map(|symbol| Entry {
                    symbol,
                    section: Some(i),
                }));
            }
            let sections: Vec<&Section> = share.sections.iter().map(|i| &plan.sections[*i]).collect();
            let mut seen: HashMap<&str, ()> = HashMap::new();
            for relocation in sections.iter().flat_map(|section| &section.relocations) {
                let Some(symbol) = names.get(relocation.symbol.as_str()) else {
                    continue;
                };
                let here = symbol.section.is_some_and(|section| place.contains_key(&section));
                if !here && seen.insert(&symbol.name, ()).is_none() {
                    symbols.push(Entry { symbol, section: None });
                }
            }
            let mut unit = Unit {
                retained: share.sections.iter().map(|i| plan.retained.contains(i)).collect(),
                sections,
                symbols,
                float: false,
            };
            unit.float = plan.float && unit.has_code();
            unit
        })
        .collect()
}
