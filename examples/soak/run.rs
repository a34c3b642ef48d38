//! The soak test: days of feed from a misbehaving upstream, through a server that is killed repeatedly. In the end
//! the store must equal the truth, and each subscriber must have received each live killmail exactly once.
//!
//! Must not know: which program serves.

#[path = "../support/stream.rs"]
#[allow(dead_code, reason = "only a part of it is used")]
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
use crate::soak::truth::{Publication, Truth, line_digest};
use crate::soak::upstream::Upstream;

/// Steps published at a time, before waiting for the follower to catch up.
const CHUNK: usize = 250;
/// Chunks after which a delayed file is published.
const DELAY: usize = 3;
/// Subscribers without a list of systems: half take killmails of any age, half only fresh ones.
const EVERYTHING: usize = 20;
/// The most systems a subscriber names.
const SYSTEMS_MAX: usize = 100;
/// How long to wait for what must happen.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Waits of the follower, a hundredth of the real ones or less.
pub const CONFIG: &str = "[ingest]\nr2z2_idle_ms = 20\nr2z2_pace_ms = 1\nr2z2_missing_ms = 100\nr2z2_rollback_ms = 3000\n\
    r2z2_limited_ms = 50\nr2z2_forbidden_ms = 50\nr2z2_failed_ms = 10\nr2z2_heal_ms = 100\ntimeout_ms = 1000\n";

/// The parameters of a run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Number of killmails.
    pub killmails: u64,
    /// Days they are spread over.
    pub days: f64,
    /// Share of numbers whose file is not published in order.
    pub missing: f64,
    /// Number of subscribers.
    pub subscribers: usize,
    /// How often the server is killed.
    pub kills: u64,
    /// Seed of all random choices.
    pub seed: u64,
}

/// A server process; killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts the command, which must print a line that ends with its address once it listens.
    fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("the child has no stdout")?;
        let line = BufReader::new(stdout).lines().next().context("the server did not start")??;
        let address = line.rsplit('/').next().unwrap_or_default().trim().parse()?;
        Ok(Self { child, address })
    }

    /// Starts it again on the same port. Retries, since a reconnecting client may briefly be given that port as its
    /// own.
    async fn restart(command: impl Fn() -> Command) -> anyhow::Result<Self> {
        let begun = Instant::now();
        loop {
            match Self::start(command()) {
                Err(_) if begun.elapsed() < TIMEOUT => tokio::time::sleep(Duration::from_millis(200)).await,
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
        // Fails if it has exited already.
        let _ = self.kill();
    }
}

/// Runs the test. `serve` returns the command of a server that follows the feed at this origin and listens on this
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
            server = Server::restart(|| serve(&feed, address.port())).await?;
        }
        if ended {
            break;
        }
        wait_caught_up(&upstream).await?;
    }
    upstream.finish_days();
    println!(
        "{} numbers published in {:.0} s, the server killed {killed} times",
        upstream.next() - truth::FIRST,
        begun.elapsed().as_secs_f64()
    );
    wait_healed(address, &truth).await?;
    check_store(address, &truth).await?;
    check_subscribers(&clients, &truth).await?;
    let (requests, faults) = upstream.counts();
    let [late, rewritten, delayed, never] = truth.counts;
    println!(
        "{late} late, {rewritten} rewritten, {delayed} delayed, {never} never published; {faults} of {requests} requests failed"
    );
    println!(
        "the store equals the truth; {} subscribers received each live killmail once; {:.0} s",
        clients.len(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Publishes a chunk. Returns its delayed files, or `None` at the end of the feed.
fn publish(truth: &mut Truth, upstream: &Upstream) -> Option<Vec<(u64, String)>> {
    let mut late = Vec::new();
    for n in 0..CHUNK {
        let Some(step) = truth.step() else { return (n > 0).then_some(late) };
        if step.publication == Publication::Delayed {
            late.push((step.number, step.text.clone()));
        }
        upstream.publish(step);
    }
    Some(late)
}

/// Waits until the follower requests a file that does not exist yet.
async fn wait_caught_up(upstream: &Upstream) -> anyhow::Result<()> {
    let (before, begun) = (upstream.missed(), Instant::now());
    while upstream.missed() < before + 2 {
        ensure!(begun.elapsed() < TIMEOUT, "the follower did not catch up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn subscribe(address: SocketAddr, count: usize) -> anyhow::Result<Vec<(Client, Subscription)>> {
    let systems: Vec<u32> = killstream::universe::systems().map(|system| system.id).collect();
    let mut clients = Vec::new();
    for n in 0..count {
        let what = if n < EVERYTHING {
            Subscription { any_age: n % 2 == 0, systems: None }
        } else {
            // Neighbouring subscribers share some systems; all of them together cover most.
            let from = (n - EVERYTHING) * 61 % systems.len();
            Subscription {
                any_age: true,
                systems: Some(systems.iter().cycle().skip(from).take(SYSTEMS_MAX).copied().collect()),
            }
        };
        clients.push((Client::start(address, format!("/api/v1/kills/stream?{}", what.query())), what));
    }
    let begun = Instant::now();
    while clients.iter().any(|(client, _)| client.received.lock().connections == 0) {
        ensure!(begun.elapsed() < TIMEOUT, "not every subscriber could connect");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(clients)
}

/// What a subscriber wants.
struct Subscription {
    any_age: bool,
    systems: Option<Vec<u32>>,
}

impl Subscription {
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
    // Fails if a provider is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let request = reqwest::Client::builder().no_proxy().build()?.get(format!("http://{address}{path}"));
    let response = request.bearer_auth("soak").send().await?.error_for_status()?;
    Ok(response.bytes().await?.to_vec())
}

/// Waits until no number is missing any more.
async fn wait_healed(address: SocketAddr, truth: &Truth) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let status: Value = serde_json::from_slice(&get(address, "/status").await?)?;
        let gaps = &status["metrics"]["processing"]["gaps"];
        let kept = status["metrics"]["storage"]["killmails_count"].as_u64();
        if gaps["open_numbers"] == 0 && kept == Some(truth.kept.len() as u64) {
            return Ok(());
        }
        if begun.elapsed() > TIMEOUT {
            let found = exported(address).await?;
            let missing: Vec<_> = truth.kept.keys().filter(|id| !found.contains_key(id)).collect();
            let archived = missing.iter().filter(|id| !truth.live.contains_key(id)).count();
            bail!(
                "killmails {missing:?} are missing, {archived} of them only in archives; open gaps: {gaps}"
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A digest of the JSON of every killmail in the store.
async fn exported(address: SocketAddr) -> anyhow::Result<BTreeMap<u32, [u8; 32]>> {
    let text = get(address, "/api/v1/export").await?;
    let mut found = BTreeMap::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let id = stream::killmail_ids(line).first().copied().context("a line without a killmail")?;
        ensure!(found.insert(id, line_digest(line)).is_none(), "killmail {id} is exported twice");
    }
    Ok(found)
}

/// Checks that every killmail in the store is as expected. Retries, since the last rewrites may still be pending.
async fn check_store(address: SocketAddr, truth: &Truth) -> anyhow::Result<()> {
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
            begun.elapsed() < TIMEOUT,
            "{} stored, {} killmails differ from the truth: {few:?}",
            found.len(),
            differ.len()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Checks that every subscriber received what it wants, each killmail once, and as many notifications of killmails
/// from archives as all others.
async fn check_subscribers(clients: &[(Client, Subscription)], truth: &Truth) -> anyhow::Result<()> {
    let begun = Instant::now();
    for (n, (client, what)) in clients.iter().enumerate() {
        let wanted: Vec<u32> =
            truth.live.iter().filter(|(_, live)| what.wants(live)).map(|(id, _)| *id).collect();
        while client.received.lock().killmails.len() < wanted.len() && begun.elapsed() < TIMEOUT {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let received = client.received.lock();
        let twice = received.killmails.iter().filter(|(_, times)| **times != 1).count();
        let lost = wanted.iter().filter(|id| !received.killmails.contains_key(id)).count();
        let unwanted = received.killmails.len() + lost - wanted.len();
        ensure!(
            (twice, lost, unwanted) == (0, 0, 0),
            "subscriber {n}: {twice} received twice, {lost} lost, {unwanted} unwanted"
        );
        ensure!(received.other_gaps == 0, "subscriber {n} was notified of {} gaps", received.other_gaps);
    }
    let notified = clients.iter().map(|(client, _)| client.received.lock().backfilled).collect::<Vec<_>>();
    ensure!(
        notified.iter().all(|times| *times == notified[0]),
        "notifications of archives per subscriber: {notified:?}"
    );
    ensure!(truth.counts[3] == 0 || notified[0] > 0, "nobody was notified of archives");
    println!("each was notified {} times of killmails from archives", notified[0]);
    clients.iter().for_each(|(client, _)| client.stop());
    Ok(())
}
