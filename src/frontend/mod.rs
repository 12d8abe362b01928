//! Bytes → graph: the only place where untrusted bytes are read.
//!
//! [`read`] tells the format by its content. Whatever it returns has passed [`crate::graph::verify`].

pub mod tflite;
pub mod tvm;

use crate::data::Source;
use crate::error::{Code, Error, Result};
use crate::graph::Graph;
use crate::limits;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the user says about a model beyond its bytes.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The model's name: the prefix of symbols.
    pub name: String,
    /// `--shape`: dimensions of inputs, by name, that replace those of the model. Everything behind such an input gets
    /// its shape by inference.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Custom operators that external modules implement, by name.
    pub custom: BTreeSet<String>,
    /// What only models of TVM need.
    pub tvm: tvm::Options,
}

/// Reads a model of any supported format.
///
/// # Errors
/// [`Code::Model`] for a broken file or one of an unknown format, [`Code::Unsupported`] with everything in the model
/// that is not implemented, [`Code::Limit`] beyond a bound of [`limits`], [`Code::Usage`] for a shape that fits no input.
pub fn read(source: Arc<Source>, options: &ReadOptions) -> Result<Graph> {
    let bytes = source.bytes();
    if bytes.len() as u64 > limits::MODEL_BYTES {
        return Err(Error::new(
            Code::Limit,
            format!(
                "the model has {} bytes, more than the {} that are accepted",
                bytes.len(),
                limits::MODEL_BYTES
            ),
        ));
    }
    match sniff(bytes) {
        Format::TfLite => tflite::read(&source, options),
        Format::Tar => tvm::read(&source, options),
        Format::Empty => Err(Error::model("the model file is empty").help(ACCEPTED)),
        Format::Other(what) => {
            Err(Error::unsupported(format!("this looks like {what}, which is not supported yet")).help(ACCEPTED))
        }
        Format::Json => tvm::read_graph(&source, options),
        Format::Unknown => Err(Error::model("this is not a model of a known format").help(ACCEPTED)),
    }
}

const ACCEPTED: &str = "corerope reads TensorFlow Lite models (.tflite), TVM model libraries (.tar), and TVM's graph.json with \
                        --tvm-params";

#[derive(Debug, PartialEq, Eq)]
enum Format {
    TfLite,
    /// A tar archive: a model library of TVM.
    Tar,
    /// JSON: the graph executor's graph of TVM.
    Json,
    Empty,
    /// Recognized by the first bytes, not implemented.
    Other(&'static str),
    Unknown,
}

/// Tells the format from the first bytes.
fn sniff(bytes: &[u8]) -> Format {
    if bytes.is_empty() {
        return Format::Empty;
    }
    if bytes.get(4..8) == Some(b"TFL3") {
        return Format::TfLite;
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Format::Tar;
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Format::Other("a zip archive (a Keras or PyTorch model?)");
    }
    if bytes.starts_with(b"\x89HDF\r\n\x1a\n") {
        return Format::Other("an HDF5 file (a Keras model?)");
    }
    if bytes.starts_with(b"\x1f\x8b") {
        return Format::Other("a gzip file");
    }
    if let Some(b'{' | b'[') = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        return Format::Json;
    }
    // ModelProto: field 1 (ir_version) is a small varint; then a field of few that may follow it.
    if let [
        0x08,
        1..=0x7f,
        0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42 | 0x72,
        ..,
    ] = bytes
    {
        return Format::Other("an ONNX model");
    }
    Format::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        let source = Arc::new(Source::Memory(bytes.to_vec()));
        read(source, &ReadOptions::default()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_a_model_says_what_is_accepted() {
        for (bytes, expect) in [
            (&b""[..], "the model file is empty"),
            (b"hello, world", "this is not a model of a known format"),
            (b"TFL3", "this is not a model of a known format"),
            (
                b"\x08\x08\x12\x07pytorch",
                "this looks like an ONNX model, which is not supported yet",
            ),
            (
                b"PK\x03\x04....",
                "this looks like a zip archive (a Keras or PyTorch model?), which is not supported yet",
            ),
        ] {
            assert_eq!(refused(bytes), format!("{expect}; {ACCEPTED}"));
        }
        assert!(refused(b" {\"nodes\": []}").contains("graph.json"));
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(refused(&tar).contains("the archive is damaged"), "{}", refused(&tar));
    }
}
