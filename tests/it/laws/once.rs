//! Law 2, once, in order: whatever the interleaving of publish, open, filter growth, stop and resume, a
//! reader yields each accepted sequence number exactly once.
//!
//! The expectation is computed from the log alone: the position of each entry, and the filter that applied
//! there.
//!
//! Must not know: pages, wakeups, the newest entries in memory; only what a transport sees.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use killstream::domain::entry::{Origin, SharedEntry};
use killstream::domain::filter::Filter;
use killstream::domain::id::Seq;
use killstream::domain::killmail::Killmail;
use killstream::domain::span::Span;
use killstream::domain::subscription::Subscription;
use killstream::domain::term::Dimension;
use killstream::feed::start::Start;
use killstream::feed::{self, Feed};
use killstream::plugin::engine::Engine;
use killstream::plugin::history::NoHistory;
use killstream::plugin::limits;
use killstream::plugins::Plugins;
use killstream::store::incoming::{AgeRule, Appended, Incoming, ZkbRule};
use killstream::store::{self, Store};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::laws::client::Client;
use crate::laws::{Steps, cases};
use crate::support::killmail::esi;
use crate::support::strategy;

pub static STEPS: Steps = Steps::new("once, in order");

/// Base of the times of killmails, unix seconds; the id is added.
const EPOCH: i64 = 1_700_000_000;
/// The first killmail id.
const IDS: u32 = 1000;

/// One step. Numbers pick a reader or killmail, modulo the number there are.
#[derive(Debug, Clone)]
enum Step {
    /// New killmails, each possibly late or from an archive.
    Publish(Vec<(bool, bool)>),
    /// A span is added from archives.
    Span,
    /// A published killmail is revised with more points.
    Revise(usize),
    /// A reader opens with a filter, the window of a preload, and perhaps a maximum age.
    Open { filter: Filter, preload: Option<i64>, any_age: bool },
    /// A client takes this many events.
    Read(usize, usize),
    /// A call for the next event is cancelled, perhaps while something is published.
    Cut { reader: usize, publish: bool },
    /// A client disconnects and resumes with the last id it saw. It may have seen only a part of a batch, or
    /// the id may have come with a ping.
    Resume { reader: usize, seen: usize, ping: bool },
    /// A client's filter grows.
    Grow(usize, Filter),
}

fn step() -> impl Strategy<Value = Step> {
    let filter = move || strategy::filter(EPOCH + i64::from(IDS)..EPOCH + i64::from(IDS) + 60);
    let window = || prop::option::of(EPOCH + i64::from(IDS) - 20..EPOCH + i64::from(IDS) + 60);
    // Most filters match little. These match most killmails, so that preloads have batches to be cut.
    let broad = || {
        (90_000_002..90_000_008_u32)
            .prop_map(|end| with_ids(Dimension::Character, (90_000_000..end).collect()))
    };
    let wanted = move || prop_oneof![filter(), broad()];
    let kind = || (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    prop_oneof![
        4 => vec(kind(), 1..8).prop_map(Step::Publish),
        1 => Just(Step::Span),
        1 => any::<usize>().prop_map(Step::Revise),
        2 => (wanted(), window(), any::<bool>()).prop_map(|(filter, preload, any_age)| Step::Open { filter, preload, any_age }),
        4 => (any::<usize>(), 1..6_usize).prop_map(|(reader, events)| Step::Read(reader, events)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(reader, publish)| Step::Cut { reader, publish }),
        2 => (any::<usize>(), 1..3_usize, prop::bool::weighted(0.3)).prop_map(|(reader, seen, ping)| Step::Resume { reader, seen, ping }),
        1 => (any::<usize>(), filter()).prop_map(|(reader, filter)| Step::Grow(reader, filter)),
    ]
}

fn with_ids(dimension: Dimension, ids: Vec<u32>) -> Filter {
    let mut filter = Filter::default();
    filter.set_ids(dimension, ids);
    filter
}

/// Killmails that do not arrive in the order of their ids.
fn killmails() -> impl Strategy<Value = Vec<Killmail>> {
    let ids = Just((IDS..IDS + 60).collect::<Vec<u32>>()).prop_shuffle();
    (vec(strategy::killmail(1..2, EPOCH), 60), ids).prop_map(|(killmails, ids)| {
        let placed = |(killmail, id): (Killmail, u32)| Killmail {
            killmail_id: id,
            time: killmail.time + i64::from(id),
            ..killmail
        };
        killmails.into_iter().zip(ids).map(placed).collect()
    })
}

/// A feed over a small store, so that pages end and entries have to be read from disk.
struct Case {
    feed: Arc<Feed>,
    store: Arc<Store>,
    log: Vec<SharedEntry>,
    spans: Vec<Seq>,
    waiting: std::vec::IntoIter<Killmail>,
    clients: Vec<Client>,
    _folder: TempDir,
}

fn json(killmail: &Killmail) -> Bytes {
    Bytes::from(esi(killmail).to_string())
}

fn open_store(folder: &TempDir) -> Arc<Store> {
    let config = store::config::Config {
        dir: folder.path().to_owned(),
        tail_entries: 6,
        min_free_bytes: 0,
        ..Default::default()
    };
    Store::open(config, json).unwrap()
}

/// One engine for all cases: no plugin is used.
fn engine() -> Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    let make = || {
        Engine::new(
            limits::Config { compile_here: true, ..limits::Config::default() },
            Arc::new(NoHistory),
            |entry| json(&entry.killmail),
        )
        .unwrap()
    };
    Arc::clone(ENGINE.get_or_init(make))
}

impl Case {
    fn new(killmails: Vec<Killmail>) -> Self {
        let folder = TempDir::with_prefix("killstream-once-").unwrap();
        let store = open_store(&folder);
        let plugins = Plugins::open(Arc::clone(&store), engine(), Vec::new()).unwrap();
        let small = feed::config::Config {
            tick_ms: 20,
            page_max: 3,
            page_bytes: 4000,
            scan_max: 5,
            batch_max: 3,
            ..feed::config::Config::default()
        };
        let config = feed::config::Config { batch_bytes: 4000, batch_pause_ms: 0, ..small };
        let feed = Feed::start(Arc::clone(&store), plugins, Arc::default(), config).unwrap();
        Self {
            feed,
            store,
            log: Vec::new(),
            spans: Vec::new(),
            waiting: killmails.into_iter(),
            clients: Vec::new(),
            _folder: folder,
        }
    }

    fn batch(&mut self, kinds: &[(bool, bool)]) -> Vec<Incoming> {
        let batch = kinds.iter().zip(self.waiting.by_ref()).map(|((late, archive), killmail)| {
            let origin = if *archive { Origin::Backfill } else { Origin::Live };
            let received_at_ms = (killmail.time + if *late { 4000 } else { 5 }) * 1000;
            STEPS.add("late", u64::from(*late));
            STEPS.add("from an archive", u64::from(*archive));
            Incoming {
                killmail,
                origin,
                received_at_ms,
                uploaded_at: None,
                age: AgeRule::ByUpload,
                zkb: ZkbRule::Always,
            }
        });
        batch.collect()
    }

    async fn publish(&mut self, kinds: &[(bool, bool)]) {
        let batch = self.batch(kinds);
        for one in self.feed.publish(batch, None).await.unwrap() {
            let Appended::New(entry) = one else { panic!("{one:?}") };
            self.log.push(entry);
        }
        STEPS.count("publish");
    }

    /// Revises a killmail with more points, on which no filter depends.
    async fn revise(&mut self, pick: usize) {
        if self.log.is_empty() {
            return;
        }
        let mut killmail = self.log[pick % self.log.len()].killmail.clone();
        let Some(zkb) = killmail.zkb.as_mut() else { return };
        zkb.points = Some(1000 + i64::try_from(pick % 1_000_000).unwrap());
        let (origin, age, zkb) = (Origin::Live, AgeRule::ByUpload, ZkbRule::Always);
        let incoming =
            Incoming { received_at_ms: killmail.time * 1000, killmail, origin, uploaded_at: None, age, zkb };
        for one in self.feed.publish(vec![incoming], None).await.unwrap() {
            assert!(matches!(one, Appended::Revised(_) | Appended::Known(_)), "{one:?}");
            STEPS.add("revision", u64::from(matches!(one, Appended::Revised(_))));
        }
    }

    async fn step(&mut self, step: Step) {
        let count = self.clients.len().max(1);
        match step {
            Step::Publish(kinds) => self.publish(&kinds).await,
            Step::Span => {
                self.feed.publish_span(Span::at(EPOCH), None).await.unwrap();
                self.spans.push(self.feed.head());
                STEPS.count("span");
            }
            Step::Revise(pick) => self.revise(pick).await,
            Step::Open { filter, preload, any_age } => {
                let subscription = Subscription {
                    filter,
                    max_age_secs: if any_age { 0 } else { 3600 },
                    ..Subscription::default()
                };
                let start = Start { preload_since: preload, ..Start::default() };
                self.clients.push(Client::open(&self.feed, subscription, start).await);
                STEPS.count("open");
            }
            _ if self.clients.is_empty() => {}
            Step::Read(pick, events) => {
                for _ in 0..events {
                    self.clients[pick % count].take().await;
                }
            }
            Step::Cut { reader, publish } => self.cut(reader % count, publish).await,
            Step::Resume { reader, seen, ping } => {
                self.clients[reader % count].resume(&self.feed, seen, ping).await
            }
            Step::Grow(pick, filter) => self.clients[pick % count].grow(&filter),
        }
    }

    /// Cancels a call for the next event, at once or when something is published. An event it returned by
    /// then counts.
    async fn cut(&mut self, pick: usize, publish: bool) {
        STEPS.count("cut");
        let batch = self.batch(if publish { &[(false, false)] } else { &[] });
        let (feed, again) = (Arc::clone(&self.feed), batch.clone());
        let client = &mut self.clients[pick];
        let published = tokio::select! {
            biased;
            event = client.reader.next() => {
                client.record(event.unwrap());
                None
            }
            appended = feed.publish(batch, None) => Some(appended.unwrap()),
        };
        // If the reader was first, the writer may have accepted the batch all the same. Then it is known.
        let appended = match published {
            Some(appended) => appended,
            None => self.feed.publish(again, None).await.unwrap(),
        };
        for one in appended {
            match one {
                Appended::New(entry) => self.log.push(entry),
                Appended::Known(seq) => self.log.push(self.store.entry(seq).unwrap().unwrap()),
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn run(killmails: Vec<Killmail>, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut case = Case::new(killmails);
    case.publish(&[(false, false); 15]).await;
    for step in steps {
        case.step(step).await;
    }
    for client in &mut case.clients {
        client.drain(&case.feed).await;
        let got: Vec<u32> = client.got.iter().map(|kept| kept.entry.facts.killmail_id).collect();
        prop_assert_eq!(
            got,
            client.expected(&case.log),
            "opened at {}, filters {:?}",
            client.opened,
            &client.filters
        );
        let spans: Vec<Seq> = case.spans.iter().copied().filter(|at| *at > client.opened).collect();
        prop_assert_eq!(&client.spans, &spans, "opened at {}", client.opened);
    }
    Ok(())
}

#[test]
fn once_in_order() {
    let runtime = Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::with_cases(cases())
    });
    let tried = runner.run(&(killmails(), vec(step(), 5..40)), |(killmails, steps)| {
        runtime.block_on(run(killmails, steps))
    });
    tried.unwrap_or_else(|e| panic!("{e}"));
    let stops = ["stop", "resume", "resume in a preload", "cut within a batch", "cut", "growth"];
    let kinds = ["publish", "span", "open", "revision", "late", "from an archive", "preloaded", "live"];
    STEPS.report(&[&stops[..], &kinds].concat());
}
