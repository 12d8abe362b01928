//! Tensors in files: raw little-endian elements, or NumPy's `.npy`.
//!
//! Source of the format: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays".

use crate::error::{Code, Error, Result};
use crate::graph::{DType, Tensor};
use crate::limits;
use std::io::Read;
use std::path::Path;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Bytes of an `.npy` file that tell how long its header is: magic, version, length.
const PREFIX: usize = 12;

/// The elements of `tensor` from `file`: `.npy` if it begins as one, else raw bytes of exact size. No more than one byte
/// beyond what belongs to them is read (of a tensor of a few bytes, the length of a header), however long the file is.
///
/// # Errors
/// [`Code::Io`] if it cannot be read, [`Code::Usage`] if type, shape or size do not fit the tensor.
pub(super) fn read(mut file: impl Read, path: &Path, tensor: &Tensor) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut read_to = |bytes: &mut Vec<u8>, total: usize| {
        let more = total.saturating_sub(bytes.len()) as u64;
        let read = (&mut file).take(more).read_to_end(bytes);
        read.map_err(|error| Error::io("read", path, &error))
    };
    read_to(&mut bytes, PREFIX)?;
    let header = header(&bytes).map_or(0, |(length, start)| start + length.min(limits::NPY_HEADER_BYTES));
    read_to(&mut bytes, header.saturating_add(tensor.bytes()).saturating_add(1))?;
    decode(&bytes, path, tensor)
}

/// The elements of `tensor` from the contents of `path`, or from their beginning if they are too long.
fn decode(bytes: &[u8], path: &Path, tensor: &Tensor) -> Result<Vec<u8>> {
    let bad = |what: String| {
        Error::new(
            Code::Usage,
            format!("{} does not fit {}: {what}", path.display(), tensor.describe()),
        )
        .help(format!(
            "give {} bytes of raw little-endian elements, or a .npy file",
            tensor.bytes()
        ))
    };
    let count = |held: usize| match tensor.bytes() {
        most if held > most => format!("more than {most} bytes"),
        _ => format!("{held} bytes"),
    };
    if !bytes.starts_with(MAGIC) {
        if bytes.len() != tensor.bytes() {
            return Err(bad(format!("it has {}", count(bytes.len()))));
        }
        return Ok(bytes.to_vec());
    }
    let (header, data) = split(bytes).ok_or_else(|| bad("its .npy header is broken".into()))?;
    let descr = value(header, "descr").unwrap_or("");
    if !descriptors(tensor.dtype).contains(&descr.trim_matches(['\'', '"'])) {
        return Err(bad(format!("its elements are {descr}, not {}", tensor.dtype.name())));
    }
    if value(header, "fortran_order") != Some("False") {
        return Err(bad("it is in Fortran order".into()));
    }
    let shape = value(header, "shape").and_then(dimensions);
    let shape = shape.ok_or_else(|| bad("its .npy header is broken".into()))?;
    // Dimensions of size one are often missing in front, and never matter.
    let significant = |dims: &[usize]| dims.iter().copied().filter(|dim| *dim != 1).collect::<Vec<_>>();
    if significant(&shape) != significant(&tensor.shape.0) {
        return Err(bad(format!("its shape is {shape:?}")));
    }
    if data.len() != tensor.bytes() {
        return Err(bad(format!("it holds {} of elements", count(data.len()))));
    }
    Ok(data.to_vec())
}

/// A `.npy` file, version 1.0.
pub(super) fn encode(tensor: &Tensor, data: &[u8]) -> Vec<u8> {
    let mut shape: String = tensor.shape.0.iter().map(|dim| format!("{dim}, ")).collect();
    if tensor.shape.rank() > 1 {
        shape.truncate(shape.len() - 2);
    }
    let descr = descriptors(tensor.dtype)[0];
    let mut header = format!(
        "{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}",
        shape.trim_end()
    );
    // Magic, version and length take 10 bytes; the data starts at a multiple of 64.
    let total = (10 + header.len() + 1).next_multiple_of(64);
    header.extend(std::iter::repeat_n(' ', total - 10 - header.len() - 1));
    header.push('\n');
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

/// NumPy's names of a type, the usual one first.
fn descriptors(dtype: DType) -> &'static [&'static str] {
    match dtype {
        DType::I8 => &["|i1", "i1", "<i1"],
        DType::U8 => &["|u1", "u1", "<u1"],
        DType::I16 => &["<i2"],
        DType::I32 => &["<i4"],
        DType::I64 => &["<i8"],
        DType::F32 => &["<f4"],
        DType::Bool => &["|b1", "?"],
        DType::U16 => &["<u2"],
        DType::U32 => &["<u4"],
        DType::U64 => &["<u8"],
        DType::F16 => &["<f2"],
        DType::F64 => &["<f8"],
    }
}

/// How long the header of an `.npy` file is, and where it starts.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    Some(match bytes.get(6)? {
        1 => (u16::from_le_bytes(bytes.get(8..10)?.try_into().ok()?) as usize, 10),
        2 | 3 => (u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?) as usize, 12),
        _ => return None,
    })
}

fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, start) = header(bytes)?;
    let end = start.checked_add(len)?;
    Some((std::str::from_utf8(bytes.get(start..end)?).ok()?, &bytes[end..]))
}

/// The value of a key of the header's dictionary.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}'"))?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let end = if rest.starts_with('(') {
        rest.find(')')? + 1
    } else {
        rest.find([',', '}'])?
    };
    Some(rest[..end].trim())
}

fn dimensions(text: &str) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let parts = inner.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Shape;

    fn tensor(dtype: DType, shape: &[usize]) -> Tensor {
        Tensor {
            name: "x".into(),
            dtype,
            shape: Shape(shape.to_vec()),
            quantization: None,
            data: None,
        }
    }

    fn read(bytes: &[u8], tensor: &Tensor) -> Result<Vec<u8>> {
        super::read(bytes, Path::new("x.npy"), tensor)
    }

    /// Counts what is read of it.
    struct Endless<'a>(&'a [u8], usize);

    impl Read for Endless<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            for byte in buffer.iter_mut() {
                *byte = self.0.get(self.1).copied().unwrap_or(0);
                self.1 += 1;
            }
            Ok(buffer.len())
        }
    }

    #[test]
    fn endless_files_are_read_to_one_byte_beyond() {
        let tensor = tensor(DType::I8, &[40]);
        let npy = encode(&tensor, &[0; 40]);
        for (start, most, expected) in [
            (&[][..], 41, "it has more than 40 bytes"),
            (&npy, npy.len() + 3, "it holds more than 40 bytes of elements"),
            (
                b"\x93NUMPY\x02\0\xff\xff\xff\xff",
                limits::NPY_HEADER_BYTES + 12 + 41,
                "header is broken",
            ),
        ] {
            let mut file = Endless(start, 0);
            let error = super::read(&mut file, Path::new("/dev/zero"), &tensor).unwrap_err();
            assert!(error.message.contains(expected), "{error}");
            assert!(file.1 <= most, "{} bytes were read", file.1);
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for (dtype, shape) in [
            (DType::I8, &[1, 2, 3][..]),
            (DType::F32, &[5]),
            (DType::I32, &[]),
            (DType::Bool, &[1]),
        ] {
            let tensor = tensor(dtype, shape);
            let data: Vec<u8> = (0..tensor.bytes() as u8).collect();
            let file = encode(&tensor, &data);
            assert_eq!(read(&file, &tensor).unwrap(), data);
            assert!((file.len() - data.len()).is_multiple_of(64));
        }
    }

    #[test]
    fn the_header_is_numpys() {
        let text = |shape: &[usize]| {
            let file = encode(&tensor(DType::F32, shape), &[]);
            String::from_utf8_lossy(&file[10..]).trim_end().to_owned()
        };
        assert_eq!(
            text(&[1, 2]),
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }"
        );
        assert_eq!(text(&[7]), "{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }");
        assert_eq!(text(&[]), "{'descr': '<f4', 'fortran_order': False, 'shape': (), }");
    }

    #[test]
    fn raw_bytes_have_the_exact_size() {
        let tensor = tensor(DType::I8, &[4]);
        assert_eq!(read(&[1, 2, 3, 4], &tensor).unwrap(), [1, 2, 3, 4]);
        let error = read(&[1, 2, 3], &tensor).unwrap_err();
        assert_eq!(error.code, Code::Usage);
        assert!(error.message.contains("it has 3 bytes"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let x = tensor(DType::I8, &[1, 4]);
        let file = |dtype, shape: &[usize]| encode(&tensor(dtype, shape), &[0; 4]);
        assert!(read(&file(DType::I8, &[4]), &x).is_ok());
        for (bytes, expected) in [
            (file(DType::F32, &[1]), "its elements are '<f4', not int8"),
            (file(DType::I8, &[2, 2]), "its shape is [2, 2]"),
            (file(DType::I8, &[4])[..40].to_vec(), "header is broken"),
            (b"\x93NUMPY\x09\0".to_vec(), "header is broken"),
            (b"\x93NUMPY\x02\0\xff\xff\xff\xff".to_vec(), "header is broken"),
        ] {
            let error = read(&bytes, &x).unwrap_err();
            assert!(error.message.contains(expected), "{expected}: {error}");
        }
        let mut short = file(DType::I8, &[4]);
        short.pop();
        assert!(read(&short, &x).unwrap_err().message.contains("3 bytes of elements"));
    }
}
