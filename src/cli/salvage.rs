//! `killstream salvage`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::progress;
use crate::store::upkeep::salvage::{self, Losses};
use crate::{store, wire};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The data folder with the damaged store, which is only read
    dir: PathBuf,
    /// The data folder to create; it must be empty or not exist
    new_dir: PathBuf,
    /// Print the losses as JSON
    #[arg(long)]
    json: bool,
}

/// Copies what is intact in a damaged store into a new one and prints the losses to stdout.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let bars = progress::Bars::default();
    let config = store::config::Config { dir: arguments.new_dir, ..store::config::Config::default() };
    let losses = salvage::run(&arguments.dir, &config, wire::killmail::encode, &|step| bars.show(step))?;
    bars.clear();
    if arguments.json {
        println!("{}", serde_json::to_string(&losses)?);
    } else {
        print(&losses);
    }
    Ok(())
}

fn print(losses: &Losses) {
    println!("killmails {}", losses.killmails);
    println!("head      {}", losses.head);
    println!("lost      {}", losses.lost);
    for (first, last) in &losses.holes {
        println!("hole      {first} to {last}");
    }
    for (name, count) in &losses.carried {
        println!("carried   {count} {name}");
    }
    for (what, ids) in [("newest revision destroyed", &losses.stale), ("unreadable", &losses.unreadable)] {
        for id in ids {
            println!("killmail  {id}: {what}");
        }
    }
    for note in &losses.notes {
        println!("note      {note}");
    }
}
