//! Tar archives (POSIX ustar, with the long names of GNU tar and pax), read in place.

use crate::data::{Bytes, Source};
use crate::error::{Code, Error, Result};
use crate::limits;
use std::collections::BTreeMap;
use std::sync::Arc;

const BLOCK: u64 = 512;

/// The regular files of an archive by path, without a leading `./`.
pub(super) fn read(source: &Arc<Source>) -> Result<BTreeMap<String, Bytes>> {
    let bytes = source.bytes();
    let mut files = BTreeMap::new();
    let mut at: u64 = 0;
    let mut long: Option<String> = None;
    let mut entries = 0;
    while let Some(header) = slice(bytes, at, BLOCK) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let place = || format!("byte {at} of the archive");
        entries += 1;
        if entries > limits::ARCHIVE_FILES {
            let message = format!("the archive has more than {} entries", limits::ARCHIVE_FILES);
            return Err(Error::new(Code::Limit, message));
        }
        let header = Header::parse(header).map_err(|error| error.at(place()))?;
        let start = at + BLOCK;
        let end = start.checked_add(header.size).filter(|end| *end <= bytes.len() as u64);
        let end = end.ok_or_else(|| {
            Error::model(format!(
                "{:?} is cut short: {} bytes are announced",
                header.name, header.size
            ))
            .at(place())
            .help("fetch or export the archive again")
        })?;
        match header.kind {
            b'0' | 0 | b'7' => {
                let name = long.take().unwrap_or(header.name);
                let path = path(&name).map_err(|error| error.at(place()))?;
                let contents = Bytes::new(source.clone(), start..end);
                let contents = contents.ok_or_else(|| Error::internal("a file outside its archive"))?;
                if files.insert(path.clone(), contents).is_some() {
                    return Err(Error::model(format!("the archive holds {path} twice")).at(place()));
                }
            }
            b'5' => long = None,
            b'L' => long = Some(text(&bytes[start as usize..end as usize])),
            b'x' => long = pax_path(&bytes[start as usize..end as usize]).or(long),
            b'g' => {}
            b'1' | b'2' => {
                let message = format!("{:?} is a link: a model library holds files only", header.name);
                return Err(Error::model(message).at(place()));
            }
            other => {
                let kind = char::from(other).escape_default();
                let message = format!("{:?} is an entry of an unknown kind ({kind})", header.name);
                return Err(Error::model(message).at(place()));
            }
        }
        at = end.next_multiple_of(BLOCK);
    }
    Ok(files)
}

fn slice(bytes: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(at).ok()?;
    bytes.get(start..start.checked_add(len as usize)?)
}

/// Up to the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end.min(limits::NAME_BYTES)]).into_owned()
}

struct Header {
    name: String,
    size: u64,
    kind: u8,
}

impl Header {
    fn parse(block: &[u8]) -> Result<Self> {
        let damaged = || Error::model("the archive is damaged").help("fetch or export the archive again");
        let sum = octal(&block[148..156]).ok_or_else(damaged)?;
        let bytes = block.iter().enumerate();
        let actual: u64 = bytes
            .map(|(i, byte)| u64::from(if (148..156).contains(&i) { b' ' } else { *byte }))
            .sum();
        if sum != actual {
            return Err(damaged());
        }
        let mut name = text(&block[..100]);
        let prefix = text(&block[345..500]);
        if &block[257..262] == b"ustar" && !prefix.is_empty() && block[262] == 0 {
            name = format!("{prefix}/{name}");
        }
        Ok(Header {
            name,
            size: octal(&block[124..136]).ok_or_else(damaged)?,
            kind: block[156],
        })
    }
}

/// Octal digits, with blanks before and blanks or a zero after them.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches(|c| c == ' ' || c == '\0');
    if text.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(text, 8).ok()
}

/// `path` of a pax header: records `LENGTH KEY=VALUE\n`.
fn pax_path(records: &[u8]) -> Option<String> {
    let mut rest = records;
    let mut path = None;
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
        let record = rest.get(space + 1..length.checked_sub(1)?)?;
        if let Some(value) = record.strip_prefix(b"path=") {
            path = Some(text(value));
        }
        rest = rest.get(length..)?;
    }
    path
}

/// A path inside the archive: relative, without `..`.
fn path(name: &str) -> Result<String> {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if name.starts_with('/') || parts.contains(&"..") || parts.is_empty() {
        return Err(Error::model(format!("{name:?} is not a path inside the archive")));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An archive of files.
    pub(in super::super) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, contents) in files {
            out.extend(header(name, contents.len(), b'0'));
            out.extend_from_slice(contents);
            out.resize(out.len().next_multiple_of(512), 0);
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    fn header(name: &str, size: usize, kind: u8) -> Vec<u8> {
        let mut block = vec![0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(b"0000644\0");
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[156] = kind;
        block[257..263].copy_from_slice(b"ustar\0");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    fn files(bytes: Vec<u8>) -> Result<Vec<(String, Vec<u8>)>> {
        let files = read(&Arc::new(Source::Memory(bytes)))?;
        Ok(files
            .into_iter()
            .map(|(name, bytes)| (name, bytes.as_slice().to_vec()))
            .collect())
    }

    #[test]
    fn files_have_plain_paths() {
        let bytes = archive(&[("./a/b.txt", b"hello"), ("c", b"")]);
        assert_eq!(
            files(bytes).unwrap(),
            [("a/b.txt".to_owned(), b"hello".to_vec()), ("c".into(), Vec::new())]
        );
        assert_eq!(files(Vec::new()).unwrap(), []);
    }

    #[test]
    fn long_names_are_read() {
        let name = "x/".repeat(80) + "end";
        for (kind, record) in [
            (b'L', format!("{name}\0")),
            (b'x', format!("{} path={name}\n", name.len() + 10)),
        ] {
            let mut bytes = header("long", record.len(), kind);
            bytes.extend_from_slice(record.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(512), 0);
            bytes.extend(archive(&[("short", b"1")]));
            assert_eq!(files(bytes).unwrap(), [(name.clone(), b"1".to_vec())]);
        }
    }

    #[test]
    fn hostile_archives_are_refused() {
        let of = |name: &str, kind| {
            let mut bytes = header(name, 0, kind);
            bytes.resize(2048, 0);
            files(bytes).unwrap_err().to_string()
        };
        assert!(of("../etc/passwd", b'0').contains("not a path inside"));
        assert!(of("/etc/passwd", b'0').contains("not a path inside"));
        assert!(of("link", b'2').contains("is a link"));
        assert!(of("node", b'3').contains("unknown kind"));
        let twice = archive(&[("a", b"1"), ("./a", b"2")]);
        assert!(files(twice).unwrap_err().to_string().contains("holds a twice"));
        let mut short = archive(&[("a", &[1; 600])]);
        short.truncate(700);
        assert!(files(short).unwrap_err().to_string().contains("cut short"));
        let mut changed = archive(&[("a", b"1")]);
        changed[0] ^= 1;
        assert!(files(changed).unwrap_err().to_string().contains("damaged"));
    }
}
