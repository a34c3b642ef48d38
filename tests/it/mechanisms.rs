//! Counters that prove how the work is saved: who is rung, what a plugin is asked, how often a killmail is
//! encoded.
//!
//! Must not know: transports; what is counted lies below them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use killstream::domain::entry::Origin;
use killstream::domain::filter::Filter;
use killstream::domain::killmail::Killmail;
use killstream::domain::subscription::{PluginUse, Subscription};
use killstream::domain::term::Dimension;
use killstream::feed::event::{Delivered, Event};
use killstream::feed::reader::Reader;
use killstream::feed::start::Start;
use killstream::feed::{self, Feed};
use killstream::plugin::engine::Engine;
use killstream::plugin::limits;
use killstream::plugins::Plugins;
use killstream::plugins::plugin_history::StoreHistory;
use killstream::plugins::upload::UploadOptions;
use killstream::store::incoming::{AgeRule, Incoming, ZkbRule};
use killstream::store::{self, Store};
use killstream::wire;
use tempfile::TempDir;

use crate::support::PATIENCE;
use crate::support::killmail::{began, killmail};

const WATCHLIST: &[u8] = include_bytes!("../../plugins/prebuilt/watchlist.wasm");
const HIGH_VALUE: &[u8] = include_bytes!("../../plugins/prebuilt/high-value.wasm");
const JITA: u32 = 30_000_142;

struct House {
    feed: Arc<Feed>,
    plugins: Arc<Plugins>,
    _folder: TempDir,
}

impl House {
    fn open(encode: fn(&Killmail) -> Bytes) -> Self {
        let folder = TempDir::with_prefix("killstream-mechanisms-").unwrap();
        let config = store::config::Config {
            dir: folder.path().to_owned(),
            min_free_bytes: 0,
            ..store::config::Config::default()
        };
        let store = Store::open(config, encode).unwrap();
        let history = Arc::new(StoreHistory::new(&store));
        let engine = Engine::new(
            limits::Config { compile_here: true, ..limits::Config::default() },
            history,
            wire::killmail::json,
        )
        .unwrap();
        let plugins = Plugins::open(Arc::clone(&store), engine, Vec::new()).unwrap();
        // No tick: whoever wakes was rung.
        let config = feed::config::Config { tick_ms: 3_600_000, ..feed::config::Config::default() };
        let feed = Feed::start(store, Arc::clone(&plugins), Arc::default(), config).unwrap();
        Self { feed, plugins, _folder: folder }
    }

    async fn reader(&self, subscription: Subscription) -> Reader {
        let mut reader = Reader::open(self.feed.clone(), subscription, Start::default()).await.unwrap();
        assert!(matches!(reader.next().await, Some(Event::Opened { .. })));
        reader
    }

    async fn publish(&self, killmails: Vec<Killmail>) {
        let received_at_ms = began() * 1000;
        let incoming = |killmail| Incoming {
            killmail,
            origin: Origin::Live,
            received_at_ms,
            uploaded_at: None,
            age: AgeRule::ByUpload,
            zkb: ZkbRule::IfNewer,
        };
        self.feed.publish(killmails.into_iter().map(incoming).collect(), None).await.unwrap();
    }
}

async fn kept(reader: &mut Reader) -> Delivered {
    match tokio::time::timeout(PATIENCE, reader.next()).await.expect("a killmail in time") {
        Some(Event::Killmail { kept, .. }) => kept,
        other => panic!("a killmail, not {other:?}"),
    }
}

fn in_system(system: u32) -> Subscription {
    let mut filter = Filter::default();
    filter.set_ids(Dimension::System, vec![system]);
    Subscription { filter, ..Subscription::default() }
}

fn judged(name: &str, config: &str) -> Subscription {
    let plugin = Some(PluginUse { name: name.to_owned(), version: None, config: config.to_owned() });
    Subscription { plugin, ..Subscription::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killmail_rings_only_the_readers_concerned() {
    let house = House::open(wire::killmail::encode);
    let mut readers = Vec::new();
    for system in 0..200 {
        readers.push(house.reader(in_system(JITA + system)).await);
    }
    let mut everything = house.reader(Subscription::default()).await;
    let woken = || house.feed.counters().woken.load(Ordering::Relaxed);
    house.publish(vec![killmail(1000).system(JITA + 7).build()]).await;
    assert_eq!(woken(), 2, "the one of that system and the one of all");
    assert_eq!(kept(&mut readers[7]).await.entry.facts.killmail_id, 1000);
    assert_eq!(kept(&mut everything).await.entry.facts.killmail_id, 1000);
    drop(everything);
    house.publish(vec![killmail(1001).system(JITA + 1000).build()]).await;
    assert_eq!(woken(), 2, "nobody asked for that system, and who left is not rung");
    house
        .publish((0..200).map(|system| killmail(2000 + system).system(JITA + system).build()).collect())
        .await;
    assert_eq!(woken(), 202, "each its own");
    assert_eq!(
        house.feed.counters().delivered.load(Ordering::Relaxed),
        2,
        "and nobody was handed anything unasked"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializations_per_killmail_stay_one() {
    static ENCODED: AtomicU64 = AtomicU64::new(0);
    fn encode(killmail: &Killmail) -> Bytes {
        ENCODED.fetch_add(1, Ordering::Relaxed);
        wire::killmail::encode(killmail)
    }
    let house = House::open(encode);
    let mut readers = Vec::new();
    for _ in 0..50 {
        readers.push(house.reader(Subscription::default()).await);
    }
    house.publish((0..20).map(|n| killmail(3000 + n).build()).collect()).await;
    for _ in 0..20 {
        let first = kept(&mut readers[0]).await;
        for reader in &mut readers[1..] {
            let other = kept(reader).await;
            assert_eq!(
                wire::killmail::json(&other.entry).as_ptr(),
                wire::killmail::json(&first.entry).as_ptr(),
                "the very same bytes"
            );
        }
    }
    assert_eq!(ENCODED.load(Ordering::Relaxed), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_interest_only_its_killmails_are_judged() {
    const ALLIANCE: u32 = 99_003_581;
    let house = House::open(wire::killmail::encode);
    house.plugins.upload("watchlist", WATCHLIST, UploadOptions::default()).unwrap();
    let mut reader = house.reader(judged("watchlist", &format!(r#"{{"alliances":[{ALLIANCE}]}}"#))).await;
    let killmails = (0..60_u32).map(|n| {
        let alliance = if n % 12 == 0 { ALLIANCE } else { 99_000_000 + n };
        killmail(4000 + n).with(|killmail| killmail.victim.alliance_id = Some(alliance)).build()
    });
    house.publish(killmails.collect()).await;
    for expected in [4000, 4012, 4024, 4036, 4048] {
        let kept = kept(&mut reader).await;
        assert_eq!(kept.entry.facts.killmail_id, expected);
        assert_eq!(kept.annotations[0].0, "watchlist");
        assert!(kept.annotations[0].1.contains("99003581"), "{:?}", kept.annotations);
    }
    assert_eq!(house.plugins.engine().counts().calls, 5);
    assert_eq!(
        house.feed.counters().woken.load(Ordering::Relaxed),
        5,
        "the bell, too, knows what the plugin needs"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_equal_pairs_judge_once() {
    let house = House::open(wire::killmail::encode);
    house.plugins.upload("high-value", HIGH_VALUE, UploadOptions::default()).unwrap();
    let mut readers = Vec::new();
    for _ in 0..100 {
        readers.push(house.reader(judged("high-value", r#"{"min_isk":5e8}"#)).await);
    }
    let before = house.plugins.engine().counts().calls;
    house
        .publish(
            (0..10).map(|n| killmail(5000 + n).value(if n % 2 == 0 { 1e9 } else { 1e6 }).build()).collect(),
        )
        .await;
    for reader in &mut readers {
        for expected in [5000, 5002, 5004, 5006, 5008] {
            assert_eq!(kept(reader).await.entry.facts.killmail_id, expected);
        }
    }
    let calls = house.plugins.engine().counts().calls - before;
    assert!((5..=10).contains(&calls), "{calls} calls for 10 killmails and 100 readers");
}
