//! `killstream backup`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::cli::progress;
use crate::cli::target::Folder;
use crate::{store, wire};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder to be made; empty, or not there yet.
    dest: PathBuf,
    #[command(flatten)]
    folder: Folder,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Copies the store of a data folder into another folder, from which a server can be started.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let dir = arguments.folder.data_dir;
    fs::metadata(dir.join("store")).with_context(|| format!("there is no store in {}", dir.display()))?;
    let bars = progress::Bars::default();
    let store = store::Store::open(store::Config { dir, encode: wire::killmail::encode, ..store::Config::default() })?;
    let backup = store.backup(&arguments.dest, &|step| bars.show(step))?;
    bars.clear();
    if arguments.json {
        println!("{}", serde_json::to_string(&backup)?);
    } else {
        println!("{} killmails, {} bytes", backup.killmails, backup.bytes);
    }
    Ok(())
}
