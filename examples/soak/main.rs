//! The soak test: ten days of feed, with 5 % of its numbers late, 0.5 % rewritten and 0.1 % missing, random faults of
//! the upstream, and a server that is repeatedly killed with SIGKILL. In the end the store must equal the truth, and
//! each of 100 subscribers must have received each live killmail exactly once.
//!
//!     cargo run --release --example soak -- [--killmails 140000] [--days 10] [--streams 100] [--kills 20]
//!     [--seed 1]
//!
//! The server is a separate process (this program, started again). All waits are at most a hundredth of the real
//! ones.

#[path = "run.rs"]
mod soak;

use std::path::Path;
use std::process::Command;

use killstream::config;
use killstream::server::{self, Signals};
use tempfile::TempDir;
use toml::Value;

use crate::soak::Plan;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(folder) = argument("--serve") {
        return serve(&folder).await;
    }
    let folder = TempDir::with_prefix("killstream-soak-")?;
    let plan = Plan {
        killmails: number("--killmails", 140_000)?,
        days: number("--days", 10)? as f64,
        missing: 0.001,
        subscribers: usize::try_from(number("--streams", 100)?)?,
        kills: number("--kills", 20)?,
        seed: number("--seed", 1)?,
    };
    let program = std::env::current_exe()?;
    soak::run(plan, |feed, port| command(&program, folder.path(), feed, port)).await
}

fn command(program: &Path, folder: &Path, feed: &str, port: u16) -> Command {
    let mut command = Command::new(program);
    command.arg("--serve").arg(folder).args(["--feed", feed, "--port", &port.to_string()]);
    command
}

/// Runs the server in its own process.
async fn serve(folder: &str) -> anyhow::Result<()> {
    let text = |text: &str| Value::String(text.to_owned());
    let port = i64::try_from(number("--port", 0)?)?;
    let settings = vec![
        ("data_dir", text(folder)),
        ("bind_ip", text("127.0.0.1")),
        ("port", Value::Integer(port)),
        ("api_token", text("soak")),
        ("ingest.source", text("r2z2")),
        ("ingest.user_agent_contact", text("soak@localhost")),
        ("ingest.r2z2_base_url", text(&argument("--feed").unwrap_or_default())),
    ];
    let file = config::File { name: "the soak's configuration", text: soak::CONFIG };
    let config = config::gather(Some(file), &|_| None, settings)?;
    let signals = Signals::listen()?;
    let running = server::start(config).await?;
    println!("listening on http://{}", running.addr());
    running.run_until_signal(signals, || ()).await;
    Ok(())
}

/// The value of a command line argument `--name VALUE`.
fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

/// The number of a command line argument, or the default.
fn number(name: &str, default: u64) -> anyhow::Result<u64> {
    argument(name).map_or(Ok(default), |text| Ok(text.parse()?))
}
