//! Tensors as the file declares them, and their quantization.

use super::skeleton::Skeleton;
use super::{Findings, schema};
use crate::data::{Bytes, Source};
use crate::error::{Code, Error, Result};
use crate::graph::{DType, Quantization, Shape};
use crate::limits;
use std::ops::Range;
use std::sync::Arc;

/// A tensor as declared; its dimensions may be negative, its type unknown.
pub(super) struct Declared<'a> {
    /// Its name, `tensor7` if it has none.
    pub name: String,
    /// Its element type, as in the file.
    pub dtype: schema::TensorType,
    /// Its dimensions, as in the file.
    pub dims: Vec<i32>,
    /// The elements of a constant.
    pub data: Option<Bytes>,
    table: schema::Tensor<'a>,
}

/// Reads all tensors of a subgraph and finds their data; `model` is read from `skeleton` if there is one.
///
/// # Errors
/// All that are broken, at once.
pub(super) fn read<'a>(
    source: &Arc<Source>,
    skeleton: Option<&Skeleton>,
    model: schema::Model<'a>,
    subgraph: schema::SubGraph<'a>,
) -> Result<Vec<Declared<'a>>> {
    let buffers: Vec<schema::Buffer> = model.buffers().into_iter().flatten().collect();
    let mut tensors = Vec::new();
    let mut findings = Findings::default();
    for (index, table) in subgraph.tensors().into_iter().flatten().enumerate() {
        let at = |error: Error| {
            error.at(format!(
                "tensor {index} {:?}",
                keep_name(table.name().unwrap_or_default())
            ))
        };
        tensors.extend(findings.keep(declared(source, skeleton, &buffers, index, table).map_err(at)));
    }
    findings.check()?;
    Ok(tensors)
}

fn declared<'a>(
    source: &Arc<Source>,
    skeleton: Option<&Skeleton>,
    buffers: &[schema::Buffer<'a>],
    index: usize,
    table: schema::Tensor<'a>,
) -> Result<Declared<'a>> {
    let name = table.name().filter(|name| !name.is_empty());
    if name.is_some_and(|name| name.contains('\0')) {
        return Err(Error::model("the tensor's name contains a NUL character"));
    }
    let dims = table.shape();
    let rank = dims.map_or(0, |dims| dims.len());
    if rank > limits::RANK {
        let message = format!("the tensor has {rank} dimensions, more than {}", limits::RANK);
        return Err(Error::new(Code::Limit, message));
    }
    let mut tensor = Declared {
        name: name.map_or_else(|| format!("tensor{index}"), keep_name),
        dtype: table.type_(),
        dims: dims.into_iter().flatten().collect(),
        data: None,
        table,
    };
    let buffer = table.buffer() as usize;
    let Some(&entry) = buffers.get(buffer) else {
        return Err(Error::model(format!(
            "the tensor refers to buffer {buffer}, but the model has {}",
            buffers.len()
        )));
    };
    if let Some(range) = data_range(source, skeleton, buffer, entry)? {
        if let Some(bits) = bits(tensor.dtype).filter(|_| !tensor.is_sparse()) {
            let shape = tensor.shape()?;
            let expect = shape.elements() as u64 * bits / 8;
            let len = range.end - range.start;
            if len != expect {
                let kind = tensor.type_name();
                return Err(Error::model(format!(
                    "the tensor's data have {len} bytes, but {kind}{shape} has {expect}"
                )));
            }
        }
        // In range: both cases of data_range are inside the file.
        tensor.data = Bytes::new(source.clone(), range);
    }
    Ok(tensor)
}

/// Where a buffer's data lie in the file; `None` if it has none.
fn data_range(
    source: &Source,
    skeleton: Option<&Skeleton>,
    index: usize,
    buffer: schema::Buffer,
) -> Result<Option<Range<u64>>> {
    if let Some(range) = skeleton.and_then(|skeleton| skeleton.payload(index)) {
        return Ok(Some(range));
    }
    let file = skeleton.map_or(source.bytes(), Skeleton::bytes);
    if let Some(data) = buffer.data().map(|data| data.bytes()).filter(|data| !data.is_empty()) {
        // The slice lies in the file: the flatbuffer was read from it.
        let start = (data.as_ptr() as usize - file.as_ptr() as usize) as u64;
        return Ok(Some(start..start + data.len() as u64));
    }
    // 0 and 1 are placeholders of a file that keeps its data inside.
    if buffer.offset() <= 1 || buffer.size() == 0 {
        return Ok(None);
    }
    match buffer.offset().checked_add(buffer.size()) {
        Some(end) if end <= file.len() as u64 => Ok(Some(buffer.offset()..end)),
        _ => Err(Error::model(format!(
            "buffer {index} holds {} bytes from {} of the file, which has {}",
            buffer.size(),
            buffer.offset(),
            file.len()
        ))),
    }
}

/// The name, or for one that is too long its beginning and a hash of the whole.
pub(super) fn keep_name(name: &str) -> String {
    if name.len() <= limits::NAME_BYTES {
        return name.to_owned();
    }
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let mut end = limits::NAME_BYTES - 17;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}~{}", &name[..end], &hash[..16])
}

/// Size of an element in bits, where elements have a fixed size and are not packed.
fn bits(dtype: schema::TensorType) -> Option<u64> {
    use schema::TensorType as T;
    Some(match dtype {
        T::INT8 | T::UINT8 | T::BOOL => 8,
        T::INT16 | T::UINT16 | T::FLOAT16 | T::BFLOAT16 => 16,
        T::INT32 | T::UINT32 | T::FLOAT32 => 32,
        T::INT64 | T::UINT64 | T::FLOAT64 | T::COMPLEX64 => 64,
        T::COMPLEX128 => 128,
        _ => return None,
    })
}

impl Declared<'_> {
    /// The element type's name: `int8`, `float16`, `type 99`.
    pub fn type_name(&self) -> String {
        match self.dtype.variant_name() {
            Some(name) => name.to_ascii_lowercase(),
            None => format!("type {}", self.dtype.0),
        }
    }

    /// `float32[1,-1,8]`, with the dimensions of the file.
    pub fn describe(&self) -> String {
        let dims: Vec<String> = self.dims.iter().map(i32::to_string).collect();
        format!("{}[{}]", self.type_name(), dims.join(","))
    }

    /// The element type, if the graph has it.
    pub fn graph_type(&self) -> Option<DType> {
        use schema::TensorType as T;
        Some(match self.dtype {
            T::INT8 => DType::I8,
            T::UINT8 => DType::U8,
            T::INT16 => DType::I16,
            T::INT32 => DType::I32,
            T::INT64 => DType::I64,
            T::FLOAT32 => DType::F32,
            T::BOOL => DType::Bool,
            _ => return None,
        })
    }

    /// Whether every dimension is at least 1.
    pub fn is_static(&self) -> bool {
        self.dims.iter().all(|&dim| dim > 0)
    }

    /// The declared shape, which may have dimensions of 0.
    ///
    /// # Errors
    /// A negative dimension; more than [`limits::ELEMENTS`] elements.
    pub fn shape(&self) -> Result<Shape> {
        let shape: Option<Vec<usize>> = self.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let shape = shape.ok_or_else(|| Error::model(format!("{} has a negative dimension", self.describe())))?;
        elements(&shape)?;
        Ok(Shape(shape))
    }

    /// Whether the data are stored in a sparse layout.
    pub fn is_sparse(&self) -> bool {
        self.table.sparsity().is_some()
    }

    /// Whether the tensor keeps its value between runs.
    pub fn is_variable(&self) -> bool {
        self.table.is_variable()
    }

    /// Whether its data are in a file of their own.
    pub fn is_external(&self) -> bool {
        self.table.external_buffer() != 0
    }

    /// The quantization of a tensor of integers, for the given (inferred) shape.
    ///
    /// # Errors
    /// A scale that is not a positive number, a zero point out of range, numbers of values that fit nothing,
    /// a layout that is not supported.
    pub fn quantization(&self, shape: &Shape) -> Result<Option<Quantization>> {
        let range = match self.graph_type() {
            Some(DType::I8) => i64::from(i8::MIN)..=i64::from(i8::MAX),
            Some(DType::U8) => 0..=i64::from(u8::MAX),
            Some(DType::I16) => i64::from(i16::MIN)..=i64::from(i16::MAX),
            Some(DType::I32) => i64::from(i32::MIN)..=i64::from(i32::MAX),
            _ => return Ok(None),
        };
        let Some(table) = self.table.quantization() else {
            return Ok(None);
        };
        if table.details_type() != 0 {
            return Err(
                Error::unsupported("custom and blockwise quantization are not supported")
                    .help("quantize weights per tensor or per channel"),
            );
        }
        let scale: Vec<f32> = table.scale().into_iter().flatten().collect();
        let n = scale.len();
        if n == 0 {
            return Ok(None);
        }
        if let Some(i) = scale.iter().position(|scale| !(scale.is_finite() && *scale > 0.0)) {
            return Err(Error::model(format!(
                "quantization scale {i} is {}, not a positive number",
                scale[i]
            )));
        }
        let mut zeros: Vec<i64> = table.zero_point().into_iter().flatten().collect();
        if zeros.len() <= 1 {
            zeros = vec![zeros.first().copied().unwrap_or(0); n];
        }
        if zeros.len() != n {
            return Err(Error::model(format!(
                "the quantization has {n} scales but {} zero points",
                zeros.len()
            )));
        }
        if let Some(zero) = zeros.iter().find(|zero| !range.contains(zero)) {
            return Err(Error::model(format!(
                "zero point {zero} is not a value of {}",
                self.type_name()
            )));
        }
        let zero_point: Vec<i32> = zeros.iter().map(|&zero| zero as i32).collect();
        let dimension = table.quantized_dimension();
        let axis = usize::try_from(dimension).ok().filter(|&axis| axis < shape.rank());
        if n == 1 {
            if dimension != 0 && axis.is_none() {
                tracing::warn!(
                    tensor = self.name,
                    dimension,
                    "quantized_dimension does not exist; there is one scale, so the tensor is quantized as a whole"
                );
            }
            return Ok(Some(Quantization::per_tensor(scale[0], zero_point[0])));
        }
        if let Some(axis) = axis.filter(|&axis| shape.0[axis] == n) {
            return Ok(Some(Quantization {
                scale,
                zero_point,
                axis: Some(axis),
            }));
        }
        if scale.iter().all(|s| *s == scale[0]) && zero_point.iter().all(|z| *z == zero_point[0]) {
            tracing::warn!(
                tensor = self.name,
                dimension,
                "quantized_dimension does not fit the shape; all scales are equal, so the tensor is quantized as a whole"
            );
            return Ok(Some(Quantization::per_tensor(scale[0], zero_point[0])));
        }
        Err(Error::model(format!(
            "the quantization has {n} different scales along dimension {dimension}, but the shape is {shape}"
        )))
    }
}

/// Number of elements.
///
/// # Errors
/// More than [`limits::ELEMENTS`].
pub(super) fn elements(dims: &[usize]) -> Result<u64> {
    // A zero anywhere makes the product zero, but must not hide a product that does not fit: sizes are multiplied too.
    let mut product = 1_u64;
    for &dim in dims {
        product = product
            .checked_mul((dim as u64).max(1))
            .filter(|&product| product <= limits::ELEMENTS)
            .ok_or_else(|| {
                let shape = Shape(dims.to_vec());
                Error::new(
                    Code::Limit,
                    format!("shape {shape} has more than {} elements", limits::ELEMENTS),
                )
            })?;
    }
    Ok(if dims.contains(&0) { 0 } else { product })
}
