//! A hand-made model of two kernels for tests: `y = (x + w) + w`, byte by byte, through the arena.

use crate::data::{Bytes, Contents};
use crate::graph::{DType, Graph, Op, OpId, OpKind, Shape, Tensor, TensorId, UnaryOp};
use crate::kernels::{Call, Kernel, KernelId, Lowering, Operand, Parameter, ParameterId, ParameterKind, emit};
use crate::plan::{Io, Place, Plan, Step};
use crate::target::Target;

/// Elements of every tensor: not a multiple of any alignment.
pub const LEN: usize = 37;

/// The parameter: 3, 10, 17, …
pub fn parameter() -> Vec<u8> {
    (0..LEN).map(|i| (i * 7 + 3) as u8).collect()
}

/// What the model computes.
pub fn expected(input: &[u8]) -> Vec<u8> {
    let twice = |(x, w): (&u8, u8)| x.wrapping_add(w).wrapping_add(w);
    input.iter().zip(parameter()).map(twice).collect()
}

/// Everything that the later stages take.
pub struct Model {
    pub graph: Graph,
    pub lowering: Lowering,
    pub plan: Plan,
}

/// `void add(const void *a, const void *w, void *out)`.
fn add(target: &Target) -> emit::Built {
    emit::build(target, 3, |e| {
        let [a, w, out] = e.args[..] else {
            unreachable!("three parameters")
        };
        e.counted(LEN as u64, &[(a, 1), (w, 1), (out, 1)], &[], |e, at, _| {
            use cranelift_codegen::ir::InstBuilder;
            let (a, w) = (e.load_i8(at[0], 0), e.load_i8(at[1], 0));
            let sum = e.b.ins().iadd(a, w);
            e.store_i8(sum, at[2], 0);
            Vec::new()
        });
    })
}

/// The model for `target`.
pub fn model(target: &Target, io: Io) -> Model {
    let tensor = |name: &str| Tensor {
        name: name.into(),
        dtype: DType::I8,
        shape: Shape(vec![1, LEN]),
        quantization: None,
        data: None,
    };
    let mut graph = Graph {
        name: "tiny".into(),
        ..Graph::default()
    };
    let ids: Vec<TensorId> = ["x", "mid", "y"]
        .iter()
        .map(|name| graph.add_tensor(tensor(name)))
        .collect();
    graph.ops = (0..2)
        .map(|i| Op {
            name: format!("add{i}"),
            source: i,
            kind: OpKind::Unary { op: UnaryOp::Relu },
            inputs: vec![ids[i]],
            outputs: vec![ids[i + 1]],
        })
        .collect();
    graph.inputs = vec![ids[0]];
    graph.outputs = vec![ids[2]];
    let built = add(target);
    let lowering = Lowering {
        kernels: vec![Kernel {
            name: "add_0".into(),
            function: built.function,
            executions: built.executions,
            schedule: "bytes".into(),
            layouts: None,
        }],
        parameters: vec![Parameter {
            name: "w".into(),
            kind: ParameterKind::Weights,
            tensors: Vec::new(),
            align: 16,
            contents: Contents::Bytes(Bytes::from_vec(parameter())),
        }],
        calls: (0..2)
            .map(|i| Call {
                overlaps: vec![],
                rows: None,
                op: OpId(i as u32),
                kernel: Some(KernelId(0)),
                operands: vec![
                    Operand::Tensor(ids[i]),
                    Operand::Parameter(ParameterId(0)),
                    Operand::Tensor(ids[i + 1]),
                ],
                scratch: None,
                launches: Vec::new(),
            })
            .collect(),
        ..Lowering::default()
    };
    let places = match io {
        Io::Pointers => vec![Place::Input(0), Place::Arena(16), Place::Output(0)],
        Io::Arena => vec![Place::Arena(0), Place::Arena(48), Place::Arena(96)],
    };
    let arena_size = if io == Io::Pointers { 64 } else { 144 };
    let plan = Plan {
        io,
        order: vec![OpId(0), OpId(1)],
        steps: [OpId(0), OpId(1)].map(|op| Step { op, rows: None }).to_vec(),
        places,
        arena_size,
        arena_align: 16,
        lower_bound: arena_size,
        ..Plan::default()
    };
    Model { graph, lowering, plan }
}
