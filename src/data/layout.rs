//! What bytes mean, for people who look at them: debuggers and listings.

use super::{Contents, Sample, Transform};
use std::io::{self, Write};
use std::sync::Arc;

/// An element of a [`Layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scalar {
    /// `int8_t`
    I8,
    /// `uint8_t`
    U8,
    /// `int16_t`
    I16,
    /// `uint16_t`
    U16,
    /// `int32_t`
    I32,
    /// `uint32_t`
    U32,
    /// `int64_t`
    I64,
    /// `uint64_t`
    U64,
    /// `float`
    F32,
    /// `double`
    F64,
    /// `bool`
    Bool,
}

impl Scalar {
    /// Size in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Scalar::I8 | Scalar::U8 | Scalar::Bool => 1,
            Scalar::I16 | Scalar::U16 => 2,
            Scalar::I32 | Scalar::U32 | Scalar::F32 => 4,
            Scalar::I64 | Scalar::U64 | Scalar::F64 => 8,
        }
    }
}

/// What little-endian bytes mean, in the terms of a declaration in C, without padding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// One number.
    Scalar(Scalar),
    /// Several of one kind.
    Array {
        /// What is counted: `channel`.
        axis: &'static str,
        /// How many.
        len: usize,
        /// What.
        of: Box<Layout>,
    },
    /// Members one behind the other.
    Struct(Vec<(String, Layout)>),
}

impl Layout {
    /// Nested arrays, the outermost first.
    pub fn array(axes: &[(&'static str, usize)], of: Layout) -> Self {
        axes.iter().rev().fold(of, |of, (axis, len)| Layout::Array {
            axis,
            len: *len,
            of: Box::new(of),
        })
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Layout::Scalar(scalar) => scalar.bytes() as u64,
            Layout::Array { len, of, .. } => *len as u64 * of.bytes(),
            Layout::Struct(members) => members.iter().map(|(_, layout)| layout.bytes()).sum(),
        }
    }
}

/// Contents and what they mean.
#[derive(Debug)]
struct Described {
    contents: Contents,
    layout: Layout,
}

impl Transform for Described {
    fn len(&self) -> u64 {
        self.contents.len()
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        self.contents.write_to(out)
    }

    fn in_memory(&self) -> Option<&[u8]> {
        self.contents.in_memory()
    }

    fn layout(&self) -> Option<Layout> {
        Some(self.layout.clone())
    }

    fn sample(&self) -> io::Result<Sample> {
        self.contents.sample()
    }
}

impl Contents {
    /// The same bytes, made at build time, with what they mean.
    #[must_use]
    pub fn described(self, layout: Layout) -> Self {
        Contents::Transform(Arc::new(Described { contents: self, layout }))
    }

    /// What the bytes mean, where that is known here and is as long as they are.
    pub fn layout(&self) -> Option<Layout> {
        match self {
            Contents::Transform(transform) => transform.layout().filter(|layout| layout.bytes() == transform.len()),
            Contents::Bytes(_) | Contents::Zero(_) => None,
        }
    }
}
