//! Appending killmails to the store: throughput in bulk, and the time until a single one is on disk.
//!
//! The baseline for a single commit is the minimum that the disk allows: the same number of bytes appended to a
//! plain file, then `fdatasync`.

mod support;

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use killstream::domain::entry::Origin;
use killstream::sample::generate::{Generator, Made, Recipe};
use killstream::store::Store;
use support::{Ledger, empty_store, human, incoming, recipe};

/// Killmails per batch in bulk.
const BULK: usize = 1_000;
/// Approximate size of a record and a log entry, bytes.
const ON_DISK: usize = 900;

/// An endless supply of killmails: when a recipe is used up, the following days are generated.
struct Endless {
    recipe: Recipe,
    generator: Generator,
}

impl Endless {
    fn new() -> Self {
        let recipe = Recipe { killmails: 100_000, ..recipe(100_000) };
        Self { generator: recipe.clone().generate(), recipe }
    }

    fn generate(&mut self, count: usize) -> Vec<Made> {
        let mut batch = Vec::with_capacity(count);
        while batch.len() < count {
            match self.generator.next() {
                Some(made) => batch.push(made),
                None => {
                    self.recipe.first_id += 1_000_000;
                    self.recipe.from += 30 * 86_400;
                    self.recipe.seed += 1;
                    self.generator = self.recipe.clone().generate();
                }
            }
        }
        batch
    }
}

fn main() {
    let mut ledger = Ledger::new("append");
    let mut source = Endless::new();
    ledger.timed("generated", |iterations| {
        let started = Instant::now();
        for _ in 0..iterations {
            std::hint::black_box(source.generate(1));
        }
        started.elapsed()
    });
    let (_dir, store) = empty_store();
    let append = |store: &Store, batch: Vec<Made>, origin: Origin| {
        let batch: Vec<_> = batch.into_iter().map(|made| incoming(made, origin)).collect();
        let started = Instant::now();
        store.append(batch, None).expect("appended");
        started.elapsed()
    };
    let mut bulk = |iterations: u64| {
        (0..iterations).map(|_| append(&store, source.generate(BULK), Origin::Backfill)).sum::<Duration>()
    };
    ledger.timed("bulk of 1,000", &mut bulk);
    ledger.timed("one killmail", |iterations| {
        (0..iterations).map(|_| append(&store, source.generate(1), Origin::Live)).sum()
    });
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut file = File::create(dir.path().join("plain")).expect("created");
    let bytes = vec![0x5a_u8; ON_DISK];
    ledger.measure("plain file, synced", || {
        file.write_all(&bytes).expect("written");
        file.sync_data().expect("synced");
    });
    ledger.table();
    ledger.alone("generated", |nanos| format!("{:.0} killmails a second", 1e9 / nanos));
    ledger.alone("bulk of 1,000", |nanos| {
        format!("{:.0} killmails a second, {} each", 1e9 * BULK as f64 / nanos, human(nanos / BULK as f64))
    });
    ledger.ratio("one killmail", "plain file, synced");
}
