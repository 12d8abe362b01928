//! Rows to columns, in pieces of a few bytes: how weights come into the order of a tile. The build of a large model
//! spends its time here.

/// Writes `[column][row]` from `rows` of pieces of `size` bytes: piece `c` of row `r` goes to
/// `to[(c * height + r) * size..]`. Rows that are shorter leave what is there; there may be fewer than `height`.
pub(super) fn transpose(to: &mut [u8], rows: &[&[u8]], height: usize, size: usize) {
    match size {
        1 => by::<1, 16>(to, rows, height),
        2 => by::<2, 8>(to, rows, height),
        4 => by::<4, 4>(to, rows, height),
        8 => by::<8, 2>(to, rows, height),
        _ => {
            for (r, row) in rows.iter().enumerate() {
                spread(to, row, r, height, size);
            }
        }
    }
}

/// Bytes of the result that are written at once: the rows pass through it four by four while it is in the first cache.
const BLOCK: usize = 8 << 10;

/// Four rows at a time, `P` pieces of `N` bytes (16 in all) of each: loads and stores of vectors.
fn by<const N: usize, const P: usize>(to: &mut [u8], rows: &[&[u8]], height: usize) {
    let (fours, rest) = rows.as_chunks::<4>();
    let column = height * N;
    let shortest = rows.iter().map(|row| row.len()).min().unwrap_or(0);
    let squares = shortest / 16;
    let at_once = (BLOCK / (column * P)).max(1);
    for (to, first) in to.chunks_mut(column * P * at_once).zip((0..squares).step_by(at_once)) {
        let range = first..squares.min(first + at_once);
        for (i, four) in fours.iter().enumerate() {
            let [a, b, c, d] = four.map(|row| &row.as_chunks::<16>().0[range.clone()]);
            let columns = to.chunks_exact_mut(column * P);
            for ((((to, a), b), c), d) in columns.zip(a).zip(b).zip(c).zip(d) {
                square::<N, P>(&mut to[4 * i * N..], column, [a, b, c, d]);
            }
        }
    }
    // What is behind the squares, and rows that are not four.
    for (r, row) in rows.iter().enumerate() {
        let done = if r < rows.len() - rest.len() { squares } else { 0 };
        let to = to.get_mut(done * P * column..).unwrap_or_default();
        spread(to, &row[done * 16..], r, height, N);
    }
}

/// `P` pieces of four rows, to columns that are `column` bytes apart. Written out, since loops that are built for size stay
/// loops.
#[inline(always)]
fn square<const N: usize, const P: usize>(to: &mut [u8], column: usize, rows: [&[u8; 16]; 4]) {
    macro_rules! pieces {
        ($($p:literal)*) => {
            $(if $p < P {
                let to = &mut to[$p * column..][..4 * N];
                to[..N].copy_from_slice(&rows[0][$p % P * N..][..N]);
                to[N..2 * N].copy_from_slice(&rows[1][$p % P * N..][..N]);
                to[2 * N..3 * N].copy_from_slice(&rows[2][$p % P * N..][..N]);
                to[3 * N..].copy_from_slice(&rows[3][$p % P * N..][..N]);
            })*
        };
    }
    pieces!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}

/// One row, piece by piece; the last may be shorter.
fn spread(to: &mut [u8], row: &[u8], r: usize, height: usize, size: usize) {
    for (to, piece) in to.chunks_mut(height * size).zip(row.chunks(size)) {
        to[r * size..][..piece.len()].copy_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_in_its_column() {
        for size in [1, 2, 3, 4, 8] {
            for (height, count) in [(1, 1), (4, 4), (6, 5), (16, 13)] {
                for columns in [1, 3, 16, 19] {
                    let row = |r: usize| (0..columns * size).map(|i| (r * 31 + i) as u8).collect::<Vec<u8>>();
                    let rows: Vec<Vec<u8>> = (0..count).map(row).collect();
                    // The last row ends within a piece.
                    let mut slices: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
                    slices[count - 1] = &slices[count - 1][..columns * size - (size - 1)];
                    let mut to = vec![0; columns * height * size];
                    transpose(&mut to, &slices, height, size);
                    for (at, byte) in to.iter().enumerate() {
                        let (c, r, b) = (at / size / height, at / size % height, at % size);
                        let expected = slices
                            .get(r)
                            .and_then(|row| row.get(c * size + b))
                            .copied()
                            .unwrap_or(0);
                        assert_eq!(*byte, expected, "{size} {height} {columns}: {c} {r} {b}");
                    }
                }
            }
        }
    }
}
