//! `killstream serve`.

use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use clap::builder::PossibleValuesParser;
use toml::Value;

use crate::cli::target::listen_address;
use crate::cli::{block_on, config_file};
use crate::config::{self, Config};
use crate::server::{self, Signals};
use crate::telemetry::source_kind::SourceKind;

/// The kinds that `--source` accepts.
fn first_sources() -> PossibleValuesParser {
    SourceKind::ALL
        .into_iter()
        .filter(|kind| kind.can_be_first())
        .map(SourceKind::word)
        .collect::<Vec<_>>()
        .into()
}

#[derive(Debug, Args)]
pub struct Arguments {
    /// A configuration file (TOML); `--print-config` prints one with every setting
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder; created if missing [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The address and port to listen on; port 0 picks a free one [default: 0.0.0.0:4004]
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    /// Where live killmails come from [default: r2z2, or replay with --replay]
    #[arg(long, value_parser = first_sources())]
    source: Option<String>,
    /// A file or folder to replay; can be repeated
    #[arg(long, value_name = "PATH")]
    replay: Vec<PathBuf>,
    /// How many times faster than real time to replay; 0 means as fast as possible [default: 1]
    #[arg(long, value_name = "X")]
    replay_speed: Option<f64>,
    /// Shift all replayed times by the same amount, so that the first killmail happens now
    #[arg(long)]
    replay_rebase: bool,
    /// Print a configuration file with every setting, its default and its meaning, then exit
    #[arg(long)]
    print_config: bool,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.print_config {
        print!("{}", config::DEFAULTS);
        return Ok(());
    }
    let config = gather(arguments)?;
    block_on(async {
        let mut signals = Signals::listen()?;
        let running = tokio::select! {
            running = server::start(config) => running?,
            () = signals.recv() => return Ok(()),
        };
        print_ready(running.addr())?;
        stopped(running.run_until_signal(signals, || {}).await)
    })
}

/// The result of a command whose server has stopped: a failure if a second signal cut the shutdown short.
pub fn stopped(in_order: bool) -> anyhow::Result<()> {
    if in_order { Ok(()) } else { bail!("stopped at once on a second signal, before shutdown was complete") }
}

/// Prints the ready line, flushed: programs that start a server wait for it.
pub fn print_ready(addr: SocketAddr) -> std::io::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "listening on http://{addr}")?;
    out.flush()
}

fn gather(arguments: Arguments) -> anyhow::Result<Config> {
    let path = |path: PathBuf| Value::String(path.to_string_lossy().into_owned());
    let source = arguments
        .source
        .or_else(|| (!arguments.replay.is_empty()).then(|| SourceKind::Replay.word().to_owned()));
    let replay = (!arguments.replay.is_empty())
        .then(|| Value::Array(arguments.replay.into_iter().map(path).collect()));
    let flags = [
        ("data_dir", arguments.data_dir.map(path)),
        ("bind_ip", arguments.listen.map(|listen| Value::String(listen.ip().to_string()))),
        ("port", arguments.listen.map(|listen| Value::Integer(listen.port().into()))),
        ("ingest.source", source.map(Value::String)),
        ("ingest.replay", replay),
        ("ingest.replay_speed", arguments.replay_speed.map(Value::Float)),
        ("ingest.replay_rebase", arguments.replay_rebase.then_some(Value::Boolean(true))),
    ];
    let flags = flags.into_iter().filter_map(|(setting, value)| Some((setting, value?))).collect();
    config_file::load(arguments.config.as_deref(), flags)
}
