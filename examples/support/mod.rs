//! What the load examples share: a reader of event streams that is quick, a fake feed, medians.
//!
//! Must not know: what is measured.
#![allow(dead_code, reason = "each example is a program of its own and uses a part of this")]

pub mod child;
pub mod feed;
pub mod stream;

use std::path::Path;
use std::time::Duration;

use killstream::config::Config;
use killstream::telemetry::source_kind::SourceKind;

/// A server's configuration on any free port of this machine, without a source.
pub fn config(data_dir: &Path) -> Config {
    let mut config = Config::default();
    config.server.data_dir = data_dir.to_owned();
    config.store.dir = data_dir.to_owned();
    config.server.bind_ip = std::net::IpAddr::from([127, 0, 0, 1]);
    config.server.port = 0;
    config.ingest.source = SourceKind::None;
    config
}

/// Now, unix seconds.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The duration that this share of all is not above. Sorts them.
pub fn at(durations: &mut [Duration], share: f64) -> Duration {
    durations.sort_unstable();
    let rank = (durations.len() as f64 * share) as usize;
    durations.get(rank.min(durations.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Memory of a process in RAM, bytes.
pub fn rss_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or_default() * 1024
}

/// An argument of the command line `--name VALUE`.
pub fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

/// A number from the command line, or this one.
pub fn number(name: &str, default: u64) -> anyhow::Result<u64> {
    argument(name).map_or(Ok(default), |text| Ok(text.parse()?))
}
