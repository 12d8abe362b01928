//! What packed functions of TVM are called with: shapes, `DLTensor`s and `TVMValue`s, as far as they are constant.
//!
//! ```c
//! typedef struct { void *data; DLDevice { int32_t device_type, device_id; } device; int32_t ndim;
//!                  DLDataType { uint8_t code, bits; uint16_t lanes; } dtype;
//!                  int64_t *shape; int64_t *strides; uint64_t byte_offset; } DLTensor;
//! typedef union { int64_t v_int64; void *v_handle; … } TVMValue;
//! ```
//! (tvm/runtime/c_runtime_api.h and dlpack.h, as TVM 0.8 to 0.18 have them.)

use super::{ArenaKind, Model};
use crate::error::{Error, Result};
use crate::graph::external::{Argument, Convention, External, Port};
use crate::graph::{DType, OpId, OpKind};
use crate::kernels::{Call, Operand};
use crate::plan::Place;
use std::collections::BTreeMap;

/// `kTVMArgInt`.
const CODE_INTEGER: i32 = 0;
/// `kTVMOpaqueHandle`.
const CODE_HANDLE: i32 = 3;
/// `kTVMDLTensorHandle`.
const CODE_TENSOR: i32 = 7;
/// `kDLCPU`.
pub(super) const DEVICE_CPU: i32 = 1;
/// Size of a `TVMValue`.
pub(super) const VALUE: u64 = 8;

/// An address that the linker fills in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Offset of the pointer in the table.
    pub offset: u64,
    /// The symbol.
    pub symbol: String,
    /// What is added to it.
    pub addend: u64,
}

/// Offsets of the members of a `DLTensor`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TensorLayout {
    pub device_type: u64,
    pub device_id: u64,
    pub ndim: u64,
    pub dtype: u64,
    pub shape: u64,
    pub strides: u64,
    pub byte_offset: u64,
    pub size: u64,
}

impl TensorLayout {
    /// For pointers of 4 or 8 bytes; `uint64_t` is aligned to 8 in both.
    pub fn new(pointer: u64) -> Self {
        let device_type = pointer;
        let dtype = device_type + 12;
        let shape = dtype + 4;
        let byte_offset = (shape + 2 * pointer).next_multiple_of(8);
        TensorLayout {
            device_type,
            device_id: device_type + 4,
            ndim: device_type + 8,
            dtype,
            shape,
            strides: shape + pointer,
            byte_offset,
            size: byte_offset + 8,
        }
    }
}

/// A tensor as a packed function sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Described {
    /// Offset of its shape in the table; `None` for a scalar.
    pub shape: Option<u64>,
    pub ndim: u32,
    /// Type code, bits and one lane as the bytes of a `DLDataType`.
    pub dtype: u32,
}

/// One argument of a packed call.
#[derive(Clone, Debug)]
pub(super) enum Packed {
    /// A `DLTensor` in the table, at this offset.
    Constant(u64),
    /// A `DLTensor` whose data is known only at run time: that of this operand.
    Dynamic(Operand, Described),
    /// The address of a symbol.
    Symbol(String),
    /// A number.
    Integer(i32),
}

/// A packed call.
#[derive(Clone, Debug)]
pub(super) struct PackedCall {
    pub arguments: Vec<Packed>,
    /// Offset of its `TVMValue`s, if all of them are constant.
    pub values: Option<u64>,
    /// Offset of its type codes.
    pub codes: u64,
}

/// The constant part of all packed calls of a model: one object, with the pointers in it.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Its bytes; pointers are zero.
    pub bytes: Vec<u8>,
    /// Its pointers, by offset.
    pub addresses: Vec<Address>,
    pub(super) calls: BTreeMap<OpId, PackedCall>,
    /// Symbol of the table itself.
    own: String,
    pointer: u64,
    shapes: BTreeMap<Vec<u64>, u64>,
    codes: BTreeMap<Vec<i32>, u64>,
    tensors: BTreeMap<(Described, String, u64), u64>,
}

/// `DLDataType` of an element, little-endian.
fn data_type(dtype: DType) -> u32 {
    let code = match dtype {
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => 0,
        DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::Bool => 1,
        DType::F16 | DType::F32 | DType::F64 => 2,
    };
    let bits = if dtype == DType::Bool {
        1
    } else {
        8 * dtype.bytes() as u32
    };
    code | bits << 8 | 1 << 16
}

/// The constant address of an operand, if it has one: a symbol and an offset.
fn constant_address(operand: Operand, call: &Call, model: &Model) -> Option<(String, u64)> {
    let Model { plan, names, arena, .. } = *model;
    if model.is_outside(&operand) {
        return None;
    }
    let in_arena = |offset| {
        let (pool, offset) = plan.locate(offset);
        (arena == ArenaKind::Static).then(|| (names.pool(pool).symbol.clone(), offset))
    };
    match operand {
        Operand::Parameter(id) => Some((names.parameter(id).symbol.clone(), 0)),
        Operand::Scratch => in_arena(plan.scratch(call.op)?),
        Operand::Tensor(id) => match plan.places.get(id.index())? {
            Place::Arena(offset) => in_arena(*offset),
            Place::Constant => Some((names.constants.get(&id)?.symbol.clone(), 0)),
            _ => None,
        },
        Operand::Row(_) | Operand::Window(_) | Operand::State => None,
    }
}

/// The operand of a call that an argument means.
pub(super) fn operand(call: &Call, port: Port, inputs: usize) -> Result<Operand> {
    let index = match port {
        Port::Input(i) => i,
        Port::Output(i) => inputs + i,
    };
    let found = call.operands.get(index).copied();
    found.ok_or_else(|| Error::internal(format!("a call has no operand {port}")))
}

impl Tables {
    /// The tables of all packed calls. Empty if there are none.
    ///
    /// # Errors
    /// [`Code::Internal`](crate::error::Code::Internal) if a call does not have the operands of its operator.
    pub fn new(model: &Model) -> Result<Self> {
        let mut tables = Tables {
            own: model.names.tables.symbol.clone(),
            pointer: model.target.machine().pointer_bytes as u64,
            ..Tables::default()
        };
        let calls: BTreeMap<OpId, &Call> = model.lowering.calls.iter().map(|call| (call.op, call)).collect();
        for call in model.plan.order.iter().filter_map(|op| calls.get(op)) {
            if let OpKind::External(external) = &model.graph.op(call.op).kind
                && external.convention == Convention::Packed
            {
                let packed = tables.call(model, call, external)?;
                tables.calls.insert(call.op, packed);
            }
        }
        tables.addresses.sort_by_key(|address| address.offset);
        Ok(tables)
    }

    fn call(&mut self, model: &Model, call: &Call, external: &External) -> Result<PackedCall> {
        let graph = model.graph;
        let op = graph.op(call.op);
        let mut codes = Vec::with_capacity(external.arguments.len());
        let mut arguments = Vec::with_capacity(external.arguments.len());
        for argument in &external.arguments {
            let (code, packed) = match argument {
                Argument::Port(port) => {
                    let id = match port {
                        Port::Input(i) => op.inputs[*i],
                        Port::Output(i) => op.outputs[*i],
                    };
                    let tensor = graph.tensor(id);
                    let dims: Vec<u64> = tensor.shape.0.iter().map(|dim| *dim as u64).collect();
                    let described = self.describe(&dims, tensor.dtype);
                    let operand = operand(call, *port, op.inputs.len())?;
                    let address = constant_address(operand, call, model);
                    (CODE_TENSOR, self.tensor(operand, described, address))
                }
                Argument::Workspace(offset) => {
                    let described = self.describe(&[external.workspace.size - offset], DType::U8);
                    let address = constant_address(Operand::Scratch, call, model);
                    let address = address.map(|(symbol, addend)| (symbol, addend + offset));
                    (CODE_TENSOR, self.tensor(Operand::Scratch, described, address))
                }
                Argument::Symbol(symbol) => (CODE_HANDLE, Packed::Symbol(symbol.clone())),
                Argument::Integer(value) => (CODE_INTEGER, Packed::Integer(*value)),
            };
            codes.push(code);
            arguments.push(packed);
        }
        let dynamic = arguments.iter().any(|packed| matches!(packed, Packed::Dynamic(..)));
        let values = (!dynamic).then(|| self.values(&arguments));
        let codes = self.codes(codes);
        Ok(PackedCall {
            arguments,
            values,
            codes,
        })
    }

    fn align(&mut self, to: u64) -> u64 {
        let at = (self.bytes.len() as u64).next_multiple_of(to);
        self.bytes.resize(at as usize, 0);
        at
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let end = at as usize + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at as usize..end].copy_from_slice(bytes);
    }

    fn address(&mut self, at: u64, symbol: String, addend: u64) {
        self.put(at, &[0; 8][..self.pointer as usize]);
        self.addresses.push(Address {
            offset: at,
            symbol,
            addend,
        });
    }

    fn describe(&mut self, dims: &[u64], dtype: DType) -> Described {
        let shape = (!dims.is_empty()).then(|| match self.shapes.get(dims) {
            Some(shape) => *shape,
            None => {
                let at = self.align(8);
                dims.iter().for_each(|dim| self.bytes.extend(dim.to_le_bytes()));
                self.shapes.insert(dims.to_vec(), at);
                at
            }
        });
        Described {
            shape,
            ndim: dims.len() as u32,
            dtype: data_type(dtype),
        }
    }

    fn tensor(&mut self, operand: Operand, described: Described, address: Option<(String, u64)>) -> Packed {
        let Some((symbol, addend)) = address else {
            return Packed::Dynamic(operand, described);
        };
        let key = (described, symbol, addend);
        if let Some(known) = self.tensors.get(&key) {
            return Packed::Constant(*known);
        }
        let (described, symbol, addend) = key.clone();
        let at = self.align(8);
        let layout = TensorLayout::new(self.pointer);
        self.put(at + layout.size - 1, &[0]);
        self.address(at, symbol, addend);
        self.put(at + layout.device_type, &DEVICE_CPU.to_le_bytes());
        self.put(at + layout.ndim, &described.ndim.to_le_bytes());
        self.put(at + layout.dtype, &described.dtype.to_le_bytes());
        if let Some(shape) = described.shape {
            self.address(at + layout.shape, self.own.clone(), shape);
        }
        self.tensors.insert(key, at);
        Packed::Constant(at)
    }

    fn values(&mut self, arguments: &[Packed]) -> u64 {
        let at = self.align(8);
        self.bytes.resize((at + VALUE * arguments.len() as u64) as usize, 0);
        for (i, argument) in arguments.iter().enumerate() {
            let at = at + VALUE * i as u64;
            match argument {
                Packed::Constant(tensor) => self.address(at, self.own.clone(), *tensor),
                Packed::Symbol(symbol) => self.address(at, symbol.clone(), 0),
                Packed::Integer(value) => self.put(at, &i64::from(*value).to_le_bytes()),
                Packed::Dynamic(..) => {}
            }
        }
        at
    }

    fn codes(&mut self, codes: Vec<i32>) -> u64 {
        // A longer list begins with the shorter one where all are tensors.
        let known = self.codes.iter().find(|(known, _)| known.starts_with(&codes));
        if let Some((_, at)) = known {
            return *at;
        }
        let at = self.align(4);
        codes.iter().for_each(|code| self.bytes.extend(code.to_le_bytes()));
        self.codes.insert(codes, at);
        at
    }
}
