//! T32 encodings (Arm v7-M and v8-M Architecture Reference Manuals): narrow forms where there are some.
//!
//! Flags are dead between instructions, so the narrow forms that set them may be used anywhere but in an IT block.

use super::inst::PairAddress;
use crate::codegen::native::emit::Assembler;

/// Data-processing operations, by their opcode field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Alu {
    And = 0,
    Bic = 1,
    Orr = 2,
    Orn = 3,
    Eor = 4,
    Add = 8,
    Adc = 10,
    Sbc = 11,
    Sub = 13,
    Rsb = 14,
}

/// Shifts, by their type field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Shift {
    Lsl = 0,
    Lsr = 1,
    Asr = 2,
    Ror = 3,
}

/// Condition codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Cond {
    Eq = 0,
    Ne = 1,
    Hs = 2,
    Lo = 3,
    Mi = 4,
    Pl = 5,
    Vs = 6,
    Vc = 7,
    Hi = 8,
    Ls = 9,
    Ge = 10,
    Lt = 11,
    Gt = 12,
    Le = 13,
}

impl Cond {
    /// The opposite.
    pub fn invert(self) -> Self {
        use Cond::{Eq, Ge, Gt, Hi, Hs, Le, Lo, Ls, Lt, Mi, Ne, Pl, Vc, Vs};
        match self {
            Eq => Ne,
            Ne => Eq,
            Hs => Lo,
            Lo => Hs,
            Mi => Pl,
            Pl => Mi,
            Vs => Vc,
            Vc => Vs,
            Hi => Ls,
            Ls => Hi,
            Ge => Lt,
            Lt => Ge,
            Gt => Le,
            Le => Gt,
        }
    }
}

/// Width of a memory access. Stores ignore the sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Memory {
    Word,
    Half,
    SignedHalf,
    Byte,
    SignedByte,
    Float,
}

/// Multiplications and divisions: `R3`.
pub const MUL: u32 = 0xfb00_f000;
#[allow(missing_docs)]
pub const SDIV: u32 = 0xfb90_f0f0;
#[allow(missing_docs)]
pub const UDIV: u32 = 0xfbb0_f0f0;
#[allow(missing_docs)]
pub const SMMUL: u32 = 0xfb50_f000;
#[allow(missing_docs)]
pub const SMMULR: u32 = 0xfb50_f010;
#[allow(missing_docs)]
pub const CLZ: u32 = 0xfab0_f080;
#[allow(missing_docs)]
pub const RBIT: u32 = 0xfa90_f0a0;
#[allow(missing_docs)]
pub const QADD: u32 = 0xfa80_f080;
#[allow(missing_docs)]
pub const QSUB: u32 = 0xfa80_f0a0;
#[allow(missing_docs)]
pub const PKHBT_LSL16: u32 = 0xeac0_4000;
#[allow(missing_docs)]
pub const PKHTB_ASR16: u32 = 0xeac0_4020;
#[allow(missing_docs)]
pub const SXTAB16: u32 = 0xfa20_f080;
/// SXTAB16 with the second operand rotated by 8.
pub const SXTAB16_ROR8: u32 = 0xfa20_f090;
#[allow(missing_docs)]
pub const SSUB8: u32 = 0xfac0_f000;
#[allow(missing_docs)]
pub const SEL: u32 = 0xfaa0_f080;
/// Multiply-accumulate: `R4`.
pub const MLA: u32 = 0xfb00_0000;
#[allow(missing_docs)]
pub const MLS: u32 = 0xfb00_0010;
#[allow(missing_docs)]
pub const SMLAD: u32 = 0xfb20_0000;
#[allow(missing_docs)]
pub const SMLABB: u32 = 0xfb10_0000;
#[allow(missing_docs)]
pub const SMLABT: u32 = 0xfb10_0010;
#[allow(missing_docs)]
pub const SMLATB: u32 = 0xfb10_0020;
#[allow(missing_docs)]
pub const SMLATT: u32 = 0xfb10_0030;
#[allow(missing_docs)]
pub const SMLAWB: u32 = 0xfb30_0000;
#[allow(missing_docs)]
pub const SMLAWT: u32 = 0xfb30_0010;
#[allow(missing_docs)]
pub const SMMLA: u32 = 0xfb50_0000;
#[allow(missing_docs)]
pub const SMMLAR: u32 = 0xfb50_0010;
/// Long multiplications.
pub const SMULL: u32 = 0xfb80_0000;
#[allow(missing_docs)]
pub const UMULL: u32 = 0xfba0_0000;
#[allow(missing_docs)]
pub const SMLAL: u32 = 0xfbc0_0000;
#[allow(missing_docs)]
pub const UMLAL: u32 = 0xfbe0_0000;
/// Extensions: `R2`.
pub const SXTB: u32 = 0xfa4f_f080;
#[allow(missing_docs)]
pub const SXTH: u32 = 0xfa0f_f080;
#[allow(missing_docs)]
pub const UXTB: u32 = 0xfa5f_f080;
#[allow(missing_docs)]
pub const UXTH: u32 = 0xfa1f_f080;
#[allow(missing_docs)]
pub const SXTB16: u32 = 0xfa2f_f080;
#[allow(missing_docs)]
pub const SXTB16_ROR8: u32 = 0xfa2f_f090;
/// Float operations.
pub const VADD: u32 = 0xee30_0a00;
#[allow(missing_docs)]
pub const VSUB: u32 = 0xee30_0a40;
#[allow(missing_docs)]
pub const VMUL: u32 = 0xee20_0a00;
#[allow(missing_docs)]
pub const VDIV: u32 = 0xee80_0a00;
#[allow(missing_docs)]
pub const VFMA: u32 = 0xeea0_0a00;
#[allow(missing_docs)]
pub const VMOV: u32 = 0xeeb0_0a40;
#[allow(missing_docs)]
pub const VABS: u32 = 0xeeb0_0ac0;
#[allow(missing_docs)]
pub const VNEG: u32 = 0xeeb1_0a40;
#[allow(missing_docs)]
pub const VSQRT: u32 = 0xeeb1_0ac0;
#[allow(missing_docs)]
pub const VCMP: u32 = 0xeeb4_0a40;
#[allow(missing_docs)]
pub const VMRS: u32 = 0xeef1_fa10;
#[allow(missing_docs)]
pub const VCVT_F32_S32: u32 = 0xeeb8_0ac0;
#[allow(missing_docs)]
pub const VCVT_F32_U32: u32 = 0xeeb8_0a40;
#[allow(missing_docs)]
pub const VCVT_S32_F32: u32 = 0xeebd_0ac0;
#[allow(missing_docs)]
pub const VCVT_U32_F32: u32 = 0xeebc_0ac0;

/// SSAT rd, #bits, rn, ASR #shift.
pub const fn ssat(bits: u32, shift: u32) -> u32 {
    0xf300_0000 | saturate_shift(shift) | (bits - 1)
}

/// USAT rd, #bits, rn, ASR #shift.
pub const fn usat(bits: u32, shift: u32) -> u32 {
    0xf380_0000 | saturate_shift(shift) | bits
}

const fn saturate_shift(shift: u32) -> u32 {
    // ASR #0 would mean something else: no shift is LSL #0.
    if shift == 0 {
        0
    } else {
        1 << 21 | (shift >> 2) << 12 | (shift & 3) << 6
    }
}

/// SBFX or UBFX rd, rn, #lsb, #width.
pub const fn bit_field(signed: bool, lsb: u32, width: u32) -> u32 {
    (if signed { 0xf340_0000 } else { 0xf3c0_0000 }) | (lsb >> 2) << 12 | (lsb & 3) << 6 | (width - 1)
}

/// ELF relocation types.
pub mod reloc {
    /// BL.
    pub const THM_CALL: u32 = 10;
    /// MOVW.
    pub const THM_MOVW_ABS_NC: u32 = 47;
    /// MOVT.
    pub const THM_MOVT_ABS: u32 = 48;
}

/// The i:imm3:imm8 fields of a modified immediate, if the constant is one (ThumbExpandImm).
pub fn modified_immediate(value: u32) -> Option<u32> {
    let byte = value & 0xff;
    if value == byte {
        return Some(fields(byte));
    }
    if value == byte | byte << 16 {
        return Some(fields(0x100 | byte));
    }
    if value == byte << 8 | byte << 24 || (byte == 0 && value >> 16 == value & 0xffff && value & 0xff == 0) {
        return Some(fields(0x200 | (value >> 8 & 0xff)));
    }
    if value == byte * 0x0101_0101 {
        return Some(fields(0x300 | byte));
    }
    // 1bcdefgh rotated right by 8 to 31.
    let rotation = value.leading_zeros() + 8;
    let rotated = value.rotate_left(rotation);
    (rotated <= 0xff && rotation < 32).then(|| fields(rotation << 7 | (rotated & 0x7f)))
}

/// Whether one instruction makes a constant.
pub fn one_instruction(value: u32) -> bool {
    value <= 0xffff || modified_immediate(value).is_some() || modified_immediate(!value).is_some()
}

/// 12 bits spread over i, imm3 and imm8.
const fn fields(value: u32) -> u32 {
    (value >> 11 & 1) << 26 | (value >> 8 & 7) << 12 | (value & 0xff)
}

/// Condition field of a branch with a displacement from the instruction's start, 16-bit form.
pub fn encode_b_narrow(cond: Option<Cond>, displacement: i64) -> u16 {
    let offset = (displacement - 4) as u32 >> 1;
    match cond {
        Some(cond) => (0xd000 | (cond as u32) << 8 | (offset & 0xff)) as u16,
        None => (0xe000 | (offset & 0x7ff)) as u16,
    }
}

/// CBZ or CBNZ of a low register.
pub fn encode_cb(nonzero: bool, register: u32, displacement: i64) -> u16 {
    let offset = (displacement - 4) as u32;
    (0xb100 | u32::from(nonzero) << 11 | (offset >> 6 & 1) << 9 | (offset >> 1 & 31) << 3 | register) as u16
}

/// 32-bit form of a branch, high half first.
pub fn encode_b_wide(cond: Option<Cond>, displacement: i64) -> u32 {
    let offset = (displacement - 4) as u32;
    let sign = offset >> 31;
    match cond {
        Some(cond) => {
            0xf000_8000
                | sign << 26
                | (cond as u32) << 22
                | (offset >> 12 & 0x3f) << 16
                | (offset >> 18 & 1) << 13
                | (offset >> 19 & 1) << 11
                | (offset >> 1 & 0x7ff)
        }
        None => {
            let j = |bit: u32| ((offset >> bit & 1) ^ 1) ^ sign;
            0xf000_9000 | sign << 26 | (offset >> 12 & 0x3ff) << 16 | j(23) << 13 | j(22) << 11 | (offset >> 1 & 0x7ff)
        }
    }
}

const SP: u32 = 13;

fn low(registers: &[u32]) -> bool {
    registers.iter().all(|register| *register < 8)
}

/// Encodings that choose among forms.
pub trait Encode {
    /// rd = rm.
    fn mov(&mut self, rd: u32, rm: u32);
    /// rd = value.
    fn imm(&mut self, rd: u32, value: u32);
    /// MOVW or MOVT by its `bits`, for relocations.
    fn mov16(&mut self, bits: u32, rd: u32, value: u32);
    /// rd = rn op rm, shifted; sets flags if asked.
    #[allow(clippy::too_many_arguments)] // the fields of one instruction
    fn alu(&mut self, op: Alu, flags: bool, rd: u32, rn: u32, rm: u32, shift: Shift, amount: u32);
    /// rd = rn op imm; ADD and SUB take 12 bits or any modified immediate, the others only the latter.
    fn alu_imm(&mut self, op: Alu, rd: u32, rn: u32, imm: u32);
    /// The same with a modified immediate, setting the flags.
    fn alu_imm_flags(&mut self, op: Alu, rd: u32, rn: u32, imm: u32);
    /// rd = value in one instruction that leaves the flags alone in an IT block: see [`one_instruction`].
    fn imm_keeping_flags(&mut self, rd: u32, value: u32);
    /// Flags of rn − rm, or rn − imm.
    fn cmp(&mut self, rn: u32, rm: std::result::Result<u32, i32>);
    /// Access at base + offset.
    fn memory(&mut self, load: bool, memory: Memory, rt: u32, base: u32, offset: i32);
    /// Access at base + (index << amount).
    fn memory_index(&mut self, load: bool, memory: Memory, rt: u32, base: u32, index: u32, amount: u32);
    /// Access at base, which is moved by `step` afterwards.
    fn memory_post(&mut self, load: bool, memory: Memory, rt: u32, base: u32, step: i32);
    /// LDRD or STRD.
    fn memory_pair(&mut self, load: bool, rt: [u32; 2], base: u32, address: PairAddress);
    /// VMOV of a core register to a float register, or back.
    fn move_between(&mut self, to_float: bool, core: u32, float: u32);
    /// Float instruction on registers d, n, m.
    fn float3(&mut self, bits: u32, d: u32, n: u32, m: u32);
    /// Float instruction on registers d, m.
    fn float2(&mut self, bits: u32, d: u32, m: u32);
}

impl Encode for Assembler {
    fn mov(&mut self, rd: u32, rm: u32) {
        self.half((0x4600 | (rd >> 3) << 7 | rm << 3 | (rd & 7)) as u16);
    }

    fn imm(&mut self, rd: u32, value: u32) {
        if value < 256 && rd < 8 {
            return self.half((0x2000 | rd << 8 | value) as u16);
        }
        if let Some(fields) = modified_immediate(value) {
            return self.wide(0xf04f_0000 | fields | rd << 8);
        }
        if let Some(fields) = modified_immediate(!value) {
            return self.wide(0xf06f_0000 | fields | rd << 8);
        }
        self.mov16(0xf240_0000, rd, value & 0xffff);
        if value >> 16 != 0 {
            self.mov16(0xf2c0_0000, rd, value >> 16);
        }
    }

    fn mov16(&mut self, bits: u32, rd: u32, value: u32) {
        self.wide(bits | (value >> 12 & 15) << 16 | fields(value & 0xfff) | rd << 8);
    }

    fn alu(&mut self, op: Alu, flags: bool, rd: u32, rn: u32, rm: u32, shift: Shift, amount: u32) {
        if amount == 0 && shift == Shift::Lsl {
            match op {
                Alu::Add | Alu::Sub if low(&[rd, rn, rm]) => {
                    let bits = if op == Alu::Add { 0x1800 } else { 0x1a00 };
                    return self.half((bits | rm << 6 | rn << 3 | rd) as u16);
                }
                Alu::Add if rd == rn && !flags => {
                    return self.half((0x4400 | (rd >> 3) << 7 | rm << 3 | (rd & 7)) as u16);
                }
                Alu::Add if rd == rm && !flags => {
                    return self.half((0x4400 | (rd >> 3) << 7 | rn << 3 | (rd & 7)) as u16);
                }
                _ => {}
            }
            let narrow = match op {
                Alu::And => Some((0, true)),
                Alu::Eor => Some((1, true)),
                Alu::Adc => Some((5, true)),
                Alu::Sbc => Some((6, false)),
                Alu::Orr => Some((12, true)),
                Alu::Bic => Some((14, false)),
                _ => None,
            };
            if let Some((code, commutes)) = narrow
                && low(&[rd, rn, rm])
                && (rd == rn || (commutes && rd == rm))
            {
                let other = if rd == rn { rm } else { rn };
                return self.half((0x4000 | code << 6 | other << 3 | rd) as u16);
            }
        }
        self.wide(
            0xea00_0000
                | (op as u32) << 21
                | u32::from(flags) << 20
                | rn << 16
                | (amount >> 2) << 12
                | rd << 8
                | (amount & 3) << 6
                | (shift as u32) << 4
                | rm,
        );
    }

    fn alu_imm(&mut self, op: Alu, rd: u32, rn: u32, imm: u32) {
        // The opposite operation where the constant's opposite is shorter.
        let (op, imm) = match op {
            Alu::Add if imm.wrapping_neg() < 256 && imm != 0 => (Alu::Sub, imm.wrapping_neg()),
            Alu::Sub if imm.wrapping_neg() < 256 && imm != 0 => (Alu::Add, imm.wrapping_neg()),
            other => (other, imm),
        };
        if op == Alu::Rsb && imm == 0 && low(&[rd, rn]) {
            return self.half((0x4240 | rn << 3 | rd) as u16);
        }
        if matches!(op, Alu::Add | Alu::Sub) {
            let add = op == Alu::Add;
            if rd == rn && low(&[rd]) && imm < 256 {
                return self.half(((if add { 0x3000 } else { 0x3800 }) | rd << 8 | imm) as u16);
            }
            if low(&[rd, rn]) && imm < 8 {
                return self.half(((if add { 0x1c00 } else { 0x1e00 }) | imm << 6 | rn << 3 | rd) as u16);
            }
            if rn == SP && imm.is_multiple_of(4) {
                if rd == SP && imm < 512 {
                    return self.half(((if add { 0xb000 } else { 0xb080 }) | imm >> 2) as u16);
                }
                if add && low(&[rd]) && imm < 1024 {
                    return self.half((0xa800 | rd << 8 | imm >> 2) as u16);
                }
            }
            if modified_immediate(imm).is_none() && imm < 4096 {
                return self.wide((if add { 0xf200_0000 } else { 0xf2a0_0000 }) | fields(imm) | rn << 16 | rd << 8);
            }
        }
        // Selection asks only for what can be encoded.
        let immediate = modified_immediate(imm).unwrap_or_default();
        debug_assert!(modified_immediate(imm).is_some(), "{op:?} #{imm:#x}");
        self.wide(0xf000_0000 | (op as u32) << 21 | rn << 16 | rd << 8 | immediate);
    }

    fn alu_imm_flags(&mut self, op: Alu, rd: u32, rn: u32, imm: u32) {
        let narrow = match op {
            Alu::Add => Some([0x3000, 0x1c00]),
            Alu::Sub => Some([0x3800, 0x1e00]),
            _ => None,
        };
        match narrow {
            Some([by_byte, _]) if rd == rn && low(&[rd]) && imm < 256 => self.half((by_byte | rd << 8 | imm) as u16),
            Some([_, by_three]) if low(&[rd, rn]) && imm < 8 => {
                self.half((by_three | imm << 6 | rn << 3 | rd) as u16);
            }
            _ => {
                // Selection asks only for what can be encoded.
                let fields = modified_immediate(imm).unwrap_or_default();
                debug_assert!(modified_immediate(imm).is_some(), "{op:?} #{imm:#x}");
                self.wide(0xf010_0000 | (op as u32) << 21 | rn << 16 | rd << 8 | fields);
            }
        }
    }

    fn imm_keeping_flags(&mut self, rd: u32, value: u32) {
        debug_assert!(one_instruction(value), "#{value:#x}");
        self.imm(rd, value);
    }

    fn cmp(&mut self, rn: u32, rm: std::result::Result<u32, i32>) {
        match rm {
            Ok(rm) if low(&[rn, rm]) => self.half((0x4280 | rm << 3 | rn) as u16),
            Ok(rm) => self.half((0x4500 | (rn >> 3) << 7 | rm << 3 | (rn & 7)) as u16),
            Err(imm @ 0..256) if rn < 8 => self.half((0x2800 | rn << 8 | imm as u32) as u16),
            Err(imm) => match modified_immediate(imm as u32) {
                Some(fields) => self.wide(0xf1b0_0f00 | rn << 16 | fields),
                // CMN with the opposite.
                None => {
                    let fields = modified_immediate((imm as u32).wrapping_neg()).unwrap_or_default();
                    self.wide(0xf110_0f00 | rn << 16 | fields);
                }
            },
        }
    }

    fn memory(&mut self, load: bool, memory: Memory, rt: u32, base: u32, offset: i32) {
        let off = offset as u32;
        if memory == Memory::Float {
            let bits = if load { 0xed10_0a00 } else { 0xed00_0a00 } | u32::from(offset >= 0) << 23;
            let magnitude = offset.unsigned_abs() >> 2;
            return self.wide(bits | (rt & 1) << 22 | base << 16 | (rt >> 1) << 12 | magnitude);
        }
        if offset >= 0 && base == SP && memory == Memory::Word && rt < 8 && off.is_multiple_of(4) && off < 1024 {
            return self.half(((if load { 0x9800 } else { 0x9000 }) | rt << 8 | off >> 2) as u16);
        }
        if offset >= 0 && low(&[rt, base]) {
            let narrow = match memory {
                Memory::Word if off.is_multiple_of(4) && off < 128 => {
                    Some((if load { 0x6800 } else { 0x6000 }) | (off >> 2) << 6)
                }
                Memory::Byte if off < 32 => Some((if load { 0x7800 } else { 0x7000 }) | off << 6),
                Memory::SignedByte if !load && off < 32 => Some(0x7000 | off << 6),
                Memory::Half if off.is_multiple_of(2) && off < 64 => {
                    Some((if load { 0x8800 } else { 0x8000 }) | (off >> 1) << 6)
                }
                Memory::SignedHalf if !load && off.is_multiple_of(2) && off < 64 => Some(0x8000 | (off >> 1) << 6),
                _ => None,
            };
            if let Some(bits) = narrow {
                return self.half((bits | base << 3 | rt) as u16);
            }
        }
        let bits = wide_memory(load, memory);
        if offset >= 0 {
            self.wide(bits | 1 << 23 | base << 16 | rt << 12 | off);
        } else {
            self.wide(bits | 0xc00 | base << 16 | rt << 12 | offset.unsigned_abs());
        }
    }

    fn memory_index(&mut self, load: bool, memory: Memory, rt: u32, base: u32, index: u32, amount: u32) {
        if amount == 0 && low(&[rt, base, index]) {
            let bits = match (load, memory) {
                (false, Memory::Word | Memory::Float) => 0x5000,
                (false, Memory::Half | Memory::SignedHalf) => 0x5200,
                (false, Memory::Byte | Memory::SignedByte) => 0x5400,
                (true, Memory::SignedByte) => 0x5600,
                (true, Memory::Word | Memory::Float) => 0x5800,
                (true, Memory::Half) => 0x5a00,
                (true, Memory::Byte) => 0x5c00,
                (true, Memory::SignedHalf) => 0x5e00,
            };
            return self.half((bits | index << 6 | base << 3 | rt) as u16);
        }
        self.wide(wide_memory(load, memory) | base << 16 | rt << 12 | amount << 4 | index);
    }

    fn memory_post(&mut self, load: bool, memory: Memory, rt: u32, base: u32, step: i32) {
        let bits = wide_memory(load, memory) | 0x900 | u32::from(step >= 0) << 9;
        self.wide(bits | base << 16 | rt << 12 | step.unsigned_abs());
    }

    fn memory_pair(&mut self, load: bool, rt: [u32; 2], base: u32, address: PairAddress) {
        let (form, offset) = match address {
            PairAddress::Offset(_, offset) => (0xe940_0000, offset),
            PairAddress::Post(_, _, step) => (0xe860_0000, step),
            PairAddress::Slot(offset) => (0xe940_0000, offset as i32),
        };
        let bits = form | u32::from(offset >= 0) << 23 | u32::from(load) << 20;
        self.wide(bits | base << 16 | rt[0] << 12 | rt[1] << 8 | offset.unsigned_abs() >> 2);
    }

    fn move_between(&mut self, to_float: bool, core: u32, float: u32) {
        let bits = if to_float { 0xee00_0a10 } else { 0xee10_0a10 };
        self.wide(bits | (float >> 1) << 16 | core << 12 | (float & 1) << 7);
    }

    fn float3(&mut self, bits: u32, d: u32, n: u32, m: u32) {
        self.wide(bits | (d & 1) << 22 | (n >> 1) << 16 | (d >> 1) << 12 | (n & 1) << 7 | (m & 1) << 5 | m >> 1);
    }

    fn float2(&mut self, bits: u32, d: u32, m: u32) {
        self.wide(bits | (d & 1) << 22 | (d >> 1) << 12 | (m & 1) << 5 | m >> 1);
    }
}

/// The register form's bits; the 12-bit offset form has bit 23 set beside them.
fn wide_memory(load: bool, memory: Memory) -> u32 {
    match (load, memory) {
        (true, Memory::Word | Memory::Float) => 0xf850_0000,
        (true, Memory::Half) => 0xf830_0000,
        (true, Memory::SignedHalf) => 0xf930_0000,
        (true, Memory::Byte) => 0xf810_0000,
        (true, Memory::SignedByte) => 0xf910_0000,
        (false, Memory::Word | Memory::Float) => 0xf840_0000,
        (false, Memory::Half | Memory::SignedHalf) => 0xf820_0000,
        (false, Memory::Byte | Memory::SignedByte) => 0xf800_0000,
    }
}
