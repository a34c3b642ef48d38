//! Killmails into the store: how many a second in bulk, and how long one takes until it is safe on the disk.
//!
//! The baseline of a single commit is the least the disk allows: as many bytes appended to a plain file, then
//! `fdatasync`.

mod support;

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use killstream::domain::entry::Origin;
use killstream::sample::generate::{Generator, Made, Recipe};
use killstream::store::Store;
use support::{Ledger, empty_store, human, incoming, recipe};

/// Killmails of one batch in bulk.
const BULK: usize = 1_000;
/// About what one killmail costs on the disk: its record and its line of the log, bytes.
const ON_DISK: usize = 900;

/// Killmails without end: when a recipe is used up, the next days follow.
struct Endless {
    recipe: Recipe,
    generator: Generator,
}

impl Endless {
    fn new() -> Self {
        let recipe = Recipe { killmails: 100_000, ..recipe(100_000) };
        Self { generator: recipe.clone().generate(), recipe }
    }

    fn take(&mut self, count: usize) -> Vec<Made> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            match self.generator.next() {
                Some(made) => taken.push(made),
                None => {
                    self.recipe.first_id += 1_000_000;
                    self.recipe.from += 30 * 86_400;
                    self.recipe.seed += 1;
                    self.generator = self.recipe.clone().generate();
                }
            }
        }
        taken
    }
}

fn main() {
    let mut ledger = Ledger::new("append");
    let mut source = Endless::new();
    ledger.timed("generated", |iterations| {
        let begun = Instant::now();
        for _ in 0..iterations {
            std::hint::black_box(source.take(1));
        }
        begun.elapsed()
    });
    let (_dir, store) = empty_store();
    let append = |store: &Store, batch: Vec<Made>, origin: Origin| {
        let batch: Vec<_> = batch.into_iter().map(|made| incoming(made, origin)).collect();
        let begun = Instant::now();
        store.append(batch, None).expect("a batch is written");
        begun.elapsed()
    };
    let mut bulk = |iterations: u64| {
        (0..iterations).map(|_| append(&store, source.take(BULK), Origin::Backfill)).sum::<Duration>()
    };
    ledger.timed("bulk of 1,000", &mut bulk);
    ledger.timed("one killmail", |iterations| {
        (0..iterations).map(|_| append(&store, source.take(1), Origin::Live)).sum()
    });
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut file = File::create(dir.path().join("plain")).expect("a file");
    let bytes = vec![0x5a_u8; ON_DISK];
    ledger.measure("plain file, synced", || {
        file.write_all(&bytes).expect("the disk takes it");
        file.sync_data().expect("the disk keeps it");
    });
    ledger.table();
    ledger.alone("generated", |nanos| format!("{:.0} killmails a second", 1e9 / nanos));
    ledger.alone("bulk of 1,000", |nanos| {
        format!("{:.0} killmails a second, {} each", 1e9 * BULK as f64 / nanos, human(nanos / BULK as f64))
    });
    ledger.ratio("one killmail", "plain file, synced");
}
