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

fn object() -> ObjectPlan {
    ObjectPlan {
        sections: vec![
            section(".text.kws.conv2d_1", SectionKind::Text, 16, 300),
            section(".text.kws.run", SectionKind::Text, 16, 40),
            section(".rodata.kws.conv2d_1_weights", SectionKind::ReadOnlyData, 16, 2560),
            section(".bss.kws.arena", SectionKind::Zero, 16, 16000),
        ],
        ..ObjectPlan::default()
    }
}

fn text(dialect: Dialect, object: &ObjectPlan, placement: &Placement) -> Result<String> {
    let fragment = Fragment {
        file: "kws.ld",
        titles: &["it's \"kws\""],
        placement,
        parts: &[Part { model: "kws", object }],
    };
    fragment.text(dialect)
}

const ALL: [Dialect; 4] = [Dialect::Gnu, Dialect::Iar, Dialect::Keil, Dialect::Ti];

#[test]
fn fragments() {
    let mut object = object();
    for dialect in ALL {
        let path = format!("src/output/golden/default.{}", dialect.extension());
        assert_golden(&path, &text(dialect, &object, &Placement::default()).unwrap());
    }
    object.sections[2].name = ".qspi".into();
    object
        .sections
        .push(section(".qspi", SectionKind::ReadOnlyData, 64, 128));
    object.sections[3].name = ".sdram".into();
    let mut placement = Placement::default();
    placement.sections.push((".qspi".into(), "QSPI".into()));
    // A memory of the main script's, and none at all.
    assert_golden(
        "src/output/golden/placed.ld",
        &text(Dialect::Gnu, &object, &placement).unwrap(),
    );
    for dialect in [Dialect::Iar, Dialect::Ti] {
        let path = format!("src/output/golden/placed.{}", dialect.extension());
        assert_golden(&path, &text(dialect, &object, &placement).unwrap());
    }
    let error = text(Dialect::Keil, &object, &placement).unwrap_err();
    assert!(error.message.contains("the address of QSPI"), "{error}");

    // Memories that are described: one for two sections, one of the main script's, one for the arena.
    object
        .sections
        .push(section(".qspi-2", SectionKind::ReadOnlyData, 8, 24));
    object.sections[1].name = ".itcm".into();
    placement.sections.extend([
        (".qspi-2".into(), "QSPI".into()),
        (".sdram".into(), "SDRAM".into()),
        (".itcm".into(), "ITCM".into()),
    ]);
    placement.memory = ["ITCM=0:64K:rwx", "QSPI=0x90000000:16M", "SDRAM=0xc0000000:8M:rw"]
        .map(|region| region.parse().unwrap())
        .to_vec();
    placement.memory[0].existing = true;
    for dialect in ALL {
        let path = format!("src/output/golden/memories.{}", dialect.extension());
        assert_golden(&path, &text(dialect, &object, &placement).unwrap());
    }
}

/// Scatter files go through a C preprocessor: no quote may stay open.
#[test]
fn scatter_files_have_no_quotes() {
    let text = text(Dialect::Keil, &object(), &Placement::default()).unwrap();
    assert!(!text.contains(['"', '\'']), "{text}");
}

#[test]
fn identifiers_are_distinct() {
    let ids = identifiers([".a-b", ".a.b", "A_B", ".a_b_2"].into_iter());
    let ids: Vec<&str> = ids.values().map(String::as_str).collect();
    assert_eq!(ids, ["A_B", "A_B_2", "A_B_2_2", "A_B_3"]);
}
