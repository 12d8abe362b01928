//! Options about parameters outside the object, and about how the model is called.

use crate::build::Options;
use crate::image::Access;
use crate::place::{self, Home};
use clap::{Args, ValueEnum};

/// Where parameters are kept.
#[derive(Args)]
#[command(next_help_heading = "Memory")]
pub(super) struct ParamsArgs {
    /// Where the parameters are kept
    ///
    /// Outside the object they are in an image beside the output, OUT.params. A rule of --place decides for single
    /// tensors: --place 'size<1K=embedded', --place 'fc*=external'.
    #[arg(long, value_enum, value_name = "WHERE", default_value_t)]
    params: Params,

    /// Most bytes of parameters that are read at once; two buffers of what is needed are in the arena
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "16K")]
    stream_buffer: u64,
}

/// How the model is called.
#[derive(Args)]
#[command(next_help_heading = "Interface")]
pub(super) struct InterfaceArgs {
    /// Also a function that runs one operator and says whether more follow
    #[arg(long)]
    step: bool,

    /// Runs take functions that are called before and after every operator
    #[arg(long)]
    hooks: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Params {
    /// In the object, as constants
    #[default]
    Embedded,
    /// In an image that the application maps or points at; read in place
    External,
    /// In an image that the application reads piece by piece, through a callback
    Streamed,
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = place::bytes(text).ok_or("it is not a size like 4096, 16K or 1M")?;
    match u32::try_from(bytes) {
        Ok(bytes) if bytes > 0 && bytes <= i32::MAX as u32 => Ok(bytes.into()),
        _ => Err("it is not between 1 and 2G".into()),
    }
}

impl ParamsArgs {
    /// Sets what these options say.
    pub fn apply(&self, options: &mut Options) {
        options.params = match self.params {
            Params::Embedded => Home::Embedded,
            Params::External => Home::Outside(Access::External),
            Params::Streamed => Home::Outside(Access::Streamed),
        };
        options.stream_buffer = self.stream_buffer;
    }
}

impl InterfaceArgs {
    /// Sets what these options say.
    pub fn apply(&self, options: &mut Options) {
        options.steps = self.step;
        options.hooks = self.hooks;
    }
}
