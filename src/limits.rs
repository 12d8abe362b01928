//! Every bound on untrusted input, in one place.
//!
//! A model beyond a bound is refused with [`crate::error::Code::Limit`] before memory or time is spent on it.

/// Largest model file in bytes (the ELF64 writers go further; a flatbuffer with 32-bit offsets does not).
pub const MODEL_BYTES: u64 = 16 << 30;
/// Largest model in bytes that is read from standard input, which is held in memory.
pub const STREAM_BYTES: u64 = 1 << 30;
/// Longest header of a NumPy file in bytes; the longest that version 1.0 of the format can say.
pub const NPY_HEADER_BYTES: usize = 65_535;
/// Most tensors in a model.
pub const TENSORS: usize = 1 << 17;
/// Most operators in a model.
pub const OPERATORS: usize = 1 << 16;
/// Most operands of one operator, and most inputs and outputs of a model.
pub const OPERANDS: usize = 1 << 10;
/// Most dimensions of a tensor.
pub const RANK: usize = 8;
/// Most elements of a tensor: products of a few sizes and strides still fit 63 bits.
pub const ELEMENTS: u64 = 1 << 32;
/// Largest spatial window, stride and dilation.
pub const WINDOW: u32 = 1 << 14;
/// Longest name that is kept; longer ones are cut for symbols, with a hash.
pub const NAME_BYTES: usize = 4096;
/// Most elementary steps (multiply-accumulates, elements) that constant folding may spend on a model.
pub const FOLD_WORK: u64 = 1 << 28;
/// Largest activation buffer in bytes that a plan may hold.
pub const ARENA_BYTES: u64 = 1 << 40;
/// Most bytes of constants that debug information repeats in the model's order.
pub const DEBUG_VALUES: u64 = 4 << 20;
/// Deepest nesting of tables in a flatbuffer (a TensorFlow Lite model has 5 levels).
pub const NESTING: usize = 16;
/// Most tables in a flatbuffer: a few for each tensor and each operator.
pub const TABLES: usize = 4 * (TENSORS + OPERATORS);
/// How many times its size a flatbuffer may have when everything that is shared in it is counted again and again.
pub const SHARING: usize = 16;
/// Largest file of placement rules in bytes.
pub const PLACE_FILE_BYTES: u64 = 1 << 20;
/// Most rules and most memories in such a file.
pub const PLACE_RULES: usize = 4096;
/// Most sections of a build that `check-link` compares.
pub const LINK_ITEMS: usize = 1 << 20;
/// Most symbols of a program that it reads.
pub const LINK_SYMBOLS: usize = 1 << 24;
/// Largest map of a linker that it reads, in bytes.
pub const MAP_BYTES: u64 = 1 << 29;
/// Largest alignment in bytes that an external function or a constant may ask for.
pub const ALIGNMENT: u64 = 1 << 16;
/// Most entries of an archive (a model library, a static library).
pub const ARCHIVE_FILES: usize = 1 << 14;
/// Largest text (JSON, C, a manifest) in bytes that is read whole, beside parameters.
pub const TEXT_BYTES: u64 = 1 << 28;
