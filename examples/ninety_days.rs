//! The documented run: 90 days of killmails, and 100 streams that each want the past of 100 characters while
//! the feed goes on.
//!
//!     cargo run --release --example ninety_days -- [--killmails 1300000] [--streams 100] [--characters 100]
//!     [--most-active N]
//!
//! It writes the killmails to a temporary store, runs the server as a process of its own (this program again)
//! on that store and a fake feed, and opens the streams at once. Checked: every `transition` comes within 30
//! s, no connection is dropped, every stream has exactly the past it asked for and then everything live,
//! once. Printed: memory of the server at a million killmails and with all, bytes sent against the unfiltered
//! stream, and what clients cost that read nothing. Characters are drawn evenly from all that appear in 90
//! days, or from the `--most-active N`.

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
use killstream::ingest::config::Kind;
use killstream::sample::generate::{Generator, Made, Recipe};
use killstream::sample::rng::Dice;
use killstream::server::{self, Signals};
use killstream::store::Store;
use killstream::store::incoming::{AgeRule, Incoming, ZkbRule};
use killstream::tasks;
use killstream::wire::killmail::encode;
use parking_lot::Mutex;
use support::feed::FakeFeed;
use support::stream::{self, Stream};
use support::{argument, at, config, now, number, rss_bytes};
use tokio::sync::mpsc::channel;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const DAYS: i64 = 90;
/// Characters of a real week (2021-11-27 to 12-03).
const OF_A_WEEK: f64 = 39_637.0;
/// How their number grows with the days: from the third to the sixth of that week it went from 22,708 to
/// 31,508 in half of its killmails.
const GROWTH: f64 = 0.47;
const BATCH: usize = 1_000;
const MILLION: u64 = 1_000_000;
/// Where a transition must be.
const WITHIN: Duration = Duration::from_secs(30);
/// Between two live killmails.
const LIVE_EVERY: Duration = Duration::from_millis(200);
/// Live killmails after the last stream is through its past.
const LIVE_AFTER: u32 = 50;
/// The first live killmail, and the last, which everyone wants.
const FIRST_LIVE: u32 = 200_000_000;
const LAST: u32 = 4_000_000_000;
/// Longest silence of a stream.
const PATIENCE: Duration = Duration::from_secs(120);
/// Clients that read nothing, so that what one costs stands out.
const STALLED: usize = 300;
/// Their sockets' receive buffers, bytes.
const NARROW: u32 = 4096;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(folder) = argument("--serve") {
        return serve(Path::new(&folder), argument("--feed")).await;
    }
    let run = Run::new()?;
    run.all().await
}

/// The server, as a process of its own.
async fn serve(folder: &Path, feed: Option<String>) -> anyhow::Result<()> {
    let mut config = config(folder);
    if let Some(feed) = feed {
        config.ingest.source = Kind::R2z2;
        config.ingest.user_agent_contact = Some("ninety_days@localhost".to_owned());
        config.ingest.r2z2_base_url = feed;
        (config.ingest.r2z2_idle_ms, config.ingest.r2z2_pace_ms) = (50, 5);
    }
    let signals = Signals::listen()?;
    let running = server::start(config).await?;
    println!("{}", running.addr());
    running.until(signals, || ()).await;
    Ok(())
}

/// A child that serves; killed when dropped.
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
        let stdout = child.stdout.take().context("the child has an output")?;
        // Until the server answers there is nothing else to do.
        let line = BufReader::new(stdout).lines().next().context("the server did not start")??;
        println!("server ready in {:.1} s", begun.elapsed().as_secs_f64());
        Ok(Self { child, address: line.parse()? })
    }

    fn rss_mib(&self) -> f64 {
        rss_bytes(self.child.id()) as f64 / f64::from(1 << 20)
    }

    fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(self.child.wait()?.success(), "the server did not stop in order");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One stream's part of the world.
#[derive(Debug, Default, Clone)]
struct Wanted {
    characters: Vec<u32>,
    past: Vec<u32>,
}

/// The whole run.
struct Run {
    folder: PathBuf,
    _kept: tempfile::TempDir,
    recipe: Recipe,
    streams: Vec<Wanted>,
    /// Which streams want a character.
    wanted_by: HashMap<u32, Vec<u32>>,
}

/// What one stream saw.
#[derive(Debug)]
struct Seen {
    ids: Vec<u32>,
    past: usize,
    transition: Duration,
    past_bytes: u64,
}

impl Run {
    fn new() -> anyhow::Result<Self> {
        let (killmails, streams, characters) =
            (number("--killmails", 1_300_000)?, number("--streams", 100)?, number("--characters", 100)?);
        // An hour is left free at the beginning, so that nothing leaves the window of 90 days while all is
        // prepared.
        let population = (OF_A_WEEK * (DAYS as f64 / 7.0).powf(GROWTH)) as usize;
        let from = now() - DAYS * 86_400 + 3_600;
        let recipe =
            Recipe { killmails, days: DAYS as f64 - 0.1, from, characters: population, ..Recipe::default() };
        let cast: Vec<u32> = recipe.clone().generate().characters().iter().map(|c| c.id).collect();
        let cast = &cast[..usize::try_from(number("--most-active", cast.len() as u64)?)?.min(cast.len())];
        let mut dice = Dice::new(90);
        let streams: Vec<Wanted> = (0..streams)
            .map(|_| Wanted {
                characters: (0..characters).map(|_| dice.pick(cast)).collect(),
                past: Vec::new(),
            })
            .collect();
        let mut wanted_by: HashMap<u32, Vec<u32>> = HashMap::new();
        for (stream, wanted) in (0..).zip(&streams) {
            for character in &wanted.characters {
                wanted_by.entry(*character).or_default().push(stream);
            }
        }
        let kept = tempfile::tempdir()?;
        Ok(Self { folder: kept.path().to_owned(), _kept: kept, recipe, streams, wanted_by })
    }

    async fn all(mut self) -> anyhow::Result<()> {
        let mut generator = self.recipe.clone().generate();
        let mut bytes = self.write(&mut generator, MILLION)?;
        let idle = Server::start(&self.folder, None)?;
        println!(
            "server's RSS at {} killmails: {:.0} MiB",
            self.recipe.killmails.min(MILLION),
            idle.rss_mib()
        );
        idle.stop()?;
        bytes += self.write(&mut generator, u64::MAX)?;
        println!(
            "{} killmails, {:.2} GB of JSON in the unfiltered stream",
            self.recipe.killmails,
            bytes as f64 / 1e9
        );

        let feed = FakeFeed::default();
        let server = Server::start(&self.folder, Some(feed.start().await?))?;
        println!("server's RSS with all: {:.0} MiB", server.rss_mib());
        let stalled = self.stalled(&server).await?;
        let live = Live::start(feed, self.wanted_by.clone(), &self.streams);
        let seen = self.streams(&server, &live).await?;
        self.check(&seen, &live, bytes)?;
        println!("server's RSS after it: {:.0} MiB", server.rss_mib());
        self.late_reader(stalled, &live).await?;
        server.stop()
    }

    /// Writes up to so many killmails, remembers whose past they are, gives their bytes as JSON.
    fn write(&mut self, generator: &mut Generator, count: u64) -> anyhow::Result<u64> {
        let store = Store::open(config(&self.folder).store, encode)?;
        let (begun, head) = (Instant::now(), store.head());
        let mut batch = Vec::with_capacity(BATCH);
        for made in generator.take(usize::try_from(count).unwrap_or(usize::MAX)) {
            self.remember(&made);
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

    fn remember(&mut self, made: &Made) {
        for stream in streams_of(&self.wanted_by, &made.killmail) {
            let past = &mut self.streams[stream as usize].past;
            if !made.revision {
                past.push(made.killmail.killmail_id);
            }
        }
    }

    /// Opens clients that never read, each wanting what one of the streams wants; tells what one more costs
    /// the server. What all share (caches, the parking place of batches) is filled by as many before.
    async fn stalled(&self, server: &Server) -> anyhow::Result<Vec<Stream>> {
        let mut stalled = Vec::new();
        let mut rss_mib = [0.0; 2];
        for rss_mib in &mut rss_mib {
            for wanted in self.streams.iter().cycle().take(STALLED) {
                stalled.push(open(server.address, wanted, Some(NARROW)).await?);
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
            *rss_mib = server.rss_mib();
        }
        println!(
            "server's RSS with {STALLED} and {} clients that read nothing: {:.0} and {:.0} MiB",
            2 * STALLED,
            rss_mib[0],
            rss_mib[1]
        );
        let each = (rss_mib[1] - rss_mib[0]) * 1024.0 / STALLED as f64;
        println!("one of them costs {each:.0} KiB (aim: under 64 beyond its socket)");
        Ok(stalled)
    }

    async fn streams(&self, server: &Server, live: &Live) -> anyhow::Result<Vec<Seen>> {
        let mut reading: Vec<JoinHandle<()>> = Vec::new();
        let (begun, address) = (Instant::now(), server.address);
        let (tell, mut told) = channel(self.streams.len());
        for wanted in self.streams.clone() {
            let (tell, past) = (tell.clone(), Arc::clone(&live.in_the_past));
            let number = reading.len();
            reading.push(tasks::spawn("client", async move {
                let seen = match open(address, &wanted, None).await {
                    Ok(stream) => read(stream, begun, &past).await,
                    Err(error) => Err(error),
                };
                // Nobody waits for it only when the run has failed.
                let _ = tell.send((number, seen)).await;
            }));
        }
        drop(tell);
        let mut seen = Vec::new();
        while let Some((number, one)) = told.recv().await {
            seen.push((number, one.with_context(|| format!("stream {number}"))?));
        }
        seen.sort_unstable_by_key(|(number, _)| *number);
        println!("{} streams had the last killmail after {:.1} s", seen.len(), begun.elapsed().as_secs_f64());
        Ok(seen.into_iter().map(|(_, seen)| seen).collect())
    }

    fn check(&self, seen: &[Seen], live: &Live, unfiltered: u64) -> anyhow::Result<()> {
        let mut transitions: Vec<Duration> = seen.iter().map(|s| s.transition).collect();
        let past: usize = seen.iter().map(|s| s.past).sum();
        let bytes: u64 = seen.iter().map(|s| s.past_bytes).sum();
        println!("{past} killmails of the past, {:.2} GB sent for them", bytes as f64 / 1e9);
        let (p50, most) = (at(&mut transitions, 0.5), at(&mut transitions, 1.0));
        println!("transition: p50 {:.1} s, last {:.1} s", p50.as_secs_f64(), most.as_secs_f64());
        let part = bytes as f64 / seen.len() as f64 / unfiltered as f64;
        println!(
            "a stream is {:.2} % of the unfiltered one: {:.2} % less (aim: 90 %)",
            part * 100.0,
            100.0 - part * 100.0
        );
        for (number, one) in seen.iter().enumerate() {
            self.whole(number, one, live)?;
        }
        let came: usize = seen.iter().map(|s| s.ids.len() - s.past).sum();
        println!(
            "{} live killmails, {came} times delivered; every stream had its past in order and all live, once",
            live.published()
        );
        ensure!(most <= WITHIN, "the last transition came after {most:?}, not within {WITHIN:?}");
        Ok(())
    }

    /// Whether a stream had everything due to it, once, and the past in order.
    fn whole(&self, number: usize, seen: &Seen, live: &Live) -> anyhow::Result<()> {
        ensure!(seen.ids[..seen.past].is_sorted(), "stream {number}: the past came out of order");
        let mut got = seen.ids.clone();
        let mut due = self.streams[number].past.clone();
        due.extend(live.due(number));
        got.sort_unstable();
        due.sort_unstable();
        ensure!(got == due, "stream {number}: {} killmails came, {} were due", got.len(), due.len());
        Ok(())
    }

    /// One of those that read nothing reads on: it must have the whole past and everything live.
    async fn late_reader(&self, mut stalled: Vec<Stream>, live: &Live) -> anyhow::Result<()> {
        let one = stalled.swap_remove(0);
        drop(stalled);
        let seen =
            read(one, Instant::now(), &AtomicUsize::new(0)).await.context("the one that read nothing")?;
        self.whole(0, &seen, live)?;
        println!("a client that read nothing until then had all {} when it read on", seen.ids.len());
        Ok(())
    }
}

/// The feed while the streams are open.
struct Live {
    /// Streams that are still in their past.
    in_the_past: Arc<AtomicUsize>,
    /// What is due to each stream.
    due: Arc<Mutex<Vec<Vec<u32>>>>,
    published: Arc<AtomicUsize>,
}

impl Live {
    /// Publishes killmails of now until all streams are through their past, and for a while more; then the
    /// last one, which is everyone's.
    fn start(feed: FakeFeed, wanted_by: HashMap<u32, Vec<u32>>, streams: &[Wanted]) -> Self {
        let in_the_past = Arc::new(AtomicUsize::new(streams.len()));
        let due = Arc::new(Mutex::new(vec![Vec::new(); streams.len()]));
        let published = Arc::new(AtomicUsize::new(0));
        let live = Self {
            in_the_past: Arc::clone(&in_the_past),
            due: Arc::clone(&due),
            published: Arc::clone(&published),
        };
        let everyone: Vec<u32> =
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
                after += u32::from(in_the_past.load(Ordering::Relaxed) == 0);
                let mut killmail = Killmail { time: now(), ..made.killmail };
                if after == LIVE_AFTER {
                    let one = killmail.attackers[0].clone();
                    killmail.killmail_id = LAST;
                    killmail.attackers = everyone
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

/// Reads until the last killmail has come.
async fn read(mut stream: Stream, begun: Instant, in_the_past: &AtomicUsize) -> anyhow::Result<Seen> {
    let mut seen = Seen { ids: Vec::new(), past: 0, transition: Duration::MAX, past_bytes: 0 };
    loop {
        let block = timeout(PATIENCE, stream.next()).await.context("nothing came")??;
        match stream::name(&block) {
            "batch" | "killmail" => seen.ids.extend(stream::killmail_ids(&block)),
            "transition" => {
                (seen.past, seen.transition, seen.past_bytes) =
                    (seen.ids.len(), begun.elapsed(), stream.received);
                in_the_past.fetch_sub(1, Ordering::Relaxed);
            }
            "error" | "gap" => bail!("{}", String::from_utf8_lossy(&block)),
            _ => {}
        }
        if seen.ids.last() == Some(&LAST) {
            return Ok(seen);
        }
    }
}
