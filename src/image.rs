//! Parameters outside the object: one position-independent file that a model's code reads in place, or piece by piece
//! through a callback.
//!
//! ```text
//! offset  bytes
//!      0      8  magic "ROPEDATA"
//!      8      4  version of the format
//!     12      4  bytes of the header
//!     16     16  fingerprint of the code that the image belongs to
//!     32      8  bytes of the whole image
//!     40     24  zeros
//!     64         parameters, each at a multiple of its alignment, zeros between them
//!   size-4    4  CRC-32 (ISO 3309, as in zlib and Ethernet) of all bytes before it
//! ```
//! All numbers are little-endian. The code knows offsets, size and fingerprint as constants: it compares the header with
//! its own copy. A fingerprint has four parts, so that a tool can say what does not fit: [`PARTS`].

use crate::data::{Contents, Transform};
use crate::error::{Code, Error, Result};
use crate::graph::{Graph, OpId};
use crate::kernels::{Call, Launch, Lowering, Operand, ParameterId};
use crate::target::Target;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

/// What an image begins with.
pub const MAGIC: [u8; 8] = *b"ROPEDATA";
/// Version of the format.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER: u64 = 64;
/// Bytes of the magic.
pub const MAGIC_AT: Range<usize> = 0..8;
/// Bytes of the version and the header's size.
pub const VERSION_AT: Range<usize> = 8..16;
/// Bytes of the fingerprint.
pub const FINGERPRINT_AT: Range<usize> = 16..32;
/// Bytes of the size.
pub const SIZE_AT: Range<usize> = 32..40;
/// CRC-32, not complemented, of any bytes that are followed by their CRC-32.
pub const RESIDUE: u32 = 0xdebb_20e3;
/// Least alignment of an image and of the pieces that are read of it.
pub const ALIGN: u64 = 16;

/// What the parts of a fingerprint are made from.
pub const PARTS: [&str; 4] = [
    "inputs and outputs: their types, shapes or quantization",
    "the code of the kernels",
    "the sizes or the layout of the parameters",
    "which layers read which parameters",
];

/// How the code reaches its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// In place.
    External,
    /// Piece by piece, through a callback.
    Streamed,
}

/// The parameters that a call reads at once.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    offset: u64,
    bytes: u64,
    /// Offset of each within the piece.
    within: BTreeMap<ParameterId, u64>,
}

/// Where each parameter is in the image.
#[derive(Clone, Debug)]
pub struct Image {
    /// How the code reaches it.
    pub access: Access,
    /// Alignment in bytes of the image in memory, or of the pieces that are read.
    pub align: u64,
    /// Bytes of the whole image.
    pub size: u64,
    /// Bytes of the largest piece, for [`Access::Streamed`].
    pub staging: u64,
    /// What the application's struct holds once it is bound.
    pub tag: u32,
    /// Of the code that it belongs to, in its parts.
    pub fingerprint: [u32; 4],
    /// By parameter, for those in the image that are read in place or are read in pieces of their own.
    places: BTreeMap<ParameterId, u64>,
    /// By operator, for those whose parameters are read at once.
    pieces: BTreeMap<OpId, Piece>,
    /// Which parameter is where, by offset.
    contents: Vec<(u64, ParameterId)>,
    held: BTreeSet<ParameterId>,
}

impl Image {
    /// Lays out the parameters of `lowering` for which `outside` holds.
    ///
    /// # Errors
    /// [`Code::Limit`] for an image that the target cannot address, and for layers that need more at once than
    /// `most` bytes, all of them.
    pub fn new(
        graph: &Graph,
        lowering: &Lowering,
        target: &Target,
        access: Access,
        outside: &[bool],
        most: u64,
    ) -> Result<Image> {
        let align = (lowering.parameters.iter().zip(outside))
            .filter_map(|(parameter, outside)| outside.then_some(parameter.align))
            .fold(ALIGN, u64::max);
        let mut image = Image {
            access,
            align,
            size: HEADER,
            staging: 0,
            tag: 0,
            fingerprint: [0; 4],
            places: BTreeMap::new(),
            pieces: BTreeMap::new(),
            contents: Vec::new(),
            held: BTreeSet::new(),
        };
        let mut errors = Vec::new();
        let mut known: BTreeMap<Vec<ParameterId>, Piece> = BTreeMap::new();
        if access == Access::Streamed && !lowering.row_calls.is_empty() {
            return Err(Error::internal("operators that run row by row stream their parameters"));
        }
        for call in lowering.all_calls() {
            let parameters = read_by(call, outside);
            let at_once = match (access, call.launches.as_slice()) {
                (Access::Streamed, []) => {
                    let piece = known.entry(parameters.clone());
                    let piece = piece.or_insert_with(|| image.add_piece(lowering, &parameters)).clone();
                    let bytes = piece.bytes;
                    if !parameters.is_empty() {
                        image.pieces.insert(call.op, piece);
                    }
                    bytes
                }
                (_, launches) => {
                    for id in parameters {
                        if !image.places.contains_key(&id) {
                            let place = image.add(lowering, id);
                            image.places.insert(id, place);
                        }
                    }
                    launches.iter().map(|launch| launch.bytes).max().unwrap_or(0)
                }
            };
            image.staging = image.staging.max(at_once.next_multiple_of(align));
            if access == Access::Streamed && at_once > most {
                let what = format!("a layer reads {at_once} bytes of parameters at once, more than {most}");
                errors.push(
                    Error::new(Code::Limit, what)
                        .at(graph.op(call.op).describe())
                        .help(format!(
                            "give --stream-buffer {at_once}, or keep them in the object: --place 'NAME=embedded'"
                        )),
                );
            }
        }
        if access == Access::External {
            image.staging = 0;
        }
        if let Some(error) = Error::collect(errors) {
            return Err(error);
        }
        // The checksum.
        image.size = image.size.next_multiple_of(4) + 4;
        if target.machine().pointer_bytes == 4 && image.size > u64::from(u32::MAX) && access == Access::External {
            let what = format!("{} bytes of parameters are more than {target} can address", image.size);
            return Err(Error::new(Code::Limit, what).help("stream them: --params streamed"));
        }
        let mut tag = blake3::Hasher::new();
        tag.update(graph.name.as_bytes());
        tag.update(&image.layout());
        image.tag = word(&tag).max(1);
        Ok(image)
    }

    fn add(&mut self, lowering: &Lowering, id: ParameterId) -> u64 {
        let parameter = lowering.parameter(id);
        let place = self.size.next_multiple_of(parameter.align.max(4));
        self.size = place + parameter.contents.len();
        self.contents.push((place, id));
        self.held.insert(id);
        place
    }

    fn add_piece(&mut self, lowering: &Lowering, parameters: &[ParameterId]) -> Piece {
        let offset = self.size.next_multiple_of(self.align);
        if parameters.is_empty() {
            return Piece {
                offset,
                bytes: 0,
                within: BTreeMap::new(),
            };
        }
        self.size = offset;
        let within = parameters.iter().map(|id| (*id, self.add(lowering, *id) - offset));
        let within = within.collect();
        Piece {
            offset,
            bytes: self.size - offset,
            within,
        }
    }

    /// Whether a parameter is in the image.
    pub fn holds(&self, id: ParameterId) -> bool {
        self.held.contains(&id)
    }

    /// Where a parameter is that is not part of a piece with others.
    ///
    /// # Errors
    /// [`Code::Internal`] if it is.
    pub fn place(&self, id: ParameterId) -> Result<u64> {
        self.places
            .get(&id)
            .copied()
            .ok_or_else(|| Error::internal("a parameter has no place in the image"))
    }

    /// Where the first piece of a launch is, and its bytes.
    ///
    /// # Errors
    /// [`Code::Internal`] if it has none.
    pub fn piece(&self, call: &Call, launch: &Launch) -> Result<(u64, u64)> {
        if let Some(piece) = self.pieces.get(&call.op) {
            return Ok((piece.offset, piece.bytes));
        }
        let blob = call.operands.iter().find_map(|operand| match operand {
            Operand::Parameter(id) => self.places.get(id),
            _ => None,
        });
        let blob = blob.ok_or_else(|| Error::internal("a launch reads no piece of the image"))?;
        Ok((blob + launch.start, launch.bytes))
    }

    /// Where a parameter is in a call's piece; 0 if it has pieces of its own.
    pub fn within(&self, call: &Call, id: ParameterId) -> u64 {
        let piece = self.pieces.get(&call.op);
        piece.and_then(|piece| piece.within.get(&id)).copied().unwrap_or(0)
    }

    /// Bytes that the layout of this image is known by.
    fn layout(&self) -> Vec<u8> {
        let access = [self.access as u64, self.align, self.size];
        let places = self.contents.iter().flat_map(|(at, id)| [*at, id.0.into()]);
        access.into_iter().chain(places).flat_map(u64::to_le_bytes).collect()
    }

    /// The fingerprint of the code that reads this image: `kernels` is the machine code of the lowering's kernels.
    pub fn identify<'a>(&mut self, graph: &Graph, lowering: &Lowering, kernels: impl Iterator<Item = &'a [u8]>) {
        let [mut interface, mut code, mut layout, mut calls] = [(); 4].map(|()| blake3::Hasher::new());
        for id in graph.inputs.iter().chain(&graph.outputs) {
            let tensor = graph.tensor(*id);
            interface.update(tensor.dtype.name().as_bytes());
            interface.update(tensor.shape.to_string().as_bytes());
            if let Some(quantization) = &tensor.quantization {
                for (scale, zero) in quantization.scale.iter().zip(&quantization.zero_point) {
                    interface.update(&scale.to_bits().to_le_bytes());
                    interface.update(&zero.to_le_bytes());
                }
            }
            interface.update(b";");
        }
        for bytes in kernels {
            code.update(&(bytes.len() as u64).to_le_bytes());
            code.update(bytes);
        }
        layout.update(&self.layout());
        for call in lowering.all_calls() {
            calls.update(&call.op.0.to_le_bytes());
            calls.update(&call.kernel.map_or(u32::MAX, |kernel| kernel.0).to_le_bytes());
            for operand in &call.operands {
                let (kind, id) = match operand {
                    Operand::Tensor(id) => (0u32, id.0),
                    Operand::Parameter(id) => (1 + u32::from(self.holds(*id)), id.0),
                    Operand::Scratch => (3, 0),
                    Operand::Row(id) => (4, id.0),
                    Operand::Window(id) => (5, id.0),
                    Operand::State => (6, 0),
                };
                calls.update(&kind.to_le_bytes());
                calls.update(&id.to_le_bytes());
            }
            for launch in &call.launches {
                calls.update(&launch.kernel.0.to_le_bytes());
                for number in [launch.count, launch.start, launch.piece, launch.bytes] {
                    calls.update(&number.to_le_bytes());
                }
            }
        }
        self.fingerprint = [interface, code, layout, calls].map(|hasher| word(&hasher));
    }

    /// The header.
    pub fn header(&self) -> [u8; HEADER as usize] {
        let mut header = [0; HEADER as usize];
        header[MAGIC_AT].copy_from_slice(&MAGIC);
        header[VERSION_AT][..4].copy_from_slice(&VERSION.to_le_bytes());
        header[VERSION_AT][4..].copy_from_slice(&(HEADER as u32).to_le_bytes());
        for (bytes, part) in header[FINGERPRINT_AT].chunks_exact_mut(4).zip(self.fingerprint) {
            bytes.copy_from_slice(&part.to_le_bytes());
        }
        header[SIZE_AT].copy_from_slice(&self.size.to_le_bytes());
        header
    }

    /// The whole image, streamed.
    pub fn contents(&self, lowering: &Lowering) -> Contents {
        let parameter = |(at, id): &(u64, ParameterId)| (*at, lowering.parameter(*id).contents.clone());
        Contents::Transform(Arc::new(File {
            header: self.header(),
            parameters: self.contents.iter().map(parameter).collect(),
            size: self.size,
        }))
    }
}

/// The parameters outside the object that a call reads.
fn read_by(call: &Call, outside: &[bool]) -> Vec<ParameterId> {
    let mut parameters = Vec::new();
    for operand in &call.operands {
        if let Operand::Parameter(id) = operand
            && outside.get(id.0 as usize) == Some(&true)
            && !parameters.contains(id)
        {
            parameters.push(*id);
        }
    }
    parameters
}

/// Bytes of the parameters outside the object that a call reads, in one piece.
pub fn at_once(lowering: &Lowering, call: &Call, outside: &[bool]) -> u64 {
    read_by(call, outside).into_iter().fold(0u64, |end, id| {
        let parameter = lowering.parameter(id);
        end.next_multiple_of(parameter.align.max(4)) + parameter.contents.len()
    })
}

/// What code expects of its image, or what an image says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of the code.
    pub fingerprint: [u32; 4],
    /// Bytes of the image.
    pub size: u64,
}

impl Wanted {
    /// Those that a file names: an object, an archive, a linked program, a flash image or an image of parameters, which
    /// hold the header itself; or a C header, which has it in its macros.
    pub fn find(bytes: &[u8]) -> Vec<Wanted> {
        let mut found: Vec<Wanted> = Vec::new();
        let headers = bytes
            .windows(MAGIC.len())
            .enumerate()
            .filter(|(_, window)| **window == MAGIC);
        let headers = headers.filter_map(|(at, _)| bytes.get(at..)?.first_chunk().and_then(Wanted::read));
        for wanted in headers.chain(Wanted::in_macros(bytes)) {
            if !found.contains(&wanted) {
                found.push(wanted);
            }
        }
        found
    }

    fn read(header: &[u8; HEADER as usize]) -> Option<Wanted> {
        let word = |at: usize| header.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let size = header
            .get(SIZE_AT)?
            .first_chunk()
            .map(|bytes| u64::from_le_bytes(*bytes))?;
        let [a, b, c, d] = [0, 4, 8, 12].map(|i| word(FINGERPRINT_AT.start + i));
        let known = word(VERSION_AT.start)? == VERSION && u64::from(word(VERSION_AT.start + 4)?) == HEADER;
        known.then_some(Wanted {
            fingerprint: [a?, b?, c?, d?],
            size,
        })
    }

    fn in_macros(bytes: &[u8]) -> Vec<Wanted> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Vec::new();
        };
        let value = |line: &str, end: &str| -> Option<String> {
            let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
            name.ends_with(end)
                .then(|| value.trim_matches('"').trim_end_matches(['u', 'l']).to_owned())
        };
        let sizes = text
            .lines()
            .filter_map(|line| value(line, "_PARAMETERS_SIZE")?.parse().ok());
        let fingerprints = text.lines().filter_map(|line| {
            let hex = value(line, "_PARAMETERS_FINGERPRINT")?;
            let part = |i: usize| {
                u32::from_str_radix(hex.get(8 * i..8 * i + 8)?, 16)
                    .ok()
                    .map(u32::swap_bytes)
            };
            Some([part(0)?, part(1)?, part(2)?, part(3)?])
        });
        let both = fingerprints.zip(sizes);
        both.map(|(fingerprint, size)| Wanted { fingerprint, size }).collect()
    }
}

impl Image {
    /// What is wrong with this image for code that wants another, in words; nothing if it fits.
    pub fn misfits(&self, wanted: &Wanted) -> Vec<String> {
        let parts = self.fingerprint.iter().zip(wanted.fingerprint).zip(PARTS);
        let mut misfits: Vec<String> = parts
            .filter(|((own, wanted), _)| **own != *wanted)
            .map(|(_, part)| part.to_owned())
            .collect();
        if self.size != wanted.size {
            misfits.push(format!("the size: {} bytes instead of {}", self.size, wanted.size));
        }
        misfits
    }
}

fn word(hasher: &blake3::Hasher) -> u32 {
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// An image as a file.
#[derive(Debug)]
struct File {
    header: [u8; HEADER as usize],
    parameters: Vec<(u64, Contents)>,
    size: u64,
}

impl Transform for File {
    fn len(&self) -> u64 {
        self.size
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut out = Summing {
            out,
            sum: Checksum::new(),
            bytes: 0,
        };
        out.write_all(&self.header)?;
        for (at, contents) in &self.parameters {
            out.pad(*at)?;
            contents.write_to(&mut out)?;
        }
        out.pad(self.size - 4)?;
        let sum = out.sum.value();
        out.out.write_all(&sum.to_le_bytes())
    }
}

/// Sums up what passes.
struct Summing<'a> {
    out: &'a mut dyn Write,
    sum: Checksum,
    bytes: u64,
}

impl Summing<'_> {
    /// Zeros up to an offset.
    fn pad(&mut self, to: u64) -> io::Result<()> {
        let missing = to
            .checked_sub(self.bytes)
            .ok_or_else(|| io::Error::other("parameters overlap"))?;
        io::copy(&mut io::Read::take(io::repeat(0), missing), self).map(drop)
    }
}

impl Write for Summing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.sum.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// CRC-32 as of ISO 3309: reflected, polynomial 0x04c11db7, starting from ones, complemented at the end.
#[derive(Clone, Copy, Debug)]
pub struct Checksum(u32);

const POLYNOMIAL: u32 = 0xedb8_8320;

const fn table<const N: usize>(bits: u32) -> [u32; N] {
    let mut table = [0; N];
    let mut i = 0;
    while i < N {
        let mut value = i as u32;
        let mut bit = 0;
        while bit < bits {
            value = (value >> 1) ^ if value & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[i] = value;
        i += 1;
    }
    table
}

/// By the low four bits, for the code.
pub const TABLE: [u32; 16] = table(4);
/// By the low byte.
const BYTES: [u32; 256] = table(8);
/// The same for bytes that are followed by 1 to 7 others.
const SLICES: [[u32; 256]; 8] = {
    let mut slices = [BYTES; 8];
    let mut slice = 1;
    while slice < 8 {
        let mut i = 0;
        while i < 256 {
            let before = slices[slice - 1][i];
            slices[slice][i] = (before >> 8) ^ BYTES[(before & 0xff) as usize];
            i += 1;
        }
        slice += 1;
    }
    slices
};

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

impl Checksum {
    /// Of no bytes.
    pub fn new() -> Self {
        Checksum(!0)
    }

    /// With more bytes, eight at a time.
    pub fn update(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let word = u64::from_le_bytes(*word) ^ u64::from(self.0);
            self.0 = (0..8).fold(0, |sum, i| sum ^ SLICES[7 - i][(word >> (8 * i)) as usize & 0xff]);
        }
        for byte in rest {
            self.0 = (self.0 >> 8) ^ BYTES[((self.0 ^ u32::from(*byte)) & 0xff) as usize];
        }
    }

    /// The sum.
    pub fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        let sum = |bytes: &[u8]| {
            let mut sum = Checksum::new();
            sum.update(bytes);
            sum
        };
        assert_eq!(sum(b"123456789").value(), 0xcbf4_3926);
        assert_eq!(sum(b"").value(), 0);
        let long: Vec<u8> = (0..1000u32).map(|i| ((i * i) >> 3) as u8).collect();
        let mut parts = Checksum::new();
        long.chunks(7).for_each(|part| parts.update(part));
        assert_eq!(parts.value(), sum(&long).value());
        let mut closed = long;
        closed.extend(parts.value().to_le_bytes());
        assert_eq!(sum(&closed).0, RESIDUE);
    }

    #[test]
    fn headers_are_found_in_files() {
        let wanted = Wanted {
            fingerprint: [0x0403_0201, 2, 3, 0xff00_0004],
            size: 70_000,
        };
        let image = Image {
            access: Access::External,
            align: ALIGN,
            size: wanted.size,
            staging: 0,
            tag: 1,
            fingerprint: wanted.fingerprint,
            places: BTreeMap::new(),
            pieces: BTreeMap::new(),
            contents: Vec::new(),
            held: BTreeSet::new(),
        };
        let mut file = vec![7; 1001];
        file.extend(&MAGIC);
        file.extend(image.header());
        file.extend([1; 9]);
        file.extend(image.header());
        assert_eq!(Wanted::find(&file), [wanted]);
        assert!(image.misfits(&wanted).is_empty());
        file.truncate(1060);
        assert!(Wanted::find(&file).is_empty());
        let text =
            "#define A_PARAMETERS_SIZE 70000u\n#define A_PARAMETERS_FINGERPRINT \"010203040200000003000000040000ff\"\n";
        assert_eq!(Wanted::find(text.as_bytes()), [wanted]);
        let other = Wanted {
            fingerprint: [0x0403_0201, 0, 3, 0xff00_0004],
            size: 1,
        };
        assert_eq!(image.misfits(&other), [PARTS[1], "the size: 70000 bytes instead of 1"]);
    }

    #[test]
    fn the_small_table_does_the_same() {
        let mut sum = !0u32;
        for byte in b"123456789" {
            sum ^= u32::from(*byte);
            for _ in 0..2 {
                sum = (sum >> 4) ^ TABLE[(sum & 15) as usize];
            }
        }
        assert_eq!(!sum, 0xcbf4_3926);
    }
}
