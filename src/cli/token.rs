//! `killstream token`.

use clap::Args;

use crate::cli::target::Folder;
use crate::server::token;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    folder: Folder,
}

/// Prints the token of a data folder; makes it if there is none yet. The folder may be in use.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (token, _) = token::of(&arguments.folder.data_dir)?;
    println!("{token}");
    Ok(())
}
