//! Between binary32 and 8-bit elements.

use super::emit;
use super::lanes;
use super::lowered::{Lowered, LoweredOperand};
use crate::graph::{Graph, OpId, quant};
use crate::target::Target;
use cranelift_codegen::ir::{InstBuilder, Value, types};

/// The largest binary32 below one half: adding it with the sign of x and dropping the fraction rounds x to nearest,
/// halves away from zero.
const ALMOST_HALF: f32 = 0.499_999_97;

/// x / scale, rounded to nearest with halves away from zero, plus the zero point, saturated. A NaN gives the zero point.
pub fn quantize(graph: &Graph, op: OpId, target: &Target) -> Lowered {
    let tensor = graph.tensor(graph.op(op).output());
    let (dtype, (scale, zero)) = (tensor.dtype, tensor.affine());
    let range = quant::range(dtype);
    let count = tensor.shape.elements() as u64;
    let built = emit::build(target, 2, |e| {
        let scale = e.spread_f32(scale);
        let half = e.spread_i32(ALMOST_HALF.to_bits() as i32);
        let sign = e.spread_i32(i32::MIN);
        // Clamping before the zero point is added keeps the sum from wrapping.
        let least = e.spread_i32(range.0.saturating_sub(zero));
        let most = e.spread_i32(range.1.saturating_sub(zero));
        let zero = e.spread_i32(zero);
        let streams = [(e.args[0], 4), (e.args[1], 1)];
        e.sweep(count, &streams, lanes::BYTES, &mut |e, p, at, width| {
            let lanes = width.min(4);
            let values: Vec<Value> = (0..width / lanes)
                .map(|i| {
                    let x = e.load_f32(p[0], 4 * (at as i32 + (i * lanes) as i32), lanes);
                    let scale = scale.like(e, x);
                    let x = e.b.ins().fdiv(x, scale);
                    let (float, int) = match lanes {
                        1 => (types::F32, types::I32),
                        _ => (types::F32X4, types::I32X4),
                    };
                    let bits = e.cast(int, x);
                    let sign = sign.like(e, bits);
                    let bits = e.b.ins().band(bits, sign);
                    let half = half.like(e, bits);
                    let half = e.b.ins().bor(bits, half);
                    let half = e.cast(float, half);
                    let x = e.b.ins().fadd(x, half);
                    let q = e.b.ins().fcvt_to_sint_sat(int, x);
                    let least = least.like(e, q);
                    let q = e.b.ins().smax(q, least);
                    let most = most.like(e, q);
                    let q = e.b.ins().smin(q, most);
                    let zero = zero.like(e, q);
                    e.b.ins().iadd(q, zero)
                })
                .collect();
            if width == 1 {
                return e.store_i8(values[0], p[1], at as i32);
            }
            e.store_narrow(&values, dtype, range, p[1], at as i32, width);
        });
    });
    elementwise(graph, op, target, built, "quantize")
}

/// scale × (q − zero point).
pub fn dequantize(graph: &Graph, op: OpId, target: &Target) -> Lowered {
    let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
    let tensor = graph.tensor(input);
    let (dtype, (scale, zero)) = (tensor.dtype, tensor.affine());
    let count = graph.tensor(output).shape.elements() as u64;
    let built = emit::build(target, 2, |e| {
        let scale = e.spread_f32(scale);
        let zero = e.spread_i32(zero);
        let streams = [(e.args[0], 1), (e.args[1], 4)];
        e.sweep(count, &streams, lanes::BYTES, &mut |e, p, at, width| {
            let values = e.load_bytes(dtype, p[0], at as i32, width);
            for (i, q) in values.into_iter().enumerate() {
                let zero = zero.like(e, q);
                let q = e.b.ins().isub(q, zero);
                let x = match width {
                    1 => e.b.ins().fcvt_from_sint(types::F32, q),
                    _ => e.b.ins().fcvt_from_sint(types::F32X4, q),
                };
                let scale = scale.like(e, x);
                let x = e.b.ins().fmul(x, scale);
                e.store(x, p[1], 4 * (at as i32 + 4 * i as i32));
            }
        });
    });
    elementwise(graph, op, target, built, "dequantize")
}

fn elementwise(graph: &Graph, op: OpId, target: &Target, built: emit::Built, stem: &'static str) -> Lowered {
    let op = graph.op(op);
    Lowered {
        built,
        stem,
        schedule: lanes::name(target, 16).to_owned(),
        operands: [op.inputs[0], op.output()].map(LoweredOperand::Tensor).into(),
        scratch: None,
        overlaps: vec![],
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::{DType, OpKind};
    use crate::kernels::checks::{Random, check, check_on, compile, float, graph, tensor};

    const AFFINE: [(f32, i32); 5] = [(1.0, 0), (0.1, -128), (0.0037, 127), (33.0, 5), (1e-9, 0)];

    #[test]
    fn quantization_agrees_with_the_evaluator() {
        let mut random = Random::new(11);
        for (dtype, shift) in [(DType::I8, 0), (DType::U8, 128)] {
            for (scale, zero) in AFFINE {
                for n in [1, 7, 8, 16, 61] {
                    let output = tensor(dtype, &[n], Some((scale, (zero + shift).min(255))));
                    check(&graph(OpKind::Quantize, vec![float(&[n])], output), &mut random);
                }
            }
        }
    }

    #[test]
    fn halves_and_special_values() {
        let mut values: Vec<f32> = (-600..600).map(|i| i as f32 / 2.0).collect();
        let nearly: Vec<f32> = values.iter().flat_map(|x| [x.next_up(), x.next_down()]).collect();
        values.extend(nearly);
        values.extend([
            f32::NAN,
            f32::INFINITY,
            -f32::INFINITY,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            8_388_609.0,
        ]);
        values.extend([-f32::NAN, 2_147_483_520.0, -2_147_483_648.0, 4e9, -4e9, 1e-45]);
        let n = values.len();
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        for (dtype, zero) in [
            (DType::I8, 0),
            (DType::I8, -128),
            (DType::I8, 127),
            (DType::U8, 0),
            (DType::U8, 255),
        ] {
            for scale in [1.0, 0.5, 1.5] {
                let output = tensor(dtype, &[n], Some((scale, zero)));
                let graph = graph(OpKind::Quantize, vec![float(&[n])], output);
                check_on(&graph, &[(graph.inputs[0], bytes.clone())].into());
            }
        }
    }

    #[test]
    fn dequantization_agrees_with_the_evaluator() {
        for (dtype, shift) in [(DType::I8, 0), (DType::U8, 128)] {
            for (scale, zero) in AFFINE {
                for n in [256, 3, 9] {
                    let input = tensor(dtype, &[n], Some((scale, (zero + shift).min(255))));
                    let graph = graph(OpKind::Dequantize, vec![input], float(&[n]));
                    check_on(&graph, &[(graph.inputs[0], (0..n).map(|i| i as u8).collect())].into());
                }
            }
        }
    }

    #[test]
    fn code_exists_for_every_target() {
        let int8 = || tensor(DType::I8, &[100], Some((0.1, 3)));
        assert!(compile(&graph(OpKind::Quantize, vec![float(&[100])], int8())) < 4000);
        assert!(compile(&graph(OpKind::Dequantize, vec![int8()], float(&[100]))) < 2000);
    }
}
