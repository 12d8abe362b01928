//! Writes TFLite models of any size: layers with pseudo-random weights, streamed to the file.
//!
//! The flatbuffer's tables are built with empty weights; the weights are appended, and the offsets that refer to them
//! are set to where they are. (All tables of the format that are used here, by number: `schema.fbs` of TensorFlow Lite.)

use flatbuffers::{FlatBufferBuilder, TableUnfinishedWIPOffset, UOffsetT, WIPOffset};
use std::io::{self, Seek, SeekFrom, Write};

type Built = WIPOffset<flatbuffers::TableFinishedWIPOffset>;

const FLOAT32: i8 = 0;
const INT32: i8 = 2;
const INT8: i8 = 9;
const ADD: i8 = 0;
const ADD_OPTIONS: u8 = 11;
const FULLY_CONNECTED: i8 = 9;
const FULLY_CONNECTED_OPTIONS: u8 = 8;

/// The slot of a field in a table's vtable.
fn slot(field: u16) -> u16 {
    4 + 2 * field
}

fn table(b: &mut FlatBufferBuilder, fill: impl FnOnce(&mut FlatBufferBuilder)) -> Built {
    let start: WIPOffset<TableUnfinishedWIPOffset> = b.start_table();
    fill(b);
    b.end_table(start)
}

fn tensor(b: &mut FlatBufferBuilder, name: &str, shape: &[i32], dtype: i8, buffer: u32, scale: f32) -> Built {
    let (name, shape) = (b.create_string(name), b.create_vector(shape));
    let quantization = (dtype != FLOAT32).then(|| {
        let (scale, zero) = (b.create_vector(&[scale]), b.create_vector(&[0i64]));
        table(b, |b| {
            b.push_slot_always(slot(2), scale);
            b.push_slot_always(slot(3), zero);
        })
    });
    table(b, |b| {
        b.push_slot_always(slot(0), shape);
        b.push_slot(slot(1), dtype, 0);
        b.push_slot(slot(2), buffer, 0);
        b.push_slot_always(slot(3), name);
        if let Some(quantization) = quantization {
            b.push_slot_always(slot(4), quantization);
        }
    })
}

/// Position of what the field of the table at `at` refers to, and of the field itself.
fn follow(bytes: &[u8], at: usize, field: u16) -> (usize, usize) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let vtable = at.wrapping_add_signed(-(word(at) as i32 as isize));
    let entry = vtable + usize::from(slot(field));
    let place = at + usize::from(u16::from_le_bytes(bytes[entry..entry + 2].try_into().unwrap()));
    (place + word(place) as usize, place)
}

/// What the layers compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// int8 weights, int32 biases.
    Int8,
    /// float32 weights, no biases: a layer is one tensor.
    #[allow(dead_code, reason = "not every program that includes this file makes all kinds")]
    Float,
    /// No dense layers but constants that are added, float32: what a kernel reads as it is in the model.
    #[allow(dead_code, reason = "not every program that includes this file makes all kinds")]
    Added,
}

/// Writes a model of layers between `widths` to `out`.
///
/// # Errors
/// Those of writing.
pub fn write(out: &mut (impl Write + Seek), kind: Kind, widths: &[usize]) -> io::Result<()> {
    let added = kind == Kind::Added;
    let float = kind != Kind::Int8;
    let (dtype, size) = if float { (FLOAT32, 4) } else { (INT8, 1) };
    let mut b = FlatBufferBuilder::new();
    let layers = widths.windows(2).map(|w| if added { [1, w[1]] } else { [w[0], w[1]] });
    let layers: Vec<[usize; 2]> = layers.collect();
    // Products of uniform weights and activations have a deviation of some 73² √k: outputs keep the inputs' scale.
    let weight_scale = |k: usize| 1.0 / (73.0 * (k as f32).sqrt());
    // Buffer 0 is the empty one of all activations; layer i has weights 2i + 1 and bias 2i + 2 (empty without biases).
    let mut tensors = vec![tensor(&mut b, "input", &[1, widths[0] as i32], dtype, 0, 1.0)];
    let mut buffers = vec![table(&mut b, |_| {})];
    let mut operators = Vec::new();
    for (i, &[k, n]) in layers.iter().enumerate() {
        let first = tensors.len() as i32;
        let scale = weight_scale(k);
        let weights = 2 * i as u32 + 1;
        let input = if i == 0 { 0 } else { first - 1 };
        tensors.push(tensor(
            &mut b,
            &format!("dense_{i}/weights"),
            &if added { [1, n as i32] } else { [n as i32, k as i32] },
            dtype,
            weights,
            scale,
        ));
        if !float {
            tensors.push(tensor(
                &mut b,
                &format!("dense_{i}/bias"),
                &[n as i32],
                INT32,
                weights + 1,
                scale,
            ));
        }
        let result = tensors.len() as i32;
        tensors.push(tensor(&mut b, &format!("dense_{i}"), &[1, n as i32], dtype, 0, 1.0));
        let placeholder = b.create_vector::<u8>(&[]);
        buffers.push(table(&mut b, |b| b.push_slot_always(slot(0), placeholder)));
        if float {
            buffers.push(table(&mut b, |_| {}));
        } else {
            let bias: Vec<u8> = (0..n as i32)
                .flat_map(|i| (i * 37 % 2001 - 1000).to_le_bytes())
                .collect();
            let bias = b.create_vector(&bias);
            buffers.push(table(&mut b, |b| b.push_slot_always(slot(0), bias)));
        }
        let bias = if float { -1 } else { first + 1 };
        let inputs = b.create_vector(&[input, first, bias][..if added { 2 } else { 3 }]);
        let outputs = b.create_vector(&[result]);
        let options = table(&mut b, |_| {});
        operators.push(table(&mut b, |b| {
            b.push_slot_always(slot(1), inputs);
            b.push_slot_always(slot(2), outputs);
            b.push_slot(slot(3), if added { ADD_OPTIONS } else { FULLY_CONNECTED_OPTIONS }, 0);
            b.push_slot_always(slot(4), options);
        }));
    }
    let last = tensors.len() as i32 - 1;
    let (tensors, operators, buffers) = (
        b.create_vector(&tensors),
        b.create_vector(&operators),
        b.create_vector(&buffers),
    );
    let (inputs, outputs) = (b.create_vector(&[0i32]), b.create_vector(&[last]));
    let graph = table(&mut b, |b| {
        b.push_slot_always(slot(0), tensors);
        b.push_slot_always(slot(1), inputs);
        b.push_slot_always(slot(2), outputs);
        b.push_slot_always(slot(3), operators);
    });
    let code = table(&mut b, |b| {
        let operator = if added { ADD } else { FULLY_CONNECTED };
        b.push_slot(slot(0), operator, 0);
        b.push_slot(slot(2), if added { 1i32 } else { 4 }, 1);
        b.push_slot(slot(3), i32::from(operator), 0);
    });
    let (graphs, codes) = (b.create_vector(&[graph]), b.create_vector(&[code]));
    let model = table(&mut b, |b| {
        b.push_slot(slot(0), 3u32, 0);
        b.push_slot_always(slot(1), codes);
        b.push_slot_always(slot(2), graphs);
        b.push_slot_always(slot(4), buffers);
    });
    b.finish(model, Some("TFL3"));

    let mut bytes = b.finished_data().to_vec();
    let root = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    let (list, _) = follow(&bytes, root, 4);
    let mut end = bytes.len();
    let mut pieces = Vec::new();
    for (i, &[k, n]) in layers.iter().enumerate() {
        let entry = list + 4 + 4 * (2 * i + 1);
        let buffer = entry + u32::from_le_bytes(bytes[entry..entry + 4].try_into().unwrap()) as usize;
        let (_, place) = follow(&bytes, buffer, 0);
        // The length comes first, then the data, 16-aligned.
        let at = (end + 4).next_multiple_of(16) - 4;
        bytes[place..place + 4].copy_from_slice(&((at - place) as UOffsetT).to_le_bytes());
        let len = k * n * size;
        pieces.push((at, len));
        end = at + 4 + len;
    }
    out.write_all(&bytes)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut chunk = vec![0u8; 1 << 16];
    for (at, len) in pieces {
        out.seek(SeekFrom::Start(at as u64))?;
        out.write_all(&(len as u32).to_le_bytes())?;
        let mut left = len;
        while left > 0 {
            for word in chunk.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // −128 is no weight of TFLite's; floats are small and finite.
                let value = match kind {
                    Kind::Int8 => state | 0x0101_0101_0101_0101,
                    Kind::Float | Kind::Added => state & 0x80ff_ffff_80ff_ffff | 0x3c00_0000_3c00_0000,
                };
                word.copy_from_slice(&value.to_le_bytes());
            }
            let n = left.min(chunk.len());
            out.write_all(&chunk[..n])?;
            left -= n;
        }
    }
    out.flush()
}
