//! Streams that are watched while killmails are published: when each killmail arrived, and how long that took.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use killstream::domain::killmail::Killmail;
use killstream::tasks;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::feed::FakeFeed;
use crate::stream::{Stream, killmail_ids};

const JITA: u32 = 30_000_142;
/// Killmails of each part, and the time between them.
const KILLMAILS: usize = 200;
const APART: Duration = Duration::from_millis(25);

/// The killmails that arrived on a stream, and when.
type Seen = Arc<Mutex<Vec<(u32, Instant)>>>;

/// A stream and what arrived on it; closed on drop.
pub struct Watched {
    seen: Seen,
    reading: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Opens a stream of one solar system, with these further parameters.
pub async fn watch(to: SocketAddr, plugin: String) -> anyhow::Result<Watched> {
    let mut stream =
        Stream::open(to, &format!("/api/v1/kills/stream?system_ids={JITA}{plugin}"), None, None).await?;
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let reading = tasks::spawn("watch", async move {
        while let Ok(block) = stream.next().await {
            let now = Instant::now();
            noted.lock().extend(killmail_ids(&block).into_iter().map(|id| (id, now)));
        }
    });
    Ok(Watched { seen, reading })
}

/// Publishes killmails one after another, and waits until all of these streams have received the last one. Returns when the server fetched each of them.
pub async fn publish_part(
    feed: &FakeFeed,
    killmails: &mut dyn Iterator<Item = Killmail>,
    streams: &[Watched],
) -> anyhow::Result<Vec<(u32, Instant)>> {
    let mut ids = Vec::new();
    for _ in 0..KILLMAILS {
        let mut killmail = killmails.next().context("no more killmails")?;
        (killmail.solar_system_id, killmail.time) = (JITA, jiff::Timestamp::now().as_second());
        ids.push(killmail.killmail_id);
        feed.publish(&killmail);
        sleep(APART).await;
    }
    let begun = Instant::now();
    while !streams.iter().all(|stream| stream.seen.lock().iter().rev().any(|(id, _)| ids.last() == Some(id))) {
        ensure!(begun.elapsed() < Duration::from_secs(60), "a stream misses killmails");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(ids.into_iter().filter_map(|id| Some((id, feed.served(id)?))).collect())
}

/// The latencies of these killmails on these streams.
pub fn latencies(sent: &[(u32, Instant)], streams: &[Watched]) -> Vec<Duration> {
    let on = |stream: &Watched| {
        let seen: HashMap<u32, Instant> = stream.seen.lock().iter().copied().collect();
        sent.iter()
            .filter_map(|(id, at)| Some(seen.get(id)?.saturating_duration_since(*at)))
            .collect::<Vec<_>>()
    };
    streams.iter().flat_map(on).collect()
}

/// Latencies in milliseconds.
pub struct Latencies {
    p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    most: f64,
}

impl Latencies {
    /// Of single latencies.
    pub fn from_durations(latencies: &[Duration]) -> Self {
        let mut latencies = latencies.to_vec();
        latencies.sort_unstable();
        let at = |share: f64| {
            latencies
                .get((latencies.len() as f64 * share) as usize)
                .or(latencies.last())
                .copied()
                .unwrap_or_default()
                .as_secs_f64()
                * 1e3
        };
        Self { p50: at(0.5), p99: at(0.99), most: at(1.0) }
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1}, {:.1}, {:.1} ms", self.p50, self.p99, self.most)
    }
}
