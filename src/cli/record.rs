//! `killstream record`.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;

use crate::cli::{block_on, config_file};
use crate::clock;
use crate::ingest::record;
use crate::ingest::source::Source;
use crate::ingest::supervise::open;
use crate::server::Signals;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The file to write; an existing one is appended to
    file: PathBuf,
    /// The source to record: `r2z2`, or the name of one of the `[[sources]]` in the configuration
    #[arg(long, value_name = "NAME", default_value = "r2z2")]
    source: String,
    /// A configuration file (TOML), as for `serve`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Stop after this many documents; otherwise on Ctrl-C
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = config_file::load(arguments.config.as_deref(), vec![])?;
    let path = &arguments.file;
    let mut out = File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let recorded = block_on(async {
        let mut signals = Signals::listen()?;
        let mut source = open::open_for_recording(&arguments.source, &config.ingest)
            .map_err(|why| anyhow!("cannot record {}: {why}", arguments.source))?;
        tokio::select! {
            recorded = record(&mut source, &arguments, &mut out) => recorded,
            () = signals.recv() => Ok(()),
        }
    });
    out.sync_all()?;
    recorded
}

async fn record(source: &mut Source, arguments: &Arguments, out: &mut File) -> anyhow::Result<()> {
    let mut count = 0;
    while arguments.count.is_none_or(|max| count < max) {
        let Some(arrival) = source.next().await else { break };
        for document in &arrival.raw {
            let mut line = Vec::new();
            record::write_line(&mut line, clock::now_ms(), &arguments.source, document)?;
            // One write per line, so that being killed never leaves half of one.
            out.write_all(&line).with_context(|| format!("cannot write {}", arguments.file.display()))?;
            count += 1;
        }
    }
    Ok(())
}
