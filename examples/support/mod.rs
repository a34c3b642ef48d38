//! What the load examples share: a fast reader of event streams, a fake feed, percentiles.
//!
//! Must not know: what is measured.
#![allow(dead_code, reason = "each example uses only a part of this")]

pub mod child;
pub mod feed;
pub mod stream;

use std::path::Path;
use std::time::Duration;

use killstream::config::Config;
use killstream::telemetry::source_kind::SourceKind;

/// The configuration of a server on any free port of localhost, without a source.
pub fn config(data_dir: &Path) -> Config {
    let mut config = Config::default();
    config.server.data_dir = data_dir.to_owned();
    config.store.dir = data_dir.to_owned();
    config.server.bind_ip = std::net::IpAddr::from([127, 0, 0, 1]);
    config.server.port = 0;
    config.ingest.source = SourceKind::None;
    config
}

/// The current time, unix seconds.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The percentile of durations at this share (0.5 is the median). Sorts them.
pub fn percentile(durations: &mut [Duration], share: f64) -> Duration {
    durations.sort_unstable();
    let rank = (durations.len() as f64 * share) as usize;
    durations.get(rank.min(durations.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Resident memory of a process, bytes.
pub fn rss_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or_default() * 1024
}

/// The value of a command line argument `--name VALUE`.
pub fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

/// The number of a command line argument, or the default.
pub fn number(name: &str, default: u64) -> anyhow::Result<u64> {
    argument(name).map_or(Ok(default), |text| Ok(text.parse()?))
}
