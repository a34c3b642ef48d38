//! Measures how long streams of a well-behaved plugin wait while two hundred configurations of a guest that
//! loops are in use, compared with the same streams just before.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use futures_util::future::join_all;
use killstream::sample::generate::Recipe;

use crate::feed::FakeFeed;
use crate::guests;
use crate::latency::{Latencies, Watched, latencies, publish_part, watch};
use crate::plugins::{client, looping, put};
use crate::target::Target;

const LOOPING: usize = 200;

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
