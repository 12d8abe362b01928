//! Cores whose cycles are modelled: by a table of what each kind of instruction takes, that someone has published.
//!
//! A sum over all instructions that run, so exact for the table; what a table does not know is not in it: wait states of
//! flash and of other memories, caches, interrupts. Cortex-M7 and M33 have no table: Arm has published none, and on
//! Cortex-M7 two instructions begin at once where their operands and units allow.

use crate::target::{Arch, Target};

/// A core with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Cortex-M3.
    CortexM3,
    /// Cortex-M4.
    CortexM4,
    /// Ibex, as an RV32 core without an FPU that issues single instructions in order.
    Ibex,
}

impl Timing {
    /// The table for a target, if there is one.
    pub fn of(target: &Target) -> Option<Self> {
        let core = target.cpu.name;
        match target.arch() {
            Arch::Thumb2 if core == "cortex-m3" => Some(Timing::CortexM3),
            Arch::Thumb2 if core.starts_with("cortex-m4") => Some(Timing::CortexM4),
            Arch::Riscv32 if !target.has("f") => Some(Timing::Ibex),
            _ => None,
        }
    }

    /// The core's name.
    pub fn core(self) -> &'static str {
        match self {
            Timing::CortexM3 => "Cortex-M3",
            Timing::CortexM4 => "Cortex-M4",
            Timing::Ibex => "Ibex",
        }
    }

    /// Where the table is from, and what was taken where it leaves a choice.
    pub fn source(self) -> &'static str {
        match self {
            Timing::CortexM3 => {
                "Arm's Cortex-M3 Technical Reference Manual, no wait states; pipeline refill 2, greatest figure of ranges"
            }
            Timing::CortexM4 => {
                "Arm's Cortex-M4 Technical Reference Manual, no wait states; pipeline refill 2, greatest figure of ranges"
            }
            Timing::Ibex => {
                "lowRISC's Ibex Reference Guide, no wait states; two stages, single-cycle multiplier, branch target ALU"
            }
        }
    }
}
