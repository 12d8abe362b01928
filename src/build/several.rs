//! Several models in one library.

use super::{Build, Options};
use crate::data::Contents;
use crate::error::{Code, Error, Result};
use crate::kernels::entry::ArenaKind;
use crate::names::{self, Named, Names};
use crate::object::{self, Datum, ObjectPlan, Visibility, archive};
use crate::output::header::shared_arena;
use crate::place::{self, Built, Rule};
use crate::plan::Io;
use crate::target::Format;
use std::collections::BTreeMap;

/// The rules of `--place` that are about this model, and the numbers of those that are not, if there may be any.
pub(super) fn rules(options: &Options, built: &Built, names: &Names) -> (Vec<Rule>, Vec<usize>) {
    if !options.some_rules {
        return (options.place.clone(), Vec::new());
    }
    let matches = |rule: &Rule| place::apply(std::slice::from_ref(rule), built, &mut names.clone()).is_ok();
    let (mut about, mut idle) = (Vec::new(), Vec::new());
    for (i, rule) in options.place.iter().enumerate() {
        if matches(rule) {
            about.push(rule.clone());
        } else {
            idle.push(i);
        }
    }
    (about, idle)
}

/// An arena that is large enough for each of several models.
#[derive(Clone, Debug)]
pub struct SharedArena {
    /// Its prefix, symbol and section.
    pub prefix: String,
    named: Named,
    /// Bytes.
    pub size: u64,
    /// Alignment.
    pub align: u64,
    /// Its object, if it is static and not empty.
    object: Option<ObjectPlan>,
}

/// Several models that are built together.
#[derive(Clone, Debug)]
pub struct Library {
    /// The models.
    pub builds: Vec<Build>,
    /// The arena that they share, if they do.
    pub arena: Option<SharedArena>,
}

/// The prefix that a shared arena gets from the library's name.
pub fn prefix(library: &str) -> String {
    names::prefix(library)
}

impl Library {
    /// A library of models that were built with [`Options::some_rules`] and, if they share an arena under a prefix, with
    /// [`Options::shared_arena`] for a static one.
    ///
    /// # Errors
    /// [`Code::Usage`] for names that clash and for rules of `--place` that match nothing in any model.
    pub fn new(builds: Vec<Build>, shared: Option<&str>) -> Result<Library> {
        if let Some(first) = builds.first()
            && builds.len() > 1
        {
            let idle = first
                .idle
                .iter()
                .find(|i| builds.iter().all(|build| build.idle.contains(i)));
            if let Some(rule) = idle.and_then(|i| first.options.place.get(*i)) {
                return Err(
                    Error::new(Code::Usage, format!("--place {:?} matches nothing", rule.text()))
                        .help("`corerope inspect MODEL --json` lists all names"),
                );
            }
        }
        let arena = shared.map(|prefix| SharedArena::new(&builds, prefix)).transpose()?;
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for build in &builds {
            let file = build.options.file.as_str();
            if Some(build.names.model.as_str()) == shared {
                return Err(
                    Error::new(Code::Usage, format!("the library has the name of its model {file}"))
                        .help("give the output another name: its arena is called after it"),
                );
            }
            let defined = build.object.symbols.iter().filter(|symbol| symbol.section.is_some());
            for symbol in defined.filter(|symbol| symbol.visibility != Visibility::Local) {
                if let Some(other) = owners.insert(&symbol.name, file) {
                    let message = format!("{other} and {file} both have a symbol {}", symbol.name);
                    return Err(Error::new(Code::Usage, message)
                        .help("symbols begin with the name of the model's file: rename one of the files"));
                }
            }
        }
        Ok(Library { builds, arena })
    }

    /// The objects and their names in the archive.
    pub fn members(&self) -> Vec<(String, &ObjectPlan)> {
        let coff = self
            .builds
            .first()
            .is_some_and(|build| build.options.target.format() == Format::Coff);
        let name = |stem: &str| format!("{stem}.{}", if coff { "obj" } else { "o" });
        let models = self
            .builds
            .iter()
            .map(|build| (name(&build.names.model), &build.object));
        let arena = self
            .arena
            .as_ref()
            .and_then(|arena| Some((name(&arena.named.symbol), arena.object.as_ref()?)));
        models.chain(arena).collect()
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// As [`archive::write`].
    pub fn write(&self, out: &mut dyn std::io::Write) -> Result<()> {
        let members = self.members();
        let members: Vec<archive::Member> = members
            .iter()
            .map(|(name, plan)| archive::Member { name, plan })
            .collect();
        let target = self.builds.first().map(|build| &build.options.target);
        archive::write(
            &members,
            target.ok_or_else(|| Error::internal("a library of no models"))?,
            out,
        )
    }

    /// The C header, `file` being its name: those of the models, one after the other.
    ///
    /// # Errors
    /// [`Code::Internal`] if the template is wrong.
    pub fn header(&self, file: &str) -> Result<String> {
        let mut text = String::new();
        for build in &self.builds {
            text += &build.header(file)?;
            text += "\n";
        }
        if let Some(arena) = &self.arena {
            let symbol = arena.object.as_ref().map(|_| arena.named.symbol.as_str());
            let inside = self.builds.iter().any(|build| build.options.io == Io::Arena);
            text += &shared_arena(&arena.prefix, symbol.filter(|_| inside), arena.size, arena.align)?;
        }
        Ok(text)
    }

    /// The linker-script fragment, `file` being its name.
    ///
    /// # Errors
    /// [`Code::Internal`] if the template is wrong.
    pub fn fragment(&self, file: &str) -> Result<String> {
        let mut texts = self
            .builds
            .iter()
            .map(|build| build.fragment(file))
            .collect::<Result<Vec<_>>>()?;
        if let Some(arena) = &self.arena
            && let Some(object) = &arena.object
        {
            let fragment = crate::output::linker::Fragment {
                file,
                title: &arena.prefix,
                model: &arena.prefix,
                regions: self.builds.first().map_or(&[], |build| &build.regions),
                object,
            };
            texts.push(fragment.text()?);
        }
        Ok(texts.join("\n"))
    }
}

impl SharedArena {
    fn new(builds: &[Build], prefix: &str) -> Result<SharedArena> {
        let size = builds.iter().map(|build| build.plan.arena_size).max().unwrap_or(0);
        let align = builds.iter().map(|build| build.plan.arena_align).max().unwrap_or(1);
        let is_static = builds.iter().all(|build| build.options.arena == ArenaKind::Static);
        let named = builds.iter().find(|build| build.plan.arena_size > 0).or(builds.first());
        let named = named.map(|build| build.names.arena.clone());
        let named = named.ok_or_else(|| Error::internal("an arena of no models"))?;
        let datum = || Datum {
            symbol: named.symbol.clone(),
            section: named.section.clone(),
            align,
            contents: Contents::Zero(size),
            visibility: Visibility::Hidden,
        };
        let object = (is_static && size > 0)
            .then(|| object::plan(Vec::new(), vec![datum()]))
            .transpose()?;
        Ok(SharedArena {
            prefix: prefix.to_owned(),
            named,
            size,
            align,
            object,
        })
    }
}
