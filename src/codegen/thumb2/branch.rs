//! Branches of Thumb-2: what they depend on, their forms, and how far those reach.

use super::encode::{Cond, encode_b_narrow, encode_b_wide, encode_cb};
use crate::codegen::native::Form;

/// What a branch depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    cond: Cond,
    /// A low register that is compared with 0 first, for = and ≠.
    zero: Option<u32>,
}

impl Condition {
    /// A condition on the flags, or on a low register that is 0 or not.
    pub(super) fn new(cond: Cond, zero: Option<u32>) -> Self {
        Condition { cond, zero }
    }

    /// The opposite.
    pub(super) fn invert(self) -> Self {
        Condition {
            cond: self.cond.invert(),
            ..self
        }
    }
}

/// A form behind a comparison with 0.
const fn compared(form: Form) -> Form {
    Form {
        bytes: form.bytes + 2,
        min: form.min + 2,
        max: form.max + 2,
        taken: form.taken + 1,
        not_taken: form.not_taken + 1,
    }
}

const CB: Form = Form {
    bytes: 2,
    min: 4,
    max: 130,
    taken: 1,
    not_taken: 1,
};
const CMP_B_COND: Form = compared(B_COND);
const CMP_B_COND_WIDE: Form = compared(B_COND_WIDE);
const CMP_B_OVER_B: Form = compared(B_OVER_B);
const B_COND: Form = Form {
    bytes: 2,
    min: -252,
    max: 258,
    taken: 1,
    not_taken: 1,
};
const B_COND_WIDE: Form = Form {
    bytes: 4,
    min: 4 - (1 << 20),
    max: (1 << 20) + 2,
    taken: 1,
    not_taken: 1,
};
const B_OVER_B: Form = Form {
    bytes: 6,
    min: 6 - (1 << 24),
    max: (1 << 24) + 4,
    taken: 2,
    not_taken: 1,
};
const B: Form = Form {
    bytes: 2,
    min: -2044,
    max: 2050,
    taken: 1,
    not_taken: 0,
};
const B_WIDE: Form = Form {
    bytes: 4,
    min: 4 - (1 << 24),
    max: (1 << 24) + 2,
    taken: 1,
    not_taken: 0,
};

/// Forms of a branch (`Some`) or a jump, short ones first.
pub(super) fn forms(condition: Option<Condition>) -> &'static [Form] {
    match condition {
        Some(Condition { zero: Some(_), .. }) => &[CB, CMP_B_COND, CMP_B_COND_WIDE, CMP_B_OVER_B],
        Some(_) => &[B_COND, B_COND_WIDE, B_OVER_B],
        None => &[B, B_WIDE],
    }
}

/// Encodes one of the forms of a branch over `displacement` bytes.
pub(super) fn encode(condition: Option<Condition>, form: usize, displacement: i64) -> Vec<u8> {
    let condition = match condition {
        Some(Condition {
            cond,
            zero: Some(register),
        }) => {
            if form == 0 {
                let bits = encode_cb(cond == Cond::Ne, register, displacement);
                return bits.to_le_bytes().to_vec();
            }
            let mut bytes = (0x2800 | (register as u16) << 8).to_le_bytes().to_vec();
            let condition = Some(Condition { cond, zero: None });
            bytes.extend(encode(condition, form - 1, displacement - 2));
            return bytes;
        }
        condition => condition.map(|condition| condition.cond),
    };
    let wide = |word: u32| [((word >> 16) as u16).to_le_bytes(), (word as u16).to_le_bytes()].concat();
    match (condition, form) {
        (condition, 0) => encode_b_narrow(condition, displacement).to_le_bytes().to_vec(),
        (Some(condition), 2) => {
            let mut bytes = encode_b_narrow(Some(condition.invert()), 6).to_le_bytes().to_vec();
            bytes.extend(wide(encode_b_wide(None, displacement - 2)));
            bytes
        }
        (condition, _) => wide(encode_b_wide(condition, displacement)),
    }
}
