//! Random numbers, the same in every run.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn among<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A value that code generators may treat in a way of its own.
    pub fn interesting(&mut self) -> i64 {
        let sign = if self.one_in(2) { -1 } else { 1 };
        match self.below(9) {
            0 => self.below(4) as i64 * sign,
            1 => self.below(256) as i64 * sign,
            2 => self.among(&[
                127, 128, 255, 256, 4095, 4096, 32767, 32768, 65535, 65536, 2047, 2048, -2048, -2049,
            ]),
            3 => (1i64 << self.below(63)) * sign,
            4 => (1i64 << self.below(63)).wrapping_sub(1) * sign,
            // One byte anywhere in a word, and repeated bytes.
            5 => ((self.below(256) as i64) << self.below(32)) * sign,
            6 => self.below(256) as i64 * self.among(&[0x0001_0001, 0x0100_0100, 0x0101_0101]) * sign,
            7 => self.next() as u32 as i64 * sign,
            _ => self.next() as i64,
        }
    }

    /// The bits of a float32.
    pub fn float(&mut self) -> u32 {
        match self.below(6) {
            0 => self.among(&[
                0,
                0x8000_0000,
                0x3f80_0000,
                0xbf80_0000,
                0x7f80_0000,
                0xff80_0000,
                0x7fc0_0000,
            ]),
            1 => (self.below(2000) as f32 - 1000.0).to_bits(),
            2 => ((self.next() as i32) as f32 / 65536.0).to_bits(),
            3 => self.among(&[
                1,
                0x007f_ffff,
                0x0080_0000,
                0x4f00_0000,
                0xcf00_0000,
                0x4f80_0000,
                0x4eff_ffff,
            ]),
            4 => (0x3000_0000 + self.below(0x2000_0000) as u32) | (self.next() as u32 & 0x8000_0000),
            _ => self.next() as u32,
        }
    }
}
