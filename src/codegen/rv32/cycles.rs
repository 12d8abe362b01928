//! What instructions cost on an RV32 core that issues single instructions in order, from their bytes.
//!
//! Source: lowRISC's Ibex Reference Guide, "Pipeline Details", for two stages, the single-cycle multiplier and the branch
//! target ALU: loads and stores take 2 cycles, MUL 1, MULH and its like 2, divisions 37, jumps and taken branches 2. They
//! hold for memory without wait states.

/// Cycles of a taken branch beside its own.
pub(super) const REFILL: u32 = 1;

/// Cycles of instructions that run one after the other. A branch among them jumps over one instruction of one cycle: as
/// many as where it does not.
pub(super) fn straight(code: &[u8]) -> u32 {
    let mut halves = code
        .chunks_exact(2)
        .map(|half| u32::from(half[0]) | u32::from(half[1]) << 8);
    let mut cycles = 0;
    while let Some(first) = halves.next() {
        cycles += match first & 3 {
            // Code is made of whole instructions.
            3 => wide(first | halves.next().unwrap_or(0) << 16),
            _ => narrow(first),
        };
    }
    cycles
}

fn wide(word: u32) -> u32 {
    let funct3 = word >> 12 & 7;
    match word & 0x7f {
        // LOAD, STORE.
        0x03 | 0x23 => 2,
        // JAL, JALR.
        0x6f | 0x67 => 1 + REFILL,
        0x33 if word >> 25 == 1 => match funct3 {
            0 => 1,
            1..=3 => 2,
            _ => 37,
        },
        _ => 1,
    }
}

fn narrow(half: u32) -> u32 {
    match (half & 3, half >> 13) {
        // C.LW, C.SW; C.LWSP, C.SWSP.
        (0 | 2, 2 | 6) => 2,
        // C.JAL, C.J.
        (1, 1 | 5) => 1 + REFILL,
        // C.JR, C.JALR: no second register, but a first.
        (2, 4) if half >> 2 & 31 == 0 && half >> 7 & 31 != 0 => 1 + REFILL,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_instructions() {
        for (what, word, expected) in [
            ("addi a0, a0, 1", 0x0015_0513u32, 1),
            ("lb a0, 0(a1)", 0x0005_8503, 2),
            ("sw a0, 4(a1)", 0x00a5_a223, 2),
            ("mul a0, a1, a2", 0x02c5_8533, 1),
            ("mulh a0, a1, a2", 0x02c5_9533, 2),
            ("mulhu a0, a1, a2", 0x02c5_b533, 2),
            ("div a0, a1, a2", 0x02c5_c533, 37),
            ("add a0, a1, a2", 0x00c5_8533, 1),
            ("jal ra, .", 0x0000_00ef, 2),
            ("jalr ra, 0(a0)", 0x0005_00e7, 2),
            ("beq a0, a1, .", 0x00b5_0063, 1),
        ] {
            assert_eq!(straight(&word.to_le_bytes()), expected, "{what}");
        }
        for (what, half, expected) in [
            ("c.addi a0, 1", 0x0505u16, 1),
            ("c.lw a0, 0(a1)", 0x4188, 2),
            ("c.sw a0, 0(a1)", 0xc188, 2),
            ("c.lwsp a0, 0", 0x4502, 2),
            ("c.swsp a0, 0", 0xc02a, 2),
            ("c.mv a0, a1", 0x852e, 1),
            ("c.add a0, a1", 0x952e, 1),
            ("c.jr ra", 0x8082, 2),
            ("c.jalr a0", 0x9502, 2),
            ("c.j .", 0xa001, 2),
            ("c.ebreak", 0x9002, 1),
        ] {
            assert_eq!(straight(&half.to_le_bytes()), expected, "{what}");
        }
    }

    #[test]
    fn lengths_are_mixed() {
        // c.lw a0, 0(a1); mul a0, a1, a2; c.jr ra.
        let code = [0x88, 0x41, 0x33, 0x85, 0xc5, 0x02, 0x82, 0x80];
        assert_eq!(straight(&code), 2 + 1 + 2);
    }
}
