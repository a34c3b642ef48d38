//! One killmail to 100, 1,000 and 10,000 readers: which readers are woken, and what each of them finds.
//!
//! With wake-ups, only the readers whose terms match read the log. Without, every reader does (`walk`), or queries the
//! bitmaps (`select`), like a server without a reverse index. Sockets are not included. The last measurement is the
//! time from `publish` until all woken readers have the killmail, including writing to disk.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use killstream::domain::entry::{Origin, SharedEntry};
use killstream::domain::filter::Filter;
use killstream::domain::id::Seq;
use killstream::domain::subscription::Subscription;
use killstream::domain::term::Dimension;
use killstream::feed::Feed;
use killstream::feed::config::Config;
use killstream::feed::event::Event;
use killstream::feed::reader::Reader;
use killstream::feed::start::Start;
use killstream::feed::wakeups::{ReaderId, Wakeups};
use killstream::plugin::engine::Engine;
use killstream::plugin::history::NoHistory;
use killstream::plugin::limits;
use killstream::plugins::Plugins;
use killstream::sample::generate::Recipe;
use killstream::sample::rng::Dice;
use killstream::store::Store;
use killstream::store::facts::facts;
use killstream::store::incoming::Incoming;
use killstream::store::query::PageQuery;
use killstream::tasks;
use killstream::wire::killmail::json;
use support::{Ledger, empty_store, filled_store, filter_of, incoming, recipe};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

const READERS: [usize; 3] = [100, 1_000, 10_000];
/// How many different killmails are used in turn.
const NEWS: u64 = 512;

/// Realistic filters: a third has 1 to 10 systems, the others 1 to 1,000 characters, most of them few.
fn filters(count: usize) -> Vec<Filter> {
    let mut dice = Dice::new(11);
    let generator = Recipe::default().generate();
    let characters: Vec<u32> = generator.characters().iter().map(|c| c.id).collect();
    let systems: Vec<u32> = Recipe { killmails: 20_000, ..Recipe::default() }
        .generate()
        .map(|m| m.killmail.solar_system_id)
        .collect();
    (0..count)
        .map(|_| {
            if dice.chance(0.33) {
                let ids: Vec<u32> = (0..1 + dice.below(10)).map(|_| dice.pick(&systems)).collect();
                return filter_of(Dimension::System, &ids);
            }
            let most = 10_f64.powf(3.0 * dice.fraction().powi(2)) as u32;
            let ids: Vec<u32> = (0..1 + dice.below(most)).map(|_| dice.pick(&characters)).collect();
            filter_of(Dimension::Character, &ids)
        })
        .collect()
}

fn page_query(filter: &Filter, seq: Seq) -> PageQuery<'_> {
    let (limit, limit_bytes) = (64, 32 * 1024);
    PageQuery {
        filter,
        interest: None,
        after: Seq(seq.0 - 1),
        head: seq,
        max_age_secs: 0,
        limit,
        limit_bytes,
        scan: 65_536,
    }
}

/// What a woken reader does: reads the entry, if its filter matches. Returns the JSON's size, bytes.
fn read_page(store: &Store, filter: &Filter, seq: Seq) -> usize {
    let page =
        store.read_page_from_memory(&page_query(filter, seq)).expect("the newest entries are in memory");
    page.entries.iter().map(|entry| json(entry).len()).sum()
}

fn select(store: &Store, filter: &Filter, seq: Seq) -> usize {
    let page = store.select_page(&page_query(filter, seq)).expect("memory answers");
    page.entries.iter().map(|entry| json(entry).len()).sum()
}

fn main() {
    let mut ledger = Ledger::new("fanout");
    let (_dir, store) = filled_store(recipe(support::killmails().min(100_000)), Origin::Live, |_| ());
    let head = store.head().0;
    let news: Vec<SharedEntry> =
        (head - NEWS + 1..=head).filter_map(|seq| store.entry(Seq(seq)).expect("kept")).collect();
    for readers in READERS {
        let filters = filters(readers);
        let wakeups = Wakeups::default();
        for filter in &filters {
            let (reader_id, _ring) = wakeups.register();
            wakeups.watch(reader_id, filter.wakeup_ids().as_deref());
        }
        let mut found: Vec<ReaderId> = Vec::new();
        let matching = check_agreement(&store, &wakeups, &filters, &news);
        println!(
            "{readers} readers: {matching:.1} of them match a killmail, {} KiB of reverse index",
            wakeups.bytes() / 1024
        );
        let mut at = 0;
        let mut next = || {
            at = (at + 1) % news.len();
            &news[at]
        };
        ledger.measure(&format!("wakeups, {readers}"), || {
            let entry = next();
            wakeups.wake(&entry.facts, &mut found);
            found
                .iter()
                .map(|reader_id| read_page(&store, &filters[*reader_id as usize], entry.seq))
                .sum::<usize>()
        });
        ledger.measure(&format!("all walk, {readers}"), || {
            let entry = next();
            filters.iter().map(|filter| read_page(&store, filter, entry.seq)).sum::<usize>()
        });
        ledger.measure(&format!("all select, {readers}"), || {
            let entry = next();
            filters.iter().map(|filter| select(&store, filter, entry.seq)).sum::<usize>()
        });
    }
    for readers in READERS {
        measure_delivery(&mut ledger, readers);
    }
    ledger.table();
    for readers in READERS {
        ledger.ratio(&format!("delivered, {readers}"), &format!("written, {readers}"));
    }
    for readers in READERS {
        ledger.ratio(&format!("wakeups, {readers}"), &format!("all walk, {readers}"));
        ledger.ratio(&format!("wakeups, {readers}"), &format!("all select, {readers}"));
    }
}

/// Checks that wake-ups and walk find the same readers. Returns how many match a killmail on average.
fn check_agreement(store: &Store, wakeups: &Wakeups, filters: &[Filter], news: &[SharedEntry]) -> f64 {
    let mut found = Vec::new();
    let mut matching = 0;
    for entry in &news[..news.len().min(64)] {
        wakeups.find(entry.facts.terms(), &mut found);
        let woken: usize = found
            .iter()
            .filter(|reader_id| read_page(store, &filters[**reader_id as usize], entry.seq) > 0)
            .count();
        let all = filters.iter().filter(|filter| read_page(store, filter, entry.seq) > 0).count();
        assert_eq!(woken, all, "every matching reader is woken");
        matching += woken;
    }
    matching as f64 / news.len().min(64) as f64
}

/// Counts what the reader tasks receive.
#[derive(Default)]
struct Deliveries {
    killmails: AtomicU64,
    more: Notify,
}

/// Opens readers that count what they receive.
async fn open_readers(feed: &Arc<Feed>, filters: &[Filter], deliveries: &Arc<Deliveries>) {
    for filter in filters {
        let subscription = Subscription { filter: filter.clone(), plugin: None, max_age_secs: 0 };
        let mut reader = Reader::open(feed.clone(), subscription, Start::default()).await.expect("it opens");
        let deliveries = Arc::clone(deliveries);
        drop(tasks::spawn("bench-reader", async move {
            while let Some(event) = reader.next().await {
                if let Event::Killmail { kept, .. } = event {
                    std::hint::black_box(json(&kept.entry).len());
                    deliveries.killmails.fetch_add(1, Ordering::Relaxed);
                    deliveries.more.notify_one();
                }
            }
        }));
    }
}

/// Measures the time from `publish` until every matching reader has the killmail, including the sync to disk, and until
/// `publish` returns.
fn measure_delivery(ledger: &mut Ledger, readers: usize) {
    let runtime = Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (_dir, store) = empty_store();
    let filters = filters(readers);
    let deliveries = Arc::new(Deliveries::default());
    let feed = runtime.block_on(async {
        let engine = Engine::new(limits::Config::default(), Arc::new(NoHistory), json).expect("an engine");
        let plugins = Plugins::open(Arc::clone(&store), engine, Vec::new()).expect("no plugins");
        let feed = Feed::start(store, plugins, Arc::default(), Config::default()).expect("a writer");
        open_readers(&feed, &filters, &deliveries).await;
        feed
    });
    let mut news = recipe(100_000).generate();
    for (id, whole) in [("written", false), ("delivered", true)] {
        ledger.timed(&format!("{id}, {readers}"), |iterations| {
            let mut took = Duration::ZERO;
            for _ in 0..iterations {
                let made = news.next().expect("the generator has enough killmails");
                let known = facts(&made.killmail);
                let matching = filters.iter().filter(|filter| filter.accepts(&known)).count() as u64;
                let batch = vec![incoming(made, Origin::Live)];
                took += runtime.block_on(publish(&feed, batch, &deliveries, matching, whole));
            }
            took
        });
    }
    feed.close();
    end(runtime);
}

async fn publish(
    feed: &Feed,
    batch: Vec<Incoming>,
    deliveries: &Deliveries,
    matching: u64,
    whole: bool,
) -> Duration {
    let before = deliveries.killmails.load(Ordering::Relaxed);
    let begun = Instant::now();
    feed.publish(batch, None).await.expect("it is written");
    let written = begun.elapsed();
    while deliveries.killmails.load(Ordering::Relaxed) < before + matching {
        deliveries.more.notified().await;
    }
    if whole { begun.elapsed() } else { written }
}

fn end(runtime: Runtime) {
    runtime.shutdown_timeout(Duration::from_secs(5));
}
