//! The soak: days of feed through a server that is killed again and again, from a fake that misbehaves; in
//! the end the store equals the truth, and each of many subscribers saw each live killmail once.
//!
//! Must not know: which program serves.

#[path = "../support/stream.rs"]
#[allow(dead_code, reason = "a part of it is used")]
pub mod stream;

pub mod clients;
pub mod truth;
pub mod upstream;

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::soak::clients::Client;
use crate::soak::truth::{Truth, Way, line_digest};
use crate::soak::upstream::Upstream;

/// Steps published at once; then the follower is waited for.
const CHUNK: usize = 250;
/// Chunks after which a delayed file comes.
const DELAY: usize = 3;
/// Subscribers that take everything, of any age, and everything that is fresh.
const EVERYTHING: usize = 20;
/// Systems a subscriber names at most.
const SYSTEMS_MAX: usize = 100;
/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// The waits of the follower, at a hundredth and less.
pub const CONFIG: &str = "[ingest]\nr2z2_idle_ms = 20\nr2z2_pace_ms = 1\nr2z2_missing_ms = 100\nr2z2_rollback_ms = 3000\n\
    r2z2_limited_ms = 50\nr2z2_forbidden_ms = 50\nr2z2_failed_ms = 10\nr2z2_heal_ms = 100\ntimeout_ms = 1000\n";

/// What is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Killmails.
    pub killmails: u64,
    /// Days they are spread over.
    pub days: f64,
    /// Share of numbers whose file does not come in its turn.
    pub missing: f64,
    /// Subscribers.
    pub subscribers: usize,
    /// Times the server is killed.
    pub kills: u64,
    /// Decides everything that is left to chance.
    pub seed: u64,
}

/// A server of its own process; killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts it; the command listens where it is told and says so in a line that ends with the address.
    fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("the child has an output")?;
        let line = BufReader::new(stdout).lines().next().context("the server did not start")??;
        let address = line.rsplit('/').next().unwrap_or_default().trim().parse()?;
        Ok(Self { child, address })
    }

    /// Starts it where it was. Whoever connects meanwhile may be given that very port for its own end, for a
    /// moment.
    async fn again(command: impl Fn() -> Command) -> anyhow::Result<Self> {
        let begun = Instant::now();
        loop {
            match Self::start(command()) {
                Err(_) if begun.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(200)).await,
                started => return started,
            }
        }
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever drops it has no more use for it, and it may have ended.
        let _ = self.kill();
    }
}

/// Runs it; `serve` makes the command of a server that follows the feed at this origin and listens on this
/// port (0: any).
pub async fn run(plan: Plan, serve: impl Fn(&str, u16) -> Command) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (upstream, feed) = Upstream::start(plan.seed).await?;
    let feed = format!("http://{feed}");
    let mut server = Server::start(serve(&feed, 0))?;
    let address = server.address;
    let clients = subscribe(address, plan.subscribers).await?;
    let mut truth = Truth::new(plan.killmails, plan.days, plan.missing, plan.seed);
    let chunks = plan.killmails.div_ceil(CHUNK as u64);
    let kill_every = (chunks / (plan.kills + 1)).max(1);
    let (mut delayed, mut at, mut killed) = (VecDeque::new(), 0, 0);
    loop {
        let late = publish(&mut truth, &upstream);
        let ended = late.is_none();
        delayed.push_back(late.unwrap_or_default());
        if delayed.len() > DELAY || ended {
            let now = if ended {
                delayed.drain(..).flatten().collect()
            } else {
                delayed.pop_front().unwrap_or_default()
            };
            now.into_iter().for_each(|(number, text)| upstream.deliver(number, text));
        }
        at += 1;
        if at % kill_every == 0 && killed < plan.kills {
            server.kill()?;
            killed += 1;
            server = Server::again(|| serve(&feed, address.port())).await?;
        }
        if ended {
            break;
        }
        caught_up(&upstream).await?;
    }
    upstream.rest();
    println!(
        "{} numbers published in {:.0} s, the server killed {killed} times",
        upstream.next() - truth::FIRST,
        begun.elapsed().as_secs_f64()
    );
    healed(address, &truth).await?;
    same(address, &truth).await?;
    all_saw(&clients, &truth).await?;
    let (requests, faults) = upstream.counts();
    let [late, rewritten, delayed, never] = truth.counts;
    println!(
        "{late} late, {rewritten} rewritten, {delayed} delayed, {never} never published; {faults} of {requests} requests went wrong"
    );
    println!(
        "the store equals the truth; {} subscribers saw each live killmail once; {:.0} s",
        clients.len(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Publishes a chunk; the files in it that come later, or nothing when that was all.
fn publish(truth: &mut Truth, upstream: &Upstream) -> Option<Vec<(u64, String)>> {
    let mut late = Vec::new();
    for n in 0..CHUNK {
        let Some(step) = truth.step() else { return (n > 0).then_some(late) };
        if step.way == Way::Delayed {
            late.push((step.number, step.text.clone()));
        }
        upstream.publish(step);
    }
    Some(late)
}

/// Waits until the follower asks for what is not there.
async fn caught_up(upstream: &Upstream) -> anyhow::Result<()> {
    let (before, begun) = (upstream.missed(), Instant::now());
    while upstream.missed() < before + 2 {
        ensure!(begun.elapsed() < PATIENCE, "the follower does not catch up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn subscribe(address: SocketAddr, count: usize) -> anyhow::Result<Vec<(Client, What)>> {
    let systems: Vec<u32> = killstream::universe::systems().map(|system| system.id).collect();
    let mut clients = Vec::new();
    for n in 0..count {
        let what = if n < EVERYTHING {
            What { any_age: n % 2 == 0, systems: None }
        } else {
            // Neighbours in this list share some systems, all of them together have most.
            let from = (n - EVERYTHING) * 61 % systems.len();
            What {
                any_age: true,
                systems: Some(systems.iter().cycle().skip(from).take(SYSTEMS_MAX).copied().collect()),
            }
        };
        clients.push((Client::start(address, format!("/api/v1/kills/stream?{}", what.query())), what));
    }
    let begun = Instant::now();
    while clients.iter().any(|(client, _)| client.seen.lock().connections == 0) {
        ensure!(begun.elapsed() < PATIENCE, "not every subscriber could connect");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(clients)
}

/// What a subscriber wants.
struct What {
    any_age: bool,
    systems: Option<Vec<u32>>,
}

impl What {
    fn query(&self) -> String {
        let age = if self.any_age { "max_age_secs=0" } else { "max_age_secs=3600" };
        let systems = self.systems.iter().flatten().map(u32::to_string).collect::<Vec<_>>().join(",");
        if systems.is_empty() { age.to_owned() } else { format!("{age}&system_ids={systems}") }
    }

    fn wants(&self, live: &truth::Live) -> bool {
        (self.any_age || live.age_secs <= 3600)
            && self.systems.as_ref().is_none_or(|systems| systems.contains(&live.system))
    }
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Vec<u8>> {
    // Refused where there is one already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let request = reqwest::Client::builder().no_proxy().build()?.get(format!("http://{address}{path}"));
    let response = request.bearer_auth("soak").send().await?.error_for_status()?;
    Ok(response.bytes().await?.to_vec())
}

/// Waits until the feed owes nothing any more.
async fn healed(address: SocketAddr, truth: &Truth) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let status: Value = serde_json::from_slice(&get(address, "/status").await?)?;
        let gaps = &status["metrics"]["processing"]["gaps"];
        let kept = status["metrics"]["storage"]["killmails_count"].as_u64();
        if gaps["open_numbers"] == 0 && kept == Some(truth.kept.len() as u64) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let found = exported(address).await?;
            let missing: Vec<_> = truth.kept.keys().filter(|id| !found.contains_key(id)).collect();
            let archived = missing.iter().filter(|id| !truth.live.contains_key(id)).count();
            bail!(
                "killmails {missing:?} are missing, {archived} of them only in archives; the feed owes {gaps}"
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A digest of the JSON of every killmail the store has.
async fn exported(address: SocketAddr) -> anyhow::Result<BTreeMap<u32, [u8; 32]>> {
    let text = get(address, "/api/v1/export").await?;
    let mut found = BTreeMap::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let id = stream::killmail_ids(line).first().copied().context("a line without a killmail")?;
        ensure!(found.insert(id, line_digest(line)).is_none(), "killmail {id} is there twice");
    }
    Ok(found)
}

/// Every killmail there is must be as it should be; values may have been rewritten a moment ago.
async fn same(address: SocketAddr, truth: &Truth) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let found = exported(address).await?;
        let differ: Vec<u32> = truth
            .kept
            .iter()
            .filter(|(id, digest)| found.get(id) != Some(digest))
            .map(|(id, _)| *id)
            .collect();
        if differ.is_empty() && found.len() == truth.kept.len() {
            return Ok(());
        }
        let few = &differ[..differ.len().min(10)];
        ensure!(
            begun.elapsed() < PATIENCE,
            "{} kept, {} killmails differ from the truth: {few:?}",
            found.len(),
            differ.len()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Every subscriber must have what it wants, each once, and have been told of what came from archives as
/// often as all others.
async fn all_saw(clients: &[(Client, What)], truth: &Truth) -> anyhow::Result<()> {
    let begun = Instant::now();
    for (n, (client, what)) in clients.iter().enumerate() {
        let wanted: Vec<u32> =
            truth.live.iter().filter(|(_, live)| what.wants(live)).map(|(id, _)| *id).collect();
        while client.seen.lock().killmails.len() < wanted.len() && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let seen = client.seen.lock();
        let twice = seen.killmails.iter().filter(|(_, times)| **times != 1).count();
        let lost = wanted.iter().filter(|id| !seen.killmails.contains_key(id)).count();
        let unasked = seen.killmails.len() + lost - wanted.len();
        ensure!(
            (twice, lost, unasked) == (0, 0, 0),
            "subscriber {n}: {twice} came twice, {lost} never, {unasked} unasked"
        );
        ensure!(seen.other_gaps == 0, "subscriber {n} was told of {} gaps", seen.other_gaps);
    }
    let told = clients.iter().map(|(client, _)| client.seen.lock().backfilled).collect::<Vec<_>>();
    ensure!(
        told.iter().all(|times| *times == told[0]),
        "subscribers were told of archives so often: {told:?}"
    );
    ensure!(truth.counts[3] == 0 || told[0] > 0, "nobody was told of archives");
    println!("each was told {} times of killmails from archives", told[0]);
    clients.iter().for_each(|(client, _)| client.stop());
    Ok(())
}
