//! Rows of the input that a table points at, and patches of them that reach over the sides.

use super::super::emit::Emitter;
use super::layer::Layer;
use crate::target::Target;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I32};
use cranelift_codegen::ir::{InstBuilder, Value};

/// Rows that a table points at. A patch that reaches over the sides is put together first.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Bytes of a row, and of one of its pixels.
    pub row: usize,
    pub pixel: usize,
    /// Bytes of a pointer.
    pub pointer: usize,
    /// Bytes to the left of a row.
    pub left: usize,
    /// Rows of a window, pixels from the first one that a window needs to the last, from window to window.
    pub rows: usize,
    pub window: usize,
    pub stride: usize,
    /// Whether windows reach over the sides.
    pub padded: bool,
    /// In how many equal parts, of whole rows, patches are widened; sums wait in memory.
    pub parts: usize,
}

impl Table {
    pub fn new(layer: &Layer, target: &Target) -> Self {
        let window = &layer.window;
        Table {
            row: layer.width * layer.channels,
            pixel: layer.channels,
            pointer: target.machine().pointer_bytes,
            left: window.padding.left * layer.channels,
            rows: window.size[0],
            window: (window.size[1] - 1) * window.dilation[1] + 1,
            stride: window.stride[1],
            padded: window.padding.left + window.padding.right > 0,
            parts: 1,
        }
    }

    /// Rows of a part.
    pub fn part_rows(&self) -> usize {
        self.rows / self.parts
    }

    /// Pixels of a row of a patch of `positions`.
    pub fn pixels(&self, positions: usize) -> usize {
        (positions - 1) * self.stride + self.window
    }

    /// Bytes of a row of a patch that is put together.
    pub fn patch(&self, positions: usize) -> usize {
        (self.pixels(positions) * self.pixel).next_multiple_of(4)
    }

    /// Bytes of such a patch and of a table for it.
    pub fn bytes(&self, positions: usize) -> usize {
        if self.padded {
            self.part_rows() * (self.patch(positions) + self.pointer)
        } else {
            0
        }
    }

    /// How many of `places` (first position and positions) of `positions` each reach over the sides.
    pub fn edges(&self, places: &[(usize, usize)], positions: usize) -> u64 {
        let inside = |first: usize| {
            let start = first * self.stride * self.pixel;
            start >= self.left && start - self.left + self.pixels(positions) * self.pixel <= self.row
        };
        let edges = places
            .iter()
            .filter(|(first, count)| *count == positions && !inside(*first));
        edges.count() as u64
    }

    /// The table and the place in its rows (`left` too far to the right) for the patch of `positions` at `x` of the rows
    /// of `table`, `edges` of which reach over the sides. `scratch` is for one patch of `most` positions and its table.
    pub fn patch_at(
        &self,
        e: &mut Emitter,
        [table, x, scratch]: [Value; 3],
        positions: usize,
        most: usize,
        edges: u64,
    ) -> [Value; 2] {
        if edges == 0 {
            return [table, x];
        }
        let bytes = (self.pixels(positions) * self.pixel) as i64;
        let x = e.offset(x, -(self.left as i64));
        let inside = self.row as i64 - bytes + 1;
        let condition = if inside <= 0 {
            e.int(I32, 1)
        } else {
            let inside = e.int(e.pointer, inside);
            e.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, x, inside)
        };
        let back = e.offset(x, self.left as i64);
        let found = e.sometimes(condition, edges, &[table, back], |e| {
            let outside = e.args[5];
            let end = e.int(e.pointer, self.row as i64);
            let rows = [(table, self.pointer as i64), (scratch, self.patch(most) as i64)];
            e.counted(self.part_rows() as u64, &rows, &[], |e, p, _| {
                let (row, to) = (e.entry(p[0], 0), p[1]);
                let pixels = self.pixels(positions) as u64;
                let steps = [(to, self.pixel as i64), (x, self.pixel as i64)];
                e.counted(pixels, &steps, &[], |e, p, _| {
                    let inside = e.b.ins().icmp(IntCC::UnsignedLessThan, p[1], end);
                    let from = e.b.ins().iadd(row, p[1]);
                    let from = e.b.ins().select(inside, from, outside);
                    self.copy_pixel(e, from, p[0]);
                    vec![]
                });
                vec![]
            });
            let own = e.offset(scratch, (self.part_rows() * self.patch(most)) as i64);
            vec![own, e.int(e.pointer, 0)]
        });
        [found[0], found[1]]
    }

    fn copy_pixel(&self, e: &mut Emitter, from: Value, to: Value) {
        let words = self.pixel / 4;
        let (mut from, mut to) = (from, to);
        let mut at = 0;
        if words > 8 {
            let unroll = divisor(words, 4);
            let steps = [(from, 4 * unroll as i64), (to, 4 * unroll as i64)];
            let (_, ends) = e.counted((words / unroll) as u64, &steps, &[], |e, p, _| {
                for i in 0..unroll as i32 {
                    let word = e.load(I32, p[0], 4 * i);
                    e.store(word, p[1], 4 * i);
                }
                vec![]
            });
            (from, to) = (ends[0], ends[1]);
        } else {
            for i in 0..words as i32 {
                let word = e.load(I32, from, 4 * i);
                e.store(word, to, 4 * i);
            }
            at = 4 * words as i32;
        }
        for i in 0..(self.pixel % 4) as i32 {
            let byte = e.load(I8, from, at + i);
            e.store(byte, to, at + i);
        }
    }

    /// Once in a call: the table of the patch that is put together.
    pub fn prepare(&self, e: &mut Emitter, scratch: Value, most: usize) {
        if !self.padded {
            return;
        }
        let table = self.part_rows() * self.patch(most);
        for row in 0..self.part_rows() {
            let start = e.offset(scratch, (row * self.patch(most) + self.left) as i64);
            e.store(start, scratch, (table + self.pointer * row) as i32);
        }
    }
}

/// Where a patch is: at an address, or at `x` less a constant in each row of a table.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub base: Value,
    pub x: Option<(Value, i32)>,
}

impl Source {
    /// Address and offset of the patch in row `index`; rows that adjoin are `bytes` apart.
    pub fn row(self, e: &mut Emitter, index: usize, bytes: usize) -> (Value, i32) {
        match self.x {
            None => (self.base, (index * bytes) as i32),
            Some((x, left)) => {
                let row = e.entry(self.base, index);
                (e.b.ins().iadd(row, x), -left)
            }
        }
    }
}

/// The largest divisor of `n` up to `most`.
pub(super) fn divisor(n: usize, most: usize) -> usize {
    (1..=most.min(n)).rev().find(|d| n.is_multiple_of(*d)).unwrap_or(1)
}
