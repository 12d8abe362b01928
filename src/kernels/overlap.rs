//! How far an output may lie over an input that is read for the last time.
//!
//! A kernel goes through its input and its output in rising order, in units: a tile, a row, a band. What it has read for
//! the last time may be overwritten. So an output that begins [`gap`] bytes below its input needs no memory of its own
//! beyond the gap, and no instruction more.

use super::Overlap;
use crate::graph::TensorId;
use crate::target::Target;

/// A piece of a kernel's work: the first byte of the input that it reads, and the end of what it has written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// First byte of the input.
    pub reads: u64,
    /// End of the output.
    pub written: u64,
}

/// The least distance, in bytes, of an output below its input such that no byte is written before its last read. Units
/// in the order in which they are worked on; `staged` if each reads all that it needs before it writes.
pub fn gap(units: &[Unit], staged: bool) -> u64 {
    let mut needed = u64::MAX;
    let mut gap = 0;
    for unit in units.iter().rev() {
        if !staged {
            needed = needed.min(unit.reads);
        }
        gap = gap.max(unit.written.saturating_sub(needed));
        needed = needed.min(unit.reads);
    }
    gap
}

/// Rows of a window operator: `image` and `row` bytes of the input, of the output, stride and rows above the input.
pub fn rows(
    batch: usize,
    [height, out_height]: [usize; 2],
    [row, written]: [usize; 2],
    stride: usize,
    top: usize,
) -> Vec<Unit> {
    let unit = |image: usize, y: usize| Unit {
        reads: (image * height * row + (y * stride).saturating_sub(top) * row) as u64,
        written: ((image * out_height + y + 1) * written) as u64,
    };
    (0..batch)
        .flat_map(|image| (0..out_height).map(move |y| unit(image, y)))
        .collect()
}

/// An elementwise operator on `input`, whose elements are as large as those of the result. A vector's width at the end
/// is computed twice.
pub fn elementwise(input: TensorId, target: &Target) -> Overlap {
    Overlap {
        input,
        gap: if target.machine().simd128 { 64 } else { 0 },
        modulus: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(list: &[(u64, u64)]) -> Vec<Unit> {
        list.iter()
            .map(|(reads, written)| Unit {
                reads: *reads,
                written: *written,
            })
            .collect()
    }

    #[test]
    fn gaps() {
        // In place.
        assert_eq!(gap(&units(&[(0, 4), (4, 8), (8, 12)]), true), 0);
        // What is read after it was written keeps its distance.
        assert_eq!(gap(&units(&[(0, 4), (4, 8), (8, 12)]), false), 4);
        // Outputs twice the size: all but the last unit.
        assert_eq!(gap(&units(&[(0, 8), (4, 16), (8, 24)]), true), 8);
        // The last unit overlaps the one before.
        assert_eq!(gap(&units(&[(0, 4), (4, 8), (6, 10)]), true), 2);
        assert_eq!(gap(&[], true), 0);
    }

    /// A 3x3 window over 4 rows of 10 bytes: the row above is read again.
    #[test]
    fn windows_keep_their_upper_rows() {
        let same = rows(1, [4, 4], [10, 10], 1, 1);
        assert_eq!(gap(&same, true), 10);
        assert_eq!(gap(&same, false), 20);
        // Halved: the input is consumed faster than the output grows.
        assert_eq!(gap(&rows(1, [4, 2], [10, 5], 2, 0), false), 5);
        assert_eq!(gap(&rows(2, [4, 4], [10, 20], 1, 0), true), 70);
    }
}
