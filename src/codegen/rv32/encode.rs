//! RISC-V encodings (The RISC-V Instruction Set Manual, volume I): opcode bits, immediates, compressed forms.

/// R-type: funct7, funct3, opcode.
pub const fn r(funct7: u32, funct3: u32, opcode: u32) -> u32 {
    funct7 << 25 | funct3 << 12 | opcode
}

const OP: u32 = 0x33;
const OP_IMM: u32 = 0x13;
const OP_FP: u32 = 0x53;
/// Dynamic rounding mode field; round to nearest even is what C environments start with.
const DYN: u32 = 7;
/// Static rounding mode: towards zero.
const RTZ: u32 = 1;

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => { $($(#[$doc])* #[allow(missing_docs)] pub const $name: u32 = $value;)* };
}

words! {
    ADD = r(0, 0, OP); SUB = r(32, 0, OP); SLL = r(0, 1, OP); SLT = r(0, 2, OP); SLTU = r(0, 3, OP);
    XOR = r(0, 4, OP); SRL = r(0, 5, OP); SRA = r(32, 5, OP); OR = r(0, 6, OP); AND = r(0, 7, OP);
    MUL = r(1, 0, OP); MULH = r(1, 1, OP); MULHU = r(1, 3, OP);
    DIV = r(1, 4, OP); DIVU = r(1, 5, OP); REM = r(1, 6, OP); REMU = r(1, 7, OP);
    ADDI = r(0, 0, OP_IMM); SLLI = r(0, 1, OP_IMM); SLTIU = r(0, 3, OP_IMM);
    XORI = r(0, 4, OP_IMM); SRLI = r(0, 5, OP_IMM); SRAI = r(32, 5, OP_IMM); ORI = r(0, 6, OP_IMM); ANDI = r(0, 7, OP_IMM);
    LB = r(0, 0, 0x03); LH = r(0, 1, 0x03); LW = r(0, 2, 0x03); LBU = r(0, 4, 0x03); LHU = r(0, 5, 0x03);
    SB = r(0, 0, 0x23); SH = r(0, 1, 0x23); SW = r(0, 2, 0x23);
    FLW = r(0, 2, 0x07); FSW = r(0, 2, 0x27);
    LUI = 0x37; AUIPC = 0x17; JAL = 0x6f; JALR = 0x67; BRANCH = 0x63; EBREAK = 0x0010_0073;
    FADD = r(0x00, DYN, OP_FP); FSUB = r(0x04, DYN, OP_FP); FMUL = r(0x08, DYN, OP_FP); FDIV = r(0x0c, DYN, OP_FP);
    FSQRT = r(0x2c, DYN, OP_FP); FSGNJ = r(0x10, 0, OP_FP); FSGNJN = r(0x10, 1, OP_FP); FSGNJX = r(0x10, 2, OP_FP);
    FEQ = r(0x50, 2, OP_FP); FLT = r(0x50, 1, OP_FP); FLE = r(0x50, 0, OP_FP);
    FCVT_W_S = r(0x60, RTZ, OP_FP); FCVT_WU_S = r(0x60, RTZ, OP_FP) | 1 << 20;
    FCVT_S_W = r(0x68, DYN, OP_FP); FCVT_S_WU = r(0x68, DYN, OP_FP) | 1 << 20;
    FMV_X_W = r(0x70, 0, OP_FP); FMV_W_X = r(0x78, 0, OP_FP);
    FMADD = r(0, DYN, 0x43);
}

/// funct3 of conditional branches.
pub mod branch {
    /// Equal.
    pub const EQ: u32 = 0;
    /// Not equal.
    pub const NE: u32 = 1;
    /// Signed less.
    pub const LT: u32 = 4;
    /// Signed greater or equal.
    pub const GE: u32 = 5;
    /// Unsigned less.
    pub const LTU: u32 = 6;
    /// Unsigned greater or equal.
    pub const GEU: u32 = 7;
}

/// ELF relocation types.
pub mod reloc {
    /// High 20 bits of an absolute address, rounded for the signed low part.
    pub const HI20: u32 = 26;
    /// Low 12 bits, I-type.
    pub const LO12_I: u32 = 27;
    /// AUIPC and JALR pair.
    pub const CALL_PLT: u32 = 19;
}

/// R-type with registers.
pub fn encode_r(bits: u32, rd: u32, rs1: u32, rs2: u32) -> u32 {
    bits | rs2 << 20 | rs1 << 15 | rd << 7
}

/// I-type with a 12-bit signed immediate.
pub fn encode_i(bits: u32, rd: u32, rs1: u32, imm: i32) -> u32 {
    debug_assert!((-2048..2048).contains(&imm) || bits == SRAI);
    bits | (imm as u32 & 0xfff) << 20 | rs1 << 15 | rd << 7
}

/// S-type.
pub fn encode_s(bits: u32, rs2: u32, rs1: u32, imm: i32) -> u32 {
    debug_assert!((-2048..2048).contains(&imm));
    let imm = imm as u32;
    bits | (imm >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | (imm & 31) << 7
}

/// B-type: displacement in bytes, even, ±4 KiB.
pub fn encode_b(funct3: u32, rs1: u32, rs2: u32, displacement: i32) -> u32 {
    let d = displacement as u32;
    BRANCH
        | funct3 << 12
        | (d >> 12 & 1) << 31
        | (d >> 5 & 0x3f) << 25
        | rs2 << 20
        | rs1 << 15
        | (d >> 1 & 15) << 8
        | (d >> 11 & 1) << 7
}

/// JAL: displacement in bytes, even, ±1 MiB.
pub fn encode_jal(rd: u32, displacement: i32) -> u32 {
    let d = displacement as u32;
    JAL | rd << 7 | (d >> 20 & 1) << 31 | (d >> 1 & 0x3ff) << 21 | (d >> 11 & 1) << 20 | (d >> 12 & 0xff) << 12
}

/// C.J: ±2 KiB.
pub fn encode_c_j(displacement: i32) -> u16 {
    let d = displacement as u32;
    let imm = (d >> 11 & 1) << 12
        | (d >> 4 & 1) << 11
        | (d >> 8 & 3) << 9
        | (d >> 10 & 1) << 8
        | (d >> 6 & 1) << 7
        | (d >> 7 & 1) << 6
        | (d >> 1 & 7) << 3
        | (d >> 5 & 1) << 2;
    (0xa001 | imm) as u16
}

/// C.BEQZ and C.BNEZ on x8 to x15: ±256 bytes.
pub fn encode_c_b(not_equal: bool, rs1: u32, displacement: i32) -> u16 {
    let d = displacement as u32;
    let imm = (d >> 8 & 1) << 12 | (d >> 3 & 3) << 10 | (d >> 6 & 3) << 5 | (d >> 1 & 3) << 3 | (d >> 5 & 1) << 2;
    ((if not_equal { 0xe001 } else { 0xc001 }) | imm | (rs1 - 8) << 7) as u16
}

/// The 16-bit form of a 32-bit instruction, if there is one.
pub fn compress(word: u32) -> Option<u16> {
    let (opcode, rd, funct3) = (word & 0x7f, word >> 7 & 31, word >> 12 & 7);
    let (rs1, rs2, funct7) = (word >> 15 & 31, word >> 20 & 31, word >> 25);
    let imm = (word as i32) >> 20;
    let low = |register: u32| (8..16).contains(&register);
    let small = (-32..32).contains(&imm);
    let imm6 = |value: i32| (value as u32 >> 5 & 1) << 12 | (value as u32 & 31) << 2;
    let half = match (opcode, funct3) {
        // C.ADDI, C.LI, C.MV, C.ADDI16SP, C.ADDI4SPN
        (OP_IMM, 0) if rd != 0 && rd == rs1 && imm != 0 && small => 0x0001 | rd << 7 | imm6(imm),
        (OP_IMM, 0) if rd != 0 && rs1 == 0 && small => 0x4001 | rd << 7 | imm6(imm),
        (OP_IMM, 0) if rd != 0 && rs1 != 0 && imm == 0 => 0x8002 | rd << 7 | rs1 << 2,
        (OP_IMM, 0) if rd == 2 && rs1 == 2 && imm != 0 && imm % 16 == 0 && (-512..512).contains(&imm) => {
            let v = imm as u32;
            0x6101 | (v >> 9 & 1) << 12 | (v >> 4 & 1) << 6 | (v >> 6 & 1) << 5 | (v >> 7 & 3) << 3 | (v >> 5 & 1) << 2
        }
        (OP_IMM, 0) if low(rd) && rs1 == 2 && imm > 0 && imm % 4 == 0 && imm < 1024 => {
            let v = imm as u32;
            (v >> 4 & 3) << 11 | (v >> 6 & 15) << 7 | (v >> 2 & 1) << 6 | (v >> 3 & 1) << 5 | (rd - 8) << 2
        }
        // C.SLLI, C.SRLI, C.SRAI, C.ANDI
        (OP_IMM, 1) if funct7 == 0 && rd != 0 && rd == rs1 && rs2 != 0 => 0x0002 | rd << 7 | rs2 << 2,
        (OP_IMM, 5) if low(rd) && rd == rs1 && rs2 != 0 => 0x8001 | (funct7 >> 5 & 1) << 10 | (rd - 8) << 7 | rs2 << 2,
        (OP_IMM, 7) if low(rd) && rd == rs1 && small => 0x8801 | (rd - 8) << 7 | imm6(imm),
        // C.ADD either way round, C.MV
        (OP, 0) if funct7 == 0 && rd != 0 && rs1 == 0 && rs2 != 0 => 0x8002 | rd << 7 | rs2 << 2,
        (OP, 0) if funct7 == 0 && rd != 0 && rd == rs1 && rs2 != 0 => 0x9002 | rd << 7 | rs2 << 2,
        (OP, 0) if funct7 == 0 && rd != 0 && rd == rs2 && rs1 != 0 => 0x9002 | rd << 7 | rs1 << 2,
        // C.SUB, C.XOR, C.OR, C.AND; the last three commute
        (OP, 0) if funct7 == 32 && low(rd) && rd == rs1 && low(rs2) => 0x8c01 | (rd - 8) << 7 | (rs2 - 8) << 2,
        (OP, 4 | 6 | 7) if funct7 == 0 && low(rd) && low(rs1) && low(rs2) && (rd == rs1 || rd == rs2) => {
            let other = if rd == rs1 { rs2 } else { rs1 };
            let function = match funct3 {
                4 => 1,
                6 => 2,
                _ => 3,
            };
            0x8c01 | (rd - 8) << 7 | (other - 8) << 2 | function << 5
        }
        // C.LWSP, C.LW, C.FLWSP, C.FLW
        (0x03 | 0x07, 2) => {
            let float = if opcode == 0x07 { 0x2000 } else { 0 };
            let v = imm as u32;
            if rs1 == 2 && (rd != 0 || float != 0) && imm >= 0 && imm % 4 == 0 && imm < 256 {
                (0x4002 + float) | (v >> 5 & 1) << 12 | rd << 7 | (v >> 2 & 7) << 4 | (v >> 6 & 3) << 2
            } else if low(rd) && low(rs1) && imm >= 0 && imm % 4 == 0 && imm < 128 {
                (0x4000 + float)
                    | (v >> 3 & 7) << 10
                    | (rs1 - 8) << 7
                    | (v >> 2 & 1) << 6
                    | (v >> 6 & 1) << 5
                    | (rd - 8) << 2
            } else {
                return None;
            }
        }
        // C.SWSP, C.SW, C.FSWSP, C.FSW
        (0x23 | 0x27, 2) => {
            let float = if opcode == 0x27 { 0x2000 } else { 0 };
            let v = funct7 << 5 | rd;
            if rs1 == 2 && v % 4 == 0 && v < 256 {
                (0xc002 + float) | (v >> 2 & 15) << 9 | (v >> 6 & 3) << 7 | rs2 << 2
            } else if low(rs1) && low(rs2) && v % 4 == 0 && v < 128 {
                (0xc000 + float)
                    | (v >> 3 & 7) << 10
                    | (rs1 - 8) << 7
                    | (v >> 2 & 1) << 6
                    | (v >> 6 & 1) << 5
                    | (rs2 - 8) << 2
            } else {
                return None;
            }
        }
        // C.LUI
        (LUI, _) => {
            let upper = (word as i32) >> 12;
            if rd != 0 && rd != 2 && upper != 0 && (-32..32).contains(&upper) {
                0x6001 | rd << 7 | imm6(upper)
            } else {
                return None;
            }
        }
        // C.JR, C.JALR
        (JALR, 0) if imm == 0 && rs1 != 0 && rd == 0 => 0x8002 | rs1 << 7,
        (JALR, 0) if imm == 0 && rs1 != 0 && rd == 1 => 0x9002 | rs1 << 7,
        _ if word == EBREAK => 0x9002,
        _ => return None,
    };
    Some(half as u16)
}
