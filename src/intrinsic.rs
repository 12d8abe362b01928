//! Instructions that CLIF cannot say, as calls in a name space that back ends inline.
//!
//! A kernel declares an external function `UserExternalName { namespace: NAMESPACE, index }` and calls it; a back end
//! that has the instruction emits it in place. [`Intrinsic::evaluate`] is its meaning, for tests.

/// The reserved name space.
pub const NAMESPACE: u32 = 1;

/// An instruction of Arm's DSP extension. Operands and results are `i32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Intrinsic {
    /// Bytes 0 and 2 of x, sign-extended to halfwords.
    Sxtb16,
    /// Bytes 1 and 3 of x, sign-extended to halfwords.
    Sxtb16Ror8,
    /// Halfwords of x plus bytes 0 and 2 of y, sign-extended.
    Sxtab16,
    /// x.low × y.low + x.high × y.high + a (operands x, y, a).
    Smlad,
    /// x.low × y.low + a.
    Smlabb,
    /// x.low × y.high + a.
    Smlabt,
    /// x.high × y.low + a.
    Smlatb,
    /// x.high × y.high + a.
    Smlatt,
    /// (x × y.low) >> 16 + a.
    Smlawb,
    /// (x × y.high) >> 16 + a.
    Smlawt,
    /// High word of x × y.
    Smmul,
    /// High word of x × y + 2^31.
    Smmulr,
    /// High word of x × y + a × 2^32.
    Smmla,
    /// High word of x × y + a × 2^32 + 2^31.
    Smmlar,
    /// x.low | y.low << 16.
    Pkhbt,
    /// x.high << 16 | y.high.
    Pkhtb,
    /// Saturated x + y.
    Qadd,
    /// Saturated x − y.
    Qsub,
    /// Halfwords of x plus bytes 1 and 3 of y, sign-extended.
    Sxtab16Ror8,
    /// The greater of the signed bytes of x and y, byte by byte (two instructions).
    Smax8,
}

/// All intrinsics, in the order of their indices.
pub const ALL: &[Intrinsic] = &[
    Intrinsic::Sxtb16,
    Intrinsic::Sxtb16Ror8,
    Intrinsic::Sxtab16,
    Intrinsic::Smlad,
    Intrinsic::Smlabb,
    Intrinsic::Smlabt,
    Intrinsic::Smlatb,
    Intrinsic::Smlatt,
    Intrinsic::Smlawb,
    Intrinsic::Smlawt,
    Intrinsic::Smmul,
    Intrinsic::Smmulr,
    Intrinsic::Smmla,
    Intrinsic::Smmlar,
    Intrinsic::Pkhbt,
    Intrinsic::Pkhtb,
    Intrinsic::Qadd,
    Intrinsic::Qsub,
    Intrinsic::Sxtab16Ror8,
    Intrinsic::Smax8,
];

impl Intrinsic {
    /// The intrinsic with this index.
    pub fn from_index(index: u32) -> Option<Self> {
        ALL.get(index as usize).copied()
    }

    /// The index of its external name.
    pub fn index(self) -> u32 {
        self as u32
    }

    /// Number of operands.
    pub fn operands(self) -> usize {
        match self {
            Intrinsic::Sxtb16 | Intrinsic::Sxtb16Ror8 => 1,
            Intrinsic::Smlad
            | Intrinsic::Smlabb
            | Intrinsic::Smlabt
            | Intrinsic::Smlatb
            | Intrinsic::Smlatt
            | Intrinsic::Smlawb
            | Intrinsic::Smlawt
            | Intrinsic::Smmla
            | Intrinsic::Smmlar => 3,
            _ => 2,
        }
    }

    /// What it computes. Missing operands count as 0.
    pub fn evaluate(self, operands: &[i32]) -> i32 {
        let at = |index: usize| operands.get(index).copied().unwrap_or(0);
        let (x, y, a) = (at(0), at(1), at(2));
        let low = |v: i32| i32::from(v as i16);
        let high = |v: i32| v >> 16;
        let bytes = |v: i32| (i32::from(v as i8) & 0xffff) | (i32::from((v >> 16) as i8) << 16);
        let product = i64::from(x) * i64::from(y);
        let top = |sum: i64| (sum >> 32) as i32;
        let accumulated = (i64::from(a) << 32).wrapping_add(product);
        match self {
            Intrinsic::Sxtb16 => bytes(x),
            Intrinsic::Sxtb16Ror8 => bytes(x >> 8),
            Intrinsic::Sxtab16 | Intrinsic::Sxtab16Ror8 => {
                let y = bytes(if self == Intrinsic::Sxtab16 { y } else { y >> 8 });
                (low(x).wrapping_add(low(y)) & 0xffff) | (high(x).wrapping_add(high(y)) << 16)
            }
            Intrinsic::Smlad => {
                let sum = i64::from(low(x) * low(y)) + i64::from(high(x) * high(y)) + i64::from(a);
                sum as i32
            }
            Intrinsic::Smlabb => a.wrapping_add(low(x) * low(y)),
            Intrinsic::Smlabt => a.wrapping_add(low(x) * high(y)),
            Intrinsic::Smlatb => a.wrapping_add(high(x) * low(y)),
            Intrinsic::Smlatt => a.wrapping_add(high(x) * high(y)),
            Intrinsic::Smlawb => a.wrapping_add(((i64::from(x) * i64::from(low(y))) >> 16) as i32),
            Intrinsic::Smlawt => a.wrapping_add(((i64::from(x) * i64::from(high(y))) >> 16) as i32),
            Intrinsic::Smmul => top(product),
            Intrinsic::Smmulr => top(product.wrapping_add(1 << 31)),
            Intrinsic::Smmla => top(accumulated),
            Intrinsic::Smmlar => top(accumulated.wrapping_add(1 << 31)),
            Intrinsic::Pkhbt => (x & 0xffff) | (y << 16),
            Intrinsic::Pkhtb => (x & !0xffff) | (high(y) & 0xffff),
            Intrinsic::Qadd => x.saturating_add(y),
            Intrinsic::Qsub => x.saturating_sub(y),
            Intrinsic::Smax8 => {
                let (x, y) = (x.to_le_bytes(), y.to_le_bytes());
                i32::from_le_bytes(std::array::from_fn(|i| (x[i] as i8).max(y[i] as i8) as u8))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_follow_the_list() {
        for (index, intrinsic) in ALL.iter().enumerate() {
            assert_eq!(intrinsic.index() as usize, index);
            assert_eq!(Intrinsic::from_index(index as u32), Some(*intrinsic));
        }
    }

    #[test]
    fn packed_bytes_and_products() {
        assert_eq!(Intrinsic::Sxtb16.evaluate(&[0x1280_34ff]), 0xff80_ffff_u32 as i32);
        assert_eq!(Intrinsic::Sxtb16Ror8.evaluate(&[0x1280_84ff_u32 as i32]), 0x0012_ff84);
        assert_eq!(
            Intrinsic::Smlad.evaluate(&[0x0002_0003, 0x0005_fffc, 100]),
            100 - 12 + 10
        );
        assert_eq!(Intrinsic::Smmlar.evaluate(&[1 << 30, 2, 7]), 8);
        assert_eq!(Intrinsic::Smlawt.evaluate(&[-1, 1 << 16, 5]), 4);
        assert_eq!(
            Intrinsic::Sxtab16Ror8.evaluate(&[0x0001_0002, 0x05ff_fe00]),
            0x0006_0000
        );
        assert_eq!(Intrinsic::Smax8.evaluate(&[0x7f80_01ff, 0x0102_80fe]), 0x7f02_01ff);
    }
}
