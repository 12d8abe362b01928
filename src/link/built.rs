//! What was built: the report of a build, or its library.

use super::{Built, Item, Kind};
use crate::error::{Error, Result};
use crate::limits;
use crate::place::Region;
use object::read::archive::ArchiveFile;
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};
use serde::Deserialize;

#[derive(Deserialize)]
struct Report {
    schema: u32,
    sections: Vec<Section>,
    #[serde(default)]
    memory: Vec<Memory>,
}

#[derive(Deserialize)]
struct Section {
    name: String,
    symbol: String,
    kind: String,
    bytes: u64,
    align: u64,
    memory: Option<String>,
}

#[derive(Deserialize)]
struct Memory {
    name: String,
    origin: u64,
    length: u64,
    access: String,
}

const HELP: &str = "give the report that `corerope build --report FILE` wrote, or the library (.a, .o) itself";

fn too_many(what: &str, limit: usize) -> Error {
    Error::new(crate::error::Code::Limit, format!("more than {limit} {what}")).help(HELP)
}

/// Reads a report or a library, whichever the bytes are.
///
/// # Errors
/// [`Code::Model`](crate::error::Code::Model) for bytes that are neither, [`Code::Limit`](crate::error::Code::Limit)
/// for too much of anything.
pub fn read(bytes: &[u8]) -> Result<Built> {
    let built = if bytes.starts_with(b"!<arch>\n") {
        archive(bytes)?
    } else if bytes.starts_with(b"\x7fELF") {
        let mut built = Built::default();
        library(bytes, &mut built)?;
        built
    } else {
        report(bytes)?
    };
    if built.items.is_empty() {
        return Err(Error::model("nothing that corerope built is in it").help(HELP));
    }
    Ok(built)
}

fn report(bytes: &[u8]) -> Result<Built> {
    let report: Report = serde_json::from_slice(bytes)
        .map_err(|error| Error::model(format!("neither a report nor a library: {error}")).help(HELP))?;
    if report.schema != crate::output::report::SCHEMA {
        let message = format!(
            "a report of schema {}, this version reads {}",
            report.schema,
            crate::output::report::SCHEMA
        );
        return Err(Error::model(message).help("write the report with the same version of corerope"));
    }
    if report.sections.len() > limits::LINK_ITEMS || report.memory.len() > limits::PLACE_RULES {
        return Err(too_many("sections or memories", limits::LINK_ITEMS));
    }
    let memory = report
        .memory
        .iter()
        .map(|m| Region::new(&m.name, m.origin, m.length, &m.access));
    let memory = memory.collect::<Result<Vec<_>>>()?;
    let items = report.sections.into_iter().map(|section| {
        let kind = match section.kind.as_str() {
            "code" => Kind::Code,
            "constant" => Kind::Constant,
            "zero" => Kind::Zero,
            other => return Err(Error::model(format!("{other:?} is no kind of section")).help(HELP)),
        };
        Ok(Item {
            symbol: section.symbol,
            section: section.name,
            kind,
            bytes: section.bytes,
            align: section.align,
            memory: section.memory,
        })
    });
    Ok(Built {
        items: items.collect::<Result<Vec<_>>>()?,
        memory,
    })
}

fn archive(bytes: &[u8]) -> Result<Built> {
    let broken = |error: object::Error| Error::model(format!("a broken archive: {error}")).help(HELP);
    let archive = ArchiveFile::parse(bytes).map_err(broken)?;
    let mut built = Built::default();
    for member in archive.members() {
        let data = member.and_then(|member| member.data(bytes)).map_err(broken)?;
        if data.starts_with(b"\x7fELF") {
            library(data, &mut built)?;
        }
    }
    Ok(built)
}

/// Adds every section with a symbol of its whole.
fn library(bytes: &[u8], built: &mut Built) -> Result<()> {
    let broken = |error: object::Error| Error::model(format!("a broken object: {error}")).help(HELP);
    let file = object::File::parse(bytes).map_err(broken)?;
    for symbol in file.symbols() {
        let Some(index) = symbol.section_index() else { continue };
        if symbol.size() == 0 {
            continue;
        }
        let section = file.section_by_index(index).map_err(broken)?;
        let kind = match section.kind() {
            SectionKind::Text => Kind::Code,
            SectionKind::ReadOnlyData | SectionKind::ReadOnlyString => Kind::Constant,
            SectionKind::UninitializedData => Kind::Zero,
            _ => continue,
        };
        if built.items.len() == limits::LINK_ITEMS {
            return Err(too_many("symbols", limits::LINK_ITEMS));
        }
        built.items.push(Item {
            symbol: symbol.name().map_err(broken)?.to_owned(),
            section: section.name().map_err(broken)?.to_owned(),
            kind,
            bytes: symbol.size(),
            align: section.align(),
            memory: None,
        });
    }
    Ok(())
}
