//! `--memory NAME[=BYTES][:ACCESS],…`: memories that the plan divides buffers and parameters between, the fastest first.

use super::memory::{self, Region, number};
use crate::error::{Code, Error, Result};
use std::str::FromStr;

/// A memory as the user gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    name: String,
    bytes: Option<u64>,
    writable: Option<bool>,
}

/// A memory for buffers, if it is written at run time, or for parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Bytes of it that the model may use.
    pub bytes: u64,
    /// Whether it is written at run time.
    pub writable: bool,
    /// The described memory that it is, if there is one.
    pub region: Option<String>,
}

const HELP: &str = "memories are NAME=BYTES with the fastest first, as in dtcm=64K,sram=256K,sdram=8M; with :r behind \
                    the bytes they are for parameters, as in flash=1M:r,qspi=16M:r";

impl FromStr for Given {
    type Err = Error;

    /// # Errors
    /// [`Code::Usage`] for a name that is none, a size that is not a number or 0, and access other than `r` and `rw`.
    fn from_str(text: &str) -> Result<Given> {
        let bad = |what: &str| Error::new(Code::Usage, format!("{text:?} is no memory: {what}")).help(HELP);
        let (rest, writable) = match text.split_once(':') {
            Some((rest, "r")) => (rest, Some(false)),
            Some((rest, "rw")) => (rest, Some(true)),
            Some(_) => return Err(bad("its access is r, for parameters, or rw, for buffers")),
            None => (text, None),
        };
        let (name, bytes) = match rest.split_once('=') {
            Some((name, bytes)) => {
                let bytes = number(bytes).filter(|bytes| *bytes > 0);
                (
                    name,
                    Some(bytes.ok_or_else(|| bad("the size is not a number above 0"))?),
                )
            }
            None => (rest, None),
        };
        if !memory::is_name(name) {
            return Err(bad("the name is not one that every linker takes"));
        }
        Ok(Given {
            name: name.to_owned(),
            bytes,
            writable,
        })
    }
}

impl Given {
    /// A memory of a file.
    pub(super) fn new(name: &str, bytes: Option<u64>) -> Given {
        Given {
            name: name.to_owned(),
            bytes,
            writable: None,
        }
    }
}

/// The memories with what `regions` say about those of the same name, in any case.
///
/// # Errors
/// [`Code::Usage`] for two of one name, for one without a size that no region describes, and for one that asks for more
/// than its region has.
pub fn pools(given: &[Given], regions: &[Region]) -> Result<Vec<Pool>> {
    let fail = |message: String, help: &str| Err(Error::new(Code::Usage, message).help(help.to_owned()));
    let mut pools: Vec<Pool> = Vec::new();
    for memory in given {
        let name = &memory.name;
        let alike = |region: &&Region| region.name.eq_ignore_ascii_case(name);
        let exact = regions.iter().find(|region| region.name == *name);
        let region = exact.or_else(|| regions.iter().find(alike));
        if pools.iter().any(|other| other.name.eq_ignore_ascii_case(name)) {
            return fail(format!("--memory names {name} twice"), HELP);
        }
        let writable = memory.writable.or(region.map(|region| region.writable)).unwrap_or(true);
        if let Some(region) = region.filter(|region| writable && !region.writable) {
            return fail(
                format!("--memory {name}: {region} is not written at run time"),
                "describe it with its access, NAME=ORIGIN:LENGTH:rw, or put :r behind the bytes if it is for parameters",
            );
        }
        let length = region.map(|region| region.length);
        let Some(bytes) = memory.bytes.or(length) else {
            return fail(
                format!("--memory {name} has no size, and no --region describes it"),
                HELP,
            );
        };
        if let Some(region) = region.filter(|region| bytes > region.length) {
            return fail(
                format!(
                    "--memory {name} of {bytes} bytes is more than {region} has, {}",
                    region.length
                ),
                "give the bytes that the model may use",
            );
        }
        pools.push(Pool {
            name: name.clone(),
            bytes,
            writable,
            region: region.map(|region| region.name.clone()),
        });
    }
    Ok(pools)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Vec<Given> {
        text.split(',').map(|one| one.parse().unwrap()).collect()
    }

    #[test]
    fn memories_with_and_without_regions() {
        let regions: Vec<Region> = ["DTCM=0x20000000:64K:rw", "QSPI=0x90000000:16M"]
            .iter()
            .map(|region| region.parse().unwrap())
            .collect();
        let found = pools(&given("dtcm,sram=256K,qspi,flash=1M:r"), &regions).unwrap();
        let found: Vec<_> = (found.iter())
            .map(|pool| (pool.name.as_str(), pool.bytes, pool.writable, pool.region.as_deref()))
            .collect();
        assert_eq!(
            found,
            [
                ("dtcm", 64 << 10, true, Some("DTCM")),
                ("sram", 256 << 10, true, None),
                ("qspi", 16 << 20, false, Some("QSPI")),
                ("flash", 1 << 20, false, None)
            ]
        );
        for (text, expected) in [
            ("sram", "no size"),
            ("dtcm=65K", "more than DTCM"),
            ("qspi=1M:rw", "not written"),
            ("a=1K,A=2K", "twice"),
        ] {
            let error = pools(&given(text), &regions).unwrap_err();
            assert!(
                error.code == Code::Usage && error.message.contains(expected),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn memories_that_are_none() {
        for (text, expected) in [
            ("", "the name"),
            ("=64K", "the name"),
            ("a b=1", "the name"),
            ("a=0", "the size"),
            ("a=64Q", "the size"),
            ("a=64K:rx", "its access"),
            ("a=64K:", "its access"),
        ] {
            let error = text.parse::<Given>().unwrap_err();
            assert!(
                error.code == Code::Usage && error.message.contains(expected),
                "{text}: {error}"
            );
        }
    }
}
