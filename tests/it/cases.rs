//! Models with expected outputs: those of `fixtures/` and, where it is present, `../shared/data`.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The families of operator cases that corerope has to get right, by the start of their names.
const FAMILIES: &[&str] = &[
    "conv_",
    "dw_",
    "fc_",
    "avgpool_",
    "maxpool_",
    "add_",
    "sub_",
    "mul_",
    "softmax",
    "mean_",
    "pad",
    "concat_",
    "transpose_",
    "batch_matmul_bcast",
    "reshape",
    "flatten",
    "squeeze",
    "expand_dims",
    "relu",
    "logistic",
    "sigmoid",
    "tanh",
    "quantize",
    "dequantize",
    "g_lenet",
    "g_dscnn",
    "g_resblock",
    "g_autoenc",
    "g_mlp_sine",
    "g_inv_residual",
];

/// Greatest difference of a float output from the expected one, relative to the greatest expected magnitude.
const TOLERANCE: f32 = 1e-5;

/// One set of inputs and the outputs expected of them, as bytes.
#[derive(Clone)]
pub struct Set {
    pub kind: String,
    pub inputs: Vec<Vec<u8>>,
    pub outputs: Vec<Vec<u8>>,
}

/// A model with expected outputs.
#[derive(Clone)]
pub struct Case {
    /// Name of its files.
    pub name: String,
    /// The C identifier under which it is built.
    pub identifier: String,
    pub model: PathBuf,
    /// Whether the outputs are float32, which are compared with a tolerance.
    pub float: bool,
    pub sets: Vec<Set>,
}

/// The crate's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The fixtures, in order of name.
pub fn fixtures() -> Vec<Case> {
    load(&root().join("fixtures"), "f", |_| true)
}

/// The shared models and operator cases; empty, and said so, where they are not there.
pub fn shared() -> Vec<Case> {
    let data = std::env::var_os("COREROPE_DATA").map_or_else(|| root().join("../shared/data"), PathBuf::from);
    if !data.is_dir() {
        crate::tools::skip(&format!(
            "{} is not there: real models and operator cases",
            data.display()
        ));
        return Vec::new();
    }
    let mut cases = load(&data.join("models"), "m", |_| true);
    cases.extend(load(&data.join("tflite-ops"), "o", |name| {
        (name.ends_with(".i8") || name.ends_with(".f32")) && FAMILIES.iter().any(|family| name.starts_with(family))
    }));
    cases
}

fn load(directory: &Path, prefix: &str, wanted: impl Fn(&str) -> bool) -> Vec<Case> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let wanted = |path: &PathBuf| wanted(path.file_stem().unwrap().to_str().unwrap());
    files
        .into_iter()
        .filter(wanted)
        .map(|path| load_one(&path, prefix))
        .collect()
}

fn load_one(path: &Path, prefix: &str) -> Case {
    let about: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let blob = fs::read(path.with_file_name(about["data"].as_str().unwrap())).unwrap();
    let pieces = |list: &Value| -> Vec<Vec<u8>> {
        let list = list.as_array().unwrap().iter();
        list.map(|piece| {
            let at = piece["offset"].as_u64().unwrap() as usize;
            blob[at..at + piece["len"].as_u64().unwrap() as usize].to_vec()
        })
        .collect()
    };
    let sets: Vec<&Value> = about["sets"].as_array().unwrap().iter().collect();
    // The definition for integers, where a case has it, is TFLM's result.
    let expected = |set: &'_ Value| set.get("outputs_tflm").unwrap_or(&set["outputs"]).clone();
    let dtype = about["outputs"][0]["dtype"]
        .as_str()
        .or(sets[0]["outputs"][0]["dtype"].as_str());
    let name = about["name"].as_str().unwrap().to_owned();
    let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    Case {
        identifier: format!("{prefix}_{}", name.chars().map(clean).collect::<String>()),
        name,
        model: path.with_file_name(about["model"].as_str().unwrap()),
        float: dtype == Some("float32"),
        sets: sets
            .iter()
            .map(|set| Set {
                kind: set["kind"].as_str().unwrap().to_owned(),
                inputs: pieces(&set["inputs"]),
                outputs: pieces(&expected(set)),
            })
            .collect(),
    }
}

impl Case {
    /// How the outputs of one set differ from the expected ones, if they do: bit for bit for integers, within
    /// [`TOLERANCE`] for floats.
    pub fn difference(&self, set: &Set, outputs: &[&[u8]]) -> Option<String> {
        for (i, (got, expected)) in outputs.iter().zip(&set.outputs).enumerate() {
            let label = format!("{}: set {:?}, output {i}", self.name, set.kind);
            if !self.float {
                let wrong = got.iter().zip(expected).filter(|(a, b)| a != b).count();
                if let Some(at) = (0..got.len()).find(|&at| got[at] != expected[at]) {
                    let [a, b] = [got[at] as i8, expected[at] as i8];
                    let of = got.len();
                    return Some(format!(
                        "{label}: {wrong} of {of} values differ, first [{at}]: {a}, expected {b}"
                    ));
                }
                continue;
            }
            let floats = |bytes: &[u8]| -> Vec<f32> {
                bytes
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                    .collect()
            };
            let (got, expected) = (floats(got), floats(expected));
            let most = expected.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
            // A difference that is not a number is one, unless both are the same infinity.
            let far = |at: &usize| {
                let difference = (got[*at] - expected[*at]).abs();
                got[*at] != expected[*at] && (difference.is_nan() || difference > TOLERANCE * most)
            };
            let bad = (0..got.len()).find(far);
            if let Some(at) = bad {
                return Some(format!("{label}: [{at}] is {:e}, expected {:e}", got[at], expected[at]));
            }
        }
        None
    }
}

/// Cases that are outside: `tests/exceptions.txt`, name → (what happens, why).
pub fn exceptions() -> BTreeMap<String, (String, String)> {
    let text = fs::read_to_string(root().join("tests/exceptions.txt")).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| {
            let mut parts = line.splitn(3, '|').map(|part| part.trim().to_owned());
            let mut next = || {
                parts
                    .next()
                    .unwrap_or_else(|| panic!("exceptions.txt: name | what | why: {line}"))
            };
            (next(), (next(), next()))
        })
        .collect()
}
