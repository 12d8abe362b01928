//! The text form of a graph: one operator per line.
//!
//! ```text
//! graph "kws"
//! input %0 "input_1" : int8[1,49,10,1] q(0.58,83)
//! const %1 "conv/filter" : int8[2,3,3,1] q(axis=0, 0.25:0, 0.5:0) = [1, -2, 3, …]
//! const %2 "conv/bias" : int32[2] = [100, -100]
//! %3 "conv" : int8[1,25,5,2] q(0.25,-128) = conv2d(%0, %1, %2) stride=2x2 pad=1,1,0,1 act=relu
//! output %3
//! ```
//!
//! [`print_full`] and [`parse`] are inverse to one another, bit for bit and with every index. [`print()`] is the
//! listing for people: as `print_full`, but the bytes of large constants are replaced by their number and hash. It
//! parses back where no constant is large.
//!
//! # Grammar
//! One statement per line; spaces separate words and are free elsewhere; `#` starts a comment.
//! ```text
//! graph     = "graph" STRING                                  the model's name
//! input     = "input" value                                   in the model's order
//! constant  = "const" value "=" data
//! operator  = value "=" NAME "(" [ID {"," ID}] ")" {attribute}
//! unused    = "tensor" value                                  neither constant nor produced
//! output    = "output" ID {"," ID}
//!
//! value     = ID [STRING] ":" type [quantization]             without a name, %7 is called "t7"
//! ID        = "%" INTEGER                                     the tensor's index; all from 0 up occur
//! type      = DTYPE "[" [INTEGER {"," INTEGER}] "]"
//! quantization = "q(" FLOAT "," INTEGER ")"                   scale, zero point
//!              | "q(axis=" INTEGER {"," FLOAT ":" INTEGER} ")"
//!
//! data      = "[" [element {"," element}] "]"                 innermost dimension fastest
//!           | "fill(" element ")"                             all equal
//!           | "ramp(" element "," element ")"                 start, step; integers wrap
//!           | "lcg(" INTEGER "," element "," element ")"      pseudo-random: seed, least, most
//!           | "hex" HEXDIGITS                                 little-endian bytes
//!           | "blake3:" HEXDIGITS "bytes=" INTEGER            left out; cannot be parsed
//! element   = INTEGER | FLOAT | "0x" HEXDIGITS                the latter is an element's bits
//!
//! attribute = "window=" HxW | "stride=" HxW | "dilation=" HxW       1x1 if absent; a convolution's window is its filter's
//!           | "pad=" TOP "," BOTTOM "," LEFT "," RIGHT              pools and convolutions; none if absent
//!           | "act=" ("relu" | "relu6" | "relu_n1_to_1")
//!           | "multiplier=" INTEGER                                 depthwise_conv2d; 1 if absent
//!           | "beta=" FLOAT                                         softmax; 1.0 if absent
//!           | "axes=" INTEGER {"," INTEGER} | "keep"                mean; none if absent
//!           | "amounts=" B:A {"," B:A} | "value=" element           pad; none and 0 if absent
//!           | "axis=" INTEGER                                       concat
//!           | "source=" INTEGER | "name=" STRING                    the operator's index in the source model, its name;
//!                                                                   its position and its result's name if absent
//! ```
//! Floats are the shortest decimal that reads back as the same bits, or `inf`, `-inf`, `nan` (the default one).
//! Strings are escaped as in Rust.
//!
//! `lcg` is `x ← 6364136223846793005·x + 1442695040888963407 (mod 2^64)` from the seed; an integer element is
//! `least + (x >> 33) mod (most − least + 1)`, a float `least + (most − least)·(x >> 40)/2^24`.

mod cursor;
mod parse;
mod print;

pub use parse::parse;
pub use print::{Subject, lines, print, print_full};

use super::{Activation, DType};

const ACTIVATIONS: [(Activation, &str); 3] = [
    (Activation::Relu, "relu"),
    (Activation::Relu6, "relu6"),
    (Activation::ReluN1To1, "relu_n1_to_1"),
];

/// The element whose little-endian bytes are the low bytes of `bits`.
fn element(dtype: DType, bits: u64) -> String {
    match dtype {
        DType::I8 => (bits as i8).to_string(),
        DType::U8 | DType::Bool => (bits as u8).to_string(),
        DType::I16 => (bits as i16).to_string(),
        DType::I32 => (bits as i32).to_string(),
        DType::I64 => (bits as i64).to_string(),
        DType::F32 => float(f32::from_bits(bits as u32)),
        DType::U16 => (bits as u16).to_string(),
        DType::U32 => (bits as u32).to_string(),
        DType::U64 => bits.to_string(),
        DType::F16 => format!("{:#06x}", bits as u16),
        DType::F64 => format!("{bits:#018x}"),
    }
}

/// A float that reads back as the same bits.
fn float(x: f32) -> String {
    match x {
        _ if x.is_nan() && x.to_bits() != f32::NAN.to_bits() => format!("0x{:08x}", x.to_bits()),
        _ if x.is_nan() => "nan".into(),
        _ => format!("{x:?}"),
    }
}

/// The step of the generator behind `lcg`.
fn lcg(x: u64) -> u64 {
    x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407)
}

#[cfg(test)]
mod tests;
