//! Many clients at once on a server in a separate process: what each client receives, when, and what it costs.
//!
//!     cargo run --release --example load -- [--transport channels|sse] [--connections 10000] [--minutes 2]
//!     [--wide 10]
//!
//! Each connection subscribes to 1 to 1,000 systems (their number is log-uniform), `--wide` of them to 50,000
//! characters instead. A fake feed on localhost publishes 100 killmails a minute, half of them in a burst of one
//! second. Then the server is restarted while killmails are published, and every client resumes. Printed: killmails
//! lost and duplicated, the time from the feed's response (and from publishing) to the client, the server's memory
//! for an idle connection compared with one that has sent nothing, and how long it takes until all clients are back.
//! Server and clients share the cores of the machine.

mod board;
mod channel;
mod crowd;
mod plan;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use board::Board;
use crowd::Crowd;
use killstream::sample::generate::{Generator, Recipe};
use killstream::server::files;
use plan::Plan;
use support::child::{self, Child};
use support::feed::FakeFeed;
use support::{argument, now, number};
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until};

/// Killmails per minute, and how many of them are published within one second.
const PER_MINUTE: u32 = 100;
const BURST: u32 = 50;
/// Killmails published while the server is down, and after all clients are back.
const DOWN: u32 = 25;
/// How long to wait before memory is measured.
const SETTLE: Duration = Duration::from_secs(5);
/// A killmail not received after this long counts as lost.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Which transport the clients use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Phoenix channels.
    Channels,
    /// The basic event stream.
    Sse,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(folder) = argument("--serve") {
        return child::serve(folder.as_ref()).await;
    }
    // `--door` is the old name.
    let transport = match argument("--transport").or_else(|| argument("--door")).as_deref() {
        None | Some("channels") => Transport::Channels,
        Some("sse") => Transport::Sse,
        Some(other) => anyhow::bail!("--transport: expected channels or sse, got `{other}`"),
    };
    let connections = usize::try_from(number("--connections", 10_000)?)?;
    let limit = files::raise_limit()?.now;
    ensure!(
        connections as u64 + 200 < limit,
        "this process may open {limit} files, too few for {connections} connections"
    );
    let plan = Arc::new(Plan::new(transport, connections, usize::try_from(number("--wide", 10)?)?));
    println!(
        "{connections} connections, {:.0} systems each on average, {} with 50,000 characters",
        plan.systems_mean(),
        plan.wide()
    );
    let unused_bytes = measure_unused(connections).await?;
    Run::start(plan, unused_bytes).await?.run(u32::try_from(number("--minutes", 2)?)?).await
}

/// The server's memory for an open connection on which nothing is sent, bytes.
async fn measure_unused(connections: usize) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut server = Child::start(folder.path(), None, None)?;
    sleep(SETTLE).await;
    let before = server.rss_bytes();
    let mut sockets = Vec::with_capacity(connections);
    for n in 0..connections {
        sockets.push(channel::connect(server.address(), n).await?);
    }
    sleep(SETTLE).await;
    let each = server.rss_bytes().saturating_sub(before) as f64 / connections as f64;
    println!("an unused connection: {:.1} KiB of server memory", each / 1024.0);
    drop::<Vec<TcpStream>>(sockets);
    server.stop()?;
    Ok(each)
}

/// A server, its feed and its clients.
struct Run {
    folder: tempfile::TempDir,
    feed: FakeFeed,
    feed_at: SocketAddr,
    plan: Arc<Plan>,
    board: Arc<Board>,
    crowd: Crowd,
    server: Child,
    killmails: Generator,
}

impl Run {
    async fn start(plan: Arc<Plan>, unused_bytes: f64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let feed = FakeFeed::default();
        let feed_at = feed.start().await?;
        let server = Child::start(folder.path(), Some(feed_at), None)?;
        sleep(SETTLE).await;
        let before = server.rss_bytes();
        let board = Arc::new(Board::new(plan.connections()));
        let begun = Instant::now();
        let crowd = Crowd::open(server.address(), &plan, &board);
        crowd.wait_connected(TIMEOUT * 5).await?;
        println!("all connected after {:.2} s", begun.elapsed().as_secs_f64());
        sleep(SETTLE).await;
        let each = server.rss_bytes().saturating_sub(before) as f64 / plan.connections() as f64;
        let ids = 16.0 * plan.ids_mean();
        println!(
            "an idle subscribed connection: {:.1} KiB of server memory; {:.1} KiB more than an unused one and 16 bytes for each of its {:.0} ids",
            each / 1024.0,
            (each - unused_bytes - ids) / 1024.0,
            plan.ids_mean()
        );
        let killmails =
            Recipe { killmails: 1_000_000, revised: 0.0, late: 0.0, ..Recipe::default() }.generate();
        Ok(Self { folder, feed, feed_at, plan, board, crowd, server, killmails })
    }

    async fn run(mut self, minutes: u32) -> anyhow::Result<()> {
        for _ in 0..minutes {
            self.publish_for_a_minute().await?;
        }
        self.check_delivery("live").await?;
        println!("server memory: {:.0} MiB", self.server.rss_bytes() as f64 / f64::from(1 << 20));
        if minutes > 0 {
            self.board.report(&self.feed);
        }
        self.restart().await
    }

    /// Publishes for one minute: half of the killmails evenly, half in a burst.
    async fn publish_for_a_minute(&mut self) -> anyhow::Result<()> {
        let begun = tokio::time::Instant::now();
        let even = PER_MINUTE - BURST;
        for n in 0..even {
            sleep_until(begun + Duration::from_secs(60) * n / even).await;
            self.publish()?;
            if n == even / 2 {
                let burst = tokio::time::Instant::now();
                for n in 0..BURST {
                    sleep_until(burst + Duration::from_secs(1) * n / BURST).await;
                    self.publish()?;
                }
            }
        }
        sleep_until(begun + Duration::from_secs(60)).await;
        Ok(())
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        let mut killmail = self.killmails.next().context("the generator ran out of killmails")?.killmail;
        killmail.time = now();
        self.board.expect(&self.plan, &killmail);
        self.feed.publish(&killmail);
        Ok(())
    }

    /// Waits until all killmails are delivered, and checks that none was lost, duplicated or unwanted.
    async fn check_delivery(&self, what: &str) -> anyhow::Result<()> {
        let end = Instant::now() + TIMEOUT;
        while self.board.missing() > 0 && Instant::now() < end {
            sleep(Duration::from_millis(50)).await;
        }
        // Time for duplicates to arrive.
        sleep(Duration::from_secs(2)).await;
        let (missing, duplicates, unwanted) =
            (self.board.missing(), self.board.duplicates(), self.board.unwanted());
        println!(
            "{what}: {} received, {missing} lost, {duplicates} duplicated, {unwanted} unwanted",
            self.board.arrived()
        );
        ensure!(missing == 0 && duplicates == 0 && unwanted == 0, "delivery was not exact");
        Ok(())
    }

    /// Restarts the server; all clients reconnect at once.
    async fn restart(mut self) -> anyhow::Result<()> {
        let address = self.server.address();
        let begun = Instant::now();
        self.server.stop()?;
        println!("shut down in {:.2} s", begun.elapsed().as_secs_f64());
        for _ in 0..DOWN {
            self.publish()?;
        }
        self.server = Child::start(self.folder.path(), Some(self.feed_at), Some(address))?;
        let ready = Instant::now();
        self.crowd.wait_connected(TIMEOUT * 5).await?;
        println!(
            "after the restart: all connected {:.2} s after the server was ready",
            ready.elapsed().as_secs_f64()
        );
        for _ in 0..DOWN {
            self.publish()?;
        }
        self.check_delivery("with the restart").await?;
        self.server.stop()
    }
}
