//! `killstream demo`: a server on a bundled sample of real killmails, with nothing to set up and no network.

mod sample;
mod tour;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use toml::Value;

use crate::cli::demo::sample::{Live, Sample};
use crate::cli::target::listen_address;
use crate::cli::{block_on, serve};
use crate::config::{self, Config};
use crate::feed::Feed;
use crate::server::{self, Running, Signals};
use crate::store::engine::data_folder;
use crate::store::incoming::Incoming;
use crate::{clock, tasks};

/// The example plugins, as `plugins/build.sh` builds them.
const PLUGINS: [(&str, &[u8]); 3] = [
    ("gatecamp", include_bytes!("../../plugins/prebuilt/gatecamp.wasm")),
    ("high-value", include_bytes!("../../plugins/prebuilt/high-value.wasm")),
    ("watchlist", include_bytes!("../../plugins/prebuilt/watchlist.wasm")),
];
/// Killmails stored at a time.
const BATCH: usize = 500;
const LIVE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub struct Arguments {
    /// The address and port to listen on; port 0 picks a free one [default: 127.0.0.1:4004]
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    listen: Option<SocketAddr>,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let folder = TemporaryFolder::new()?;
    let config = gather(&arguments, &folder.0)?;
    block_on(async {
        let signals = Signals::listen()?;
        let running = server::start(config).await?;
        let sample = Sample::read();
        let tour = tour::steps(running.addr(), &sample.history);
        let (killmails, live) = (sample.history.len(), sample.live.len());
        import(running.feed(), sample.history).await?;
        upload_plugins(&running).await?;
        println!(
            "{killmails} real killmails are history, shifted in time so that the last one is now. Another {live} arrive live, one per"
        );
        println!(
            "second; then the sample repeats under new ids. Most killmails had no ISK value: theirs are estimates."
        );
        println!("Example plugins: {}.", PLUGINS.map(|(name, _)| name).join(", "));
        println!("Admin token: {}\n", running.token());
        println!("Try, in another terminal:");
        for step in tour {
            println!("\n  # {}\n  {}", step.shows, step.command);
        }
        println!();
        serve::print_ready(running.addr())?;
        let playing = tasks::spawn("demo", play(Arc::clone(running.feed()), sample.live));
        serve::stopped(running.run_until_signal(signals, || playing.abort()).await)
    })
}

/// As for `serve`, but without a source, and listening on 127.0.0.1 unless configured otherwise.
fn gather(arguments: &Arguments, data_dir: &Path) -> anyhow::Result<Config> {
    let environment = |name: &str| match name {
        "SOURCE" | "DATA_DIR" => None,
        "BIND_IP" => std::env::var(name).ok().or_else(|| Some("127.0.0.1".to_owned())),
        _ => std::env::var(name).ok(),
    };
    let flags = [
        ("data_dir", Some(Value::String(data_dir.to_string_lossy().into_owned()))),
        ("ingest.source", Some(Value::String("none".to_owned()))),
        ("bind_ip", arguments.listen.map(|listen| Value::String(listen.ip().to_string()))),
        ("port", arguments.listen.map(|listen| Value::Integer(listen.port().into()))),
    ];
    let flags = flags.into_iter().filter_map(|(setting, value)| Some((setting, value?))).collect();
    Ok(config::gather(None, &environment, flags)?)
}

async fn import(feed: &Feed, history: Vec<Incoming>) -> anyhow::Result<()> {
    let mut history = history.into_iter().peekable();
    while history.peek().is_some() {
        let batch = history.by_ref().take(BATCH).collect();
        feed.publish(batch, None).await.context("cannot store the sample")?;
    }
    Ok(())
}

async fn upload_plugins(running: &Running) -> anyhow::Result<()> {
    for (name, component) in PLUGINS {
        let path = format!("/api/v1/plugins/{name}");
        let response =
            running.app().request("PUT", &path, "application/wasm", Bytes::from_static(component)).await?;
        if !(200..300).contains(&response.status) {
            bail!(
                "the server refused the example plugin {name}: {}",
                String::from_utf8_lossy(&response.body)
            );
        }
    }
    Ok(())
}

async fn play(feed: Arc<Feed>, live: Vec<Incoming>) {
    let mut live = Live::new(live);
    let mut due = tokio::time::interval(LIVE_EVERY);
    loop {
        due.tick().await;
        let Some(killmail) = live.next(clock::now_ms()) else {
            println!("The sample repeats from its start under new ids, one killmail per second.");
            continue;
        };
        if let Err(error) = feed.publish(vec![killmail], None).await {
            tracing::error!("cannot store a killmail of the sample: {error}");
            return;
        }
    }
}

/// A data folder that is removed when the demo ends.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new() -> anyhow::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        let path = std::env::temp_dir().join(format!("killstream-demo-{:016x}", u64::from_ne_bytes(random)));
        data_folder::make(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
