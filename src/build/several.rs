//! Several models in one library.

use super::Build;
use crate::data::Contents;
use crate::error::{Code, Error, Result};
use crate::kernels::entry::ArenaKind;
use crate::names::{self, Named};
use crate::object::foreign::Extra;
use crate::object::{self, Datum, ObjectPlan, Visibility, archive};
use crate::output::header::{self, shared_arena};
use crate::output::linker::{Dialect, Fragment, Part};
use crate::plan::Io;
use crate::target::Format;
use std::collections::BTreeMap;

/// An arena that is large enough for each of several models.
#[derive(Clone, Debug)]
pub struct SharedArena {
    /// Its prefix.
    pub prefix: String,
    /// Bytes, of all parts together.
    pub size: u64,
    /// Its part in each memory: one if it is not divided.
    parts: Vec<SharedPart>,
    /// Alignment.
    pub align: u64,
    /// Its object, if it is static and not empty.
    object: Option<ObjectPlan>,
}

/// The part of a shared arena in one memory.
#[derive(Clone, Debug)]
struct SharedPart {
    /// What its macros are called after, where there are several.
    word: Option<String>,
    /// Symbol and section.
    named: Named,
    /// Bytes.
    size: u64,
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

/// The objects of others that the models bring, each once: what `--kernels` gives is given to every model.
fn extras(builds: &[Build]) -> Vec<&Extra> {
    let mut extras: Vec<&Extra> = Vec::new();
    for extra in builds.iter().flat_map(|build| &build.extras) {
        let same = |other: &&Extra| other.name == extra.name && other.bytes.as_slice() == extra.bytes.as_slice();
        if !extras.iter().any(same) {
            extras.push(extra);
        }
    }
    extras
}

impl Library {
    /// A library of models that were built with the same options but their names, with
    /// [`some_rules`](super::Options::some_rules) and, if they share an arena under a prefix, with
    /// [`shared_arena`](super::Options::shared_arena) for a static one.
    ///
    /// # Errors
    /// [`Code::Usage`] for names and symbols that clash, for rules and patterns that match nothing in any model, and for memories
    /// that are too small for all.
    pub fn new(builds: Vec<Build>, shared: Option<&str>) -> Result<Library> {
        if let Some(first) = builds.first() {
            let everywhere = |idle: &&Error| {
                let same = |build: &Build| build.idle.iter().any(|other| other.message == idle.message);
                builds.iter().all(same)
            };
            let idle = first.idle.iter().filter(everywhere).cloned().collect();
            if let Some(error) = Error::collect(idle) {
                return Err(error);
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
            let seen = |visibility| matches!(visibility, Visibility::Hidden | Visibility::Exported);
            for symbol in defined.filter(|symbol| seen(symbol.visibility)) {
                if let Some(other) = owners.insert(&symbol.name, file) {
                    let message = format!("{other} and {file} both have a symbol {}", symbol.name);
                    return Err(Error::new(Code::Usage, message)
                        .help("symbols begin with the name of the model's file: rename one of the files"));
                }
            }
        }
        let extras = extras(&builds);
        for extra in &extras {
            for symbol in &extra.strong {
                if let Some(other) = owners.insert(symbol, &extra.name) {
                    let message = format!("{other} and {} of {} both define {symbol}", extra.name, extra.origin);
                    return Err(Error::new(Code::Usage, message).help("build a library of each model"));
                }
            }
        }
        drop(owners);
        let library = Library { builds, arena };
        if let Some(first) = library.builds.first() {
            first.placement.check(&library.objects())?;
        }
        Ok(library)
    }

    fn objects(&self) -> Vec<&ObjectPlan> {
        let arena = self.arena.iter().filter_map(|arena| arena.object.as_ref());
        self.builds.iter().map(|build| &build.object).chain(arena).collect()
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
            .and_then(|arena| Some((name(&format!("{}_arena", arena.prefix)), arena.object.as_ref()?)));
        models.chain(arena).collect()
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// As [`archive::library`].
    pub fn write(&self, out: &mut dyn std::io::Write) -> Result<()> {
        let members = self.members();
        let members: Vec<archive::Member> = members
            .iter()
            .map(|(name, plan)| archive::Member { name, plan })
            .collect();
        let target = self.builds.first().map(|build| &build.options.target);
        let target = target.ok_or_else(|| Error::internal("a library of no models"))?;
        let extras: Vec<Extra> = extras(&self.builds).into_iter().cloned().collect();
        archive::library_with(&members, &extras, target, out)
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
            let inside = self.builds.iter().any(|build| build.options.io == Io::Arena);
            let seen = inside && arena.object.is_some();
            let parts: Vec<header::SharedPart> = (arena.parts.iter())
                .map(|part| header::SharedPart {
                    word: part.word.as_deref(),
                    symbol: (seen && part.size > 0).then_some(part.named.symbol.as_str()),
                    size: part.size,
                })
                .collect();
            text += &shared_arena(&arena.prefix, &parts, arena.align)?;
        }
        Ok(text)
    }

    /// The linker-script fragment in a dialect, `file` being its name.
    ///
    /// # Errors
    /// As [`Fragment::text`].
    pub fn fragment(&self, file: &str, dialect: Dialect) -> Result<String> {
        let [first, ..] = self.builds.as_slice() else {
            return Err(Error::internal("a library of no models"));
        };
        let titles: Vec<&str> = self.builds.iter().map(|build| build.graph.name.as_str()).collect();
        let models = self.builds.iter().map(|build| Part {
            model: &build.names.model,
            object: &build.object,
        });
        let arena = self.arena.iter().filter_map(|arena| {
            Some(Part {
                model: &arena.prefix,
                object: arena.object.as_ref()?,
            })
        });
        let fragment = Fragment {
            file,
            titles: &titles,
            // Every model knows all rules.
            placement: &first.placement,
            parts: &models.chain(arena).collect::<Vec<_>>(),
        };
        fragment.text(dialect)
    }
}

impl SharedArena {
    fn new(builds: &[Build], prefix: &str) -> Result<SharedArena> {
        // Rules about sizes are about that of the largest. All models have the same memories.
        let mut largest = builds.first().ok_or_else(|| Error::internal("an arena of no models"))?;
        for build in builds {
            if build.plan.arena_size > largest.plan.arena_size {
                largest = build;
            }
        }
        let align = builds.iter().map(|build| build.plan.arena_align).max().unwrap_or(1);
        let is_static = builds.iter().all(|build| build.options.arena == ArenaKind::Static);
        let bytes = |build: &Build, i: usize| build.plan.areas().get(i).map_or(0, |(_, bytes)| *bytes);
        let parts: Vec<SharedPart> = (0..largest.plan.areas().len())
            .map(|i| {
                // The rules of a model with nothing there have not placed it.
                let most = builds.iter().map(|build| bytes(build, i)).max().unwrap_or(0);
                let of = builds.iter().find(|build| bytes(build, i) == most).unwrap_or(largest);
                SharedPart {
                    word: (!of.names.pools.is_empty()).then(|| of.names.pool_word(i).to_owned()),
                    named: of.names.pool(i).clone(),
                    size: most,
                }
            })
            .collect();
        let size = parts.iter().map(|part| part.size).sum();
        let datum = |part: &SharedPart| Datum {
            symbol: part.named.symbol.clone(),
            section: part.named.section.clone(),
            align,
            contents: Contents::Zero(part.size),
            visibility: Visibility::Hidden,
        };
        let data: Vec<Datum> = parts.iter().filter(|part| part.size > 0).map(datum).collect();
        let mut object = (is_static && size > 0)
            .then(|| object::plan(Vec::new(), data))
            .transpose()?;
        if let Some(object) = &mut object {
            largest.placement.finish(object)?;
            object.retain(builds.iter().flat_map(|build| &build.kept).map(String::as_str));
        }
        Ok(SharedArena {
            prefix: prefix.to_owned(),
            size,
            parts,
            align,
            object,
        })
    }
}
