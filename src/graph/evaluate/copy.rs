//! Operators that only move elements, of any type.

use super::{Call, offsets, strides};
use crate::error::Result;

pub(super) fn pad(call: &Call, amounts: &[[usize; 2]], value: u64) -> Result<Vec<u8>> {
    let (input, output) = (call.input(0), call.output());
    let size = output.dtype.bytes();
    let element = &value.to_le_bytes()[..size];
    let mut result = element.repeat(output.shape.elements());
    let strides = strides(&output.shape);
    let start: usize = amounts
        .iter()
        .zip(&strides)
        .map(|([before, _], stride)| before * stride)
        .sum();
    for (element, offset) in call.inputs[0].chunks_exact(size).zip(offsets(&input.shape.0, &strides)) {
        result[(start + offset) * size..][..size].copy_from_slice(element);
    }
    Ok(result)
}

pub(super) fn concat(call: &Call, axis: usize) -> Result<Vec<u8>> {
    let output = call.output();
    let outer: usize = output.shape.0[..axis].iter().product();
    let mut result = Vec::with_capacity(output.bytes());
    for i in 0..outer {
        for bytes in call.inputs {
            let block = bytes.len() / outer;
            result.extend_from_slice(&bytes[i * block..][..block]);
        }
    }
    Ok(result)
}

pub(super) fn transpose(call: &Call, permutation: &[usize]) -> Result<Vec<u8>> {
    let output = call.output();
    let size = output.dtype.bytes();
    let along = strides(&call.input(0).shape);
    let along: Vec<usize> = permutation.iter().map(|&axis| along[axis]).collect();
    let elements = offsets(&output.shape.0, &along).into_iter();
    Ok(elements
        .flat_map(|at| &call.inputs[0][at * size..][..size])
        .copied()
        .collect())
}
