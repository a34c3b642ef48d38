//! The documented run: 90 days of killmails, and 100 streams that each preload the killmails of 100 characters while
//! the feed continues.
//!
//!     cargo run --release --example ninety_days -- [--killmails 1300000] [--streams 100] [--characters 100]
//!     [--most-active N]
//!
//! It writes the killmails to a temporary store, runs the server in a separate process (this program, started again)
//! on that store and a fake feed, and opens the streams at once. Checked: every `transition` arrives within 30 s, no
//! connection is dropped, and every stream receives exactly its preload and then all live killmails, once. Printed:
//! the server's memory at a million killmails and with all, the bytes sent compared with an unfiltered stream, and
//! what clients that read nothing cost. Characters are drawn uniformly from all that occur in 90 days, or from the
//! `--most-active N`.

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use killstream::domain::entry::Origin;
use killstream::domain::id::Seq;
use killstream::domain::killmail::{Attacker, Killmail};
use killstream::sample::generate::{Generator, Made, Recipe};
use killstream::sample::rng::Dice;
use killstream::server::{self, Signals};
use killstream::store::Store;
use killstream::store::incoming::{AgeRule, Incoming, ZkbRule};
use killstream::tasks;
use killstream::telemetry::source_kind::SourceKind;
use killstream::wire::killmail::encode;
use parking_lot::Mutex;
use support::feed::FakeFeed;
use support::stream::{self, Stream};
use support::{argument, config, now, number, percentile, rss_bytes};
use tokio::sync::mpsc::channel;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const DAYS: i64 = 90;
/// Characters that occur in a real week (2021-11-27 to 12-03).
const OF_A_WEEK: f64 = 39_637.0;
/// Exponent of their growth with the number of days: from day 3 to day 6 of that week their number rose from 22,708 to
/// 31,508, in half of its killmails.
const GROWTH: f64 = 0.47;
const BATCH: usize = 1_000;
const MILLION: u64 = 1_000_000;
/// The latest time for a transition.
const TRANSITION_MAX: Duration = Duration::from_secs(30);
/// Time between two live killmails.
const LIVE_EVERY: Duration = Duration::from_millis(200);
/// Live killmails after the last stream has finished its preload.
const LIVE_AFTER: u32 = 50;
/// The ids of the first live killmail and of the last, which all streams want.
const FIRST_LIVE: u32 = 200_000_000;
const LAST: u32 = 4_000_000_000;
/// The longest silence of a stream.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Clients that read nothing; enough of them to measure what one costs.
const STALLED: usize = 300;
/// Receive buffers of their sockets, bytes.
const SMALL_BUFFER: u32 = 4096;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(folder) = argument("--serve") {
        return serve(Path::new(&folder), argument("--feed")).await;
    }
    let run = Run::new()?;
    run.run().await
}

/// Runs the server in its own process.
async fn serve(folder: &Path, feed: Option<String>) -> anyhow::Result<()> {
    let mut config = config(folder);
    if let Some(feed) = feed {
        config.ingest.source = SourceKind::R2z2;
        config.ingest.user_agent_contact = Some("ninety_days@localhost".to_owned());
        config.ingest.r2z2_base_url = feed;
        (config.ingest.r2z2_idle_ms, config.ingest.r2z2_pace_ms) = (50, 5);
    }
    let signals = Signals::listen()?;
    let running = server::start(config).await?;
    println!("{}", running.addr());
    running.run_until_signal(signals, || ()).await;
    Ok(())
}

/// A server process; killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(folder: &Path, feed: Option<SocketAddr>) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--serve").arg(folder).stdout(Stdio::piped());
        if let Some(feed) = feed {
            command.arg("--feed").arg(format!("http://{feed}"));
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("the child has no stdout")?;
        // Blocking: there is nothing else to do until the server is ready.
        let line = BufReader::new(stdout).lines().next().context("the server did not start")??;
        println!("server ready in {:.1} s", begun.elapsed().as_secs_f64());
        Ok(Self { child, address: line.parse()? })
    }

    fn rss_mib(&self) -> f64 {
        rss_bytes(self.child.id()) as f64 / f64::from(1 << 20)
    }

    fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(self.child.wait()?.success(), "the server did not shut down cleanly");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if it has exited already, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one stream subscribes to, and the killmails of its preload.
#[derive(Debug, Default, Clone)]
struct Wanted {
    characters: Vec<u32>,
    preload: Vec<u32>,
}

/// The whole run.
struct Run {
    folder: PathBuf,
    _temporary: tempfile::TempDir,
    recipe: Recipe,
    streams: Vec<Wanted>,
    /// Which streams want a character.
    wanted_by: HashMap<u32, Vec<u32>>,
}

/// What one stream received.
#[derive(Debug)]
struct Received {
    ids: Vec<u32>,
    /// How many of the ids were preloaded.
    preloaded: usize,
    transition: Duration,
    preload_bytes: u64,
}

impl Run {
    fn new() -> anyhow::Result<Self> {
        let (killmails, streams, characters) =
            (number("--killmails", 1_300_000)?, number("--streams", 100)?, number("--characters", 100)?);
        // The first hour has no killmails, so that none leaves the window of 90 days during preparation.
        let population = (OF_A_WEEK * (DAYS as f64 / 7.0).powf(GROWTH)) as usize;
        let from = now() - DAYS * 86_400 + 3_600;
        let recipe =
            Recipe { killmails, days: DAYS as f64 - 0.1, from, characters: population, ..Recipe::default() };
        let participants: Vec<u32> = recipe.clone().generate().characters().iter().map(|c| c.id).collect();
        let most_active = usize::try_from(number("--most-active", participants.len() as u64)?)?;
        let participants = &participants[..most_active.min(participants.len())];
        let mut dice = Dice::new(90);
        let streams: Vec<Wanted> = (0..streams)
            .map(|_| Wanted {
                characters: (0..characters).map(|_| dice.pick(participants)).collect(),
                preload: Vec::new(),
            })
            .collect();
        let mut wanted_by: HashMap<u32, Vec<u32>> = HashMap::new();
        for (stream, wanted) in (0..).zip(&streams) {
            for character in &wanted.characters {
                wanted_by.entry(*character).or_default().push(stream);
            }
        }
        let temporary = tempfile::tempdir()?;
        Ok(Self { folder: temporary.path().to_owned(), _temporary: temporary, recipe, streams, wanted_by })
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let mut generator = self.recipe.clone().generate();
        let mut bytes = self.write(&mut generator, MILLION)?;
        let idle = Server::start(&self.folder, None)?;
        println!("server RSS at {} killmails: {:.0} MiB", self.recipe.killmails.min(MILLION), idle.rss_mib());
        idle.stop()?;
        bytes += self.write(&mut generator, u64::MAX)?;
        println!(
            "{} killmails, {:.2} GB of JSON in the unfiltered stream",
            self.recipe.killmails,
            bytes as f64 / 1e9
        );

        let feed = FakeFeed::default();
        let server = Server::start(&self.folder, Some(feed.start().await?))?;
        println!("server RSS with all: {:.0} MiB", server.rss_mib());
        let stalled = self.open_stalled(&server).await?;
        let live = Live::start(feed, self.wanted_by.clone(), &self.streams);
        let received = self.run_streams(&server, &live).await?;
        self.check(&received, &live, bytes)?;
        println!("server RSS after it: {:.0} MiB", server.rss_mib());
        self.check_late_reader(stalled, &live).await?;
        server.stop()
    }

    /// Writes up to `count` killmails and records which streams preload them. Returns the size of their JSON, bytes.
    fn write(&mut self, generator: &mut Generator, count: u64) -> anyhow::Result<u64> {
        let store = Store::open(config(&self.folder).store, encode)?;
        let (begun, head) = (Instant::now(), store.head());
        let mut batch = Vec::with_capacity(BATCH);
        for made in generator.take(usize::try_from(count).unwrap_or(usize::MAX)) {
            self.add_to_preloads(&made);
            batch.push(incoming(made));
            if batch.len() == BATCH {
                store.append(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)), None)?;
            }
        }
        store.append(batch, None)?;
        let written = store.head().0 - head.0;
        println!("{written} killmails written in {:.1} s", begun.elapsed().as_secs_f64());
        Ok((head.0 + 1..=store.head().0).map(|seq| u64::from(store.weight_of(Seq(seq)))).sum())
    }

    fn add_to_preloads(&mut self, made: &Made) {
        for stream in streams_of(&self.wanted_by, &made.killmail) {
            let preload = &mut self.streams[stream as usize].preload;
            if !made.revision {
                preload.push(made.killmail.killmail_id);
            }
        }
    }

    /// Opens clients that never read, each with the subscription of one of the streams, and prints what each costs the
    /// server. As many are opened before the measurement, to fill what all share (caches).
    async fn open_stalled(&self, server: &Server) -> anyhow::Result<Vec<Stream>> {
        let mut stalled = Vec::new();
        let mut rss_mib = [0.0; 2];
        for rss_mib in &mut rss_mib {
            for wanted in self.streams.iter().cycle().take(STALLED) {
                stalled.push(open(server.address, wanted, Some(SMALL_BUFFER)).await?);
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
            *rss_mib = server.rss_mib();
        }
        println!(
            "server RSS with {STALLED} and {} clients that read nothing: {:.0} and {:.0} MiB",
            2 * STALLED,
            rss_mib[0],
            rss_mib[1]
        );
        let each = (rss_mib[1] - rss_mib[0]) * 1024.0 / STALLED as f64;
        println!("each costs {each:.0} KiB (goal: under 64 besides its socket)");
        Ok(stalled)
    }

    async fn run_streams(&self, server: &Server, live: &Live) -> anyhow::Result<Vec<Received>> {
        let mut reading: Vec<JoinHandle<()>> = Vec::new();
        let (begun, address) = (Instant::now(), server.address);
        let (sender, mut finished) = channel(self.streams.len());
        for wanted in self.streams.clone() {
            let (sender, preloading) = (sender.clone(), Arc::clone(&live.preloading));
            let number = reading.len();
            reading.push(tasks::spawn("client", async move {
                let received = match open(address, &wanted, None).await {
                    Ok(stream) => read(stream, begun, &preloading).await,
                    Err(error) => Err(error),
                };
                // Fails only if the run has failed already.
                let _ = sender.send((number, received)).await;
            }));
        }
        drop(sender);
        let mut received = Vec::new();
        while let Some((number, one)) = finished.recv().await {
            received.push((number, one.with_context(|| format!("stream {number}"))?));
        }
        received.sort_unstable_by_key(|(number, _)| *number);
        println!(
            "{} streams received the last killmail after {:.1} s",
            received.len(),
            begun.elapsed().as_secs_f64()
        );
        Ok(received.into_iter().map(|(_, received)| received).collect())
    }

    fn check(&self, received: &[Received], live: &Live, unfiltered: u64) -> anyhow::Result<()> {
        let mut transitions: Vec<Duration> = received.iter().map(|one| one.transition).collect();
        let preloaded: usize = received.iter().map(|one| one.preloaded).sum();
        let bytes: u64 = received.iter().map(|one| one.preload_bytes).sum();
        println!("{preloaded} killmails preloaded, {:.2} GB sent for them", bytes as f64 / 1e9);
        let (p50, most) = (percentile(&mut transitions, 0.5), percentile(&mut transitions, 1.0));
        println!("transition: p50 {:.1} s, last {:.1} s", p50.as_secs_f64(), most.as_secs_f64());
        let part = bytes as f64 / received.len() as f64 / unfiltered as f64;
        println!(
            "a stream is {:.2} % of the unfiltered one: {:.2} % less (goal: 90 %)",
            part * 100.0,
            100.0 - part * 100.0
        );
        for (number, one) in received.iter().enumerate() {
            self.check_stream(number, one, live)?;
        }
        let deliveries: usize = received.iter().map(|one| one.ids.len() - one.preloaded).sum();
        println!(
            "{} live killmails, {deliveries} deliveries; every stream received its preload in order and all live killmails, once",
            live.published()
        );
        ensure!(
            most <= TRANSITION_MAX,
            "the last transition arrived after {most:?}, not within {TRANSITION_MAX:?}"
        );
        Ok(())
    }

    /// Checks that a stream received everything it should, once, and its preload in order.
    fn check_stream(&self, number: usize, received: &Received, live: &Live) -> anyhow::Result<()> {
        let preloaded = &received.ids[..received.preloaded];
        ensure!(preloaded.is_sorted(), "stream {number}: the preload is out of order");
        let mut got = received.ids.clone();
        let mut due = self.streams[number].preload.clone();
        due.extend(live.due(number));
        got.sort_unstable();
        due.sort_unstable();
        ensure!(got == due, "stream {number}: {} killmails received, {} expected", got.len(), due.len());
        Ok(())
    }

    /// Lets one of the clients that read nothing continue: it must receive its whole preload and everything live.
    async fn check_late_reader(&self, mut stalled: Vec<Stream>, live: &Live) -> anyhow::Result<()> {
        let one = stalled.swap_remove(0);
        drop(stalled);
        let received =
            read(one, Instant::now(), &AtomicUsize::new(0)).await.context("a client that read nothing")?;
        self.check_stream(0, &received, live)?;
        println!("a client that had read nothing received all {} when it continued", received.ids.len());
        Ok(())
    }
}

/// The feed while the streams are open.
struct Live {
    /// Streams that are still preloading.
    preloading: Arc<AtomicUsize>,
    /// What each stream should receive.
    due: Arc<Mutex<Vec<Vec<u32>>>>,
    published: Arc<AtomicUsize>,
}

impl Live {
    /// Publishes killmails with the current time until all streams have finished their preload, and for a while after
    /// that; then the last one, which all streams want.
    fn start(feed: FakeFeed, wanted_by: HashMap<u32, Vec<u32>>, streams: &[Wanted]) -> Self {
        let preloading = Arc::new(AtomicUsize::new(streams.len()));
        let due = Arc::new(Mutex::new(vec![Vec::new(); streams.len()]));
        let published = Arc::new(AtomicUsize::new(0));
        let live = Self {
            preloading: Arc::clone(&preloading),
            due: Arc::clone(&due),
            published: Arc::clone(&published),
        };
        let one_of_each: Vec<u32> =
            streams.iter().filter_map(|wanted| wanted.characters.first().copied()).collect();
        drop(tasks::spawn("live", async move {
            let recipe = Recipe {
                seed: 91,
                killmails: 1_000_000,
                late: 0.0,
                revised: 0.0,
                first_id: FIRST_LIVE,
                ..Recipe::default()
            };
            let mut clock = tokio::time::interval(LIVE_EVERY);
            let mut after = 0;
            for made in recipe.generate() {
                clock.tick().await;
                after += u32::from(preloading.load(Ordering::Relaxed) == 0);
                let mut killmail = Killmail { time: now(), ..made.killmail };
                if after == LIVE_AFTER {
                    let one = killmail.attackers[0].clone();
                    killmail.killmail_id = LAST;
                    killmail.attackers = one_of_each
                        .iter()
                        .map(|id| Attacker { character_id: Some(*id), ..one.clone() })
                        .collect();
                }
                for stream in streams_of(&wanted_by, &killmail) {
                    due.lock()[stream as usize].push(killmail.killmail_id);
                }
                published.fetch_add(1, Ordering::Relaxed);
                feed.publish(&killmail);
                if killmail.killmail_id == LAST {
                    return;
                }
            }
        }));
        live
    }

    fn due(&self, stream: usize) -> Vec<u32> {
        self.due.lock()[stream].clone()
    }

    fn published(&self) -> usize {
        self.published.load(Ordering::Relaxed)
    }
}

/// The streams that want a killmail, each once.
fn streams_of(wanted_by: &HashMap<u32, Vec<u32>>, killmail: &Killmail) -> Vec<u32> {
    let parties = killmail.attackers.iter().map(|a| a.character_id).chain([killmail.victim.character_id]);
    let mut streams: Vec<u32> =
        parties.flatten().filter_map(|id| wanted_by.get(&id)).flatten().copied().collect();
    streams.sort_unstable();
    streams.dedup();
    streams
}

fn incoming(made: Made) -> Incoming {
    let (received_at_ms, uploaded_at) = (made.uploaded_at * 1000, Some(made.uploaded_at));
    Incoming {
        killmail: made.killmail,
        origin: Origin::Live,
        received_at_ms,
        uploaded_at,
        age: AgeRule::ByUpload,
        zkb: ZkbRule::IfNewer,
    }
}

async fn open(address: SocketAddr, wanted: &Wanted, buffer: Option<u32>) -> anyhow::Result<Stream> {
    let body = serde_json::json!({ "character_ids": wanted.characters, "preload_days": DAYS }).to_string();
    Ok(Stream::open(address, "/api/v1/kills/stream/enhanced", Some(&body), buffer).await?)
}

/// Reads until the last killmail.
async fn read(mut stream: Stream, begun: Instant, preloading: &AtomicUsize) -> anyhow::Result<Received> {
    let mut received =
        Received { ids: Vec::new(), preloaded: 0, transition: Duration::MAX, preload_bytes: 0 };
    loop {
        let block = timeout(TIMEOUT, stream.next()).await.context("nothing received")??;
        match stream::name(&block) {
            "batch" | "killmail" => received.ids.extend(stream::killmail_ids(&block)),
            "transition" => {
                (received.preloaded, received.transition, received.preload_bytes) =
                    (received.ids.len(), begun.elapsed(), stream.received);
                preloading.fetch_sub(1, Ordering::Relaxed);
            }
            "error" | "gap" => bail!("{}", String::from_utf8_lossy(&block)),
            _ => {}
        }
        if received.ids.last() == Some(&LAST) {
            return Ok(received);
        }
    }
}
