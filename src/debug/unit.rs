//! The compile unit: functions and lines.

use super::frames::functions;
use super::listing::Listing;
use super::sections::{Addresses, plus};
use super::types::{Types, member};
use super::{Model, Options, shape};
use crate::codegen::Code;
use crate::data::{Layout, Scalar};
use crate::error::Result;
use crate::graph::TensorId;
use crate::kernels::entry::{Argument, Location};
use crate::names::Helper;
use crate::target::{Arch, Format};
use gimli::write::{
    Address, AttributeValue, DwarfUnit, Expression, FileId, LineProgram, LineString, LocationList, Range, RangeList,
    UnitEntryId,
};
use gimli::{Encoding, LineEncoding, Register};
use std::collections::BTreeMap;
use std::ops::Range as Span;

/// A unit under construction.
pub(super) struct Unit<'a> {
    pub model: &'a Model<'a>,
    pub listing: &'a Listing,
    pub addresses: &'a mut Addresses,
    pub dwarf: DwarfUnit,
    pub types: Types,
    /// The entry point, the scope of the tensors.
    pub run: UnitEntryId,
    /// Its first instruction.
    pub run_address: Address,
    file: FileId,
    /// Its arguments and the registers that they come in.
    arguments: Vec<(&'static str, Register)>,
}

impl<'a> Unit<'a> {
    pub fn new(
        model: &'a Model<'a>,
        options: &Options,
        listing: &'a Listing,
        addresses: &'a mut Addresses,
    ) -> Result<Self> {
        let encoding = Encoding {
            format: gimli::Format::Dwarf32,
            version: options.version.number(),
            address_size: model.code.target.machine().pointer_bytes as u8,
        };
        let mut dwarf = DwarfUnit::new(encoding);
        // A folder of this machine in the object would make equal inputs give other bytes elsewhere.
        let folder = LineString::new(".", encoding, &mut dwarf.line_strings);
        let name = LineString::new(options.file.as_str(), encoding, &mut dwarf.line_strings);
        let mut lines = LineProgram::new(encoding, LineEncoding::default(), folder, None, name.clone(), None);
        let folder = lines.default_directory();
        let file = lines.add_file(name, folder, None);
        let run_address = addresses.code(&model.entry.name)?;

        let mut ranges = Vec::new();
        let kernels = model.kernels.iter().zip(listing.kernels.values());
        let kernels: BTreeMap<&str, u32> = kernels.map(|(code, line)| (code.name.as_str(), *line)).collect();
        let step = &model.code.names.helper(Helper::Step).symbol;
        let others = model
            .helpers
            .iter()
            .filter(|code| code.name != *step)
            .chain(model.routines);
        let others: Vec<&str> = others.map(|code| code.name.as_str()).collect();
        for code in functions(model) {
            let address = addresses.code(&code.name)?;
            let end = code.bytes.len() as u64;
            // A base of its own for each: the two versions agree about what that means.
            ranges.push(Range::BaseAddress { address });
            ranges.push(Range::OffsetPair { begin: 0, end });
            // Debuggers step over what has no lines.
            if others.contains(&code.name.as_str()) {
                continue;
            }
            lines.begin_sequence(Some(address));
            for (offset, line) in rows(listing, code, kernels.get(code.name.as_str()).copied()) {
                let row = lines.row();
                row.address_offset = offset.into();
                row.file = file;
                row.line = line.into();
                row.prologue_end = offset == code.debug.body;
                lines.generate_row();
            }
            lines.end_sequence(end);
        }
        dwarf.unit.line_program = lines;

        let producer = dwarf.strings.add(concat!("corerope ", env!("CARGO_PKG_VERSION")));
        let (name, folder) = (dwarf.strings.add(options.file.as_str()), dwarf.strings.add("."));
        let ranges = dwarf.unit.ranges.add(RangeList(ranges));
        let root = dwarf.unit.get_mut(dwarf.unit.root());
        root.set(gimli::DW_AT_producer, AttributeValue::StringRef(producer));
        // Expressions are then written as in C.
        root.set(gimli::DW_AT_language, AttributeValue::Language(gimli::DW_LANG_C99));
        root.set(gimli::DW_AT_name, AttributeValue::StringRef(name));
        root.set(gimli::DW_AT_comp_dir, AttributeValue::StringRef(folder));
        root.set(gimli::DW_AT_low_pc, AttributeValue::Address(Address::Constant(0)));
        root.set(gimli::DW_AT_ranges, AttributeValue::RangeListRef(ranges));
        root.set(gimli::DW_AT_stmt_list, AttributeValue::LineProgramRef);

        let run = dwarf.unit.root();
        let mut unit = Unit {
            model,
            listing,
            addresses,
            dwarf,
            types: Types::default(),
            run,
            run_address,
            file,
            arguments: Vec::new(),
        };
        for (code, line) in model.kernels.iter().zip(listing.kernels.values()) {
            unit.function(code, *line)?;
        }
        for code in model.helpers.iter().chain(model.routines) {
            let line = if code.name == *step { listing.entry } else { 0 };
            unit.function(code, line)?;
        }
        unit.run = unit.function(model.entry, listing.entry)?;
        unit.arguments();
        unit.labels();
        Ok(unit)
    }

    pub fn finish(self) -> DwarfUnit {
        self.dwarf
    }

    /// A subprogram; `line` 0 says that it stands nowhere.
    fn function(&mut self, code: &Code, line: u32) -> Result<UnitEntryId> {
        let address = self.addresses.code(&code.name)?;
        let root = self.dwarf.unit.root();
        let id = self.named(root, gimli::DW_TAG_subprogram, &code.name, line);
        let mut frame = Expression::new();
        frame.op(gimli::DW_OP_call_frame_cfa);
        let entry = self.dwarf.unit.get_mut(id);
        entry.set(gimli::DW_AT_external, AttributeValue::FlagPresent);
        entry.set(gimli::DW_AT_prototyped, AttributeValue::FlagPresent);
        entry.set(gimli::DW_AT_low_pc, AttributeValue::Address(address));
        entry.set(gimli::DW_AT_high_pc, AttributeValue::Udata(code.bytes.len() as u64));
        entry.set(gimli::DW_AT_frame_base, AttributeValue::Exprloc(frame));
        Ok(id)
    }

    /// An entry with a name and a line.
    pub fn named(&mut self, parent: UnitEntryId, tag: gimli::DwTag, name: &str, line: u32) -> UnitEntryId {
        let id = self.dwarf.unit.add(parent, tag);
        let name = self.dwarf.strings.add(name);
        let entry = self.dwarf.unit.get_mut(id);
        entry.set(gimli::DW_AT_name, AttributeValue::StringRef(name));
        if line != 0 {
            entry.set(gimli::DW_AT_decl_file, AttributeValue::FileIndex(Some(self.file)));
            entry.set(gimli::DW_AT_decl_line, AttributeValue::Udata(line.into()));
        }
        id
    }

    /// The type of a layout.
    pub fn layout(&mut self, layout: &Layout, constant: bool) -> UnitEntryId {
        let DwarfUnit { unit, strings, .. } = &mut self.dwarf;
        self.types.of(unit, strings, layout, constant)
    }

    fn pointer(&mut self, to: UnitEntryId) -> UnitEntryId {
        self.types.pointer(&mut self.dwarf.unit, to)
    }

    fn pointer_to_void(&mut self) -> UnitEntryId {
        let void = self.dwarf.unit.add(self.dwarf.unit.root(), gimli::DW_TAG_pointer_type);
        let size = u64::from(self.dwarf.unit.address_size());
        (self.dwarf.unit.get_mut(void)).set(gimli::DW_AT_byte_size, AttributeValue::Udata(size));
        void
    }

    /// Result and parameters of the entry point. They are in their registers until the prologue is done.
    fn arguments(&mut self) {
        let result = self.layout(&Layout::Scalar(Scalar::I32), false);
        (self.dwarf.unit.get_mut(self.run)).set(gimli::DW_AT_type, AttributeValue::UnitRef(result));
        let model = self.model;
        let mut registers = registers(model.code.target.arch(), model.code.target.format()).iter();
        for argument in model.code.arguments() {
            let (inputs, outputs) = (&model.code.graph.inputs, &model.code.graph.outputs);
            let (name, to) = match argument {
                Argument::Inputs => (
                    "inputs",
                    Some(self.structure("inputs", inputs, &model.code.names.inputs, true)),
                ),
                Argument::Outputs => (
                    "outputs",
                    Some(self.structure("outputs", outputs, &model.code.names.outputs, false)),
                ),
                Argument::Rows => ("rows", Some(self.opaque("rows"))),
                Argument::Parameters => ("parameters", Some(self.opaque("parameters"))),
                Argument::Arena => ("arena", None),
                Argument::Arenas => ("arenas", Some(self.opaque("arenas"))),
                Argument::Hooks => ("hooks", Some(self.opaque("hooks"))),
            };
            let kind = match to {
                Some(to) => self.pointer(to),
                None => self.pointer_to_void(),
            };
            let id = self.named(self.run, gimli::DW_TAG_formal_parameter, name, self.listing.checks);
            // The rest is on the stack, where only hooks can be: debuggers know them as optimized out.
            if let Some(register) = registers.next() {
                self.arguments.push((name, Register(*register)));
            }
            let place = self.by_argument(name, 0..self.run_bytes(), |in_register, mut place| match in_register {
                Some(register) => {
                    let mut register_itself = Expression::new();
                    register_itself.op_reg(register);
                    register_itself
                }
                None => {
                    place.op(gimli::DW_OP_stack_value);
                    place
                }
            });
            let entry = self.dwarf.unit.get_mut(id);
            entry.set(gimli::DW_AT_type, AttributeValue::UnitRef(kind));
            if let Some(place) = place {
                entry.set(gimli::DW_AT_location, place);
            }
        }
    }

    /// A place that `place` makes of the value of an argument, within a range of the entry point. An argument is in its
    /// register until the prologue is done; after that, debuggers know it if the caller's debug information says what it
    /// has passed. `place` is told the register while the argument is there.
    pub fn by_argument(
        &mut self,
        name: &str,
        live: Span<u64>,
        place: impl Fn(Option<Register>, Expression) -> Expression,
    ) -> Option<AttributeValue> {
        let (_, register) = *self.arguments.iter().find(|(known, _)| *known == name)?;
        let body = u64::from(self.model.entry.debug.body).max(1);
        let (mut here, mut gone, mut kept) = (Expression::new(), Expression::new(), Expression::new());
        here.op_breg(register, 0);
        kept.op_reg(register);
        gone.op_entry_value(kept);
        let parts = [
            (live.start..live.end.min(body), place(Some(register), here)),
            (live.start.max(body)..live.end, place(None, gone)),
        ];
        Some(self.within_run(parts))
    }

    /// Size of the entry point.
    pub fn run_bytes(&self) -> u64 {
        self.model.entry.bytes.len() as u64
    }

    /// `const struct kws_inputs`, as in the header.
    fn structure(&mut self, which: &str, ids: &[TensorId], members: &[String], constant: bool) -> UnitEntryId {
        let name = format!("{}_{which}", self.model.code.names.model);
        let root = self.dwarf.unit.root();
        let structure = self.named(root, gimli::DW_TAG_structure_type, &name, 0);
        let pointer = u64::from(self.dwarf.unit.address_size());
        let size = AttributeValue::Udata(pointer * ids.len() as u64);
        (self.dwarf.unit.get_mut(structure)).set(gimli::DW_AT_byte_size, size);
        for (i, (id, name)) in ids.iter().zip(members).enumerate() {
            let element = Layout::Scalar(super::scalar(self.model.code.graph.tensor(*id).dtype));
            let element = self.layout(&element, constant);
            let kind = self.pointer(element);
            let DwarfUnit { unit, strings, .. } = &mut self.dwarf;
            member(unit, strings, structure, name, kind, pointer * i as u64);
        }
        let constant = self.dwarf.unit.add(root, gimli::DW_TAG_const_type);
        (self.dwarf.unit.get_mut(constant)).set(gimli::DW_AT_type, AttributeValue::UnitRef(structure));
        constant
    }

    /// `const struct kws_hooks`, whose members the application's own debug information tells.
    fn opaque(&mut self, which: &str) -> UnitEntryId {
        let name = format!("{}_{which}", self.model.code.names.model);
        let root = self.dwarf.unit.root();
        let structure = self.named(root, gimli::DW_TAG_structure_type, &name, 0);
        (self.dwarf.unit.get_mut(structure)).set(gimli::DW_AT_declaration, AttributeValue::FlagPresent);
        let constant = self.dwarf.unit.add(root, gimli::DW_TAG_const_type);
        (self.dwarf.unit.get_mut(constant)).set(gimli::DW_AT_type, AttributeValue::UnitRef(structure));
        constant
    }

    /// A label at the call for each operator, called like the operator's result: `break kws_run:conv2d_1`.
    fn labels(&mut self) {
        let starts = starts(self.model);
        for op in &self.model.code.plan.order {
            let Some(start) = starts.get(&Location::Op(*op).source().bits()) else {
                continue;
            };
            let line = self.listing.ops.get(op).copied().unwrap_or(0);
            let name = &self.listing.names[self.model.code.graph.op(*op).output().index()];
            let id = self.named(self.run, gimli::DW_TAG_label, name, line);
            let address = AttributeValue::Address(plus(self.run_address, (*start).into()));
            (self.dwarf.unit.get_mut(id)).set(gimli::DW_AT_low_pc, address);
        }
    }

    /// Places that hold within ranges of the entry point only.
    pub fn within_run(&mut self, places: impl IntoIterator<Item = (Span<u64>, Expression)>) -> AttributeValue {
        let mut list = vec![gimli::write::Location::BaseAddress {
            address: self.run_address,
        }];
        let places = places.into_iter().filter(|(range, _)| !range.is_empty());
        list.extend(places.map(|(range, data)| gimli::write::Location::OffsetPair {
            begin: range.start,
            end: range.end,
            data,
        }));
        AttributeValue::LocationListRef(self.dwarf.unit.locations.add(LocationList(list)))
    }
}

/// A tensor's type as a layout.
pub(super) fn tensor_layout(model: &Model, id: TensorId) -> Layout {
    shape(model.code.graph.tensor(id))
}

/// Where the code for each location starts in the entry point.
pub(super) fn starts(model: &Model) -> BTreeMap<u32, u32> {
    // The first of several pieces counts.
    let locations = model.entry.debug.locations.iter().rev();
    locations.map(|(offset, bits)| (*bits, *offset)).collect()
}

/// Offsets and lines of a function: where it starts, where its body starts, and every change. That the first two are
/// there tells debuggers where a breakpoint on the function goes. `kernel` is the line of one.
fn rows(listing: &Listing, code: &Code, kernel: Option<u32>) -> Vec<(u32, u32)> {
    let body = code.debug.body;
    if let Some(line) = kernel {
        return vec![(0, line), (body, line)];
    }
    let line = |bits: u32| match Location::of(bits) {
        Location::Checks => listing.checks,
        Location::Return => listing.outputs,
        Location::Op(op) => listing.ops.get(&op).copied().unwrap_or(listing.entry),
    };
    let locations = &code.debug.locations;
    let first = locations.iter().rfind(|(offset, _)| *offset <= body);
    let first = first.map_or(listing.checks, |(_, bits)| line(*bits));
    let mut rows = vec![(0, listing.entry), (body, first)];
    let later = locations.iter().filter(|(offset, _)| *offset > body);
    rows.extend(later.map(|(offset, bits)| (*offset, line(*bits))));
    rows
}

/// Registers of arguments, in DWARF's numbers.
fn registers(arch: Arch, format: Format) -> &'static [u16] {
    match (arch, format) {
        (Arch::X86_64, Format::Elf | Format::MachO) => &[5, 4, 1, 2, 8, 9],
        (Arch::X86_64, Format::Coff) => &[2, 1, 8, 9],
        (Arch::Aarch64, _) => &[0, 1, 2, 3, 4, 5, 6, 7],
        (Arch::Thumb2, _) => &[0, 1, 2, 3],
        (Arch::Riscv64 | Arch::Riscv32, _) => &[10, 11, 12, 13, 14, 15, 16, 17],
    }
}
