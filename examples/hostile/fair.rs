//! Measures how long streams of a well-behaved plugin wait while two hundred configurations of a guest that
//! loops are in use, compared with the same streams just before.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use killstream::domain::killmail::Killmail;
use killstream::sample::generate::Recipe;
use killstream::tasks;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::feed::FakeFeed;
use crate::guests;
use crate::plugins::{client, looping, put};
use crate::stream::{Stream, killmail_ids};
use crate::target::Target;

const JITA: u32 = 30_000_142;
const LOOPING: usize = 200;
/// Killmails of each part, and the time between them.
const KILLMAILS: usize = 200;
const APART: Duration = Duration::from_millis(25);

/// The killmails that arrived on a stream, and when.
type Seen = Arc<Mutex<Vec<(u32, Instant)>>>;

struct Watched {
    seen: Seen,
    reading: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

const PARTS: [&str; 3] = ["quiet", "the first seconds of 200 that loop", "later"];

/// Latencies of one part: without a plugin, and with the well-behaved plugin.
type PartLatencies = [Vec<Duration>; 2];

/// Prints a row for each part of each round, then one for each part over all rounds. Each round has a server
/// of its own.
pub async fn run(program: &Path, rounds: usize) -> anyhow::Result<()> {
    println!(
        "| part | without a plugin: p50, p99, max | a good plugin: p50, p99, max | its p99 relative to quiet |"
    );
    println!("|---|---|---|---|");
    let mut all: [PartLatencies; 3] = Default::default();
    for number in 0..rounds {
        let parts = round(program).await?;
        print_rows(&format!("round {number}: "), &parts);
        for (sum, part) in all.iter_mut().flatten().zip(parts.into_iter().flatten()) {
            sum.extend(part);
        }
    }
    print_rows("all: ", &all);
    Ok(())
}

fn print_rows(of: &str, parts: &[PartLatencies; 3]) {
    let quiet = Latencies::from_durations(&parts[0][1]).p99;
    for (name, [plain, judged]) in PARTS.iter().zip(parts) {
        let (plain, judged) = (Latencies::from_durations(plain), Latencies::from_durations(judged));
        println!("| {of}{name} | {plain} | {judged} | {:.2} |", judged.p99 / quiet);
    }
}

async fn round(program: &Path) -> anyhow::Result<[PartLatencies; 3]> {
    let feed = FakeFeed::default();
    let target = Target::following(program, feed.start().await?).await?;
    let to = target.address();
    for (name, component) in [("good", guests::evaluating(guests::KEEP)), ("bad", looping())] {
        let (status, body, _) = put(to, name, component).await;
        ensure!(status == 201, "upload of {name}: {status} {body}");
    }
    let mut killmails = Recipe { killmails: 1_000_000, revised: 0.0, late: 0.0, ..Recipe::default() }
        .generate()
        .map(|made| made.killmail);
    let plain = [watch(to, String::new()).await?];
    let mut judged = Vec::new();
    // Four, so that each evaluator thread gets the same number.
    for n in 0..4 {
        judged.push(watch(to, format!("&plugin=good&plugin_config=%7B%22n%22:{n}%7D")).await?);
    }
    // The first page is slower, because its code was never run before.
    publish_part(&feed, &mut killmails, &judged).await?;
    let sent = publish_part(&feed, &mut killmails, &judged).await?;
    let quiet = [latencies(&sent, &plain), latencies(&sent, &judged)];
    let open = join_all(
        (0..LOOPING).map(|n| watch(to, format!("&plugin=bad&plugin_config=%7B%22n%22:%22{n}%22%7D"))),
    )
    .await;
    let hostile: Vec<Watched> = open.into_iter().collect::<anyhow::Result<_>>()?;
    let sent = publish_part(&feed, &mut killmails, &judged).await?;
    let first = [latencies(&sent, &plain), latencies(&sent, &judged)];
    let sent = publish_part(&feed, &mut killmails, &judged).await?;
    let later = [latencies(&sent, &plain), latencies(&sent, &judged)];
    let status: serde_json::Value =
        serde_json::from_slice(&client().get(format!("http://{to}/status")).send().await?.bytes().await?)?;
    let status = &status["metrics"]["plugins"];
    eprintln!("resting {}, pages waiting {}", status["resting"], status["waiting"]["pages"]);
    drop(hostile);
    Ok([quiet, first, later])
}

async fn watch(to: SocketAddr, plugin: String) -> anyhow::Result<Watched> {
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

/// Publishes killmails one after another, and waits until all well-behaved streams have received the last
/// one. Returns when the server fetched each of them.
async fn publish_part(
    feed: &FakeFeed,
    killmails: &mut dyn Iterator<Item = Killmail>,
    good: &[Watched],
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
    while !good.iter().all(|stream| stream.seen.lock().iter().rev().any(|(id, _)| ids.last() == Some(id))) {
        ensure!(begun.elapsed() < Duration::from_secs(60), "a good stream misses killmails");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(ids.into_iter().filter_map(|id| Some((id, feed.served(id)?))).collect())
}

/// The latencies of these killmails on these streams.
fn latencies(sent: &[(u32, Instant)], streams: &[Watched]) -> Vec<Duration> {
    let on = |stream: &Watched| {
        let seen: HashMap<u32, Instant> = stream.seen.lock().iter().copied().collect();
        sent.iter()
            .filter_map(|(id, at)| Some(seen.get(id)?.saturating_duration_since(*at)))
            .collect::<Vec<_>>()
    };
    streams.iter().flat_map(on).collect()
}

/// Latencies in milliseconds.
struct Latencies {
    p50: f64,
    p99: f64,
    most: f64,
}

impl Latencies {
    fn from_durations(latencies: &[Duration]) -> Self {
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
