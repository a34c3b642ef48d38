//! Attacks a server with hostile clients: what it costs, whether the server still responds, and what it looks
//! like a minute later.
//!
//!     cargo build --release && cargo run --release --example hostile -- [connections|plugins|fair|load]
//!     [--program PATH] [--only NAME] [--after-secs 60]
//!
//! Everything runs on this machine: each attack gets a new server as a child process (`--program`, else the
//! `killstream` beside this program), on a port of the loopback interface. Each attack has a time limit and
//! prints one row of a table. `fair` measures how long streams of a well-behaved plugin wait beside two
//! hundred that loop, and `load` how long a thousand streams wait while uploads are attempted; both in
//! `--rounds 2`.

#[path = "attacks.rs"]
mod attacks;
#[path = "crowd.rs"]
mod crowd;
#[path = "fair.rs"]
mod fair;
#[path = "../support/feed.rs"]
mod feed;
#[allow(dead_code, reason = "the engine's own tests use the rest")]
#[path = "../../tests/guests/mod.rs"]
mod guests;
#[path = "latency.rs"]
mod latency;
#[path = "ping.rs"]
mod ping;
#[path = "plugins.rs"]
mod plugins;
#[allow(dead_code, reason = "the other examples use the rest")]
#[path = "../support/stream.rs"]
mod stream;
#[path = "target.rs"]
mod target;
#[path = "under_load.rs"]
mod under_load;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::attacks::Attack;
use crate::ping::Pings;
use crate::target::Target;

/// A server settles for this long before its memory is measured at rest.
const SETTLE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let program = argument("--program").map_or_else(default_program, |path| Ok(PathBuf::from(path)))?;
    let after = Duration::from_secs(argument("--after-secs").map_or(Ok(60), |text| text.parse())?);
    let only = argument("--only");
    let rounds = argument("--rounds").map_or(Ok(2), |text| text.parse())?;
    let group = std::env::args()
        .nth(1)
        .filter(|first| !first.starts_with("--"))
        .unwrap_or_else(|| "connections".to_owned());
    let attacks: Vec<Attack> = match group.as_str() {
        "fair" => return fair::run(&program, rounds).await,
        "load" => return under_load::run(&program, rounds).await,
        "connections" => attacks::connections(),
        "plugins" => plugins::plugins(),
        other => bail!("unknown group of attacks `{other}`: connections, plugins, fair, load"),
    };
    println!(
        "| attack | outcome | RSS before | peak | after {} s | `/ping` p50 | p99 | max |",
        after.as_secs()
    );
    println!("|---|---|---|---|---|---|---|---|");
    for attack in
        attacks.iter().filter(|attack| only.as_deref().is_none_or(|only| attack.name.contains(only)))
    {
        let row = run(&program, attack, after).await.with_context(|| attack.name.to_owned())?;
        println!("{row}");
    }
    Ok(())
}

async fn run(program: &std::path::Path, attack: &Attack, after: Duration) -> anyhow::Result<String> {
    let mut target = Target::start(program, attack.files).await?;
    if attack.killmails > 0 {
        target.add_killmails(attack.killmails).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let before = target.rss();
    let pings = Pings::start(target.address());
    let outcome = (attack.run)(target.address()).await;
    let peak = target.peak_rss();
    let pings = pings.stop().await;
    let outcome = match target.exit_status() {
        Some(how) => format!("**the server ended ({how})**; {outcome}"),
        None => outcome,
    };
    tokio::time::sleep(after).await;
    let rest = target.rss();
    Ok(format!("| {} | {outcome} | {before} | {peak} | {rest} | {pings} |", attack.name))
}

fn default_program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(std::path::Path::parent).context("this program is not in a folder")?;
    let program = folder.join("killstream");
    if program.exists() {
        Ok(program)
    } else {
        bail!("{} does not exist: build it, or pass --program PATH", program.display())
    }
}

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}
