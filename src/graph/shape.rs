//! Shape inference: the shape of an operator's result, with checked arithmetic.

use super::{OpKind, Padding, Shape, Window};
use crate::error::{Code, Error, Result};
use crate::limits;

/// Number of elements, within [`limits::ELEMENTS`].
///
/// # Errors
/// [`Code::Limit`] for too many dimensions or elements.
pub fn elements(shape: &Shape) -> Result<usize> {
    if shape.rank() > limits::RANK {
        return Err(Error::new(
            Code::Limit,
            format!("{} dimensions, at most {} are supported", shape.rank(), limits::RANK),
        ));
    }
    shape
        .0
        .iter()
        .try_fold(1usize, |product, dim| product.checked_mul(*dim))
        .filter(|product| *product as u64 <= limits::ELEMENTS)
        .ok_or_else(|| {
            Error::new(
                Code::Limit,
                format!(
                    "{shape} has more than the {} elements that a tensor may have",
                    limits::ELEMENTS
                ),
            )
        })
}

/// Shape of the result of `kind` for operands of the shapes `inputs`.
///
/// Two operators leave the shape of their result to the model: `declared` is what it says. Reshape takes any shape
/// with as many elements, FullyConnected any `[…, n]` with b×n elements. The others ignore it.
///
/// # Errors
/// [`Code::Model`] where operands do not fit one another or the attributes, [`Code::Limit`] beyond [`limits`]. No
/// location: the caller knows the operator.
pub fn infer(kind: &OpKind, inputs: &[&Shape], declared: &Shape) -> Result<Shape> {
    operands(kind, inputs.len())?;
    let shape = match kind {
        OpKind::Conv2d { window, .. } => {
            let [n, h, w, c] = activation(inputs[0])?;
            let [co, kh, kw, per_group] = filter(inputs[1])?;
            filter_size(window, [kh, kw])?;
            if c % per_group != 0 || co % (c / per_group) != 0 {
                return Err(Error::model(format!(
                    "filter {} does not divide the {c} input channels of {} into groups",
                    inputs[1], inputs[0]
                )));
            }
            bias(inputs.get(2), co)?;
            let [oh, ow] = slide(window, [h, w])?;
            Shape(vec![n, oh, ow, co])
        }
        OpKind::DepthwiseConv2d { window, multiplier, .. } => {
            let [n, h, w, c] = activation(inputs[0])?;
            let [one, kh, kw, co] = filter(inputs[1])?;
            filter_size(window, [kh, kw])?;
            if one != 1 || *multiplier == 0 || c.checked_mul(*multiplier) != Some(co) {
                return Err(Error::model(format!(
                    "filter {} is not [1,{kh},{kw},{c}x{multiplier}] for an input of {} and channel multiplier {multiplier}",
                    inputs[1], inputs[0]
                )));
            }
            bias(inputs.get(2), co)?;
            let [oh, ow] = slide(window, [h, w])?;
            Shape(vec![n, oh, ow, co])
        }
        OpKind::FullyConnected { .. } => {
            let [n, k] = inputs[1].0[..] else {
                return Err(Error::model(format!("weights {} are not a matrix", inputs[1])));
            };
            let x = nonempty(inputs[0])?;
            nonempty(inputs[1])?;
            bias(inputs.get(2), n)?;
            if x % k != 0 {
                return Err(Error::model(format!(
                    "input {} does not divide into rows of {k} for weights {}",
                    inputs[0], inputs[1]
                )));
            }
            let wanted = (x / k).checked_mul(n);
            if declared.rank() == 0 || declared.last(0) != n || Some(elements(declared)?) != wanted {
                return Err(Error::model(format!(
                    "the result of {} and weights {} has {} rows of {n}, not {declared}",
                    inputs[0],
                    inputs[1],
                    x / k
                )));
            }
            declared.clone()
        }
        OpKind::Pool2d { window, .. } => {
            let [n, h, w, c] = activation(inputs[0])?;
            if window.dilation != [1, 1] {
                return Err(Error::model("a pooling window has no dilation"));
            }
            let [oh, ow] = slide(window, [h, w])?;
            let Padding {
                top,
                bottom,
                left,
                right,
            } = window.padding;
            if top.max(bottom) >= window.size[0] || left.max(right) >= window.size[1] {
                return Err(Error::model(format!(
                    "padding {top},{bottom},{left},{right} leaves windows of {}x{} without any element of the input",
                    window.size[0], window.size[1]
                )));
            }
            Shape(vec![n, oh, ow, c])
        }
        OpKind::Binary { .. } => broadcast(inputs[0], inputs[1])?,
        OpKind::Lookup => {
            if inputs[1].0 != [256] {
                return Err(Error::model(format!("table {} is not [256]", inputs[1])));
            }
            inputs[0].clone()
        }
        OpKind::Softmax { .. } if inputs[0].rank() == 0 => {
            return Err(Error::model("softmax of a scalar: there is no dimension to sum over"));
        }
        OpKind::Unary { .. } | OpKind::Softmax { .. } | OpKind::Copy | OpKind::Quantize | OpKind::Dequantize => {
            inputs[0].clone()
        }
        OpKind::Mean { axes, keep_dims } => mean(inputs[0], axes, *keep_dims)?,
        OpKind::Pad { amounts, .. } => pad(inputs[0], amounts)?,
        OpKind::Concat { axis } => concat(inputs, *axis)?,
        OpKind::Transpose { permutation } => transpose(inputs[0], permutation)?,
        OpKind::Reshape => {
            if elements(inputs[0])? != elements(declared)? {
                return Err(Error::model(format!(
                    "{} cannot become {declared}: the numbers of elements differ",
                    inputs[0]
                )));
            }
            declared.clone()
        }
        OpKind::External(_) => declared.clone(),
    };
    elements(&shape)?;
    Ok(shape)
}

/// Number of operands that `kind` takes: `(least, most)`.
pub fn arity(kind: &OpKind) -> (usize, usize) {
    match kind {
        OpKind::Conv2d { .. } | OpKind::DepthwiseConv2d { .. } | OpKind::FullyConnected { .. } => (2, 3),
        OpKind::Binary { .. } | OpKind::Lookup => (2, 2),
        OpKind::Concat { .. } => (1, limits::OPERANDS),
        OpKind::External(_) => (0, limits::OPERANDS),
        OpKind::Pool2d { .. }
        | OpKind::Unary { .. }
        | OpKind::Softmax { .. }
        | OpKind::Mean { .. }
        | OpKind::Pad { .. }
        | OpKind::Transpose { .. }
        | OpKind::Reshape
        | OpKind::Copy
        | OpKind::Quantize
        | OpKind::Dequantize => (1, 1),
    }
}

fn operands(kind: &OpKind, count: usize) -> Result<()> {
    let (least, most) = arity(kind);
    if (least..=most).contains(&count) {
        return Ok(());
    }
    let wanted = if least == most {
        least.to_string()
    } else {
        format!("{least} to {most}")
    };
    Err(Error::model(format!(
        "{} takes {wanted} operands, not {count}",
        kind.name()
    )))
}

fn nonempty(shape: &Shape) -> Result<usize> {
    match elements(shape)? {
        0 => Err(Error::model(format!("{shape} has no elements"))),
        n => Ok(n),
    }
}

fn four(shape: &Shape, what: &str, layout: &str) -> Result<[usize; 4]> {
    nonempty(shape)?;
    shape.0[..]
        .try_into()
        .map_err(|_| Error::model(format!("{what} {shape} is not {layout}")))
}

fn activation(shape: &Shape) -> Result<[usize; 4]> {
    four(shape, "input", "[n,h,w,c]")
}

fn filter(shape: &Shape) -> Result<[usize; 4]> {
    four(shape, "filter", "of rank 4")
}

fn filter_size(window: &Window, size: [usize; 2]) -> Result<()> {
    if window.size != size {
        return Err(Error::model(format!(
            "window of {}x{} for a filter of {}x{}",
            window.size[0], window.size[1], size[0], size[1]
        )));
    }
    Ok(())
}

fn bias(shape: Option<&&Shape>, channels: usize) -> Result<()> {
    match shape {
        Some(shape) if shape.0 != [channels] => Err(Error::model(format!("bias {shape} is not [{channels}]"))),
        _ => Ok(()),
    }
}

/// Output size of a window, whose numbers are checked first.
fn slide(window: &Window, input: [usize; 2]) -> Result<[usize; 2]> {
    let Padding {
        top,
        bottom,
        left,
        right,
    } = window.padding;
    let all = [window.size, window.stride, window.dilation].concat();
    if all.contains(&0) {
        return Err(Error::model(format!(
            "window {}x{}, stride {}x{}, dilation {}x{}: all must be at least 1",
            all[0], all[1], all[2], all[3], all[4], all[5]
        )));
    }
    let largest = all.into_iter().chain([top, bottom, left, right]).max().unwrap_or(0);
    if largest > limits::WINDOW as usize {
        return Err(Error::new(
            Code::Limit,
            format!(
                "a window, stride, dilation or padding of {largest}, at most {} is supported",
                limits::WINDOW
            ),
        ));
    }
    window.output(input).ok_or_else(|| {
        Error::model(format!(
            "a window of {}x{} with dilation {}x{} is larger than the input of {}x{} with padding {top},{bottom},{left},{right}",
            window.size[0], window.size[1], window.dilation[0], window.dilation[1], input[0], input[1]
        ))
    })
}

/// numpy's rule: shapes are aligned at their innermost dimension; sizes are equal or one of them is 1.
fn broadcast(a: &Shape, b: &Shape) -> Result<Shape> {
    let rank = a.rank().max(b.rank());
    (0..rank)
        .rev()
        .map(|i| match (a.last(i), b.last(i)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(Error::model(format!("{a} and {b} do not broadcast"))),
        })
        .collect::<Result<Vec<_>>>()
        .map(Shape)
}

fn mean(input: &Shape, axes: &[usize], keep_dims: bool) -> Result<Shape> {
    nonempty(input)?;
    if axes.is_empty() || !axes.is_sorted_by(|a, b| a < b) || axes.iter().any(|axis| *axis >= input.rank()) {
        return Err(Error::model(format!(
            "axes {axes:?} are not sorted, distinct dimensions of {input}"
        )));
    }
    let dims = input.0.iter().enumerate();
    Ok(Shape(
        dims.filter_map(|(i, dim)| match axes.contains(&i) {
            true => keep_dims.then_some(1),
            false => Some(*dim),
        })
        .collect(),
    ))
}

fn pad(input: &Shape, amounts: &[[usize; 2]]) -> Result<Shape> {
    if amounts.len() != input.rank() {
        return Err(Error::model(format!(
            "{} pairs of padding for the {} dimensions of {input}",
            amounts.len(),
            input.rank()
        )));
    }
    let padded = input.0.iter().zip(amounts);
    padded
        .map(|(dim, [before, after])| dim.checked_add(*before)?.checked_add(*after))
        .collect::<Option<Vec<_>>>()
        .map(Shape)
        .ok_or_else(|| Error::new(Code::Limit, format!("padding of {input} by {amounts:?} is too large")))
}

fn transpose(input: &Shape, permutation: &[usize]) -> Result<Shape> {
    let mut sorted = permutation.to_vec();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..input.rank()) {
        return Err(Error::model(format!(
            "{permutation:?} is not an order of the {} dimensions of {input}",
            input.rank()
        )));
    }
    Ok(Shape(permutation.iter().map(|&axis| input.0[axis]).collect()))
}

fn concat(inputs: &[&Shape], axis: usize) -> Result<Shape> {
    let mut result = inputs[0].clone();
    if axis >= result.rank() {
        return Err(Error::model(format!("axis {axis} is not a dimension of {result}")));
    }
    for shape in &inputs[1..] {
        let fits = shape.rank() == result.rank() && (0..shape.rank()).all(|i| i == axis || shape.0[i] == result.0[i]);
        if !fits {
            return Err(Error::model(format!(
                "{} and {shape} cannot be joined along dimension {axis}",
                inputs[0]
            )));
        }
        result.0[axis] = result.0[axis]
            .checked_add(shape.0[axis])
            .ok_or_else(|| Error::new(Code::Limit, "the joined dimension is too large"))?;
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Activation, BinaryOp, PoolOp};

    fn shape(dims: &[usize]) -> Shape {
        Shape(dims.to_vec())
    }

    fn window(size: [usize; 2], stride: [usize; 2], padding: [usize; 4]) -> Window {
        let [top, bottom, left, right] = padding;
        Window {
            size,
            stride,
            dilation: [1, 1],
            padding: Padding {
                top,
                bottom,
                left,
                right,
            },
        }
    }

    /// The result's dimensions, or the message.
    fn show(kind: &OpKind, inputs: &[&[usize]], declared: &[usize]) -> String {
        let shapes: Vec<Shape> = inputs.iter().map(|dims| shape(dims)).collect();
        match infer(kind, &shapes.iter().collect::<Vec<_>>(), &shape(declared)) {
            Ok(shape) => shape.to_string(),
            Err(error) => error.message,
        }
    }

    fn conv(window: Window) -> OpKind {
        OpKind::Conv2d {
            window,
            activation: Activation::None,
        }
    }

    #[test]
    fn convolutions() {
        let kind = conv(window([10, 4], [2, 2], [4, 5, 1, 1]));
        assert_eq!(
            show(&kind, &[&[1, 49, 10, 1], &[64, 10, 4, 1], &[64]], &[]),
            "[1,25,5,64]"
        );
        assert_eq!(
            show(&kind, &[&[1, 49, 10, 1], &[64, 10, 4, 1], &[63]], &[]),
            "bias [63] is not [64]"
        );
        assert_eq!(
            show(&kind, &[&[1, 49, 10], &[64, 10, 4, 1]], &[]),
            "input [1,49,10] is not [n,h,w,c]"
        );
        assert_eq!(
            show(
                &conv(window([3, 3], [1, 1], [0; 4])),
                &[&[1, 8, 8, 6], &[4, 3, 3, 4]],
                &[]
            ),
            "filter [4,3,3,4] does not divide the 6 input channels of [1,8,8,6] into groups"
        );
        assert_eq!(
            show(
                &conv(window([3, 3], [1, 1], [0; 4])),
                &[&[1, 8, 8, 6], &[4, 3, 3, 3]],
                &[]
            ),
            "[1,6,6,4]"
        );
        assert_eq!(
            show(
                &conv(window([3, 3], [1, 0], [0; 4])),
                &[&[1, 8, 8, 6], &[4, 3, 3, 6]],
                &[]
            ),
            "window 3x3, stride 1x0, dilation 1x1: all must be at least 1"
        );
        assert_eq!(
            show(
                &conv(window([3, 3], [1, 1], [0; 4])),
                &[&[1, 2, 8, 6], &[4, 3, 3, 6]],
                &[]
            ),
            "a window of 3x3 with dilation 1x1 is larger than the input of 2x8 with padding 0,0,0,0"
        );
        assert_eq!(
            show(
                &conv(window([3, 3], [1, 1], [usize::MAX, usize::MAX, 0, 0])),
                &[&[1, 2, 8, 6], &[4, 3, 3, 6]],
                &[]
            ),
            format!(
                "a window, stride, dilation or padding of {}, at most 16384 is supported",
                usize::MAX
            )
        );
        let depthwise = OpKind::DepthwiseConv2d {
            window: window([3, 3], [1, 1], [1, 1, 1, 1]),
            multiplier: 2,
            activation: Activation::None,
        };
        assert_eq!(show(&depthwise, &[&[2, 5, 5, 3], &[1, 3, 3, 6]], &[]), "[2,5,5,6]");
        assert_eq!(
            show(&depthwise, &[&[2, 5, 5, 4], &[1, 3, 3, 6]], &[]),
            "filter [1,3,3,6] is not [1,3,3,4x2] for an input of [2,5,5,4] and channel multiplier 2"
        );
    }

    #[test]
    fn fully_connected_keeps_the_declared_rank() {
        let kind = OpKind::FullyConnected {
            activation: Activation::None,
        };
        assert_eq!(show(&kind, &[&[2, 3, 4], &[5, 12]], &[2, 5]), "[2,5]");
        assert_eq!(show(&kind, &[&[2, 3, 4], &[5, 4]], &[2, 3, 5]), "[2,3,5]");
        assert_eq!(
            show(&kind, &[&[2, 3, 4], &[5, 4]], &[2, 5]),
            "the result of [2,3,4] and weights [5,4] has 6 rows of 5, not [2,5]"
        );
        assert_eq!(
            show(&kind, &[&[1, 7], &[5, 4]], &[2, 5]),
            "input [1,7] does not divide into rows of 4 for weights [5,4]"
        );
        assert_eq!(show(&kind, &[&[1, 7], &[5, 0]], &[2, 5]), "[5,0] has no elements");
    }

    #[test]
    fn pools_touch_the_input() {
        let pool = |window| OpKind::Pool2d {
            op: PoolOp::Average,
            window,
            activation: Activation::None,
        };
        assert_eq!(
            show(&pool(window([2, 2], [2, 2], [0, 1, 0, 1])), &[&[1, 5, 5, 3]], &[]),
            "[1,3,3,3]"
        );
        assert_eq!(
            show(&pool(window([2, 2], [2, 2], [2, 0, 0, 0])), &[&[1, 5, 5, 3]], &[]),
            "padding 2,0,0,0 leaves windows of 2x2 without any element of the input"
        );
    }

    #[test]
    fn broadcasting() {
        let kind = OpKind::Binary {
            op: BinaryOp::Add,
            activation: Activation::None,
        };
        assert_eq!(show(&kind, &[&[2, 1, 3], &[4, 1]], &[]), "[2,4,3]");
        assert_eq!(show(&kind, &[&[], &[4, 1]], &[]), "[4,1]");
        assert_eq!(show(&kind, &[&[2], &[3]], &[]), "[2] and [3] do not broadcast");
        assert_eq!(show(&kind, &[&[2]], &[]), "add takes 2 operands, not 1");
        assert_eq!(
            show(&kind, &[&[1 << 20, 1], &[1, 1 << 20]], &[]),
            "[1048576,1048576] has more than the 4294967296 elements that a tensor may have"
        );
    }

    #[test]
    fn movers() {
        let concat = OpKind::Concat { axis: 1 };
        assert_eq!(show(&concat, &[&[2, 1], &[2, 5]], &[]), "[2,6]");
        assert_eq!(
            show(&concat, &[&[2, 1], &[3, 5]], &[]),
            "[2,1] and [3,5] cannot be joined along dimension 1"
        );
        assert_eq!(show(&concat, &[&[2]], &[]), "axis 1 is not a dimension of [2]");
        let pad = OpKind::Pad {
            amounts: vec![[1, 2], [0, usize::MAX]],
            value: 0,
        };
        assert_eq!(
            show(&pad, &[&[2, 1]], &[]),
            format!("padding of [2,1] by [[1, 2], [0, {}]] is too large", usize::MAX)
        );
        assert_eq!(
            show(
                &OpKind::Pad {
                    amounts: vec![[1, 2]],
                    value: 0
                },
                &[&[2]],
                &[]
            ),
            "[5]"
        );
        let transpose = |permutation: &[usize]| OpKind::Transpose {
            permutation: permutation.to_vec(),
        };
        assert_eq!(show(&transpose(&[2, 0, 1]), &[&[2, 3, 4]], &[]), "[4,2,3]");
        assert_eq!(show(&transpose(&[]), &[&[]], &[]), "[]");
        for permutation in [&[0, 1][..], &[0, 1, 1], &[0, 1, 3], &[0, 1, 2, 3]] {
            assert_eq!(
                show(&transpose(permutation), &[&[2, 3, 4]], &[]),
                format!("{permutation:?} is not an order of the 3 dimensions of [2,3,4]")
            );
        }
        assert_eq!(show(&OpKind::Reshape, &[&[2, 3]], &[6, 1]), "[6,1]");
        assert_eq!(
            show(&OpKind::Reshape, &[&[2, 3]], &[5]),
            "[2,3] cannot become [5]: the numbers of elements differ"
        );
        let mean = |axes: &[usize], keep_dims| OpKind::Mean {
            axes: axes.to_vec(),
            keep_dims,
        };
        assert_eq!(show(&mean(&[1, 2], true), &[&[1, 4, 5, 6]], &[]), "[1,1,1,6]");
        assert_eq!(show(&mean(&[1, 2], false), &[&[1, 4, 5, 6]], &[]), "[1,6]");
        assert_eq!(
            show(&mean(&[2, 1], false), &[&[1, 4, 5, 6]], &[]),
            "axes [2, 1] are not sorted, distinct dimensions of [1,4,5,6]"
        );
        assert_eq!(show(&OpKind::Lookup, &[&[4], &[255]], &[]), "table [255] is not [256]");
    }
}
