//! TVM's serialized parameters: a list of names and a list of arrays, little-endian, without padding.
//!
//! ```text
//! u64 magic, u64 0; u64 n, n × { u64 length, bytes }; u64 n, n × array
//! array = u64 magic, u64 0; i32 device type, i32 device; i32 rank; u8 code, u8 bits, u16 lanes; i64 dims[rank];
//!         i64 bytes, data
//! ```
//! (SaveParams in src/runtime/file_utils.cc and NDArray::Save of TVM 0.8 to 0.18.)

use crate::data::Bytes;
use crate::error::{Code, Error, Result};
use crate::graph::{DType, Shape};
use crate::limits;

/// `kTVMNDArrayListMagic`.
const LIST: u64 = 0xF7E5_8D4F_0504_9CB7;
/// `kTVMNDArrayMagic`.
const ARRAY: u64 = 0xDD5E_40F0_96B4_A13F;

/// A parameter.
#[derive(Clone, Debug)]
pub(super) struct Param {
    pub name: String,
    pub dtype: DType,
    pub shape: Shape,
    pub data: Bytes,
}

/// A reader of little-endian numbers.
struct Reader<'a> {
    bytes: &'a Bytes,
    at: u64,
}

impl Reader<'_> {
    fn take(&mut self, count: u64, what: &str) -> Result<Bytes> {
        let left = self.bytes.len() - self.at;
        let bytes = self
            .at
            .checked_add(count)
            .and_then(|end| self.bytes.slice(self.at..end));
        let bytes = bytes.ok_or_else(|| {
            Error::model(format!(
                "the parameters end within {what}: {count} bytes are announced, {left} are left"
            ))
            .help("fetch or export them again")
        })?;
        self.at += count;
        Ok(bytes)
    }

    fn number(&mut self, bytes: u64, what: &str) -> Result<u64> {
        let bytes = self.take(bytes, what)?;
        let mut wide = [0; 8];
        wide[..bytes.as_slice().len()].copy_from_slice(bytes.as_slice());
        Ok(u64::from_le_bytes(wide))
    }

    fn magic(&mut self, expected: u64, what: &str) -> Result<()> {
        let found = self.number(8, what)?;
        self.number(8, what)?;
        if found == expected {
            return Ok(());
        }
        Err(
            Error::model(format!("{what} begins with {found:#018x} instead of {expected:#018x}"))
                .help("parameters are what relay.save_param_dict or export_model_library_format wrote"),
        )
    }

    fn count(&mut self, what: &str) -> Result<u64> {
        let count = self.number(8, what)?;
        if count > limits::TENSORS as u64 {
            let message = format!("{count} parameters, at most {} are supported", limits::TENSORS);
            return Err(Error::new(Code::Limit, message));
        }
        Ok(count)
    }
}

/// Reads all parameters.
pub(super) fn read(bytes: &Bytes) -> Result<Vec<Param>> {
    let mut r = Reader { bytes, at: 0 };
    r.magic(LIST, "the list of parameters")?;
    let count = r.count("the number of names")?;
    let mut names: Vec<String> = Vec::new();
    for i in 0..count {
        let what = format!("name {i}");
        let length = r.number(8, &what)?;
        if length > limits::NAME_BYTES as u64 {
            let message = format!("{what} has {length} bytes, more than {}", limits::NAME_BYTES);
            return Err(Error::new(Code::Limit, message));
        }
        let bytes = r.take(length, &what)?;
        let name = std::str::from_utf8(bytes.as_slice());
        let name = name.map_err(|_| Error::model(format!("{what} of the parameters is not UTF-8")))?;
        names.push(name.to_owned());
    }
    let arrays = r.count("the number of arrays")?;
    if arrays != count {
        return Err(Error::model(format!("{count} names for {arrays} parameters")));
    }
    let mut params: Vec<Param> = Vec::new();
    for name in names {
        let at = format!("parameter {name:?}");
        params.push(array(&mut r, name).map_err(|error| error.at(at))?);
    }
    if r.at != bytes.len() {
        return Err(Error::model(format!(
            "{} bytes follow the last parameter",
            bytes.len() - r.at
        )));
    }
    let mut sorted: Vec<&str> = params.iter().map(|param| param.name.as_str()).collect();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::model(format!("there are two parameters {:?}", twice[0])));
    }
    Ok(params)
}

fn array(r: &mut Reader, name: String) -> Result<Param> {
    r.magic(ARRAY, "the array")?;
    r.number(4, "the device")?;
    r.number(4, "the device")?;
    let rank = r.number(4, "the rank")?;
    if rank > limits::RANK as u64 {
        let message = format!("{rank} dimensions, at most {} are supported", limits::RANK);
        return Err(Error::new(Code::Limit, message));
    }
    let (code, bits, lanes) = (
        r.number(1, "the type")?,
        r.number(1, "the type")?,
        r.number(2, "the type")?,
    );
    let dtype = data_type(code, bits, lanes)?;
    let mut shape = Vec::new();
    let mut elements: u64 = 1;
    for _ in 0..rank {
        let dim = r.number(8, "the dimensions")?;
        elements = elements
            .checked_mul(dim)
            .filter(|elements| *elements <= limits::ELEMENTS)
            .ok_or_else(|| Error::new(Code::Limit, format!("more than {} elements", limits::ELEMENTS)))?;
        shape.push(dim as usize);
    }
    let bytes = r.number(8, "the size")?;
    let needed = elements * dtype.bytes() as u64;
    if bytes != needed {
        return Err(Error::model(format!(
            "the size is {bytes} bytes, the shape {} and type {} need {needed}",
            Shape(shape),
            dtype.name()
        )));
    }
    let data = r.take(bytes, "the data")?;
    Ok(Param {
        name,
        dtype,
        shape: Shape(shape),
        data,
    })
}

/// The type that a `DLDataType` means.
pub(super) fn data_type(code: u64, bits: u64, lanes: u64) -> Result<DType> {
    let dtype = match (code, bits, lanes) {
        (0, 8, 1) => DType::I8,
        (0, 16, 1) => DType::I16,
        (0, 32, 1) => DType::I32,
        (0, 64, 1) => DType::I64,
        (1, 1, 1) => DType::Bool,
        (1, 8, 1) => DType::U8,
        (1, 16, 1) => DType::U16,
        (1, 32, 1) => DType::U32,
        (1, 64, 1) => DType::U64,
        (2, 16, 1) => DType::F16,
        (2, 32, 1) => DType::F32,
        (2, 64, 1) => DType::F64,
        _ => {
            let message = format!("the type with code {code}, {bits} bits and {lanes} lanes is not supported");
            return Err(Error::unsupported(message));
        }
    };
    Ok(dtype)
}

/// The type that a name of TVM's means.
pub(super) fn type_of(name: &str) -> Result<DType> {
    let dtype = match name {
        "bool" | "uint1" => Some(DType::Bool),
        name => DType::from_name(name),
    };
    dtype.ok_or_else(|| Error::unsupported(format!("the type {name:?} is not supported")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    type Row<'a> = (&'a str, (u8, u8), &'a [u64], &'a [u8]);

    /// Parameters as TVM writes them: `(name, (code, bits), shape, data)`.
    pub(in super::super) fn serialize(params: &[Row]) -> Vec<u8> {
        let mut out = Vec::new();
        let number = |out: &mut Vec<u8>, value: u64| out.extend(value.to_le_bytes());
        number(&mut out, LIST);
        number(&mut out, 0);
        number(&mut out, params.len() as u64);
        for (name, ..) in params {
            number(&mut out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
        }
        number(&mut out, params.len() as u64);
        for (_, (code, bits), shape, data) in params {
            number(&mut out, ARRAY);
            number(&mut out, 0);
            out.extend(1u32.to_le_bytes());
            out.extend(0u32.to_le_bytes());
            out.extend((shape.len() as u32).to_le_bytes());
            out.extend([*code, *bits, 1, 0]);
            shape.iter().for_each(|dim| number(&mut out, *dim));
            number(&mut out, data.len() as u64);
            out.extend_from_slice(data);
        }
        out
    }

    fn parse(bytes: Vec<u8>) -> Result<Vec<Param>> {
        read(&Bytes::from_vec(bytes))
    }

    fn two() -> Vec<u8> {
        serialize(&[
            ("a", (0, 8), &[2, 3], &[1, 2, 3, 4, 5, 6]),
            ("scalar", (2, 32), &[], &[0; 4]),
        ])
    }

    #[test]
    fn arrays_are_read() {
        let params = parse(two()).unwrap();
        assert_eq!(params[0].shape, Shape(vec![2, 3]));
        assert_eq!((params[0].dtype, params[1].dtype), (DType::I8, DType::F32));
        assert_eq!(params[0].data.as_slice(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(params[1].shape.rank(), 0);
        assert!(parse(serialize(&[])).unwrap().is_empty());
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = two();
        for len in 0..whole.len() {
            assert!(parse(whole[..len].to_vec()).is_err(), "{len}");
        }
    }

    #[test]
    fn lies_are_refused() {
        let change = |at: usize, with: &[u8]| {
            let mut bytes = two();
            bytes[at..at + with.len()].copy_from_slice(with);
            parse(bytes).unwrap_err().to_string()
        };
        let list = two().len() - serialize(&[("scalar", (2, 32), &[], &[0; 4])]).len();
        assert!(list > 0);
        assert!(change(0, &[0]).contains("begins with"));
        assert!(!change(16, &[3]).is_empty());
        assert!(change(16, &[255; 8]).contains("at most"));
        let counted = 24 + 8 + 1 + 8 + 6;
        assert!(change(counted, &[1]).contains("2 names for 1 parameters"));
        let array = counted + 8;
        assert!(change(array, &[0]).contains("begins with"));
        assert!(change(array + 24, &[200]).contains("200 dimensions"));
        assert!(change(array + 28, &[9]).contains("not supported"));
        assert!(change(array + 32, &[7]).contains("need 21"));
        assert!(change(array + 32, &[255; 8]).contains("elements"));
        let mut longer = two();
        longer.push(0);
        assert!(parse(longer).unwrap_err().to_string().contains("1 bytes follow"));
        let twice = serialize(&[("a", (0, 8), &[1], &[1]), ("a", (0, 8), &[1], &[1])]);
        assert!(parse(twice).unwrap_err().to_string().contains("two parameters"));
    }
}
