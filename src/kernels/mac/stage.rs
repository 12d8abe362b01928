//! Rows of the input that a kernel cannot read in place, copied to scratch: with borders, widened, replicated.

use super::super::emit::Emitter;
use super::super::schedule::Element;
use super::layer::Layer;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, I8, I8X16, I16, I16X8, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Type, Value};

/// The rows of one window height, in scratch.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    element: Element,
    /// Rows of a window.
    rows: usize,
    /// Source elements of a row.
    copied: usize,
    /// How often each element is repeated (the channel multiplier).
    repeat: usize,
    /// Elements of the left border.
    lead: usize,
    /// Elements from one row to the next; whole vectors.
    stride: usize,
    /// Source bytes from one row to the next.
    source_step: usize,
    /// Rows of the input if a window may reach above or below it.
    height: Option<usize>,
    /// Whether the rows are those of a table of pointers.
    table: bool,
    /// Whether there are borders at all.
    padded: bool,
    /// The value of positions outside the input.
    outside: i32,
}

impl Stage {
    /// For `layer`, whose kernel reads `element`s, up to `slack` of them after the last position, every input channel
    /// `repeat` times. `copied` is the number of source elements of a row.
    pub fn new(layer: &Layer, element: Element, copied: usize, repeat: usize, slack: usize) -> Self {
        let window = &layer.window;
        let pixel = layer.channels * repeat;
        let lead = window.padding.left * pixel;
        let used = lead + copied * repeat + window.padding.right * pixel + slack;
        let source = if element == Element::F32 { 4 } else { 1 };
        Stage {
            element,
            rows: window.size[0],
            copied,
            repeat,
            lead,
            stride: (used * element.bytes()).next_multiple_of(16) / element.bytes(),
            source_step: window.dilation[0] * layer.width * layer.channels * source,
            table: layer.table,
            height: (!layer.table && window.padding.top + window.padding.bottom > 0).then_some(layer.height),
            padded: layer.padded(),
            outside: layer.zero_point,
        }
    }

    /// The same for `rows` rows, `step` bytes of the input from one to the next.
    pub fn of_rows(self, rows: usize, step: usize) -> Self {
        Stage {
            rows,
            source_step: step,
            ..self
        }
    }

    /// Bytes from one row to the next.
    pub fn row_bytes(&self) -> usize {
        self.stride * self.element.bytes()
    }

    fn source_bytes(&self) -> usize {
        if self.element == Element::F32 { 4 } else { 1 }
    }

    fn rows_bytes(&self) -> usize {
        self.rows * self.row_bytes()
    }

    /// Bytes of the row of outside values that stands for rows above and below the input.
    fn absent_bytes(&self) -> usize {
        if self.height.is_some() {
            (self.copied * self.source_bytes()).next_multiple_of(16)
        } else {
            0
        }
    }

    /// Scratch in bytes.
    pub fn bytes(&self) -> usize {
        self.rows_bytes() + self.absent_bytes()
    }

    /// Once in a call: the borders.
    pub fn borders(&self, e: &mut Emitter, scratch: Value) {
        if !self.padded {
            return;
        }
        let zero = self.outside;
        let vector = e.target.machine().simd128;
        let fill = |e: &mut Emitter, at: usize, bytes: usize, element: Element| {
            let ty = if vector { I8X16 } else { I64 };
            let lane = match element {
                Element::I8 => i64::from_le_bytes([zero as u8; 8]),
                Element::U8 => i64::from_le_bytes([zero as u8 ^ 0x80; 8]),
                Element::I16 => i64::from(zero as i16),
                Element::F32 => 0,
            };
            let value = match (vector, element) {
                (false, _) => e.int(ty, lane),
                (true, Element::I16) => e.splat_int(I16X8, lane),
                (true, _) => e.splat_int(I8X16, lane),
            };
            let step = if vector { 16 } else { 8 };
            let from = e.offset(scratch, at as i64);
            e.counted((bytes / step) as u64, &[(from, step as i64)], &[], |e, p, _| {
                e.store(value, p[0], 0);
                vec![]
            });
        };
        fill(e, 0, self.rows_bytes(), self.element);
        let raw = if self.element == Element::F32 {
            Element::F32
        } else {
            Element::I8
        };
        fill(e, self.rows_bytes(), self.absent_bytes(), raw);
    }

    /// Copies the rows of a window whose first row is at `source`, row `y` of the input (outside it if negative).
    /// Only the first `copied` elements of each.
    pub fn copy(&self, e: &mut Emitter, scratch: Value, source: Value, y: Value, copied: usize, dilation: usize) {
        let to = e.offset(scratch, (self.lead * self.element.bytes()) as i64);
        if self.table {
            let rows = [(source, i64::from(e.pointer.bytes())), (to, self.row_bytes() as i64)];
            e.counted(self.rows as u64, &rows, &[], |e, p, _| {
                let from = e.entry(p[0], 0);
                self.elements(e, from, p[1], copied);
                vec![]
            });
            return;
        }
        let absent = self
            .height
            .map(|height| (e.offset(scratch, self.rows_bytes() as i64), height));
        let pointers = [(source, self.source_step as i64), (to, self.row_bytes() as i64)];
        let carried = if absent.is_some() { vec![y] } else { vec![] };
        e.counted(self.rows as u64, &pointers, &carried, |e, p, carried| {
            let from = match absent {
                None => p[0],
                Some((absent, height)) => {
                    let height = e.int(e.pointer, height as i64);
                    let inside = e.b.ins().icmp(IntCC::UnsignedLessThan, carried[0], height);
                    e.b.ins().select(inside, p[0], absent)
                }
            };
            self.elements(e, from, p[1], copied);
            carried.iter().map(|y| e.offset(*y, dilation as i64)).collect()
        });
    }

    /// Copies `count` elements.
    fn elements(&self, e: &mut Emitter, from: Value, to: Value, count: usize) {
        if !e.target.machine().simd128 {
            let (ty, size) = if self.element == Element::F32 {
                (F32, 4)
            } else {
                (I8, 1)
            };
            // Words that no alignment is known of.
            if e.target.machine().unaligned && self.element == Element::I8 && self.repeat == 1 && count >= 4 {
                self.pieces(e, from, to, count, I32, 4, 4);
            } else {
                self.pieces(e, from, to, count, ty, size, 4);
            }
            return;
        }
        let size = self.source_bytes();
        let vector = 16 / size;
        // Half a vector at least: the last piece overlaps the one before it.
        if count >= vector {
            self.pieces(e, from, to, count, I8X16, vector * size, 1);
        } else if count >= vector / 2 && self.repeat == 1 {
            self.pieces(e, from, to, count, I64, 8, 1);
        } else {
            let ty = if size == 4 { F32 } else { I8 };
            self.pieces(e, from, to, count, ty, size, 1);
        }
    }

    /// Copies `count` elements in pieces of `piece` bytes of type `ty`, `unroll` in one round. What is left over is
    /// one piece that overlaps the one before.
    #[allow(clippy::too_many_arguments)]
    fn pieces(&self, e: &mut Emitter, from: Value, to: Value, count: usize, ty: Type, piece: usize, unroll: usize) {
        let each = piece / self.source_bytes();
        let grown = each * self.repeat * self.element.bytes();
        let whole = count / each;
        let rounds = whole / unroll;
        let steps = [(from, (unroll * piece) as i64), (to, (unroll * grown) as i64)];
        let (_, ends) = e.counted(rounds as u64, &steps, &[], |e, p, _| {
            for i in 0..unroll {
                self.piece(e, p[0], p[1], ty, (i * piece) as i32, (i * grown) as i32);
            }
            vec![]
        });
        for i in 0..whole % unroll {
            self.piece(e, ends[0], ends[1], ty, (i * piece) as i32, (i * grown) as i32);
        }
        let rest = count - whole * each;
        if rest > 0 {
            let back = each - rest;
            let (back_from, back_to) = (back * self.source_bytes(), back * self.repeat * self.element.bytes());
            // `ends` is past the rounds; with more than one piece each the remainder above was written from there.
            let after = whole % unroll;
            self.piece(
                e,
                ends[0],
                ends[1],
                ty,
                (after * piece) as i32 - back_from as i32,
                (after * grown) as i32 - back_to as i32,
            );
        }
    }

    fn piece(&self, e: &mut Emitter, from: Value, to: Value, ty: Type, at: i32, to_at: i32) {
        if (ty, self.element) == (I64, Element::I16) {
            let wide = e.load_i8x8(from, at);
            e.store(wide, to, to_at);
            return;
        }
        let value = e.load(ty, from, at);
        match (ty, self.element) {
            (I8, element) => {
                let value = match element {
                    Element::U8 => {
                        let flip = e.int(I8, 0x80);
                        e.b.ins().bxor(value, flip)
                    }
                    Element::I16 => e.b.ins().sextend(I16, value),
                    _ => value,
                };
                for i in 0..self.repeat {
                    e.store(value, to, to_at + (i * element.bytes()) as i32);
                }
            }
            (F32, _) => {
                for i in 0..self.repeat {
                    e.store(value, to, to_at + 4 * i as i32);
                }
            }
            (I64, Element::U8) => {
                let flip = e.int(I64, 0x8080_8080_8080_8080u64 as i64);
                let value = e.b.ins().bxor(value, flip);
                e.store(value, to, to_at);
            }
            (I8X16, Element::F32) if self.repeat > 1 => {
                for i in 0..self.repeat {
                    let lanes: Vec<u8> = (0..4).flat_map(|lane| word((4 * i + lane) / self.repeat)).collect();
                    let value = e.shuffle(value, value, lanes.try_into().expect("four words"));
                    e.store(value, to, to_at + 16 * i as i32);
                }
            }
            (I8X16, element) => {
                let value = if element == Element::U8 {
                    let flip = e.splat_int(I8X16, 0x80);
                    e.b.ins().bxor(value, flip)
                } else {
                    value
                };
                for i in 0..self.repeat {
                    let value = if self.repeat == 1 {
                        value
                    } else {
                        let lanes: Vec<u8> = (0..16).map(|lane| ((16 * i + lane) / self.repeat) as u8).collect();
                        e.shuffle(value, value, lanes.try_into().expect("sixteen bytes"))
                    };
                    if element == Element::I16 {
                        let (low, high) = (e.b.ins().swiden_low(value), e.b.ins().swiden_high(value));
                        e.store(low, to, to_at + 32 * i as i32);
                        e.store(high, to, to_at + 32 * i as i32 + 16);
                    } else {
                        e.store(value, to, to_at + 16 * i as i32);
                    }
                }
            }
            _ => e.store(value, to, to_at),
        }
    }
}

/// The byte indices of a 32-bit lane.
fn word(lane: usize) -> [u8; 4] {
    [0, 1, 2, 3].map(|byte| (4 * lane + byte) as u8)
}
