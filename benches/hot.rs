//! `killmail/:id` for a recent killmail: the lookup in memory, and its cached JSON.
//!
//! The baselines: an older killmail that is read from the disk and encoded, and a recent one that is only encoded.

mod support;

use killstream::domain::entry::Origin;
use killstream::wire::killmail::{encode, json};
use support::{Ledger, filled_store, recipe};

/// More than the tail keeps, so that some are only on disk.
const KILLMAILS: u64 = 30_000;
/// Upstream's own target for a cached read.
const UPSTREAM_NANOS: f64 = 50_000.0;

fn main() {
    let mut ledger = Ledger::new("hot");
    let mut ids = Vec::new();
    let (_dir, store) =
        filled_store(recipe(KILLMAILS), Origin::Live, |made| ids.push(made.killmail.killmail_id));
    let recent = &ids[ids.len() - 1_000..];
    let old = &ids[..10_000];
    let mut at = 0;
    let mut next = move |ids: &[u32]| {
        at = (at + 7_919) % ids.len();
        ids[at]
    };
    ledger.measure("recent", || {
        let entry = store.recent(next(recent)).expect("in the tail");
        json(&entry)
    });
    ledger.measure("from the disk", || {
        let entry = store.killmail(next(old)).expect("read").expect("stored");
        json(&entry)
    });
    ledger.measure("encoded again", || {
        let entry = store.recent(next(recent)).expect("in the tail");
        encode(&entry.killmail)
    });
    ledger.table();
    ledger.ratio("recent", "from the disk");
    ledger.ratio("recent", "encoded again");
    ledger.against("recent", "upstream's target for a cached read", UPSTREAM_NANOS);
}
