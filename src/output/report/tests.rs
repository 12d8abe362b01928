//! The report against golden files.

use super::super::assert_golden;
use super::*;

fn report() -> Report {
    let layer = |index: usize, operator, kernel: &str, shared: bool| Layer {
        index,
        source: index,
        name: format!("model/layer{index}"),
        operator,
        dtype: "int8",
        shape: vec![1, 25, 5, 64],
        macs: 320_000 * (index as u64 + 1),
        instructions: (!shared).then_some(Instructions {
            least: 400_000,
            most: 400_000 + 1_234 * index as u64,
        }),
        cycles: None,
        layout: None,
        candidates: Vec::new(),
        kernel: kernel.into(),
        schedule: "pairs16 4px x 8ch".into(),
        code: 1240,
        shared,
        parameters: 3072,
        live: 16_000,
        rows: 0,
        scratch: 64,
    };
    Report {
        schema: SCHEMA,
        corerope: "0.0.0",
        model: Model {
            name: "kws".into(),
            file: "kws.tflite".into(),
            bytes: 53_936,
            operators: 13,
            macs: 2_656_768,
        },
        target: Target {
            triple: "riscv64gc-unknown-none-elf".into(),
            cpu: "rv64gc".into(),
            abi: Some("lp64f".into()),
        },
        flash: Flash {
            code: 9_000,
            weights: 22_000,
            biases: 1_000,
            scales: 976,
            tables: 1_024,
            other: 3_000,
            total: 34_000,
        },
        outside: None,
        ram: Ram {
            arena: 16_000,
            arena_align: 16,
            lower_bound: 16_000,
            optimal: true,
            provided_by: "static",
            io: "pointers",
            stack: 208,
            pools: Vec::new(),
        },
        inputs: vec![Port {
            name: "input_1".into(),
            member: "input_1".into(),
            dtype: "int8",
            shape: vec![1, 49, 10, 1],
            bytes: 490,
            scale: Some(0.5),
            zero_point: Some(83),
            offset: None,
            pool: None,
        }],
        outputs: vec![Port {
            name: "Identity".into(),
            member: "identity".into(),
            dtype: "float32",
            shape: vec![1, 12],
            bytes: 48,
            scale: None,
            zero_point: None,
            offset: Some(496),
            pool: None,
        }],
        instructions: Some(Instructions {
            least: 3_600_000,
            most: 3_659_457,
        }),
        cycles: None,
        layers: vec![
            layer(0, "conv2d", "conv2d_0", false),
            layer(1, "conv2d", "conv2d_0", true),
        ],
        peak: Some(Peak {
            layer: 1,
            row: Some(3),
            live: 16_000,
            buffers: vec![
                Live {
                    name: "model/layer0".into(),
                    kind: "tensor",
                    bytes: 8_000,
                },
                Live {
                    name: "model/layer1".into(),
                    kind: "scratch",
                    bytes: 64,
                },
            ],
            advice: vec!["--optimize ram runs chains of layers row by row".into()],
        }),
        dropped: (0..14)
            .map(|i| Dropped {
                name: format!("w{i}"),
                bytes: 64,
                reason: "equal to \"w\"".into(),
            })
            .collect(),
        external: None,
        sections: vec![Section {
            name: ".text.kws.conv2d_0".into(),
            symbol: "kws_kernel_conv2d_0".into(),
            kind: "code",
            bytes: 1240,
            align: 16,
            memory: None,
        }],
        memory: vec![Memory::new(&"QSPI=0x90000000:16M".parse().unwrap())],
        placement: vec![Placed {
            rule: "kind=weights=.qspi>QSPI".into(),
            section: ".qspi".into(),
            memory: Some("QSPI".into()),
            items: (0..6)
                .map(|i| PlacedItem {
                    symbol: format!("kws_w{i}"),
                    kind: "weights",
                    bytes: 1024,
                })
                .collect(),
        }],
    }
}

/// The text without its colours.
fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn texts() {
    let mut report = report();
    assert_golden("src/output/golden/report.txt", &plain(&report.text()));
    report.ram.lower_bound = 15_000;
    report.ram.optimal = false;
    assert!(plain(&report.summary()).contains("(lower bound 15,000;"));
    report.ram.optimal = true;
    assert!(plain(&report.summary()).contains("proven to be the least"));
    assert_ne!(plain(&report.text()), report.text());
}

#[test]
fn json_is_stable() {
    assert_golden("src/output/golden/report.json", &report().json());
}
