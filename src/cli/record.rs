//! `killstream record`.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;

use crate::cli::block_on;
use crate::ingest::record;
use crate::ingest::source::Source;
use crate::ingest::supervise::open;
use crate::server::Signals;
use crate::{clock, config};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Where to; what is there already stays, and the recording goes on behind it.
    file: PathBuf,
    /// What to record: `r2z2`, or the name of one of the `[[sources]]` in the configuration.
    #[arg(long, value_name = "NAME", default_value = "r2z2")]
    source: String,
    /// A configuration file (TOML), as for `serve`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// End after so many documents; otherwise on Ctrl-C.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let file = match &arguments.config {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Some((path.display().to_string(), text))
        }
        None => None,
    };
    let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    let config = config::gather(file, &|name| std::env::var(name).ok(), vec![])?;
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
            () = signals.one() => Ok(()),
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
            // In one piece: an end in between leaves no half line.
            out.write_all(&line).with_context(|| format!("cannot write {}", arguments.file.display()))?;
            count += 1;
        }
    }
    Ok(())
}
