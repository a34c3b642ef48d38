//! The store: every killmail is a record and a log entry on disk, and is found through bitmaps in memory.
//!
//! There is one writer. It commits a transaction, syncs, publishes to memory, and only then responds. Readers
//! never wait for a sync: what they need in memory is behind a lock that is held for microseconds. Guarded by
//! law 1 (select is accept), law 3 (prefix) and law 4 (old bytes speak).
//!
//! Must not know: verdicts of plugins, connections, HTTP, the JSON of any transport (the encoder is an
//! argument).

pub(crate) mod append;
pub(crate) mod arrival;
pub mod config;
pub(crate) mod disk_space;
pub(crate) mod engine;
pub mod error;
pub mod facts;
pub mod format;
pub(crate) mod history;
pub mod incoming;
pub(crate) mod index;
pub(crate) mod keys;
pub(crate) mod mirror;
pub(crate) mod open;
pub(crate) mod plugins;
pub(crate) mod progress;
pub mod query;
pub(crate) mod read;
pub mod refused;
pub(crate) mod snapshots;
pub(crate) mod spans;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;
pub(crate) mod transaction;
pub mod upkeep;
pub(crate) mod wanted;
pub(crate) mod webhooks;
pub(crate) mod whole_file;
pub(crate) mod writer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::domain::id::{Epoch, Seq};
use crate::store::config::Config;
use crate::store::engine::Engine;
use crate::store::engine::meta::{Numbers, Spans};
use crate::store::format::record::Codec;
use crate::store::incoming::Encoder;
use crate::store::index::SHARDS;
use crate::store::index::resident::Resident;
use crate::store::index::snapshot::Mark;
use crate::store::mirror::file_numbers::FileNumbers;
use crate::store::refused::list::RefusedList;
use crate::store::snapshots::Snapshots;
use crate::store::writer::Writer;

/// Statistics of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Killmails stored.
    pub killmails: u64,
    /// Solar systems with at least one killmail.
    pub systems: u64,
    /// Terms that match at least one killmail.
    pub terms: u64,
    /// Memory the index uses, bytes, estimated.
    pub index_bytes: u64,
    /// Size of the engine's files, bytes.
    pub disk_bytes: u64,
    /// Revisions since the store was created.
    pub revised: u64,
    /// Killmails that came again with another body, since the store was created.
    pub conflicts: u64,
    /// Documents refused since the store was created.
    pub refused: u64,
    /// Time of the killmail with the smallest id, unix seconds.
    pub oldest: Option<i64>,
    /// Time of the killmail with the greatest id, unix seconds.
    pub newest: Option<i64>,
    /// Entries kept in memory, ready to send.
    pub tail_entries: u64,
    /// Records that scrubbing read since the store was opened.
    pub scrubbed: u64,
    /// Killmails whose record it found damaged.
    pub damaged: u64,
}

/// What scrubbing found so far.
#[derive(Debug, Default)]
struct ScrubProgress {
    /// Records read since the store was opened.
    records: u64,
    /// Killmails whose record was damaged when it was last read.
    damaged: BTreeSet<u32>,
}

/// An open store.
pub struct Store {
    config: Config,
    encode: Encoder,
    epoch: Epoch,
    engine: Engine,
    codec: Codec,
    resident: Arc<RwLock<Resident>>,
    writer: Mutex<Writer>,
    refused: Mutex<RefusedList>,
    spans: RwLock<Spans>,
    files: RwLock<FileNumbers>,
    snapshots: Mutex<Snapshots>,
    revised: AtomicU64,
    conflicts: AtomicU64,
    scrubbed: Mutex<ScrubProgress>,
}

impl Store {
    /// The identity of this store.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The number of the newest entry; 0 in an empty store.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.resident.read().index.head()
    }

    /// How many killmails are stored.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.resident.read().index.count()
    }

    /// Entries up to this number may have been removed.
    #[must_use]
    pub const fn horizon(&self) -> Seq {
        Seq::ZERO
    }

    /// The statistics as of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let refused = self.refused.lock().total();
        let (scrubbed, damaged) = {
            let scrubbed = self.scrubbed.lock();
            (scrubbed.records, scrubbed.damaged.len() as u64)
        };
        let disk_bytes = self.engine.size_bytes();
        // One shard at a time: summing up all terms takes milliseconds, too long to hold the lock.
        let index_bytes: u64 = (0..SHARDS).map(|shard| self.resident.read().index.shard_bytes(shard)).sum();
        let resident = self.resident.read();
        Stats {
            killmails: resident.index.count(),
            systems: resident.index.systems(),
            terms: resident.index.terms(),
            index_bytes: index_bytes + resident.index.other_bytes(),
            disk_bytes,
            revised: self.revised.load(Ordering::Relaxed),
            conflicts: self.conflicts.load(Ordering::Relaxed),
            refused,
            oldest: resident.index.oldest_time(),
            newest: resident.index.newest_time(),
            tail_entries: resident.tail.len() as u64,
            scrubbed,
            damaged,
        }
    }

    fn mark(&self, numbers: &Numbers) -> Mark {
        Mark { epoch: self.epoch, head: Seq(numbers.head), rev: numbers.rev }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let snapshots = std::mem::take(self.snapshots.get_mut());
        let numbers = self.writer.get_mut().numbers;
        snapshots.finish(self.engine.dir(), &self.resident, self.mark(&numbers));
    }
}
