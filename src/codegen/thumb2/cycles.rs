//! What instructions cost on Cortex-M3 and M4, from their bytes.
//!
//! Sources: Arm's Cortex-M3 and Cortex-M4 Technical Reference Manuals, "Processor instructions" (the tables of cycle
//! counts), "Load/store timings", and for M4 "FPU instruction set". They hold for memory without wait states. Where a
//! table has a range, its greatest figure counts: divisions 12, long multiplications of Cortex-M3 5 and 7. A pipeline
//! refill, 1 to 3 cycles, is taken to be [`REFILL`].
//!
//! What runs is known block by block: a block does not know what ran before it, so its first load is not pipelined.

use crate::codegen::timing::Timing;

/// Cycles of a taken branch beside its own.
pub(super) const REFILL: u32 = 2;

/// An instruction, as far as its cycles depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// One cycle on both.
    Plain,
    /// LDR and its like: the register it loads; those its address is made of.
    Load { to: u32, from: [u32; 2] },
    /// STR and its like; whether its offset is in a register.
    Store { from: [u32; 2], indexed: bool },
    /// LDM, STM, LDRD, STRD, PUSH, POP, VLDM, VSTM: words; whether the program counter is among them.
    Words { count: u32, branch: bool },
    /// Control goes elsewhere.
    Branch,
    /// MLA, MLS.
    MultiplyAdd,
    /// SMULL, UMULL.
    MultiplyLong,
    /// SMLAL, UMLAL.
    MultiplyAddLong,
    /// SDIV, UDIV.
    Divide,
    /// As many cycles on the only core that has it.
    Fixed(u32),
}

/// Cycles of instructions that run one after the other, on Cortex-M3 or M4.
pub(super) fn straight(timing: Timing, code: &[u8]) -> u32 {
    let mut cycles = 0;
    let mut before = Class::Plain;
    for class in classes(code) {
        cycles += class.cycles(timing, before);
        before = class;
    }
    cycles
}

impl Class {
    fn cycles(self, timing: Timing, before: Class) -> u32 {
        let of = |m3: u32, m4: u32| if timing == Timing::CortexM3 { m3 } else { m4 };
        match self {
            Class::Plain => 1,
            Class::Load { from, .. } => 2 - u32::from(pipelined(before, from)),
            // The write goes on beside the next instruction.
            Class::Store { indexed: false, .. } => 1,
            Class::Store { from, .. } => 2 - u32::from(pipelined(before, from)),
            Class::Words { count, branch } => 1 + count + if branch { REFILL } else { 0 },
            Class::Branch => 1 + REFILL,
            Class::MultiplyAdd => of(2, 1),
            Class::MultiplyLong => of(5, 1),
            Class::MultiplyAddLong => of(7, 1),
            Class::Divide => 12,
            Class::Fixed(cycles) => cycles,
        }
    }
}

/// Whether a load or a store whose address is made of `from` overlaps with what is before it.
fn pipelined(before: Class, from: [u32; 2]) -> bool {
    match before {
        Class::Load { to, .. } => !from.contains(&to),
        Class::Store { indexed, .. } => !indexed,
        _ => false,
    }
}

/// No register.
const NONE: u32 = 16;

fn classes(code: &[u8]) -> impl Iterator<Item = Class> {
    let mut halves = code
        .chunks_exact(2)
        .map(|half| u32::from(half[0]) | u32::from(half[1]) << 8);
    std::iter::from_fn(move || {
        let first = halves.next()?;
        Some(match first {
            0..0xe800 => narrow(first),
            // Code is made of whole instructions.
            _ => wide(first, halves.next()?),
        })
    })
}

/// A 16-bit instruction.
fn narrow(half: u32) -> Class {
    let low = |at: u32| half >> at & 7;
    let access = |load: bool, from: [u32; 2], to: u32| match load {
        true => Class::Load { to, from },
        false => Class::Store {
            from,
            indexed: from[1] != NONE,
        },
    };
    match half >> 8 {
        0x47 => Class::Branch,
        0x48..0x50 => access(true, [15, NONE], low(8)),
        // Three stores, then loads.
        0x50..0x60 => access(half >> 9 & 7 >= 3, [low(3), low(6)], low(0)),
        0x60..0x90 => access(half >> 11 & 1 == 1, [low(3), NONE], low(0)),
        0x90..0xa0 => access(half >> 11 & 1 == 1, [13, NONE], low(8)),
        0xb1 | 0xb3 | 0xb9 | 0xbb | 0xd0..0xde | 0xe0..0xe8 => Class::Branch,
        0xb4 | 0xb5 | 0xbc | 0xbd => Class::Words {
            count: (half & 0x1ff).count_ones(),
            branch: half >> 8 == 0xbd,
        },
        0xc0..0xd0 => Class::Words {
            count: (half & 0xff).count_ones(),
            branch: false,
        },
        _ => Class::Plain,
    }
}

/// A 32-bit instruction.
fn wide(first: u32, second: u32) -> Class {
    let (rn, rt, rd, rm) = (first & 15, second >> 12, second >> 8 & 15, second & 15);
    let load = first >> 4 & 1 == 1;
    match first >> 8 {
        0xe8 | 0xe9 if first >> 6 & 1 == 0 => Class::Words {
            count: second.count_ones(),
            branch: load && rt >= 8,
        },
        // Table branches.
        0xe8 if first & 0xfff0 == 0xe8d0 && second & 0xffe0 == 0xf000 => Class::Fixed(2 + REFILL),
        0xe8 | 0xe9 => Class::Words {
            count: 2,
            branch: false,
        },
        0xec | 0xed => match first >> 4 & 0xff {
            // Two core registers to or from an FPU register pair.
            0xc4 | 0xc5 => Class::Fixed(2),
            // With an offset and without write-back: one register.
            mode if mode & 0x12 == 0x10 => Class::Fixed(1 + if second >> 8 & 1 == 1 { 2 } else { 1 }),
            _ => Class::Words {
                count: second & 0xff,
                branch: false,
            },
        },
        0xee => float(first, second),
        0xf0..0xf8 if second >> 15 == 1 && (second >> 12 & 1 == 1 || second >> 14 & 1 == 1 || first >> 7 & 7 != 7) => {
            Class::Branch
        }
        0xf8 | 0xf9 => {
            let indexed = first >> 7 & 1 == 0 && second & 0x0fc0 == 0 && rn != 15;
            let from = [rn, if indexed { rm } else { NONE }];
            match load {
                true if rt == 15 && first >> 5 & 3 == 2 => Class::Fixed(2 + REFILL),
                true => Class::Load { to: rt, from },
                false => Class::Store { from, indexed },
            }
        }
        0xfb => match (first >> 4 & 15, second >> 4 & 15) {
            (0, 0 | 1) if rt != 15 => Class::MultiplyAdd,
            (8 | 10, 0) => Class::MultiplyLong,
            (9 | 11, 15) => Class::Divide,
            (12 | 14, 0) if rd != 15 => Class::MultiplyAddLong,
            _ => Class::Plain,
        },
        _ => Class::Plain,
    }
}

/// An instruction of Cortex-M4's FPU.
fn float(first: u32, second: u32) -> Class {
    let moved = second >> 4 & 1 == 1;
    let operation = (first >> 7 & 1, first >> 4 & 3);
    match operation {
        _ if moved => Class::Plain,
        // VMLA and VMLS; VNMLA and VNMLS; VFNMA and VFNMS; VFMA and VFMS.
        (0, 0 | 1) | (1, 1 | 2) => Class::Fixed(3),
        (1, 0) => Class::Fixed(14),
        // VSQRT; other operations on one register take 1.
        (1, 3) if first & 15 == 1 && second >> 6 & 3 == 3 => Class::Fixed(14),
        _ => Class::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cycles of half-words on Cortex-M3 and M4.
    fn cycles(halves: &[u16]) -> [u32; 2] {
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        [Timing::CortexM3, Timing::CortexM4].map(|timing| straight(timing, &bytes))
    }

    /// Each with what GNU as calls it, so that a reader can check it.
    #[test]
    fn single_instructions() {
        for (what, halves, expected) in [
            ("adds r0, r1, r2", &[0x1888][..], [1, 1]),
            ("ldr r0, [r1]", &[0x6808], [2, 2]),
            ("ldrsb r0, [r1, r2]", &[0x5688], [2, 2]),
            ("str r0, [r1]", &[0x6008], [1, 1]),
            ("str r0, [r1, r2]", &[0x5088], [2, 2]),
            ("strb.w r0, [r1], #1", &[0xf801, 0x0b01], [1, 1]),
            ("ldr.w r0, [r1, r2, lsl #2]", &[0xf851, 0x0022], [2, 2]),
            ("ldrsb.w r0, [r1, #-4]", &[0xf911, 0x0c04], [2, 2]),
            ("push {r4, r5, lr}", &[0xb530], [4, 4]),
            ("pop {r4, r5, pc}", &[0xbd30], [6, 6]),
            ("stmdb sp!, {r4-r11, lr}", &[0xe92d, 0x4ff0], [10, 10]),
            ("ldmia.w sp!, {r4-r11, pc}", &[0xe8bd, 0x8ff0], [12, 12]),
            ("ldmia r0!, {r1, r2}", &[0xc806], [3, 3]),
            ("ldrd r0, r1, [r2], #8", &[0xe8f2, 0x0102], [3, 3]),
            ("strd r0, r1, [r2, #8]", &[0xe9c2, 0x0102], [3, 3]),
            ("bx lr", &[0x4770], [3, 3]),
            ("blx r3", &[0x4798], [3, 3]),
            ("bl", &[0xf7ff, 0xfffe], [3, 3]),
            ("b.n", &[0xe7fe], [3, 3]),
            ("b.w", &[0xf000, 0xb800], [3, 3]),
            ("bne.w", &[0xf040, 0x8000], [3, 3]),
            ("dmb", &[0xf3bf, 0x8f5f], [1, 1]),
            ("mul r0, r1, r2", &[0xfb01, 0xf002], [1, 1]),
            ("mla r0, r1, r2, r3", &[0xfb01, 0x3002], [2, 1]),
            ("mls r0, r1, r2, r3", &[0xfb01, 0x3012], [2, 1]),
            ("smull r0, r1, r2, r3", &[0xfb82, 0x0103], [5, 1]),
            ("smlal r0, r1, r2, r3", &[0xfbc2, 0x0103], [7, 1]),
            ("sdiv r0, r1, r2", &[0xfb91, 0xf0f2], [12, 12]),
            ("ssat r0, #8, r1", &[0xf301, 0x0007], [1, 1]),
            ("movw r0, #1", &[0xf240, 0x0001], [1, 1]),
        ] {
            assert_eq!(cycles(halves), expected, "{what}");
        }
    }

    #[test]
    fn only_cortex_m4_has_these() {
        for (what, halves, expected) in [
            ("smlad r0, r1, r2, r3", &[0xfb21, 0x3002][..], 1),
            ("smmla r0, r1, r2, r3", &[0xfb51, 0x3002], 1),
            ("sxtb16 r0, r1", &[0xfa3f, 0xf081], 1),
            ("vldr s0, [r0]", &[0xed90, 0x0a00], 2),
            ("vldr d0, [r0]", &[0xed90, 0x0b00], 3),
            ("vstr s0, [r0]", &[0xed80, 0x0a00], 2),
            ("vldmia r0!, {s0-s3}", &[0xecb0, 0x0a04], 5),
            ("vpush {d8, d9}", &[0xed2d, 0x8b04], 5),
            ("vmov r0, s0", &[0xee10, 0x0a10], 1),
            ("vmov r0, r1, d0", &[0xec51, 0x0b10], 2),
            ("vmov.f32 s0, s1", &[0xeeb0, 0x0a60], 1),
            ("vadd.f32 s0, s1, s2", &[0xee30, 0x0a81], 1),
            ("vmul.f32 s0, s1, s2", &[0xee20, 0x0a81], 1),
            ("vfma.f32 s0, s1, s2", &[0xeea0, 0x0a81], 3),
            ("vfms.f32 s0, s1, s2", &[0xeea0, 0x0ac1], 3),
            ("vmla.f32 s0, s1, s2", &[0xee00, 0x0a81], 3),
            ("vdiv.f32 s0, s1, s2", &[0xee80, 0x0a81], 14),
            ("vsqrt.f32 s0, s1", &[0xeeb1, 0x0ae0], 14),
            ("vcmp.f32 s0, s1", &[0xeeb4, 0x0a60], 1),
            ("vneg.f32 s0, s1", &[0xeeb1, 0x0a60], 1),
            ("vmrs APSR_nzcv, fpscr", &[0xeef1, 0xfa10], 1),
        ] {
            assert_eq!(cycles(halves)[1], expected, "{what}");
        }
    }

    #[test]
    fn loads_overlap_with_loads_and_stores_before_them() {
        // ldr r0, [r1]; ldr r2, [r1, #4]: one pair of cycles, and one.
        assert_eq!(cycles(&[0x6808, 0x684a]), [3, 3]);
        // ldr r0, [r1]; ldr r2, [r0]: the address waits.
        assert_eq!(cycles(&[0x6808, 0x6802]), [4, 4]);
        // ldr r0, [r1]; ldr r2, [r3, r0].
        assert_eq!(cycles(&[0x6808, 0x581a]), [4, 4]);
        // str r0, [r1]; ldr r2, [r1, #4].
        assert_eq!(cycles(&[0x6008, 0x684a]), [2, 2]);
        // str r0, [r1, r2]; ldr r2, [r1, #4]: nothing overlaps with a store to an index.
        assert_eq!(cycles(&[0x5088, 0x684a]), [4, 4]);
        // ldr r0, [r1]; nop; ldr r2, [r1, #4].
        assert_eq!(cycles(&[0x6808, 0xbf00, 0x684a]), [5, 5]);
    }
}
