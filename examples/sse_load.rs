//! Many event streams at once: measures the time from publishing a killmail until each of them has received it.
//!
//!     cargo run --release --example sse_load -- [--connections 1000] [--killmails 200] [--every-ms 100]
//!     cargo run --release --example sse_load -- --server 127.0.0.1:4004 [--connections 1000] [--killmails
//!     20]
//!
//! Without `--server` it starts a server on a temporary folder, publishes generated killmails and measures from the
//! call of `publish`, so writing to disk is included. With `--server` (the demo, say) it cannot know when a killmail
//! was published, and measures from the first connection that received it. Server and clients share the cores.

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use killstream::domain::entry::Origin;
use killstream::feed::Feed;
use killstream::sample::generate::Recipe;
use killstream::store::incoming::{AgeRule, Incoming, ZkbRule};
use killstream::{server, tasks};
use support::stream::{self, Stream};
use support::{argument, config, now, number, percentile};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Connections opened at a time.
const OPENING: usize = 64;

/// A connection received a killmail.
struct Arrival {
    killmail_id: u32,
    at: Instant,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let connections = usize::try_from(number("--connections", 1_000)?)?;
    let (arrived, arrivals) = channel(connections * 64);
    if let Some(address) = argument("--server") {
        let address = address.parse().context("--server is an address and port, such as 127.0.0.1:4004")?;
        open(address, connections, &arrived).await?;
        let times = collect(arrivals, connections, number("--killmails", 20)?).await;
        report("from the first connection to each", times, connections, |_, first| first);
        return Ok(());
    }
    let killmails = number("--killmails", 200)?;
    let every = Duration::from_millis(number("--every-ms", 100)?);
    let folder = tempfile::tempdir()?;
    let running = server::start(config(folder.path())).await?;
    open(running.addr(), connections, &arrived).await?;
    let collecting = collect(arrivals, connections, killmails);
    let (published, times) = tokio::join!(publish(running.feed(), killmails, every), collecting);
    let published = published?;
    report("from publish to receipt", times, connections, |id, first| {
        published.get(&id).copied().unwrap_or(first)
    });
    running.stop().await;
    Ok(())
}

/// Opens unfiltered streams, each of which reports what it receives.
async fn open(address: SocketAddr, connections: usize, arrived: &Sender<Arrival>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let gate = Arc::new(tokio::sync::Semaphore::new(OPENING));
    let (ready, mut opened) = channel(connections);
    for _ in 0..connections {
        let (arrived, gate, ready) = (arrived.clone(), Arc::clone(&gate), ready.clone());
        drop(tasks::spawn("client", async move {
            let permit = gate.acquire_owned().await;
            let stream = Stream::open(address, "/api/v1/kills/stream?max_age_secs=0", None, None).await;
            drop(permit);
            // Fails only when the run is over.
            let _ = ready.send(stream.as_ref().map(|_| ()).map_err(ToString::to_string)).await;
            drop(ready);
            if let Ok(stream) = stream {
                listen(stream, arrived).await;
            }
        }));
    }
    drop(ready);
    while let Some(opened) = opened.recv().await {
        opened.map_err(anyhow::Error::msg)?;
    }
    println!("{connections} streams opened in {:.2} s", begun.elapsed().as_secs_f64());
    Ok(())
}

async fn listen(mut stream: Stream, arrived: Sender<Arrival>) {
    while let Ok(block) = stream.next().await {
        let at = Instant::now();
        for killmail_id in stream::killmail_ids(&block) {
            if arrived.send(Arrival { killmail_id, at }).await.is_err() {
                return;
            }
        }
    }
}

/// Publishes generated killmails with the current time. Returns when each was published.
async fn publish(feed: &Feed, killmails: u64, every: Duration) -> anyhow::Result<HashMap<u32, Instant>> {
    let mut published = HashMap::new();
    let mut clock = tokio::time::interval(every);
    for made in (Recipe { killmails, revised: 0.0, ..Recipe::default() }).generate() {
        clock.tick().await;
        let mut killmail = made.killmail;
        killmail.time = now();
        let uploaded_at = Some(killmail.time);
        let incoming = Incoming {
            origin: Origin::Live,
            received_at_ms: killmail.time * 1000,
            uploaded_at,
            age: AgeRule::ByUpload,
            zkb: ZkbRule::IfNewer,
            killmail,
        };
        published.insert(incoming.killmail.killmail_id, Instant::now());
        feed.publish(vec![incoming], None).await?;
    }
    Ok(published)
}

/// Waits until every connection has received this many killmails. Returns when each arrived.
async fn collect(
    mut arrivals: Receiver<Arrival>,
    connections: usize,
    killmails: u64,
) -> HashMap<u32, Vec<Instant>> {
    let mut times: HashMap<u32, Vec<Instant>> = HashMap::new();
    let mut complete = 0;
    while complete < killmails {
        let next = tokio::time::timeout(Duration::from_secs(30), arrivals.recv()).await;
        let Ok(Some(arrival)) = next else {
            eprintln!("nothing received for 30 s; {complete} killmails are complete");
            break;
        };
        let of_killmail = times.entry(arrival.killmail_id).or_default();
        of_killmail.push(arrival.at);
        complete += u64::from(of_killmail.len() == connections);
    }
    times
}

fn report(
    what: &str,
    times: HashMap<u32, Vec<Instant>>,
    connections: usize,
    begin: impl Fn(u32, Instant) -> Instant,
) {
    let complete: HashMap<_, _> = times.into_iter().filter(|(_, all)| all.len() == connections).collect();
    let mut took: Vec<Duration> = Vec::new();
    let mut last: Vec<Duration> = Vec::new();
    for (id, mut all) in complete {
        all.sort_unstable();
        let begun = begin(id, all[0]);
        took.extend(all.iter().map(|at| at.duration_since(begun)));
        last.extend(all.last().map(|at| at.duration_since(begun)));
    }
    println!("{} killmails to {connections} connections, {what}:", last.len());
    let (p50, p99, most) =
        (percentile(&mut took, 0.5), percentile(&mut took, 0.99), percentile(&mut took, 1.0));
    println!("  p50 {p50:.2?}  p99 {p99:.2?}  max {most:.2?}");
    println!(
        "  until the last connection has received it: p50 {:.2?}  p99 {:.2?}",
        percentile(&mut last, 0.5),
        percentile(&mut last, 0.99)
    );
}
