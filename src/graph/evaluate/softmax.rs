//! Softmax over the last dimension.

use super::fixed::{exp_on_negative_values, reciprocal};
use super::{Call, f32_bytes, f32s, math};
use crate::error::Result;
use crate::graph::DType;
use crate::graph::quant::{Multiplier, rounding_divide_by_pot, saturating_rounding_doubling_high_mul};

/// Integer bits of the scaled differences.
const DIFFERENCE_BITS: i32 = 5;
/// Integer bits of the sum of exponentials.
const SUM_BITS: i32 = 12;

/// e^(−beta × scale × d) in Q0 for d = max − x = 0 to 255; 0 where TFLM drops the term.
pub type SoftmaxTable = [i32; 256];

/// The table of an int8 softmax for inputs of `scale`.
pub fn softmax_table(beta: f32, scale: f32) -> SoftmaxTable {
    let one = 2f64.powi(31 - DIFFERENCE_BITS);
    let largest = 2f64.powi(31) - 1.0;
    let multiplier = Multiplier::new((f64::from(beta) * f64::from(scale) * one).min(largest));
    // Differences beyond the radius would leave the range of Q5.
    let radius = (31.0 * one / 2f64.powi(multiplier.shift)).floor() as i32;
    std::array::from_fn(|d| {
        let d = d as i32;
        if d <= radius {
            exp_on_negative_values(multiplier.apply(-d), DIFFERENCE_BITS as u32)
        } else {
            0
        }
    })
}

/// One row of int8 softmax: the bits of `row` and of `output` are int8, the output's scale is 1/256, its zero point −128.
///
/// sum = Σ RoundingDivideByPOT(table[max − x], 12); (mantissa, shift) = reciprocal(sum);
/// output = RoundingDivideByPOT(mantissa ×_high table[max − x], shift + 23) − 128, at most 127.
/// A sum of 2^28 or more, where TFLM gives up, makes the shift exceed 31 and every quotient 0.
pub fn softmax_row(table: &SoftmaxTable, row: &[u8], output: &mut [u8]) {
    let max = row.iter().map(|x| *x as i8).max().unwrap_or(0);
    let exp = |x: u8| table[max.wrapping_sub(x as i8) as u8 as usize];
    let sum = row.iter().fold(0i32, |sum, x| {
        sum.saturating_add(rounding_divide_by_pot(exp(*x), SUM_BITS as u32))
    });
    let (mantissa, shift) = reciprocal(sum, SUM_BITS);
    let shift = (shift + 23) as u32;
    for (q, x) in output.iter_mut().zip(row) {
        let product = saturating_rounding_doubling_high_mul(mantissa, exp(*x));
        let quotient = if shift > 31 {
            0
        } else {
            rounding_divide_by_pot(product, shift)
        };
        *q = (quotient - 128).clamp(-128, 127) as u8;
    }
}

/// Floats: e^((x − max) × beta), summed in order from +0, then divided by the sum. The maximum starts from the row's
/// first element.
pub(super) fn softmax(call: &Call, beta: f32) -> Result<Vec<u8>> {
    let depth = call.input(0).shape.last(0).max(1);
    match call.dtype(0..1)? {
        DType::I8 => {
            let table = softmax_table(beta, call.input(0).affine().0);
            let mut output = vec![0; call.inputs[0].len()];
            for (row, output) in call.inputs[0].chunks_exact(depth).zip(output.chunks_exact_mut(depth)) {
                softmax_row(&table, row, output);
            }
            Ok(output)
        }
        DType::F32 => {
            let mut values = f32s(call.inputs[0]);
            for row in values.chunks_exact_mut(depth) {
                let max = row.iter().fold(row[0], |max, x| if *x > max { *x } else { max });
                let mut sum = 0.0;
                for x in row.iter_mut() {
                    *x = math::exp((*x - max) * beta);
                    sum += *x;
                }
                for x in row {
                    *x /= sum;
                }
            }
            Ok(f32_bytes(values))
        }
        _ => Err(call.unsupported()),
    }
}
