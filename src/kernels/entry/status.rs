//! What the functions of a model return.

/// The run succeeded: `<MODEL>_OK`.
pub const OK: i32 = 0;
/// An operator ran, and more follow: `<MODEL>_MORE`.
pub const MORE: i32 = 1;
/// A pointer is null: `<MODEL>_ERROR_NULL_POINTER`.
pub const ERROR_NULL_POINTER: i32 = -1;
/// The caller's arena is not aligned: `<MODEL>_ERROR_ARENA_ALIGNMENT`.
pub const ERROR_ARENA_ALIGNMENT: i32 = -2;
/// `<MODEL>_ERROR_STEP`.
pub const ERROR_STEP: i32 = -3;
/// `<MODEL>_ERROR_PARAMETERS_UNBOUND`.
pub const ERROR_PARAMETERS_UNBOUND: i32 = -4;
/// `<MODEL>_ERROR_PARAMETERS_ALIGNMENT`.
pub const ERROR_PARAMETERS_ALIGNMENT: i32 = -5;
/// `<MODEL>_ERROR_PARAMETERS_MAGIC`.
pub const ERROR_PARAMETERS_MAGIC: i32 = -6;
/// `<MODEL>_ERROR_PARAMETERS_VERSION`.
pub const ERROR_PARAMETERS_VERSION: i32 = -7;
/// `<MODEL>_ERROR_PARAMETERS_FINGERPRINT`.
pub const ERROR_PARAMETERS_FINGERPRINT: i32 = -8;
/// `<MODEL>_ERROR_PARAMETERS_SIZE`.
pub const ERROR_PARAMETERS_SIZE: i32 = -9;
/// `<MODEL>_ERROR_PARAMETERS_CHECKSUM`.
pub const ERROR_PARAMETERS_CHECKSUM: i32 = -10;
/// `<MODEL>_ERROR_READ`.
pub const ERROR_READ: i32 = -11;
/// `<MODEL>_ERROR_SHORT_READ`.
pub const ERROR_SHORT_READ: i32 = -12;
/// A function of others failed: `<MODEL>_ERROR_EXTERNAL`.
pub const ERROR_EXTERNAL: i32 = -13;
/// `<MODEL>_ERROR_INPUT`.
pub const ERROR_INPUT: i32 = -14;

/// What a model must have for a status to occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing.
    Always,
    /// Pointers that its functions are given.
    Pointers,
    /// An arena that its functions are given.
    Arena,
    /// `<model>_step`.
    Step,
    /// Parameters outside the object.
    Parameters,
    /// Parameters that are read in place.
    External,
    /// Parameters that are read through a callback.
    Streamed,
    /// Functions of others that it calls.
    Calls,
    /// An input that comes row by row.
    Rows,
}

/// Every result of a model's functions: the end of its macro, its value, its meaning, and when it occurs.
pub const STATUS: &[(&str, i32, &str, When)] = &[
    ("OK", OK, "The run succeeded.", When::Always),
    ("MORE", MORE, "An operator ran, and more follow.", When::Step),
    (
        "ERROR_NULL_POINTER",
        ERROR_NULL_POINTER,
        "A pointer is null; nothing was computed.",
        When::Pointers,
    ),
    (
        "ERROR_ARENA_ALIGNMENT",
        ERROR_ARENA_ALIGNMENT,
        "The arena is not aligned; nothing was computed.",
        When::Arena,
    ),
    (
        "ERROR_STEP",
        ERROR_STEP,
        "There is no such step; nothing was computed.",
        When::Step,
    ),
    (
        "ERROR_PARAMETERS_UNBOUND",
        ERROR_PARAMETERS_UNBOUND,
        "No image is bound, or one of another network; nothing was computed.",
        When::Parameters,
    ),
    (
        "ERROR_PARAMETERS_ALIGNMENT",
        ERROR_PARAMETERS_ALIGNMENT,
        "The image is not aligned.",
        When::External,
    ),
    (
        "ERROR_PARAMETERS_MAGIC",
        ERROR_PARAMETERS_MAGIC,
        "It is no image of parameters.",
        When::Parameters,
    ),
    (
        "ERROR_PARAMETERS_VERSION",
        ERROR_PARAMETERS_VERSION,
        "The image has an older or newer format.",
        When::Parameters,
    ),
    (
        "ERROR_PARAMETERS_FINGERPRINT",
        ERROR_PARAMETERS_FINGERPRINT,
        "The image belongs to other code: another network, target or build.",
        When::Parameters,
    ),
    (
        "ERROR_PARAMETERS_SIZE",
        ERROR_PARAMETERS_SIZE,
        "The image is truncated, or its size is not that of this network's parameters.",
        When::Parameters,
    ),
    (
        "ERROR_PARAMETERS_CHECKSUM",
        ERROR_PARAMETERS_CHECKSUM,
        "The image is corrupted.",
        When::Parameters,
    ),
    (
        "ERROR_READ",
        ERROR_READ,
        "A callback failed; no output was written.",
        When::Streamed,
    ),
    (
        "ERROR_SHORT_READ",
        ERROR_SHORT_READ,
        "A callback delivered fewer or more bytes than were asked for; no output was written.",
        When::Streamed,
    ),
    (
        "ERROR_EXTERNAL",
        ERROR_EXTERNAL,
        "An external function failed; the outputs are not valid.",
        When::Calls,
    ),
    (
        "ERROR_INPUT",
        ERROR_INPUT,
        "The callback that reads rows of the input failed; outputs hold nothing of use.",
        When::Rows,
    ),
];
