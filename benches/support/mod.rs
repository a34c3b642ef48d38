//! Shared by the benches: a ledger of medians that prints ratios, and stores filled with generated killmails.
//!
//! Must not know: what is measured.
#![allow(dead_code, reason = "each bench is a separate crate and uses a part of this")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use killstream::domain::entry::{Entry, Origin};
use killstream::domain::filter::Filter;
use killstream::domain::id::Seq;
use killstream::domain::killmail::Killmail;
use killstream::domain::term::Dimension;
use killstream::sample::generate::{Made, Recipe};
use killstream::store::config::Config;
use killstream::store::incoming::{AgeRule, Incoming, ZkbRule};
use killstream::store::{Store, facts};
use killstream::wire::killmail::encode;
use tempfile::TempDir;

/// Killmails of a full run; `KILLSTREAM_BENCH_KILLMAILS` overrides it.
pub const KILLMAILS: u64 = 1_000_000;
/// Generated killmails per day.
pub const PER_DAY: f64 = 14_400.0;

/// The number of killmails of this run.
pub fn killmails() -> u64 {
    std::env::var("KILLSTREAM_BENCH_KILLMAILS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLMAILS)
}

/// Runs measurements with criterion and keeps the median of each, in nanoseconds per iteration.
pub struct Ledger {
    criterion: Criterion,
    name: &'static str,
    medians: BTreeMap<String, f64>,
}

impl Ledger {
    /// A ledger for one bench, configured by the command line.
    pub fn new(name: &'static str) -> Self {
        let criterion = Criterion::default()
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2))
            .sample_size(30)
            .configure_from_args();
        Self { criterion, name, medians: BTreeMap::new() }
    }

    /// Measures `work`, called once per iteration.
    pub fn measure<T>(&mut self, id: &str, mut work: impl FnMut() -> T) {
        self.timed(id, |iterations| {
            let started = Instant::now();
            for _ in 0..iterations {
                black_box(work());
            }
            started.elapsed()
        });
    }

    /// Measures with the time that `work` returns for a number of iterations.
    pub fn timed(&mut self, id: &str, mut work: impl FnMut(u64) -> Duration) {
        let mut samples = Vec::new();
        let mut group = self.criterion.benchmark_group(self.name);
        group.bench_function(BenchmarkId::from_parameter(id), |bencher| {
            bencher.iter_custom(|iterations| {
                let took = work(iterations);
                samples.push(took.as_nanos() as f64 / iterations as f64);
                took
            });
        });
        group.finish();
        samples.sort_by(f64::total_cmp);
        if let Some(median) = samples.get(samples.len() / 2) {
            self.medians.insert(id.to_owned(), *median);
        }
    }

    /// The median of a measurement in nanoseconds; `None` if the command line excluded it.
    pub fn nanos(&self, id: &str) -> Option<f64> {
        self.medians.get(id).copied()
    }

    /// Prints how many times faster one measurement is than another.
    pub fn ratio(&self, ours: &str, baseline: &str) {
        if let (Some(a), Some(b)) = (self.nanos(ours), self.nanos(baseline)) {
            println!("| {ours} | {} | {baseline} | {} | {:.2}x |", human(a), human(b), b / a);
        }
    }

    /// Prints how many times faster a measurement is than a published figure.
    pub fn against(&self, ours: &str, published: &str, nanos: f64) {
        if let Some(a) = self.nanos(ours) {
            println!("| {ours} | {} | {published} | {} | {:.2}x |", human(a), human(nanos), nanos / a);
        }
    }

    /// Prints a measurement that has no baseline.
    pub fn alone(&self, ours: &str, what: impl FnOnce(f64) -> String) {
        if let Some(a) = self.nanos(ours) {
            println!("| {ours} | {} | {} | | |", human(a), what(a));
        }
    }

    /// Prints the head of the table that the other methods fill.
    pub fn table(&mut self) {
        self.criterion.final_summary();
        println!("\n| {} | median | baseline | median | faster |\n|---|---|---|---|---|", self.name);
    }
}

/// Formats nanoseconds in a readable unit.
pub fn human(nanos: f64) -> String {
    match nanos {
        n if n < 1e3 => format!("{n:.1} ns"),
        n if n < 1e6 => format!("{:.2} us", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

/// Resident memory of this process, bytes.
pub fn rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or_default() * 1024
}

/// Killmails of realistic density, none of them late or revised, so that upload order is id order.
pub fn recipe(killmails: u64) -> Recipe {
    Recipe { killmails, days: killmails as f64 / PER_DAY, late: 0.0, revised: 0.0, ..Recipe::default() }
}

/// The end of the time span of a recipe, unix seconds.
pub fn end_of(recipe: &Recipe) -> i64 {
    recipe.from + (recipe.days * 86_400.0) as i64
}

/// A generated killmail as it comes from a source.
pub fn incoming(made: Made, origin: Origin) -> Incoming {
    let received_at_ms = (made.uploaded_at + 3) * 1000;
    let uploaded_at = Some(made.uploaded_at);
    Incoming {
        killmail: made.killmail,
        origin,
        received_at_ms,
        uploaded_at,
        age: AgeRule::ByUpload,
        zkb: ZkbRule::IfNewer,
    }
}

/// An empty store, in a folder that is removed when the first member is dropped.
pub fn empty_store() -> (TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = Config { dir: dir.path().to_owned(), ..Config::default() };
    let store = Store::open(config, encode).expect("an empty store opens");
    (dir, store)
}

/// A store with the killmails of a recipe; calls `each` for every one of them.
pub fn filled_store(recipe: Recipe, origin: Origin, mut each: impl FnMut(&Made)) -> (TempDir, Arc<Store>) {
    let (dir, store) = empty_store();
    let (killmails, started) = (recipe.killmails, Instant::now());
    let mut batch = Vec::with_capacity(1_000);
    for made in recipe.generate() {
        each(&made);
        batch.push(incoming(made, origin));
        if batch.len() == 1_000 {
            store.append(std::mem::replace(&mut batch, Vec::with_capacity(1_000)), None).expect("appended");
        }
    }
    store.append(batch, None).expect("appended");
    let secs = started.elapsed().as_secs_f64();
    eprintln!(
        "{killmails} killmails generated and appended in {secs:.1} s ({:.0} per second)",
        killmails as f64 / secs
    );
    (dir, store)
}

/// An entry that does not come from a store.
pub fn entry(seq: u64, killmail: Killmail) -> Arc<Entry> {
    let facts = facts::facts(&killmail);
    Arc::new(Entry {
        seq: Seq(seq),
        rev: 0,
        origin: Origin::Live,
        received_at_ms: killmail.time * 1000,
        uploaded_at: Some(killmail.time),
        age_secs: 0,
        killmail,
        facts,
        json: std::sync::OnceLock::new(),
    })
}

/// A filter for any of these ids.
pub fn filter_of(dimension: Dimension, ids: &[u32]) -> Filter {
    let mut filter = Filter::default();
    filter.set_ids(dimension, ids.to_vec());
    filter
}
