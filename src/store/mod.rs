//! Memory: every killmail kept as a record and a log entry on disk, found through bitmaps in memory.
//!
//! One writer appends (transaction, flush, sync, then memory, then the answer); readers never wait for a disk that syncs: what they
//! need of memory stands behind a lock held for microseconds. Guarded by law 1 (select is accept), law 3 (prefix), law 4 (old bytes speak).
//!
//! Must not know: plugins' judgment, connections, HTTP, the JSON of any door (the encoder is handed in).

mod append;
pub mod backup;
mod bands;
mod check;
mod choice;
mod columns;
pub mod compact;
pub mod compiled;
mod copy;
pub mod days;
pub mod dictionary;
pub mod digest;
mod disk;
mod envelope;
pub mod error;
pub mod facts;
mod file_numbers;
pub mod folder;
pub mod frame;
mod hours;
mod ids;
mod index;
mod journal;
mod killmails;
mod ledger;
mod log;
mod memory;
mod messages;
mod notices;
mod page;
mod pieces;
mod plan;
mod plugins;
pub mod postings;
pub mod progress;
mod raw;
mod record;
mod records;
pub mod refused;
mod repair;
mod rows;
mod rules;
pub mod salvage;
mod scrub;
mod second;
mod segments;
mod select;
mod small;
mod snapshot;
mod snapshots;
mod space;
mod spans;
mod spare;
mod start;
mod swap;
mod tail;
#[cfg(test)]
mod tests;
mod tokens;
pub mod verify;
pub mod wanted;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;

use crate::domain::entry::{Origin, SharedEntry};
use crate::domain::filter::{Filter, Interest};
use crate::domain::id::{Epoch, Seq};
use crate::domain::killmail::Killmail;
use crate::store::append::Writer;
use crate::store::disk::Disk;
use crate::store::file_numbers::FileNumbers;
use crate::store::index::SHARDS;
use crate::store::memory::Memory;
use crate::store::record::Codec;
use crate::store::refused::Ring;
use crate::store::scrub::Scrubbed;
use crate::store::snapshots::Snapshots;
use crate::store::spans::Spans;

/// Spoken as `store::Error`.
pub type Error = error::Error;

/// How the store is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data folder; made if missing.
    #[serde(skip)]
    pub dir: PathBuf,
    /// The engine's page cache, bytes (128 MiB; its own default of 1 GiB is most of a small machine).
    pub cache_bytes: u64,
    /// Nothing is written when less than this is free on the disk, bytes (256 MiB).
    pub min_free_bytes: u64,
    /// Entries of the log kept in memory, ready to send (10,000).
    pub tail_entries: usize,
    /// About how much memory those may take, bytes (64 MiB).
    pub tail_bytes: usize,
    /// Entries between two snapshots of the index (250,000: about a second of start-up).
    pub snapshot_every: u64,
    /// Records looked at a second while the server runs, so that damage is found before someone asks (200: about 1 % of a core); 0: none.
    pub scrub_per_sec: u64,
    /// Pause between two rounds of that, seconds (a day).
    pub scrub_pause_secs: u64,
    /// Makes the canonical JSON, once, at append; only its length is stored.
    #[serde(skip, default = "no_encoder")]
    pub encode: fn(&Killmail) -> Bytes,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("./data"),
            cache_bytes: 128 << 20,
            min_free_bytes: 256 << 20,
            tail_entries: 10_000,
            tail_bytes: 64 << 20,
            snapshot_every: 250_000,
            scrub_per_sec: 200,
            scrub_pause_secs: 86_400,
            encode: nothing,
        }
    }
}

fn no_encoder() -> fn(&Killmail) -> Bytes {
    nothing
}

fn nothing(_: &Killmail) -> Bytes {
    Bytes::new()
}

/// How the age of a killmail is found at append; it is fixed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgeRule {
    /// `uploaded_at - time` where that is known and not negative, else received - time.
    ByUpload,
    /// Zero: a replay of old killmails as if they were new.
    Zero,
}

/// Whether present members of a stored zkb block give way to differing incoming ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZkbRule {
    /// Never; absent ones are still filled in.
    Keep,
    /// If the incoming ones are newer: uploaded not before the stored ones, or without a time of upload.
    IfNewer,
    /// Always.
    Always,
}

/// A killmail on its way in.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The killmail.
    pub killmail: Killmail,
    /// How it came.
    pub origin: Origin,
    /// When we got it, unix milliseconds.
    pub received_at_ms: i64,
    /// When the source published it, unix seconds.
    pub uploaded_at: Option<i64>,
    /// How its age is found.
    pub age: AgeRule,
    /// What its zkb block may replace.
    pub zkb: ZkbRule,
}

/// How far a source has been read; written in the same transaction as what it brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The source's name.
    pub source: String,
    /// What only the source understands; at most a few kilobytes.
    pub bytes: Vec<u8>,
}

/// What became of an incoming killmail.
#[derive(Debug, Clone)]
pub enum Appended {
    /// It is the newest entry of the log.
    New(SharedEntry),
    /// It was known and gained something; it keeps its number and is not announced.
    Revised(SharedEntry),
    /// Known, nothing new.
    Known(Seq),
    /// Known with another body; nothing was stored.
    Conflict(Seq),
}

/// A killmail found in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Its number in the log.
    pub seq: Seq,
    /// Its id.
    pub killmail_id: u32,
}

/// The direction of a history query, by killmail id, which is time order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Greatest killmail id first.
    #[default]
    Newest,
    /// Smallest killmail id first.
    Oldest,
}

/// A question about history.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Which killmails.
    pub filter: &'a Filter,
    /// What a plugin narrows them to.
    pub interest: Option<&'a Interest>,
    /// The direction.
    pub order: Order,
    /// Only what comes after this killmail id in the direction.
    pub after: Option<u32>,
    /// Only ids smaller than this.
    pub below: Option<u32>,
    /// Only entries numbered up to this.
    pub head: Seq,
    /// At most so many killmails.
    pub limit: usize,
}

/// A reader's question: what comes next after a place in the log.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Which killmails.
    pub filter: &'a Filter,
    /// What a plugin narrows them to.
    pub interest: Option<&'a Interest>,
    /// Entries numbered after this.
    pub after: Seq,
    /// Entries numbered up to this.
    pub head: Seq,
    /// Only what was at most so old when it came, seconds; 0: any age.
    pub max_age_secs: u32,
    /// At most so many killmails.
    pub limit: usize,
    /// At most so much JSON, bytes; the first killmail comes whatever its size.
    pub limit_bytes: usize,
    /// At most so many entries are looked at.
    pub scan: usize,
}

/// The next entries for a reader, in log order.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// What is wanted.
    pub entries: Vec<SharedEntry>,
    /// Everything up to this number was looked at.
    pub passed: Seq,
}

/// Sums over a selection.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// How many killmails.
    pub killmails: u64,
    /// Their total value together, ISK; those without a value count nothing.
    pub value: f64,
    /// Time of the earliest, unix seconds.
    pub first: Option<i64>,
    /// Time of the latest, unix seconds.
    pub last: Option<i64>,
}

/// The store in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Killmails kept.
    pub killmails: u64,
    /// Solar systems with a killmail.
    pub systems: u64,
    /// Terms that find something.
    pub terms: u64,
    /// Memory of the index, bytes, estimated.
    pub index_bytes: u64,
    /// Size of the engine's files, bytes.
    pub disk_bytes: u64,
    /// Revisions ever made.
    pub revised: u64,
    /// Conflicts ever seen.
    pub conflicts: u64,
    /// Documents ever refused.
    pub refused: u64,
    /// Time of the killmail with the smallest id, unix seconds.
    pub oldest: Option<i64>,
    /// Time of the killmail with the greatest id, unix seconds.
    pub newest: Option<i64>,
    /// Entries in the tail.
    pub tail_entries: u64,
    /// Records looked at since the start, to find damage.
    pub scrubbed: u64,
    /// Records found damaged by that.
    pub damaged: u64,
}

/// The store, open.
pub struct Store {
    config: Config,
    epoch: Epoch,
    disk: Disk,
    codec: Codec,
    memory: Arc<RwLock<Memory>>,
    writer: Mutex<Writer>,
    refused: Mutex<Ring>,
    spans: RwLock<Spans>,
    files: RwLock<FileNumbers>,
    snapshots: Mutex<Snapshots>,
    revised: AtomicU64,
    conflicts: AtomicU64,
    scrubbed: Mutex<Scrubbed>,
}

impl Store {
    /// The identity of this store.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The number of the newest entry.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.memory.read().index.head()
    }

    /// Killmails kept.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.memory.read().index.count()
    }

    /// Entries up to this number may be forgotten.
    #[must_use]
    pub const fn horizon(&self) -> Seq {
        Seq::ZERO
    }

    /// The store in numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let refused = self.refused.lock().total();
        let (scrubbed, damaged) = {
            let scrubbed = self.scrubbed.lock();
            (scrubbed.records, scrubbed.damaged.len() as u64)
        };
        let disk_bytes = self.disk.size_bytes();
        // A shard at a time: looking at every term takes milliseconds, and nobody should wait so long.
        let index_bytes: u64 = (0..SHARDS).map(|shard| self.memory.read().index.shard_bytes(shard)).sum();
        let memory = self.memory.read();
        let (oldest, newest) = memory.index.ends();
        Stats {
            killmails: memory.index.count(),
            systems: memory.index.systems(),
            terms: memory.index.terms(),
            index_bytes: index_bytes + memory.index.other_bytes(),
            disk_bytes,
            revised: self.revised.load(Ordering::Relaxed),
            conflicts: self.conflicts.load(Ordering::Relaxed),
            refused,
            oldest,
            newest,
            tail_entries: memory.tail.len() as u64,
            scrubbed,
            damaged,
        }
    }
}
