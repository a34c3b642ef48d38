//! Many clients at once, against a server that is a process of its own: what each of them gets, when, and
//! what it costs.
//!
//!     cargo run --release --example load -- [--transport channels|sse] [--connections 10000] [--minutes 2]
//!     [--wide 10]
//!
//! Each connection wants 1 to 1,000 systems (their numbers spread evenly over the magnitudes), `--wide` of
//! them 50,000 characters. A fake feed on this machine publishes 100 killmails a minute, half of them in a
//! burst of one second. Then the server is restarted while killmails come in, and every client comes back to
//! its place. Printed: killmails lost and doubled, time from the feed's answer (and from publishing) to the
//! client by one clock, memory of the server for an idle connection above one that only stands open, and how
//! long it took until all were back. Server and clients share this machine's cores.

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

/// Killmails a minute, and how many of them come within one second.
const PER_MINUTE: u32 = 100;
const BURST: u32 = 50;
/// Killmails while the server is away, and after everyone is back.
const AWAY: u32 = 25;
/// Memory is looked at when nothing has happened for so long.
const SETTLE: Duration = Duration::from_secs(5);
/// What has not come after so long is lost.
const PATIENCE: Duration = Duration::from_secs(60);

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
    // `--door` is the former name.
    let transport = match argument("--transport").or_else(|| argument("--door")).as_deref() {
        None | Some("channels") => Transport::Channels,
        Some("sse") => Transport::Sse,
        Some(other) => anyhow::bail!("--transport: expected channels or sse, got `{other}`"),
    };
    let connections = usize::try_from(number("--connections", 10_000)?)?;
    let limit = files::raise()?.now;
    ensure!(
        connections as u64 + 200 < limit,
        "this process may open {limit} files: too few for {connections} connections"
    );
    let plan = Arc::new(Plan::new(transport, connections, usize::try_from(number("--wide", 10)?)?));
    println!(
        "{connections} connections, {:.0} systems each on average, {} with 50,000 characters",
        plan.systems_mean(),
        plan.wide()
    );
    let standing = standing(connections).await?;
    Run::start(plan, standing).await?.all(u32::try_from(number("--minutes", 2)?)?).await
}

/// What a connection costs the server that stands open and says nothing, bytes.
async fn standing(connections: usize) -> anyhow::Result<f64> {
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
    println!("a connection that only stands open: {:.1} KiB of the server", each / 1024.0);
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
    async fn start(plan: Arc<Plan>, standing: f64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let feed = FakeFeed::default();
        let feed_at = feed.start().await?;
        let server = Child::start(folder.path(), Some(feed_at), None)?;
        sleep(SETTLE).await;
        let before = server.rss_bytes();
        let board = Arc::new(Board::new(plan.connections()));
        let begun = Instant::now();
        let crowd = Crowd::open(server.address(), &plan, &board);
        crowd.all_in(PATIENCE * 5).await?;
        println!("all in after {:.2} s", begun.elapsed().as_secs_f64());
        sleep(SETTLE).await;
        let each = server.rss_bytes().saturating_sub(before) as f64 / plan.connections() as f64;
        let ids = 16.0 * plan.ids_mean();
        println!(
            "an idle connection: {:.1} KiB of the server; {:.1} KiB above one that only stands open and 16 bytes for each of its {:.0} ids",
            each / 1024.0,
            (each - standing - ids) / 1024.0,
            plan.ids_mean()
        );
        let killmails =
            Recipe { killmails: 1_000_000, revised: 0.0, late: 0.0, ..Recipe::default() }.generate();
        Ok(Self { folder, feed, feed_at, plan, board, crowd, server, killmails })
    }

    async fn all(mut self, minutes: u32) -> anyhow::Result<()> {
        for _ in 0..minutes {
            self.minute().await?;
        }
        self.settled("live").await?;
        println!("server: {:.0} MiB", self.server.rss_bytes() as f64 / f64::from(1 << 20));
        if minutes > 0 {
            self.board.report(&self.feed);
        }
        self.storm().await
    }

    /// One minute: half of the killmails evenly, half in a burst.
    async fn minute(&mut self) -> anyhow::Result<()> {
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
        let mut killmail = self.killmails.next().context("there are killmails enough")?.killmail;
        killmail.time = now();
        self.board.expect(&self.plan, &killmail);
        self.feed.publish(&killmail);
        Ok(())
    }

    /// Waits until everyone has everything.
    async fn settled(&self, what: &str) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.board.missing() > 0 && Instant::now() < end {
            sleep(Duration::from_millis(50)).await;
        }
        // Whatever comes twice has time to come.
        sleep(Duration::from_secs(2)).await;
        let (missing, doubled, strange) = (self.board.missing(), self.board.doubled(), self.board.strange());
        println!(
            "{what}: {} sent, {missing} lost, {doubled} doubled, {strange} not asked for",
            self.board.arrived()
        );
        ensure!(missing == 0 && doubled == 0 && strange == 0, "not everyone got what is theirs, once");
        Ok(())
    }

    async fn storm(mut self) -> anyhow::Result<()> {
        let address = self.server.address();
        let begun = Instant::now();
        self.server.stop()?;
        println!("stopped in order in {:.2} s", begun.elapsed().as_secs_f64());
        for _ in 0..AWAY {
            self.publish()?;
        }
        self.server = Child::start(self.folder.path(), Some(self.feed_at), Some(address))?;
        let ready = Instant::now();
        self.crowd.all_in(PATIENCE * 5).await?;
        println!(
            "after the restart: all back {:.2} s after the server was ready",
            ready.elapsed().as_secs_f64()
        );
        for _ in 0..AWAY {
            self.publish()?;
        }
        self.settled("with the restart").await?;
        self.server.stop()
    }
}
