//! `killstream serve`.

use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use toml::Value;

use crate::cli::target::listen_address;
use crate::cli::{block_on, config_file};
use crate::config::{self, Config};
use crate::server::{self, Signals};

#[derive(Debug, Args)]
pub struct Arguments {
    /// A configuration file (TOML); `--print-config` shows what can stand there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder; made if missing.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The address and port listened on; port 0: any free one.
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    /// Where live killmails come from.
    #[arg(long, value_parser = ["r2z2", "replay", "none"])]
    source: Option<String>,
    /// A file or folder to replay; may be given several times.
    #[arg(long, value_name = "PATH")]
    replay: Vec<PathBuf>,
    /// How many times faster than it happened; 0: as fast as it goes.
    #[arg(long, value_name = "X")]
    replay_speed: Option<f64>,
    /// Add one constant to all replayed times so that the first killmail happens now.
    #[arg(long)]
    replay_rebase: bool,
    /// Print every setting with its default, explained, and end.
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
            () = signals.one() => return Ok(()),
        };
        announce(running.addr())?;
        told(running.until(signals, || {}).await)
    })
}

/// What the end of a server means for the command.
pub fn told(in_order: bool) -> anyhow::Result<()> {
    if in_order { Ok(()) } else { bail!("ended at once, on a second signal") }
}

/// Says on stdout that the server is ready.
pub fn announce(addr: SocketAddr) -> std::io::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "listening on http://{addr}")?;
    out.flush()
}

fn gather(arguments: Arguments) -> anyhow::Result<Config> {
    let path = |path: PathBuf| Value::String(path.to_string_lossy().into_owned());
    let source = arguments.source.or_else(|| (!arguments.replay.is_empty()).then(|| "replay".to_owned()));
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
