//! Constants and sizes in the C that TVM generates.
//!
//! ```c
//! static struct global_const_workspace {
//!   int16_t a[4096] __attribute__((aligned(16))); // 8192 bytes, aligned offset: 0
//!   float b[16] __attribute__((packed, aligned(16))); // 64 bytes, aligned offset: 8192
//! } global_const_workspace = {
//!   .a = { +0x0050, -0x0058, … },
//!   .b = { 0x1.05a71cp-3, … },
//! };// of total size 8256 bytes
//! static uint8_t global_workspace[160];
//! ```

use super::source::is_word;
use crate::error::{Code, Error, Result};
use crate::limits;

fn bad(message: impl Into<String>) -> Error {
    Error::model(message)
        .at("lib0.c")
        .help("the C must be as TVM 0.8 to 0.18 wrote it")
}

/// A member of the struct.
struct Member<'t> {
    name: &'t str,
    kind: Kind,
    count: u64,
    offset: u64,
}

/// C's type of an element.
#[derive(Clone, Copy)]
enum Kind {
    Integer(usize),
    Float,
    Double,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "int8_t" | "uint8_t" | "bool" | "char" => Kind::Integer(1),
            "int16_t" | "uint16_t" | "half" => Kind::Integer(2),
            "int32_t" | "uint32_t" => Kind::Integer(4),
            "int64_t" | "uint64_t" => Kind::Integer(8),
            "float" => Kind::Float,
            "double" => Kind::Double,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Kind::Integer(bytes) => bytes,
            Kind::Float => 4,
            Kind::Double => 8,
        }
    }
}

/// The bytes of a constant pool; `None` if no struct of that name is defined.
pub(super) fn pool(text: &str, name: &str) -> Result<Option<Vec<u8>>> {
    let open = format!("struct {name} {{");
    let Some(at) = text.find(&open) else {
        return Ok(None);
    };
    let rest = &text[at + open.len()..];
    let close = rest
        .find('}')
        .ok_or_else(|| bad(format!("struct {name} does not end")))?;
    let (declarations, rest) = rest.split_at(close);
    let members = members(declarations)?;
    let mut size = 0;
    for member in &members {
        let bytes = member.count.checked_mul(member.kind.bytes() as u64);
        let end = bytes.and_then(|bytes| member.offset.checked_add(bytes));
        let end = end.filter(|end| *end <= limits::ELEMENTS && member.offset >= size);
        size = end.ok_or_else(|| bad(format!("{} of {name} overlaps another, or is too large", member.name)))?;
    }
    // Text of one element is longer than the element: a short file cannot ask for much memory.
    if size > (text.len() as u64).saturating_mul(4) + 4096 {
        return Err(bad(format!("{name} announces more bytes than its text can hold")));
    }
    let mut bytes = vec![0; size as usize];
    let mut rest = rest;
    for member in &members {
        let start = format!(".{} =", member.name);
        let missing = || bad(format!("{} of {name} has no value", member.name));
        let at = rest.find(&start).ok_or_else(missing)?;
        let values = &rest[at + start.len()..];
        let open = values.find('{').ok_or_else(missing)?;
        let close = values[open..].find('}').ok_or_else(missing)? + open;
        let place = member.offset as usize..(member.offset as usize + member.count as usize * member.kind.bytes());
        fill(&values[open + 1..close], member, &mut bytes[place])?;
        rest = &values[close..];
    }
    Ok(Some(bytes))
}

fn members(text: &str) -> Result<Vec<Member<'_>>> {
    let mut members = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let parse = || {
            let (kind, rest) = line.split_once(char::is_whitespace)?;
            let (name, rest) = rest.trim_start().split_once('[')?;
            let (count, rest) = rest.split_once(']')?;
            let (_, offset) = rest.split_once("aligned offset:")?;
            Some(Member {
                name: name.trim(),
                kind: Kind::of(kind)?,
                count: count.trim().parse().ok()?,
                offset: offset.trim().parse().ok()?,
            })
        };
        members.push(parse().ok_or_else(|| bad(format!("a constant is declared in an unknown way: {line:.80}")))?);
        if members.len() > limits::TENSORS {
            let message = format!("more than {} constants", limits::TENSORS);
            return Err(Error::new(Code::Limit, message).at("lib0.c"));
        }
    }
    Ok(members)
}

fn fill(values: &str, member: &Member, out: &mut [u8]) -> Result<()> {
    let mut values = values.split(',').map(str::trim).filter(|value| !value.is_empty());
    let mut given = 0u64;
    for place in out.chunks_mut(member.kind.bytes()) {
        let Some(value) = values.next() else { break };
        let bits = match member.kind {
            Kind::Integer(_) => integer(value),
            Kind::Float => float(value, 24, -126).map(|value| u64::from((value as f32).to_bits())),
            Kind::Double => float(value, 53, -1022).map(f64::to_bits),
        };
        let bits = bits.ok_or_else(|| bad(format!("{value:.40} of {} is not a number", member.name)))?;
        place.copy_from_slice(&bits.to_le_bytes()[..place.len()]);
        given += 1;
    }
    if given != member.count || values.next().is_some() {
        return Err(bad(format!(
            "{} does not have the {} values that are declared",
            member.name, member.count
        )));
    }
    Ok(())
}

/// An integer constant of C with a sign, as bits.
fn integer(text: &str) -> Option<u64> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let text = text.trim_end_matches(['u', 'U', 'l', 'L']);
    let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => text.parse().ok()?,
    };
    Some(if negative { value.wrapping_neg() } else { value })
}

/// A floating constant of C: hexadecimal (exact), decimal, `INFINITY`, `NAN`.
fn float(text: &str, digits: u32, least: i32) -> Option<f64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest.trim()),
        None => (1.0, text.strip_prefix('+').unwrap_or(text).trim()),
    };
    let value = match text {
        "INFINITY" => f64::INFINITY,
        "NAN" => f64::NAN,
        _ => match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) => hexadecimal(hex, digits, least)?,
            // The nearest double of a decimal that was written for a float is that float, rounded once more.
            None => {
                let plain = text.trim_end_matches(['f', 'F', 'l', 'L']);
                if digits == 24 {
                    plain.parse::<f32>().ok()?.into()
                } else {
                    plain.parse().ok()?
                }
            }
        },
    };
    Some(sign * value)
}

/// `1.05a71cp-3`: exact, or nothing.
fn hexadecimal(text: &str, digits: u32, least: i32) -> Option<f64> {
    let text = text.trim_end_matches(['f', 'F', 'l', 'L']);
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || all.len() > 16 || !(-2000..2000).contains(&exponent) {
        return None;
    }
    let value = u64::from_str_radix(&all, 16).ok()?;
    if value == 0 {
        return Some(0.0);
    }
    let shift = exponent - 4 * fraction.len() as i32;
    let top = 63 - value.leading_zeros() as i32 + shift;
    let lowest = value.trailing_zeros() as i32 + shift;
    // Every bit lies within what the type holds.
    let exact = top - lowest < digits as i32 && lowest >= least - (digits as i32 - 1) && top <= -least + 1;
    exact.then(|| (value >> value.trailing_zeros()) as f64 * power(lowest))
}

/// 2^exponent, exactly, subnormal numbers included.
fn power(exponent: i32) -> f64 {
    if exponent >= -1022 {
        f64::from_bits(((exponent + 1023) as u64) << 52)
    } else {
        f64::from_bits(1 << (exponent + 1074))
    }
}

/// The size of `static uint8_t name[size];`.
pub(super) fn workspace(text: &str, name: &str) -> Option<u64> {
    let marker = format!("uint8_t {name}[");
    let rest = &text[text.find(&marker)? + marker.len()..];
    rest[..rest.find(']')?].trim().parse().ok()
}

/// The value of `#define name value`.
pub(super) fn macro_size(header: &str, name: &str) -> Option<u64> {
    let rest = definition(header, name)?;
    rest.split_whitespace().next()?.parse().ok()
}

fn definition<'t>(header: &'t str, name: &str) -> Option<&'t str> {
    let marker = format!("#define {name}");
    header.match_indices(&marker).find_map(|(at, _)| {
        let rest = &header[at + marker.len()..];
        rest.starts_with(|c| !is_word(c)).then_some(rest)
    })
}

/// The bytes of `#define <prefix>_CONSTANT_POOL_DATA 0x50, 0x00, …`; `None` if there is no such pool.
pub(super) fn macro_data(header: &str, prefix: &str) -> Result<Option<Vec<u8>>> {
    let Some(size) = macro_size(header, &format!("{prefix}_CONSTANT_POOL_SIZE")) else {
        return Ok(None);
    };
    let data = definition(header, &format!("{prefix}_CONSTANT_POOL_DATA"));
    let data = data.ok_or_else(|| bad(format!("the header does not hold the data of {prefix}")))?;
    let mut bytes = Vec::new();
    for line in data.lines() {
        let (values, more) = match line.trim_end().strip_suffix('\\') {
            Some(values) => (values, true),
            None => (line, false),
        };
        for value in values.split(',').map(str::trim).filter(|value| !value.is_empty()) {
            let byte = integer(value).and_then(|value| u8::try_from(value).ok());
            bytes.push(byte.ok_or_else(|| bad(format!("{value:.40} of {prefix} is not a byte")))?);
        }
        if !more {
            break;
        }
    }
    if bytes.len() as u64 != size {
        return Err(bad(format!("{prefix} has {} bytes, {size} are announced", bytes.len())));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "static struct pool {\n  int16_t a[3] __attribute__((aligned(16))); // 6 bytes, aligned offset: 0\n  \
        float b[2] __attribute__((packed, aligned(16))); // 8 bytes, aligned offset: 16\n} pool = {\n  .a = {\n    \
        +0x0050, -0x0002, \n    +0x7fff\n  },\n  .b = {\n    0x1.8p+0, -0x1p-149\n  },\n};\n\
        __attribute__((section(\".bss.noinit.tvm\"), aligned(16)))\nstatic uint8_t work[160];\n";

    #[test]
    fn pools_are_read() {
        let bytes = pool(TEXT, "pool").unwrap().unwrap();
        assert_eq!(bytes.len(), 24);
        assert_eq!(bytes[..6], [0x50, 0, 0xfe, 0xff, 0xff, 0x7f]);
        assert_eq!(bytes[16..20], 1.5f32.to_le_bytes());
        assert_eq!(bytes[20..24], [1, 0, 0, 0x80]);
        assert_eq!(workspace(TEXT, "work"), Some(160));
        assert!(pool(TEXT, "work").unwrap().is_none());
    }

    #[test]
    fn broken_pools_are_refused() {
        for (from, to, message) in [
            ("a[3]", "a[4]", "4 values"),
            ("a[3]", "a[2]", "2 values"),
            ("offset: 16", "offset: 4", "overlaps"),
            ("+0x0050", "+0xzz", "not a number"),
            ("0x1.8p+0", "0x1.8000001p+0", "not a number"),
            ("offset: 16", "offset: 99999999", "announces more"),
            ("int16_t a", "int24_t a", "unknown way"),
            (".b = ", ".c = ", "no value"),
        ] {
            let error = pool(&TEXT.replace(from, to), "pool").unwrap_err();
            assert!(error.message.contains(message), "{to}: {error}");
        }
    }

    #[test]
    fn numbers_of_c() {
        let f = |text: &str| float(text, 24, -126).map(|x| x as f32);
        for (text, expected) in [
            ("0x1.fffffep+127", f32::MAX),
            ("0x1p-126", f32::MIN_POSITIVE),
            ("1.5e+00f", 1.5),
            ("-INFINITY", f32::NEG_INFINITY),
            ("0x0p+0", 0.0),
        ] {
            assert_eq!(f(text), Some(expected), "{text}");
        }
        assert!(f("NAN").unwrap().is_nan());
        assert_eq!(f("0x1p-150"), None);
        assert_eq!(f("0x1p+128"), None);
        assert_eq!(float("0x1p-1074", 53, -1022), Some(f64::from_bits(1)));
        assert_eq!(integer("-0x0000004e"), Some((-78i64) as u64));
        assert_eq!(integer("12UL"), Some(12));
    }

    #[test]
    fn pools_in_headers() {
        let text = "#define P_CONSTANT_POOL_SIZE 3\n#define P_CONSTANT_POOL_DATA \\\n    0x50, 0x00, \\\n    0xff\\\n\n#define Q 1";
        assert_eq!(macro_data(text, "P").unwrap().unwrap(), [0x50, 0, 0xff]);
        assert!(macro_data(text, "Q").unwrap().is_none());
        assert!(macro_data(&text.replace(" 3", " 4"), "P").is_err());
    }
}
