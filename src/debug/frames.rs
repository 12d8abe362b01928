//! Call frame information: how a debugger finds the caller from within each function.

use super::sections::Addresses;
use super::{Model, Version};
use crate::codegen::Code;
use crate::codegen::debug::FrameRule;
use crate::error::Result;
use crate::target::Arch;
use gimli::write::{CallFrameInstruction, CommonInformationEntry, FrameDescriptionEntry, FrameTable};
use gimli::{Encoding, Format, Register};

/// What the convention says where a function starts: the register of the stack pointer, that of the return address, and
/// the size of what the call has pushed.
struct Convention {
    stack: Register,
    link: Register,
    pushed: i32,
}

fn convention(arch: Arch) -> Convention {
    let (stack, link, pushed) = match arch {
        Arch::X86_64 => (7, 16, 8),
        Arch::Aarch64 => (31, 30, 0),
        Arch::Riscv64 | Arch::Riscv32 => (2, 1, 0),
        Arch::Thumb2 => (13, 14, 0),
    };
    Convention {
        stack: Register(stack),
        link: Register(link),
        pushed,
    }
}

/// The table of all functions, for `.debug_frame`: `.eh_frame` would be loaded.
pub(super) fn table(model: &Model, addresses: &mut Addresses) -> Result<FrameTable> {
    let Convention { stack, link, pushed } = convention(model.code.target.arch());
    let encoding = Encoding {
        format: Format::Dwarf32,
        // The version of the frames' own format, the same for both of DWARF's.
        version: Version::Dwarf4.number(),
        address_size: model.code.target.machine().pointer_bytes as u8,
    };
    let mut table = FrameTable::default();
    // Register slots are words of at least 4 bytes.
    let mut common = CommonInformationEntry::new(encoding, 1, -4, link);
    common.add_instruction(CallFrameInstruction::Cfa(stack, pushed));
    if pushed != 0 {
        common.add_instruction(CallFrameInstruction::Offset(link, -pushed));
    }
    let common = table.add_cie(common);
    for code in functions(model) {
        let mut entry = FrameDescriptionEntry::new(addresses.code(&code.name)?, code.bytes.len() as u32);
        for (offset, rule) in &code.debug.frame {
            entry.add_instruction(
                *offset,
                match *rule {
                    FrameRule::CfaOffset(offset) => CallFrameInstruction::CfaOffset(offset as i32),
                    FrameRule::CfaRegister(register) => CallFrameInstruction::CfaRegister(Register(register)),
                    FrameRule::Saved(register, offset) => CallFrameInstruction::Offset(Register(register), offset),
                    FrameRule::Same(register) => CallFrameInstruction::SameValue(Register(register)),
                    FrameRule::Remember => CallFrameInstruction::RememberState,
                    FrameRule::Restore => CallFrameInstruction::RestoreState,
                },
            );
        }
        table.add_fde(common, entry);
    }
    Ok(table)
}

/// All functions of the object, in its order.
pub(super) fn functions<'a>(model: &Model<'a>) -> impl Iterator<Item = &'a Code> + use<'a> {
    let others = model.helpers.iter().chain(model.routines);
    model.kernels.iter().chain(others).chain([model.entry])
}
