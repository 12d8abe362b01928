//! The C that TVM generates for kernels: which functions it defines, how they take their arguments, and how much they
//! allocate. Nothing is compiled here: the text is scanned for the few forms that TVM's code generator writes.

use crate::error::{Error, Result};
use crate::graph::external::WORKSPACE_ALIGN;
use std::collections::BTreeMap;

/// A function that the C defines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Function {
    /// Its parameters: `void* args`, `float* p0`.
    pub parameters: Vec<String>,
    /// Whether its body names only the first two of its parameters.
    pub brief: bool,
    /// How many packed arguments it reads.
    pub packed: usize,
    /// Most bytes that it holds of `TVMBackendAllocWorkspace` at once.
    pub workspace: u64,
}

/// All functions of a library's C.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    functions: BTreeMap<String, Function>,
}

impl Sources {
    /// Adds what `text` defines.
    pub fn add(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.find("int32_t ") {
            let boundary = rest[..at].chars().next_back().is_none_or(|c| !is_word(c));
            rest = &rest[at + "int32_t ".len()..];
            if !boundary {
                continue;
            }
            if let Some((name, function, after)) = definition(rest) {
                self.functions.insert(name.to_owned(), function);
                rest = after;
            }
        }
    }

    /// Most bytes that `main` and any one of the other functions hold together.
    pub fn nested_workspace(&self, main: &str) -> u64 {
        let others = self.functions.iter().filter(|(name, _)| *name != main);
        let most = others.map(|(_, function)| function.workspace).max().unwrap_or(0);
        self.function(main)
            .map_or(0, |main| main.workspace)
            .saturating_add(most)
    }

    /// The function, if it is defined.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }
}

impl Function {
    /// Whether it takes packed arguments.
    pub fn is_packed(&self) -> bool {
        self.parameters.len() == 6 && is_void_pointer(&self.parameters[0])
    }

    /// It takes packed arguments, no more than `count`.
    pub fn check_packed(&self, name: &str, count: usize) -> Result<()> {
        if !self.is_packed() {
            return Err(Error::model(format!(
                "{name} does not take packed arguments, which the graph executor passes: its C has {} parameters ({})",
                self.parameters.len(),
                self.parameters.join(", ")
            ))
            .help("export the model with -unpacked-api=0, or with the AOT executor"));
        }
        if self.packed > count {
            return Err(Error::model(format!(
                "{name} reads {} arguments, but the graph passes {count}",
                self.packed
            ))
            .help("graph and kernels must be of one build"));
        }
        Ok(())
    }
}

fn is_void_pointer(parameter: &str) -> bool {
    let text: String = parameter.chars().filter(|c| !c.is_whitespace()).collect();
    text.starts_with("void*")
}

pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// `NAME(parameters) { body }` at the start of `text`, and what follows it.
fn definition(text: &str) -> Option<(&str, Function, &str)> {
    let end = text.find(|c| !is_word(c))?;
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    let rest = rest.trim_start().strip_prefix('(')?;
    let close = rest.find([')', ';', '{'])?;
    let (list, rest) = rest.split_at(close);
    let rest = rest.strip_prefix(')')?.trim_start();
    let body = rest.strip_prefix('{')?;
    let length = body_length(body)?;
    let (body, after) = body.split_at(length);
    let parameters = list.split(',').map(str::trim).filter(|parameter| !parameter.is_empty());
    let parameters = parameters.map(str::to_owned).filter(|parameter| parameter != "void");
    let parameters: Vec<String> = parameters.collect();
    let named = |parameter: &String| {
        let name = parameter.rsplit(|c| !is_word(c)).next().unwrap_or("");
        name.is_empty() || body.split(|c| !is_word(c)).any(|word| word == name)
    };
    let function = Function {
        brief: parameters.len() > 2 && !parameters[2..].iter().any(named),
        parameters,
        packed: packed_arguments(body),
        workspace: workspace(body),
    };
    Some((name, function, after))
}

/// Bytes up to the brace that closes the body.
fn body_length(body: &str) -> Option<usize> {
    let mut depth = 1usize;
    let mut quote = None;
    let mut escaped = false;
    for (i, byte) in body.bytes().enumerate() {
        match (quote, byte) {
            _ if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') => {
                depth -= 1;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

/// One more than the largest index in `((TVMValue*)args)[3]`.
fn packed_arguments(body: &str) -> usize {
    const ACCESS: &str = "((TVMValue*)args)[";
    let indices = body.match_indices(ACCESS).filter_map(|(at, _)| {
        let rest = &body[at + ACCESS.len()..];
        rest[..rest.find(']')?].trim().parse::<usize>().ok()
    });
    indices.max().map_or(0, |index| index.saturating_add(1))
}

/// Most bytes that are allocated at once: allocations nest in the text as they do when it runs.
fn workspace(body: &str) -> u64 {
    let mut held: Vec<u64> = Vec::new();
    let (mut sum, mut most) = (0u64, 0);
    for (at, _) in body.match_indices("TVMBackend") {
        let rest = &body[at..];
        if let Some(call) = rest.strip_prefix("TVMBackendAllocWorkspace(") {
            let size = call.split(',').nth(2).and_then(literal).unwrap_or(0);
            let size = size.checked_next_multiple_of(WORKSPACE_ALIGN).unwrap_or(u64::MAX);
            held.push(size);
            sum = sum.saturating_add(size);
            most = most.max(sum);
        } else if rest.starts_with("TVMBackendFreeWorkspace(") {
            sum = sum.saturating_sub(held.pop().unwrap_or(0));
        }
    }
    most
}

/// `(uint64_t)16000`
fn literal(text: &str) -> Option<u64> {
    let digits = text.rsplit(')').next()?.trim();
    let digits = digits.trim_end_matches(['u', 'U', 'l', 'L']);
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_found() {
        let mut sources = Sources::default();
        sources.add(
            "TVM_DLL int32_t k(void* args, int32_t* arg_type_ids, int32_t num_args, void* a, int32_t* b, void* c);\n\
             TVM_DLL int32_t k(void* args, int32_t* arg_type_ids, int32_t num_args, void* a, int32_t* b, void* c) {\n\
               void* p0 = (((TVMValue*)args)[0].v_handle); void* q = (((TVMValue*)args)[12].v_handle);\n\
               void* x = TVMBackendAllocWorkspace(1, dev_id, (uint64_t)17, 0, 16);\n\
               if (x == NULL) { return -1; }\n\
               void* y = TVMBackendAllocWorkspace(1, dev_id, (uint64_t)100, 0, 16);\n\
               if (TVMBackendFreeWorkspace(1, dev_id, y) != 0) { return -1; }\n\
               void* z = TVMBackendAllocWorkspace(1, dev_id, (uint64_t)32, 0, 16);\n\
               return 0;\n}\n\
             TVM_DLL int32_t plain(float* p0, uint8_t* w) { char c = '}'; return 0; }\n",
        );
        let k = sources.function("k").unwrap();
        assert!(k.is_packed());
        assert_eq!((k.packed, k.workspace, k.brief), (13, 32 + 112, true));
        assert!(k.check_packed("k", 13).is_ok());
        assert!(
            k.check_packed("k", 12)
                .unwrap_err()
                .message
                .contains("reads 13 arguments")
        );
        let plain = sources.function("plain").unwrap();
        assert_eq!(plain.parameters, ["float* p0", "uint8_t* w"]);
        assert!(
            plain
                .check_packed("plain", 2)
                .unwrap_err()
                .message
                .contains("does not take packed")
        );
        assert!(sources.function("dev_id").is_none());
    }

    #[test]
    fn any_text_is_scanned() {
        for text in [
            "int32_t ",
            "int32_t x",
            "int32_t x(",
            "int32_t x(){",
            "int32_t x(){'",
            "int32_t \u{e9}(){}",
        ] {
            Sources::default().add(text);
        }
    }
}
