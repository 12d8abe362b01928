//! Code and speed of single layers, for whoever changes a schedule: ignored tests that print.

use super::super::lowered::LoweredOperand;
use super::super::testing::{Compiled, Edge, Guarded, all_targets, assemble, contents, hosts};
use super::tests::{Kind::*, Random, case, lower};
use crate::graph::{DType, OpId, TensorId};

/// Prints the code of a layer: `CASE=dw CPU=rv64gc cargo test print_code -- --ignored --nocapture`.
#[test]
#[ignore = "prints, for whoever changes a schedule"]
fn print_code() {
    let cpu = std::env::var("CPU").unwrap_or("x86-64-v2".into());
    let case = match std::env::var("CASE").as_deref() {
        Ok("dw") => case(Depthwise, [25, 5, 64], 1, [3, 3]).same().relu(),
        Ok("conv") => case(Conv, [16, 16, 16], 32, [3, 3]).stride(2, 2).same(),
        Ok("dense") => case(Dense, [1, 1, 640], 128, [1, 1]).relu(),
        _ => case(Conv, [25, 5, 64], 64, [1, 1]).relu(),
    };
    let dtype = if std::env::var("F32").is_ok() {
        DType::F32
    } else {
        DType::I8
    };
    let (graph, _) = case.graph(dtype, &mut Random(1)).unwrap();
    let target = all_targets().into_iter().find(|t| t.cpu.name == cpu).unwrap();
    let lowered = lower(&graph, &target);
    let (size, text) = assemble(&lowered.built.function, &target);
    println!("{} {size} bytes\n{text}", lowered.schedule);
}

/// Time of layers on this machine: `cargo test time_layers -- --ignored --nocapture`, one column for each CPU level.
#[test]
#[ignore = "prints, for whoever changes a schedule"]
fn time_layers() {
    let layers = [
        (
            "kws conv 10x4",
            case(Conv, [49, 10, 1], 64, [10, 4]).stride(2, 2).same().relu(),
        ),
        ("kws dw 3x3x64", case(Depthwise, [25, 5, 64], 1, [3, 3]).same().relu()),
        ("kws 1x1 64x64", case(Conv, [25, 5, 64], 64, [1, 1]).relu()),
        (
            "vww conv 3x3x3",
            case(Conv, [96, 96, 3], 8, [3, 3]).stride(2, 2).same().relu(),
        ),
        ("vww dw 48x48x8", case(Depthwise, [48, 48, 8], 1, [3, 3]).same().relu()),
        ("vww 1x1 8x16", case(Conv, [48, 48, 8], 16, [1, 1]).relu()),
        (
            "vww dw s2 16",
            case(Depthwise, [48, 48, 16], 1, [3, 3]).stride(2, 2).same().relu(),
        ),
        ("vww 1x1 32x32", case(Conv, [24, 24, 32], 32, [1, 1]).relu()),
        ("vww dw 6x6x128", case(Depthwise, [6, 6, 128], 1, [3, 3]).same().relu()),
        ("vww 1x1 128x128", case(Conv, [6, 6, 128], 128, [1, 1]).relu()),
        ("vww 1x1 256x256", case(Conv, [3, 3, 256], 256, [1, 1]).relu()),
        ("resnet 3x3x16", case(Conv, [32, 32, 16], 16, [3, 3]).same().relu()),
        ("resnet 3x3x64", case(Conv, [8, 8, 64], 64, [3, 3]).same()),
        (
            "micro_speech dw",
            case(Depthwise, [49, 40, 1], 8, [10, 8]).stride(2, 2).same().relu(),
        ),
        ("ad 640x128", case(Dense, [1, 1, 640], 128, [1, 1]).relu()),
        ("ad 128x640", case(Dense, [1, 1, 128], 640, [1, 1])),
    ];
    for dtype in [DType::I8, DType::F32] {
        for (name, case) in &layers {
            let mut line = format!("{dtype:?} {name:16}");
            for target in hosts() {
                let (graph, input) = case.graph(dtype, &mut Random(1)).unwrap();
                let lowered = lower(&graph, &target);
                let compiled = Compiled::new(&lowered.built, &target);
                let buffers: Vec<Guarded> = lowered
                    .operands
                    .iter()
                    .map(|operand| match operand {
                        LoweredOperand::Tensor(TensorId(0)) => Guarded::new(&input, 16, Edge::Start, true),
                        LoweredOperand::Tensor(id) => {
                            Guarded::new(&vec![0; graph.tensor(*id).bytes()], 16, Edge::Start, false)
                        }
                        LoweredOperand::Parameter(parameter) => {
                            Guarded::new(&contents(parameter), 16, Edge::Start, true)
                        }
                        LoweredOperand::Row(_) | LoweredOperand::Window(_) | LoweredOperand::State => {
                            panic!("a kernel of rows")
                        }
                        LoweredOperand::Scratch => {
                            Guarded::new(&vec![0; lowered.scratch.unwrap().size as usize], 16, Edge::Start, false)
                        }
                    })
                    .collect();
                let pointers: Vec<*mut u8> = buffers.iter().map(Guarded::pointer).collect();
                let macs = graph.macs(OpId(0));
                let rounds = (20_000_000 / macs).max(1);
                let best = (0..7)
                    .map(|_| {
                        let start = std::time::Instant::now();
                        for _ in 0..rounds {
                            compiled.call(&pointers);
                        }
                        start.elapsed().as_secs_f64() / rounds as f64
                    })
                    .fold(f64::INFINITY, f64::min);
                let (size, _) = assemble(&lowered.built.function, &target);
                line += &format!(
                    " | {:6.2} us {:5.1} MAC/ns {size:4} B",
                    best * 1e6,
                    macs as f64 / best / 1e9
                );
            }
            println!("{line}");
        }
    }
}
