//! A linker-script fragment for GNU ld and lld: one output section for each kind and each section of `--place`.

use super::{comment, render};
use crate::error::Result;
use crate::object::{ObjectPlan, SectionKind};
use minijinja::{Value, context};

/// What a fragment is made from.
pub struct Fragment<'a> {
    /// The fragment's own file name.
    pub file: &'a str,
    /// The model's name.
    pub title: &'a str,
    /// The prefix of its symbols and sections.
    pub model: &'a str,
    /// Sections of `--place` that have a memory of their own.
    pub regions: &'a [(String, String)],
    /// The object.
    pub object: &'a ObjectPlan,
}

/// An output section.
struct Rule {
    output: String,
    patterns: Vec<String>,
    about: &'static str,
    after: &'static str,
    region: Option<String>,
    kind: Option<SectionKind>,
    bytes: u64,
    align: u64,
}

impl Fragment<'_> {
    /// The fragment's text.
    ///
    /// # Errors
    /// [`Code::Internal`](crate::error::Code::Internal) if the template is wrong.
    pub fn text(&self) -> Result<String> {
        let rules: Vec<Value> = self
            .rules()
            .into_iter()
            .map(|rule| {
                context! {
                    output => rule.output,
                    patterns => rule.patterns,
                    about => rule.about,
                    after => rule.after,
                    region => rule.region,
                    bytes => rule.bytes,
                    align => rule.align,
                }
            })
            .collect();
        render(
            include_str!("../../linker-scripts/fragment.ld"),
            context! {
                file => comment(self.file),
                title => comment(self.title),
                version => env!("CARGO_PKG_VERSION"),
                model => self.model,
                rules,
            },
        )
    }

    /// Placed sections first, in the object's order; then the kinds.
    fn rules(&self) -> Vec<Rule> {
        let default = |kind| match kind {
            SectionKind::Text => (".text", "machine code", ".text"),
            // Many scripts hold constants in .text: every script has that one.
            SectionKind::ReadOnlyData => (".rodata", "parameters", ".text"),
            SectionKind::Zero => (".bss", "the arena", ".bss"),
            SectionKind::Debug => (".debug", "debug information", ""),
        };
        let mut placed: Vec<Rule> = Vec::new();
        let mut kinds: Vec<Rule> = [SectionKind::Text, SectionKind::ReadOnlyData, SectionKind::Zero]
            .into_iter()
            .map(|kind| {
                let (prefix, about, after) = default(kind);
                Rule {
                    output: format!("{prefix}.{}", self.model),
                    patterns: vec![format!("{prefix}.{}.*", self.model)],
                    about,
                    after,
                    region: None,
                    kind: Some(kind),
                    bytes: 0,
                    align: 1,
                }
            })
            .collect();
        let loaded = |section: &&crate::object::Section| section.kind != SectionKind::Debug;
        for section in self.object.sections.iter().filter(loaded) {
            let (prefix, about, after) = default(section.kind);
            let rule = if section.name.starts_with(&format!("{prefix}.{}.", self.model)) {
                kinds.iter_mut().find(|rule| rule.kind == Some(section.kind))
            } else {
                if !placed.iter().any(|rule| rule.output == section.name) {
                    let region = self.regions.iter().find(|(name, _)| *name == section.name);
                    placed.push(Rule {
                        output: section.name.clone(),
                        patterns: vec![section.name.clone()],
                        about,
                        after,
                        region: region.map(|(_, region)| region.clone()),
                        kind: None,
                        bytes: 0,
                        align: 1,
                    });
                }
                placed.iter_mut().find(|rule| rule.output == section.name)
            };
            if let Some(rule) = rule {
                rule.bytes = rule.bytes.next_multiple_of(section.align.max(1)) + section.contents.len();
                rule.align = rule.align.max(section.align);
                if rule.about != about {
                    rule.about = "of several kinds";
                }
            }
        }
        placed.extend(kinds.into_iter().filter(|rule| rule.bytes > 0));
        placed
    }
}

#[cfg(test)]
mod tests {
    use super::super::assert_golden;
    use super::*;
    use crate::data::{Bytes, Contents};
    use crate::object::Section;

    fn section(name: &str, kind: SectionKind, align: u64, bytes: u64) -> Section {
        Section {
            name: name.into(),
            kind,
            align,
            contents: match kind {
                SectionKind::Zero => Contents::Zero(bytes),
                _ => Contents::Bytes(Bytes::from_vec(vec![0; bytes as usize])),
            },
            relocations: Vec::new(),
        }
    }

    #[test]
    fn fragments() {
        let mut object = ObjectPlan {
            sections: vec![
                section(".text.kws.conv2d_1", SectionKind::Text, 16, 300),
                section(".text.kws.run", SectionKind::Text, 16, 40),
                section(".rodata.kws.conv2d_1_weights", SectionKind::ReadOnlyData, 16, 2560),
                section(".bss.kws.arena", SectionKind::Zero, 16, 16000),
            ],
            ..ObjectPlan::default()
        };
        let text = |object: &ObjectPlan, regions: &[(String, String)]| {
            let fragment = Fragment {
                file: "kws.ld",
                title: "kws",
                model: "kws",
                regions,
                object,
            };
            fragment.text().unwrap()
        };
        assert_golden("src/output/golden/default.ld", &text(&object, &[]));
        object.sections[2].name = ".qspi".into();
        object
            .sections
            .push(section(".qspi", SectionKind::ReadOnlyData, 64, 128));
        object.sections[3].name = ".sdram".into();
        assert_golden(
            "src/output/golden/placed.ld",
            &text(&object, &[(".qspi".into(), "QSPI".into())]),
        );
    }
}
