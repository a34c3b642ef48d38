//! Measures how long a thousand streams wait for killmails while every upload of the `plugins` group is
//! attempted, one after another, compared with the same streams just before.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use futures_util::future::join_all;
use killstream::sample::generate::Recipe;

use crate::feed::FakeFeed;
use crate::latency::{Latencies, Watched, latencies, publish_part, watch};
use crate::plugins::plugins;
use crate::target::Target;

const STREAMS: usize = 1_000;

/// Prints a row for each part of each round, then one for each part over all rounds.
pub async fn run(program: &Path, rounds: usize) -> anyhow::Result<()> {
    println!("| part | p50, p99, max | p99 relative to quiet | RSS |");
    println!("|---|---|---|---|");
    let mut all: [Vec<Duration>; 2] = Default::default();
    for number in 0..rounds {
        let (parts, rss) = round(program).await?;
        print_rows(&format!("round {number}: "), &parts, &rss);
        for (sum, part) in all.iter_mut().zip(parts) {
            sum.extend(part);
        }
    }
    print_rows("all: ", &all, &["".to_owned(), "".to_owned()]);
    Ok(())
}

fn print_rows(of: &str, parts: &[Vec<Duration>; 2], rss: &[String; 2]) {
    let quiet = Latencies::from_durations(&parts[0]).p99;
    for ((name, part), rss) in ["quiet", "beside uploads"].iter().zip(parts).zip(rss) {
        let part = Latencies::from_durations(part);
        println!("| {of}{name} | {part} | {:.2} | {rss} |", part.p99 / quiet);
    }
}

async fn round(program: &Path) -> anyhow::Result<([Vec<Duration>; 2], [String; 2])> {
    let feed = FakeFeed::default();
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
    let uploads = async {
        loop {
            for attack in plugins().iter().filter(|attack| attack.name.contains("upload")) {
                eprintln!("{}: {}", attack.name, (attack.run)(to).await);
            }
        }
    };
    let sent = tokio::select! {
        sent = publish_part(&feed, &mut killmails, &streams) => sent?,
        () = uploads => Vec::new(),
    };
    ensure!(!sent.is_empty(), "nothing was published");
    Ok(([quiet, latencies(&sent, &streams)], [before, target.peak_rss().to_string()]))
}
