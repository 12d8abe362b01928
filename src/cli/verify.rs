//! stub
use crate::error::Result;
use clap::Args;
/// stub
#[derive(Args)]
#[command(after_help = "corerope ")]
pub(super) struct Arguments {}
impl Arguments {
    /// stub
    pub fn run(self) -> Result<()> {
        Ok(())
    }
}
