//! Measures how long a thousand streams wait for killmails while every upload of the `plugins` group is
//! attempted again and again, and then while a compiler is busy all the time, compared with the same streams just
//! before.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use futures_util::future::join_all;
use killstream::sample::generate::Recipe;
use killstream::tasks;
use tokio::time::sleep;

use crate::feed::FakeFeed;
use crate::latency::{Latencies, Watched, latencies, publish_part, watch};
use crate::plugins::{UPLOADS, put, slow_to_compile};
use crate::target::Target;

const STREAMS: usize = 1_000;
const PARTS: [&str; 3] = ["quiet", "beside refused uploads", "beside a compiler"];
/// The latencies of each part.
type Parts = [Vec<Duration>; 3];
/// The time between two uploads that are refused.
const BETWEEN: Duration = Duration::from_millis(250);
/// Components that keep the compiler busy, some seconds in all.
const SLOW: usize = 40;

/// Prints a row for each part of each round, then one for each part over all rounds.
pub async fn run(program: &Path, rounds: usize) -> anyhow::Result<()> {
    println!("| part | p50, p99, max | p99 relative to quiet | RSS |");
    println!("|---|---|---|---|");
    let mut all: Parts = Default::default();
    for number in 0..rounds {
        let (parts, rss) = round(program).await?;
        print_rows(&format!("round {number}: "), &parts, &rss);
        for (sum, part) in all.iter_mut().zip(parts) {
            sum.extend(part);
        }
    }
    print_rows("all: ", &all, &Default::default());
    Ok(())
}

fn print_rows(of: &str, parts: &Parts, rss: &[String; 3]) {
    let quiet = Latencies::from_durations(&parts[0]).p99;
    for ((name, part), rss) in PARTS.iter().zip(parts).zip(rss) {
        let part = Latencies::from_durations(part);
        println!("| {of}{name} | {part} | {:.2} | {rss} |", part.p99 / quiet);
    }
}

async fn round(program: &Path) -> anyhow::Result<(Parts, [String; 3])> {
    let feed = FakeFeed::default();
    // Made before anything is measured: parsing their texts takes seconds.
    let uploads: Vec<Vec<u8>> = UPLOADS.iter().map(|(_, make)| make()).collect();
    let slow: Vec<Vec<u8>> = (0..SLOW).map(slow_to_compile).collect();
    let target = Target::following(program, feed.start().await?).await?;
    let to = target.address();
    let mut killmails = Recipe { killmails: 1_000_000, revised: 0.0, late: 0.0, ..Recipe::default() }
        .generate()
        .map(|made| made.killmail);
    let open = join_all((0..STREAMS).map(|_| watch(to, String::new()))).await;
    let streams: Vec<Watched> = open.into_iter().collect::<anyhow::Result<_>>()?;
    // The first page is slower, because its code was never run before.
    publish_part(&feed, &mut killmails, &streams).await?;
    let sent = publish_part(&feed, &mut killmails, &streams).await?;
    let quiet = latencies(&sent, &streams);
    let before = target.rss().to_string();
    let refused = tasks::spawn("uploads", upload_repeatedly(to, uploads));
    let sent = publish_part(&feed, &mut killmails, &streams).await?;
    ensure!(!refused.is_finished(), "the uploads ended");
    refused.abort();
    let (beside_refused, after_refused) = (latencies(&sent, &streams), target.peak_rss().to_string());
    let compiled = tasks::spawn("compiled", upload_once(to, slow));
    let sent = publish_part(&feed, &mut killmails, &streams).await?;
    ensure!(!compiled.is_finished(), "too few components for the compilers");
    compiled.abort();
    let parts = [quiet, beside_refused, latencies(&sent, &streams)];
    Ok((parts, [before, after_refused, target.peak_rss().to_string()]))
}

async fn upload_repeatedly(to: SocketAddr, components: Vec<Vec<u8>>) {
    loop {
        for component in &components {
            put(to, "mine", component.clone()).await;
            sleep(BETWEEN).await;
        }
    }
}

async fn upload_once(to: SocketAddr, components: Vec<Vec<u8>>) {
    for (n, component) in components.into_iter().enumerate() {
        let (status, body, time) = put(to, &format!("slow-{n}"), component).await;
        eprintln!("compiled: {status} after {:.1} s {}", time.as_secs_f64(), body["error"]);
    }
}
