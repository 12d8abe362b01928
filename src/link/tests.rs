use super::*;

const GNU: &str = "
Archive member included to satisfy reference by file (symbol)

Discarded input sections

 .rodata.kws.unused
                0x00000000      0x100 kws.a(kws.o)

Memory Configuration

Name             Origin             Length             Attributes
FLASH            0x00000000         0x00400000         xr
QSPI             0x90000000         0x00100000
RAM              0x20000000         0x00400000         xrw
*default*        0x00000000         0xffffffff

Linker script and memory map

LOAD kws.a

.text           0x00000000     0x11d8
 .text.kws.conv 0x000000d8      0x36a kws.a(kws.o)
                0x000000d8                kws_kernel_conv
 *fill*         0x00000442        0x2 
 .text.kws.run
                0x00000444       0x10 kws.a(kws.o)
                0x00000444                kws_run
                0x00000458                        . = ALIGN (0x8)

.a_section_with_a_long_name
                0x90000000      0x330 load address 0x00002000
 .qspi          0x90000000      0x330 kws.a(kws.o)
                0x90000000                kws_w

.bss            0x20000000      0xef0 load address 0x00005a78
 .bss.kws.arena
                0x20000050      0xea0 kws.a(kws.o)
                0x20000050                kws_arena
";

const LLD: &str = "     VMA      LMA     Size Align Out     In      Symbol
       0        0     11d8     4 .text
      d8       d8      36a     4         kws.a(kws.o):(.text.kws.conv)
      d8       d8        0     1                 $t
      d9       d9      36a     1                 kws_kernel_conv
     444      444       10     4         kws.a(kws.o):(.text.kws.run)
     445      445       10     1                 kws_run
90000000     2000      330    16 .a_section_with_a_long_name
90000000     2000      330    16         kws.a(kws.o):(.qspi)
90000000     2000      330     1                 kws_w
20000000     5a78      ef0    16 .bss
20000050     5ac8      ea0    16         kws.a(kws.o):(.bss.kws.arena)
20000050     5ac8      ea0     1                 kws_arena
";

fn item(symbol: &str, section: &str, kind: Kind, bytes: u64, memory: Option<&str>) -> Item {
    Item {
        symbol: symbol.into(),
        section: section.into(),
        kind,
        bytes,
        align: 4,
        memory: memory.map(str::to_owned),
    }
}

fn built() -> Built {
    Built {
        items: vec![
            item("kws_kernel_conv", ".text.kws.conv", Kind::Code, 0x36a, None),
            item("kws_run", ".text.kws.run", Kind::Code, 0x10, None),
            item("kws_w", ".qspi", Kind::Constant, 0x330, Some("QSPI")),
            item("kws_unused", ".rodata.kws.unused", Kind::Constant, 0x100, None),
            item("kws_arena", ".bss.kws.arena", Kind::Zero, 0xea0, None),
        ],
        memory: vec!["QSPI=0x90000000:1M".parse().unwrap()],
    }
}

fn wanted(built: &Built) -> BTreeSet<&str> {
    built.items.iter().map(|item| item.symbol.as_str()).collect()
}

use std::collections::BTreeSet;

#[test]
fn maps_of_both_linkers_say_the_same() {
    let built = built();
    let gnu = map::read(GNU.as_bytes(), &wanted(&built)).unwrap();
    let lld = map::read(LLD.as_bytes(), &wanted(&built)).unwrap();
    assert_eq!(gnu.symbols, lld.symbols);
    assert_eq!(gnu.symbols["kws_w"][0].load, Some(0x2000));
    assert_eq!(gnu.symbols["kws_kernel_conv"][0].address, 0xd8);
    let memory: Vec<String> = gnu
        .memory
        .iter()
        .map(|m| format!("{} {}", m.name, m.access()))
        .collect();
    assert_eq!(memory, ["FLASH rx", "QSPI rwx", "RAM rwx"]);
}

#[test]
fn what_is_well_is_said_to_be() {
    let built = built();
    let linked = map::read(GNU.as_bytes(), &wanted(&built)).unwrap();
    let checked = check(std::slice::from_ref(&built), &linked, &[]);
    assert_eq!(checked.findings, []);
    crate::output::assert_golden("src/output/golden/check-link.txt", &checked.text());
    crate::output::assert_golden("src/output/golden/check-link.json", &checked.json());
}

/// Each thing that can be wrong, alone.
#[test]
fn what_is_wrong_is_found() {
    let good = |built: &Built| {
        let mut linked = Linked::default();
        for (i, item) in built.items.iter().enumerate() {
            let (zero, code) = (item.kind == Kind::Zero, item.kind == Kind::Code);
            let address = if item.memory.is_some() {
                0x9000_0000
            } else {
                0x1000 * (i as u64 + 1)
            };
            let spot = Spot {
                address,
                bytes: Some(item.bytes),
                load: Some(address),
                section: if zero { ".bss" } else { ".text" }.into(),
                writable: Some(zero),
                executable: Some(code),
                stored: Some(!zero),
            };
            linked.symbols.insert(item.symbol.clone(), vec![spot]);
        }
        linked
    };
    let built = built();
    let found = |symbol: &str, change: &dyn Fn(&mut Vec<Spot>)| {
        let mut linked = good(&built);
        change(linked.symbols.get_mut(symbol).unwrap());
        let checked = check(std::slice::from_ref(&built), &linked, &[]);
        let text: Vec<String> = checked
            .findings
            .iter()
            .map(|f| format!("{} {}", f.symbol, f.message))
            .collect();
        text.join("\n")
    };
    assert_eq!(found("kws_w", &|_| {}), "");
    assert_eq!(found("kws_unused", &|spots| spots.clear()), "");
    type Change = dyn Fn(&mut Vec<Spot>);
    let cases: [(&str, &Change, &str); 12] = [
        (
            "kws_w",
            &|s| (s[0].address, s[0].load) = (0x2000, Some(0x2000)),
            "kws_w is at 0x2000 in .text, not in QSPI (0x90000000..0x90100000)",
        ),
        ("kws_w", &|s| s[0].bytes = Some(1), "kws_w has 1 bytes, 816 were built"),
        (
            "kws_run",
            &|s| (s[0].address, s[0].load) = (2, Some(2)),
            "kws_run is at 0x2, which is not aligned to 4 bytes",
        ),
        (
            "kws_run",
            &|s| s.push(s[0].clone()),
            "kws_run is there 2 times: at 0x2000, 0x2000",
        ),
        (
            "kws_unused",
            &|s| s[0].section = ".data".into(),
            "kws_unused is in .data, which is writable: it takes RAM and is copied at start-up",
        ),
        (
            "kws_unused",
            &|s| s[0].writable = Some(true),
            "kws_unused is in .text, which is writable: it takes RAM and is copied at start-up",
        ),
        (
            "kws_unused",
            &|s| s[0].load = Some(0),
            "kws_unused is stored at 0x0 and runs at 0x4000: the start-up code would have to copy it",
        ),
        // Flash that is described as such is read in place.
        ("kws_w", &|s| s[0].load = Some(0), ""),
        (
            "kws_run",
            &|s| s[0].executable = Some(false),
            "kws_run is in .text, which is not executable",
        ),
        (
            "kws_arena",
            &|s| s[0].writable = Some(false),
            "kws_arena is in .bss, which is read-only",
        ),
        (
            "kws_arena",
            &|s| s[0].stored = Some(true),
            "kws_arena has its 3744 zeros stored in the image, in .bss",
        ),
        ("kws_arena", &|s| s[0].load = Some(0), ""),
    ];
    for (symbol, change, expected) in cases {
        assert_eq!(found(symbol, change), expected);
    }
    let nothing = check(std::slice::from_ref(&built), &Linked::default(), &[]);
    assert!(nothing.findings[0].message.contains("nothing of what was built"));
}

/// The user's description of a memory comes before the build's.
#[test]
fn descriptions_have_an_order() {
    let built = built();
    let linked = map::read(GNU.as_bytes(), &wanted(&built)).unwrap();
    let elsewhere = "QSPI=0x60000000:1M".parse().unwrap();
    let checked = check(&[built], &linked, &[elsewhere]);
    assert!(
        checked.findings[0].message.contains("not in QSPI (0x60000000"),
        "{:?}",
        checked.findings
    );
}

/// Cut short or with a byte changed, every input is read or refused, and never a panic.
#[test]
fn inputs_that_nobody_vouches_for() {
    let built = built();
    let wanted = wanted(&built);
    let elf = object_bytes();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let report = br#"{"schema":1,"sections":[{"name":".q","symbol":"kws_w","kind":"zero","bytes":1,"align":0}]}"#;
    for seed in [GNU.as_bytes(), LLD.as_bytes(), &elf, report] {
        for _ in 0..400 {
            let mut bytes = seed.to_vec();
            match next(3) {
                0 => bytes.truncate(next(seed.len())),
                _ => {
                    for _ in 0..=next(8) {
                        let at = next(bytes.len());
                        bytes[at] = next(256) as u8;
                    }
                }
            }
            let _ = map::read(&bytes, &wanted);
            let _ = elf::read(&bytes, &wanted);
            if let Ok(other) = built::read(&bytes) {
                let linked = map::read(GNU.as_bytes(), &wanted).unwrap();
                let _ = check(&[other], &linked, &[]).text();
            }
        }
    }
}

/// A small object of our own.
fn object_bytes() -> Vec<u8> {
    use crate::data::{Bytes, Contents};
    use crate::object::{Datum, Visibility, plan, write};
    let target = crate::target::Target::new(Some("riscv32imc-unknown-none-elf"), None, None).unwrap();
    let datum = Datum {
        symbol: "kws_w".into(),
        section: ".qspi".into(),
        align: 4,
        contents: Contents::Bytes(Bytes::from_vec(vec![1; 64])),
        visibility: Visibility::Hidden,
    };
    let mut bytes = Vec::new();
    write(&plan(Vec::new(), vec![datum]).unwrap(), &target, &mut bytes).unwrap();
    bytes
}

#[test]
fn libraries_and_reports_say_what_was_built() {
    let from_object = built::read(&object_bytes()).unwrap();
    assert_eq!(
        from_object.items,
        [Item {
            align: 4,
            ..item("kws_w", ".qspi", Kind::Constant, 64, None)
        }]
    );
    let report = r#"{"schema": 1, "other": [],
        "sections": [{"name": ".qspi", "symbol": "kws_w", "kind": "constant", "bytes": 64, "align": 4, "memory": "QSPI"}],
        "memory": [{"name": "QSPI", "origin": 2415919104, "length": 1048576, "access": "rx"}]}"#;
    let from_report = built::read(report.as_bytes()).unwrap();
    assert_eq!(
        from_report.items,
        [item("kws_w", ".qspi", Kind::Constant, 64, Some("QSPI"))]
    );
    assert_eq!(from_report.memory, ["QSPI=0x90000000:1M".parse().unwrap()]);
    for (text, expected) in [
        ("", "neither a report nor a library"),
        ("{\"schema\": 2, \"sections\": []}", "a report of schema 2"),
        ("{\"schema\": 1, \"sections\": []}", "nothing that corerope built"),
        ("!<arch>\n", "nothing that corerope built"),
        ("!<arch>\nx", "a broken archive"),
        ("\u{7f}ELFx", "a broken object"),
    ] {
        let error = built::read(text.as_bytes()).unwrap_err();
        assert!(error.message.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn objects_and_other_files_are_no_programs() {
    let none = BTreeSet::new();
    let error = elf::read(&object_bytes(), &none).unwrap_err();
    assert!(error.message.contains("it is not linked"), "{error}");
    assert!(elf::read(b"MZ", &none).is_err());
    assert!(map::read(b"\xff\xfe", &none).is_err());
}
