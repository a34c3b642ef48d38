//! Cut anywhere, come back with the last id: nothing lost, nothing twice. Both streams, in the preload, at
//! its end and live, over lost connections and a server killed with -9, while the feed runs.
//!
//! Must not know: how a reader finds its place again.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::killmail::{Build, killmail};
use crate::support::server::{Server, Setup};
use crate::support::sse::{Block, Sse};
use crate::support::upstream::Upstream;

const DAY: i64 = 86_400;
const PILOT: u32 = 2_112_000_077;
/// Killmails in the window; with batches of 50 and some larger ones these make several batches.
const PAST: u32 = 330;
const ENHANCED: &str = "/api/v1/kills/stream/enhanced?character_ids=2112000077&preload_days=90";
const BASIC: &str = "/api/v1/kills/stream?character_ids=2112000077&preload_days=90";

fn past(n: u32) -> Build {
    let at = 89 * DAY - i64::from(n) * 20_000;
    killmail(1000 + 2 * n).attackers(&[5, PILOT]).ago(at)
}

async fn filled(upstream: &Upstream) -> Server {
    let setup = Setup::following(upstream)
        .config("[sse]\nping_ms = 200\nheartbeat_ms = 300\n[feed]\nbatch_pause_ms = 5");
    let server = setup.start();
    let mut documents: Vec<Value> = (0..PAST).map(|n| past(n).r2z2()).collect();
    documents.extend((0..PAST).map(|n| killmail(1001 + 2 * n).ago(3 * DAY).r2z2()));
    documents.push(killmail(1).victim(PILOT).ago(100 * DAY).r2z2());
    let report = server
        .send(reqwest::Method::POST, "/api/v1/killmails", json!(documents).to_string())
        .await
        .expect(200);
    assert_eq!(report["data"]["new"], json!(2 * PAST + 1), "{report}");
    server
}

/// What a client has seen: how often each killmail came, and the id it would come back with.
#[derive(Default)]
struct Client {
    seen: BTreeMap<u64, u32>,
    last_id: Option<String>,
    transitions: u32,
}

impl Client {
    async fn open(&self, server: &Server, path: &str) -> Sse {
        let header = self.last_id.as_deref().map(|id| ("last-event-id", id));
        let stream = Sse::get(server.address(), path, header.as_slice()).await;
        assert_eq!(stream.status, 200);
        stream
    }

    fn take(&mut self, block: &Block) -> usize {
        let mut killmails = Vec::new();
        match block.name() {
            "batch" => killmails.extend(
                block.json()["kills"].as_array().unwrap().iter().filter_map(|k| k["killmail_id"].as_u64()),
            ),
            "transition" => self.transitions += 1,
            "gap" => panic!("nothing was lost, yet: {}", block.raw),
            _ => killmails.extend(block.killmail_id()),
        }
        for id in &killmails {
            *self.seen.entry(*id).or_default() += 1;
        }
        if let Some(id) = &block.id {
            self.last_id = Some(id.clone());
        }
        killmails.len()
    }

    /// Reads until so many blocks with killmails came or the stream ended.
    async fn read(&mut self, stream: &mut Sse, blocks: usize) {
        let mut left = blocks;
        while left > 0 {
            let Some(block) = stream.next_block().await else { return };
            left -= usize::from(self.take(&block) > 0);
        }
    }

    async fn read_until(&mut self, stream: &mut Sse, killmail_id: u64) {
        while !self.seen.contains_key(&killmail_id) {
            let block = stream.next_block().await.expect("the stream goes on");
            self.take(&block);
        }
    }

    fn assert_exactly(&self, expected: impl Iterator<Item = u64>) {
        let expected: BTreeMap<u64, u32> = expected.map(|id| (id, 1)).collect();
        let lost: Vec<_> = expected.keys().filter(|id| !self.seen.contains_key(id)).collect();
        let twice: Vec<_> = self.seen.iter().filter(|(_, times)| **times > 1).collect();
        assert!(lost.is_empty() && twice.is_empty(), "lost {lost:?}, more than once {twice:?}");
        assert_eq!(self.seen, expected);
    }
}

fn all(live: std::ops::Range<u32>) -> impl Iterator<Item = u64> {
    (0..PAST).map(|n| u64::from(1000 + 2 * n)).chain(live.map(u64::from))
}

#[tokio::test]
async fn a_preload_cut_after_any_batch_goes_on_behind_it() {
    let upstream = Upstream::start();
    let server = filled(&upstream).await;
    for round in 0..8_u32 {
        let mut client = Client::default();
        let mut stream = client.open(&server, ENHANCED).await;
        // Even where no batch was taken, the opening place was.
        while client.last_id.is_none() {
            client.take(&stream.next_block().await.unwrap());
        }
        client.read(&mut stream, round.min(6) as usize).await;
        drop(stream);
        let live = 50_000 + round;
        upstream.publish(killmail(live).victim(PILOT));
        let mut stream = client.open(&server, ENHANCED).await;
        client.read_until(&mut stream, u64::from(live)).await;
        assert_eq!(client.transitions, 1, "history ended once, wherever it was cut");
        // What came live in earlier rounds is in the window of this one.
        client.assert_exactly(all(50_000..live + 1));
    }
}

#[tokio::test]
async fn a_server_killed_in_a_preload_loses_and_doubles_nothing() {
    for path in [ENHANCED, BASIC] {
        let upstream = Upstream::start();
        let mut server = filled(&upstream).await;
        let mut client = Client::default();
        let mut live = 50_000_u32;
        for round in 0..5 {
            let mut stream = client.open(&server, path).await;
            let blocks = if path == ENHANCED { 1 } else { 40 + round };
            client.read(&mut stream, blocks).await;
            upstream.publish(killmail(live).victim(PILOT));
            live += 1;
            server.restart();
        }
        let mut stream = client.open(&server, path).await;
        upstream.publish(killmail(live).victim(PILOT));
        client.read_until(&mut stream, u64::from(live)).await;
        client.assert_exactly(all(50_000..live + 1));
    }
}

#[tokio::test]
async fn a_stream_cut_while_live_gets_what_it_missed() {
    let upstream = Upstream::start();
    let mut server = filled(&upstream).await;
    let mut client = Client::default();
    let mut live = 60_000_u32;
    let path = "/api/v1/kills/stream?character_ids=2112000077";
    let mut stream = client.open(&server, path).await;
    for _ in 0..2 {
        let opening = stream.next_block().await.unwrap();
        client.take(&opening);
    }
    for round in 0..6 {
        upstream.publish(killmail(live).victim(PILOT));
        client.read_until(&mut stream, u64::from(live)).await;
        drop(stream);
        for missed in 1..=3 {
            upstream.publish(killmail(live + missed).victim(PILOT));
        }
        live += 4;
        if round % 2 == 1 {
            server.restart();
        }
        stream = client.open(&server, path).await;
        client.read_until(&mut stream, u64::from(live - 1)).await;
    }
    client.assert_exactly((60_000..live).map(u64::from));
}
