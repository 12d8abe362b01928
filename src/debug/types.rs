//! Layouts as types of a unit, each once.

use super::listing::scalar_name;
use crate::data::{Layout, Scalar};
use gimli::write::{AttributeValue, StringTable, Unit, UnitEntryId};
use std::collections::BTreeMap;

/// The types of a unit.
#[derive(Default)]
pub(super) struct Types {
    known: BTreeMap<(bool, Layout), UnitEntryId>,
    /// What is pointed to, and the pointer: to a few elements and structures only.
    pointers: Vec<(UnitEntryId, UnitEntryId)>,
    size: Option<UnitEntryId>,
}

impl Types {
    /// The type of a layout, its elements constant or not.
    pub fn of(&mut self, unit: &mut Unit, strings: &mut StringTable, layout: &Layout, constant: bool) -> UnitEntryId {
        // From the innermost: a type refers to those that it is made of, and these come first.
        let mut chain = Vec::new();
        let mut inner = layout;
        while let Layout::Array { of, .. } = inner {
            chain.push(inner);
            inner = of;
        }
        let element = match inner {
            Layout::Struct(members) => self.structure(unit, strings, members),
            Layout::Scalar(scalar) => self.scalar(unit, strings, *scalar),
            // The loop above ends at something else.
            Layout::Array { .. } => return unit.root(),
        };
        let element = if constant {
            self.constant(unit, inner, element)
        } else {
            element
        };
        let Some(outermost) = chain.first() else {
            return element;
        };
        if let Some(id) = self.known.get(&(constant, (*outermost).clone())) {
            return *id;
        }
        let array = unit.add(unit.root(), gimli::DW_TAG_array_type);
        unit.get_mut(array)
            .set(gimli::DW_AT_type, AttributeValue::UnitRef(element));
        let size = self.size(unit, strings);
        for layout in &chain {
            if let Layout::Array { len, .. } = layout {
                let range = unit.add(array, gimli::DW_TAG_subrange_type);
                let range = unit.get_mut(range);
                range.set(gimli::DW_AT_type, AttributeValue::UnitRef(size));
                range.set(gimli::DW_AT_count, AttributeValue::Udata(*len as u64));
            }
        }
        self.known.insert((constant, (*outermost).clone()), array);
        array
    }

    /// A pointer to a type.
    pub fn pointer(&mut self, unit: &mut Unit, to: UnitEntryId) -> UnitEntryId {
        if let Some((_, pointer)) = self.pointers.iter().find(|(known, _)| *known == to) {
            return *pointer;
        }
        let pointer = unit.add(unit.root(), gimli::DW_TAG_pointer_type);
        let size = AttributeValue::Udata(unit.address_size().into());
        unit.get_mut(pointer)
            .set(gimli::DW_AT_type, AttributeValue::UnitRef(to));
        unit.get_mut(pointer).set(gimli::DW_AT_byte_size, size);
        self.pointers.push((to, pointer));
        pointer
    }

    fn constant(&mut self, unit: &mut Unit, layout: &Layout, of: UnitEntryId) -> UnitEntryId {
        *self.known.entry((true, layout.clone())).or_insert_with(|| {
            let constant = unit.add(unit.root(), gimli::DW_TAG_const_type);
            unit.get_mut(constant)
                .set(gimli::DW_AT_type, AttributeValue::UnitRef(of));
            constant
        })
    }

    fn scalar(&mut self, unit: &mut Unit, strings: &mut StringTable, scalar: Scalar) -> UnitEntryId {
        let encoding = match scalar {
            Scalar::I8 | Scalar::I16 | Scalar::I32 | Scalar::I64 => gimli::DW_ATE_signed,
            Scalar::U8 | Scalar::U16 | Scalar::U32 | Scalar::U64 => gimli::DW_ATE_unsigned,
            Scalar::F32 | Scalar::F64 => gimli::DW_ATE_float,
            Scalar::Bool => gimli::DW_ATE_boolean,
        };
        *(self.known.entry((false, Layout::Scalar(scalar))))
            .or_insert_with(|| base(unit, strings, scalar_name(scalar), scalar.bytes() as u64, encoding))
    }

    /// What indices are counted in.
    fn size(&mut self, unit: &mut Unit, strings: &mut StringTable) -> UnitEntryId {
        let bytes = u64::from(unit.address_size());
        *(self.size).get_or_insert_with(|| base(unit, strings, "size_t", bytes, gimli::DW_ATE_unsigned))
    }

    fn structure(&mut self, unit: &mut Unit, strings: &mut StringTable, members: &[(String, Layout)]) -> UnitEntryId {
        let layout = Layout::Struct(members.to_vec());
        if let Some(id) = self.known.get(&(false, layout.clone())) {
            return *id;
        }
        // Members are scalars, arrays of them, or structures of these: a layout is a few levels deep by construction.
        let types: Vec<_> = (members.iter())
            .map(|(name, layout)| (name, self.of(unit, strings, layout, false), layout.bytes()))
            .collect();
        let structure = unit.add(unit.root(), gimli::DW_TAG_structure_type);
        let size = AttributeValue::Udata(layout.bytes());
        unit.get_mut(structure).set(gimli::DW_AT_byte_size, size);
        let mut offset = 0;
        for (name, kind, bytes) in types {
            member(unit, strings, structure, name, kind, offset);
            offset += bytes;
        }
        self.known.insert((false, layout), structure);
        structure
    }
}

/// A member of a structure.
pub(super) fn member(
    unit: &mut Unit,
    strings: &mut StringTable,
    structure: UnitEntryId,
    name: &str,
    kind: UnitEntryId,
    offset: u64,
) {
    let member = unit.add(structure, gimli::DW_TAG_member);
    let member = unit.get_mut(member);
    member.set(gimli::DW_AT_name, AttributeValue::StringRef(strings.add(name)));
    member.set(gimli::DW_AT_type, AttributeValue::UnitRef(kind));
    member.set(gimli::DW_AT_data_member_location, AttributeValue::Udata(offset));
}

fn base(unit: &mut Unit, strings: &mut StringTable, name: &str, bytes: u64, encoding: gimli::DwAte) -> UnitEntryId {
    let base = unit.add(unit.root(), gimli::DW_TAG_base_type);
    let entry = unit.get_mut(base);
    entry.set(gimli::DW_AT_name, AttributeValue::StringRef(strings.add(name)));
    entry.set(gimli::DW_AT_byte_size, AttributeValue::Udata(bytes));
    entry.set(gimli::DW_AT_encoding, AttributeValue::Encoding(encoding));
    base
}
