use super::*;
use crate::graph::{DType, Op, OpKind, Shape, Tensor};
use crate::kernels::{Call, KernelId, Operand, Scratch};

/// A graph of copies: `in 100; a = in 50; b = a (view); c = a b 20 scratch 8; out c`. Each statement is a tensor, what
/// it is made of, and its bytes.
pub(super) fn parse(text: &str) -> (Graph, Lowering) {
    let mut graph = Graph::default();
    let mut lowering = Lowering::default();
    let find = |graph: &Graph, name: &str| {
        let at = graph.tensors.iter().position(|t| t.name == name);
        TensorId(at.unwrap_or_else(|| panic!("no tensor {name}")) as u32)
    };
    let tensor = |name: &str, bytes: usize| Tensor {
        name: name.into(),
        dtype: DType::I8,
        shape: Shape(vec![bytes]),
        quantization: None,
        data: None,
    };
    for statement in text.split(';').map(str::trim).filter(|s| !s.is_empty()) {
        let words: Vec<&str> = statement.split_whitespace().collect();
        match words.as_slice() {
            ["in", name, bytes] => {
                let id = graph.add_tensor(tensor(name, bytes.parse().unwrap()));
                graph.inputs.push(id);
            }
            ["out", names @ ..] => graph.outputs = names.iter().map(|name| find(&graph, name)).collect(),
            [name, "view", of] => {
                let of = find(&graph, of);
                let bytes = graph.tensor(of).bytes();
                let id = graph.add_tensor(tensor(name, bytes));
                push(&mut graph, name, OpKind::Reshape, vec![of], id);
            }
            [name, bytes, "scratch", scratch, "of", of @ ..] => {
                op(&mut graph, &mut lowering, name, bytes, of, scratch.parse().unwrap());
            }
            [name, bytes, "of", of @ ..] => op(&mut graph, &mut lowering, name, bytes, of, 0),
            _ => panic!("{statement}"),
        }
    }
    fn push(graph: &mut Graph, name: &str, kind: OpKind, inputs: Vec<TensorId>, output: TensorId) {
        graph.ops.push(Op {
            name: name.into(),
            source: graph.ops.len(),
            kind,
            inputs,
            outputs: vec![output],
        });
    }
    fn op(graph: &mut Graph, lowering: &mut Lowering, name: &str, bytes: &str, of: &[&str], scratch: u64) {
        let inputs: Vec<TensorId> = of
            .iter()
            .map(|name| TensorId(graph.tensors.iter().position(|t| t.name == *name).unwrap() as u32))
            .collect();
        let output = graph.add_tensor(Tensor {
            name: name.into(),
            dtype: DType::I8,
            shape: Shape(vec![bytes.parse().unwrap()]),
            quantization: None,
            data: None,
        });
        let mut operands: Vec<Operand> = inputs.iter().map(|id| Operand::Tensor(*id)).collect();
        operands.push(Operand::Tensor(output));
        let scratch = (scratch > 0).then_some(Scratch {
            size: scratch,
            align: 4,
        });
        operands.extend(scratch.map(|_| Operand::Scratch));
        lowering.calls.push(Call {
            op: OpId(graph.ops.len() as u32),
            kernel: Some(KernelId(0)),
            operands,
            scratch,
            launches: Vec::new(),
            overlaps: vec![],
            rows: None,
        });
        push(graph, name, OpKind::Copy, inputs, output);
    }
    (graph, lowering)
}

/// `a@0 b@64 scratch(c)@96: arena 112 of 112`, and the plan has passed the checker.
fn show(text: &str, io: Io) -> String {
    let (graph, lowering) = parse(text);
    let plan = plan(&graph, &lowering, io, Streaming::Never).unwrap();
    check(&graph, &lowering, &plan).unwrap();
    let mut words: Vec<String> = graph
        .tensors
        .iter()
        .zip(&plan.places)
        .map(|(tensor, place)| match place {
            Place::Arena(offset) => format!("{}@{offset}", tensor.name),
            Place::Input(i) => format!("{}<{i}", tensor.name),
            Place::Output(i) => format!("{}>{i}", tensor.name),
            Place::Constant => format!("{}=", tensor.name),
            Place::Rows(_) => format!("{}#", tensor.name),
            Place::None => format!("{}?", tensor.name),
        })
        .collect();
    for call in &lowering.calls {
        if let Some(offset) = plan.scratch(call.op) {
            words.push(format!("scratch({})@{offset}", graph.op(call.op).name));
        }
    }
    format!("{}: {} of {}", words.join(" "), plan.arena_size, plan.lower_bound)
}

#[test]
fn inputs_and_outputs_are_outside_with_pointers() {
    let model = "in x 100; a 50 of x; b 20 of a; y 10 of b; out y";
    assert_eq!(show(model, Io::Pointers), "x<0 a@0 b@64 y>0: 96 of 96");
    assert_eq!(show(model, Io::Arena), "x@0 a@112 b@0 y@32: 176 of 176");
}

#[test]
fn a_view_lies_where_its_source_lies() {
    let model = "in x 64; a 48 of x; v view a; w view v; y 16 of w; out y";
    assert_eq!(show(model, Io::Pointers), "x<0 a@0 v@0 w@0 y>0: 48 of 48");
    // A view of an input reads the input; what is viewed by an output is written there.
    let ends = "in x 64; v view x; a 32 of v; y view a; out y";
    assert_eq!(show(ends, Io::Pointers), "x<0 v<0 a>0 y>0: 0 of 0");
}

#[test]
fn scratch_lives_for_its_call_only() {
    let model = "in x 16; a 16 scratch 32 of x; b 16 scratch 64 of a; y 16 of b; out y";
    assert_eq!(
        show(model, Io::Pointers),
        "x<0 a@64 b@80 y>0 scratch(a)@0 scratch(b)@0: 96 of 96"
    );
}

#[test]
fn an_output_that_is_read_again_stays() {
    let model = "in x 16; a 32 of x; b 32 of a; c 32 of b; out a c";
    assert_eq!(show(model, Io::Pointers), "x<0 a>0 b@0 c>1: 32 of 32");
    assert_eq!(show(model, Io::Arena), "x@32 a@0 b@32 c@64: 96 of 96");
}

#[test]
fn an_input_that_nothing_reads_keeps_its_place_until_the_run() {
    let model = "in x 16; in z 32; y 16 of x; out y";
    assert_eq!(show(model, Io::Pointers), "x<0 z<1 y>0: 0 of 0");
    assert_eq!(show(model, Io::Arena), "x@32 z@0 y@48: 64 of 64");
}

#[test]
fn a_tensor_that_nothing_touches_is_nowhere() {
    let (mut graph, lowering) = parse("in x 16; y 16 of x; out y");
    let mut unused = graph.tensors[0].clone();
    unused.name = "unused".into();
    graph.add_tensor(unused);
    assert_eq!(
        plan(&graph, &lowering, Io::Pointers, Streaming::Never).unwrap().places[2],
        Place::None
    );
}

#[test]
fn a_residual_stays_live_over_its_branch() {
    let model = "in x 64; a 64 of x; b 64 of a; c 64 of b; s 64 of a c; y 16 of s; out y";
    assert_eq!(show(model, Io::Pointers), "x<0 a@0 b@64 c@128 s@64 y>0: 192 of 192");
}

#[test]
fn activations_beyond_the_limit_are_refused() {
    let (mut graph, lowering) = parse("in x 16; a 16 of x; y 16 of a; out y");
    graph.tensors[1].shape = Shape(vec![1 << 31, 1 << 10]);
    let error = plan(&graph, &lowering, Io::Pointers, Streaming::Never).unwrap_err();
    assert_eq!(error.code, Code::Limit);
}

/// Each way to break a plan is found, with the operator named.
#[test]
fn the_checker_finds_what_is_broken() {
    let model = "in x 64; a 64 scratch 16 of x; v view a; b 64 of v; c 64 of b; s 64 of v c; out s";
    type Break = fn(&mut Plan);
    let cases: &[(&str, Break)] = &[
        ("overwritten before it is read", |plan| plan.places[4] = plan.places[1]),
        ("overlap", |plan| plan.places[3] = plan.places[1]),
        ("overlap", |plan| {
            let scratch = plan.buffers.iter_mut().find(|b| b.scratch_of.is_some()).unwrap();
            let Place::Arena(offset) = plan.places[1] else { panic!() };
            scratch.offset = offset;
        }),
        ("no place", |plan| plan.buffers.retain(|b| b.scratch_of.is_none())),
        ("inside", |plan| plan.arena_size -= 16),
        ("aligned", |plan| plan.places[1] = Place::Arena(8)),
        ("overwritten before it is read", |plan| {
            plan.places[2] = Place::Arena(128)
        }),
        ("is at None", |plan| plan.places[3] = Place::None),
        ("is at Arena(64)", |plan| plan.places[5] = Place::Arena(64)),
        ("model input", |plan| plan.places[0] = Place::Arena(0)),
        ("model input 0 is written", |plan| plan.places[3] = Place::Input(0)),
        ("there is no input or output 3", |plan| {
            plan.places[3] = Place::Output(3)
        }),
        ("overwritten before it is read", |plan| plan.steps.swap(1, 2)),
        ("runs twice", |plan| plan.steps[1] = plan.steps[0]),
        ("does not run to its end", |plan| plan.steps.truncate(3)),
        ("below the bound", |plan| plan.lower_bound = 1 << 20),
        ("places for", |plan| plan.places.truncate(2)),
    ];
    let (graph, lowering) = parse(model);
    let good = plan(&graph, &lowering, Io::Pointers, Streaming::Never).unwrap();
    check(&graph, &lowering, &good).unwrap();
    for (expected, spoil) in cases {
        let mut plan = good.clone();
        spoil(&mut plan);
        assert_ne!(plan, good, "{expected}");
        let error = check(&graph, &lowering, &plan).unwrap_err();
        assert_eq!(error.code, Code::Internal);
        assert!(error.message.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn equal_graphs_have_equal_plans() {
    let model = "in x 999; a 70 of x; b 300 of a; c 200 of a; d 10 of b; e 40 of c; s 33 of d e a; out s";
    let (graph, lowering) = parse(model);
    let first = plan(&graph, &lowering, Io::Arena, Streaming::Never).unwrap();
    assert_eq!(first, plan(&graph, &lowering, Io::Arena, Streaming::Never).unwrap());
}

/// Numbers, the same each time.
pub(super) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// A graph of any form, chain, tree and tangle, with scratch and views, for [`parse`].
pub(super) fn random_graph(random: &mut Random, ops: usize) -> String {
    let window = 1 + random.below(8);
    let mut text = String::from("in t0 100;");
    for i in 1..=ops {
        let from = |random: &mut Random| format!("t{}", i - 1 - random.below(window.min(i)));
        if random.below(8) == 0 && i > 1 {
            text += &format!("t{i} view {};", from(random));
            continue;
        }
        let of: Vec<String> = (0..1 + random.below(2)).map(|_| from(random)).collect();
        let scratch = random.below(300) * random.below(2);
        text += &format!("t{i} {} scratch {scratch} of {};", 1 + random.below(500), of.join(" "));
    }
    text + &format!("last 10 of t{ops}; out last")
}

#[test]
fn random_graphs_have_plans_that_pass() {
    let mut random = Random(1);
    for round in 0..60 {
        let ops = if round == 59 { 1500 } else { 1 + random.below(40) };
        let (graph, lowering) = parse(&random_graph(&mut random, ops));
        for io in [Io::Pointers, Io::Arena] {
            let plan = plan(&graph, &lowering, io, Streaming::Never).unwrap();
            check(&graph, &lowering, &plan).unwrap();
            assert!(plan.arena_size >= plan.lower_bound);
            assert!(!plan.optimal || ops < 1500 || plan.arena_size == plan.lower_bound);
        }
    }
}

/// A chain of 20,000 operators with branches.
pub(super) fn twenty_thousand() -> (Graph, Lowering) {
    let mut graph = Graph::default();
    let mut lowering = Lowering::default();
    let mut add = |bytes: usize| {
        graph.add_tensor(Tensor {
            name: String::new(),
            dtype: DType::I8,
            shape: Shape(vec![bytes]),
            quantization: None,
            data: None,
        })
    };
    let ids: Vec<TensorId> = (0..=20_000).map(|i| add(16 + i * 37 % 1000)).collect();
    graph.inputs = vec![ids[0]];
    graph.outputs = vec![ids[20_000]];
    for i in 0..20_000 {
        let mut inputs = vec![ids[i]];
        inputs.extend((i % 7 == 6).then(|| ids[i - 5]));
        let operands = inputs
            .iter()
            .chain([&ids[i + 1]])
            .map(|id| Operand::Tensor(*id))
            .collect();
        lowering.calls.push(Call {
            op: OpId(i as u32),
            kernel: Some(KernelId(0)),
            operands,
            scratch: None,
            launches: Vec::new(),
            overlaps: vec![],
            rows: None,
        });
        graph.ops.push(Op {
            name: String::new(),
            source: i,
            kind: OpKind::Copy,
            inputs,
            outputs: vec![ids[i + 1]],
        });
    }
    (graph, lowering)
}

/// Planned, checked, and divided between memories and checked again; `--nocapture` prints how long each takes.
#[test]
fn twenty_thousand_operators() {
    let (graph, lowering) = twenty_thousand();
    let start = std::time::Instant::now();
    let mut plan = plan(&graph, &lowering, Io::Arena, Streaming::Never).unwrap();
    let planned = start.elapsed();
    check(&graph, &lowering, &plan).unwrap();
    let checked = start.elapsed();
    assert_eq!(plan.steps.len(), 20_000);
    assert!(plan.arena_size < plan.lower_bound * 5 / 4);
    let memory = |name: &str, bytes: u64| Memory {
        name: name.into(),
        bytes,
    };
    let memories = [memory("fast", plan.arena_size / 3), memory("slow", plan.arena_size)];
    (plan.divide(&graph, &Accesses::new(&graph, &lowering), &memories, None)).unwrap();
    check(&graph, &lowering, &plan).unwrap();
    assert!(plan.pools.iter().all(|pool| pool.size > 0));
    println!(
        "planned in {planned:?}, checked in {:?}, all in {:?}",
        checked - planned,
        start.elapsed()
    );
}
