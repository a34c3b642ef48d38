//! Opening: the engine, the store's own numbers, the index from a snapshot or the log, and the proof that they fit together.
//!
//! Law 3 (prefix) guards this file: after any cut what is found is a prefix of what was published, with all that was acknowledged.
//!
//! Must not know: what the store is opened for.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};

use crate::domain::id::{Epoch, Seq};
use crate::store::append::{NUMBERS_KEY, Numbers, Writer};
use crate::store::dictionary::{CURRENT, Dictionaries, EMBEDDED, file_name};
use crate::store::disk::{Disk, Tree, Write};
use crate::store::file_numbers::FileNumbers;
use crate::store::index::Index;
use crate::store::journal::{self, Journal};
use crate::store::ledger::{self, Ledger};
use crate::store::log;
use crate::store::memory::Memory;
use crate::store::notices::Notices;
use crate::store::plugins::write_whole;
use crate::store::record::Codec;
use crate::store::refused::Ring;
use crate::store::repair::log_from_records;
use crate::store::rows::Row;
use crate::store::snapshot::{self, Mark};
use crate::store::snapshots::Snapshots;
use crate::store::tail::Tail;
use crate::store::{Config, Error, Hit, Store, backup, pieces, spans, spare};

/// The newest arrangement of trees and keys this code knows.
const SCHEMA: u32 = 1;
const SCHEMA_KEY: &[u8] = b"schema";
const EPOCH_KEY: &[u8] = b"epoch";
const HOLES_KEY: &[u8] = b"holes";
/// Says that this store was restored from a backup and is to be a store of its own.
pub const RESTORED_KEY: &[u8] = b"restored";
const DICTIONARY_PREFIX: &[u8] = b"dict/";
/// The newest entries whose records are read and checked at every start.
const CHECKED: u64 = 10_000;

impl Store {
    /// Opens the store of a data folder, or makes one.
    ///
    /// # Errors
    /// `InUse`, `TooNew`, `Damaged` with the command that mends it, or what the system says.
    pub fn open(config: Config) -> Result<Arc<Self>, Error> {
        let disk = Disk::open(&config.dir, config.cache_bytes)?;
        backup::tidy(&config.dir)?;
        let epoch = identity(&disk)?;
        let codec = Codec::new(dictionaries(&disk)?);
        let numbers = numbers(&disk)?;
        let (ledger, revs) = Ledger::open(&disk, epoch, &numbers)?;
        let (index, snapshot) = match build(&disk, epoch, &numbers) {
            Err(error @ Error::Damaged { .. }) if log_from_records(&disk, &codec, config.encode, &numbers)? == 0 => return Err(error),
            Err(Error::Damaged { .. }) => build(&disk, epoch, &numbers)?,
            built => built?,
        };
        let memory = Memory { index, tail: Tail::new(config.tail_entries, config.tail_bytes), revs };
        let refused = Mutex::new(Ring::load(&disk)?);
        let spans = RwLock::new(spans::read(&disk)?);
        let journal = Journal::new(disk.dir());
        let files = FileNumbers::read(&disk, numbers.head)?;
        let notices = Notices::load(&disk, files.head())?;
        let store = Self {
            config,
            epoch,
            disk,
            codec,
            memory: Arc::new(RwLock::new(memory)),
            writer: Mutex::new(Writer::new(numbers, ledger, journal, notices)),
            refused,
            spans,
            files: RwLock::new(files),
            snapshots: Mutex::new(Snapshots { head: snapshot, running: None }),
            revised: AtomicU64::new(numbers.rev),
            conflicts: AtomicU64::new(numbers.conflicts),
            scrubbed: Mutex::default(),
        };
        store.check_newest()?;
        if let Err(error) = store.disk.keep_second() {
            tracing::warn!("small values are not kept a second time until the next start: {error}");
        }
        if let Err(error) = spare::remove(store.disk.dir()) {
            tracing::warn!("cannot remove the spare copy of the end of the store: {error}");
        }
        Ok(Arc::new(store))
    }

    /// The newest entries must have whole records; they fill the tail on the way.
    fn check_newest(&self) -> Result<(), Error> {
        let head = self.head().0;
        for seq in (head.saturating_sub(CHECKED) + 1..=head).map(Seq) {
            let row = self.memory.read().index.rows.get(seq).copied();
            let Some(row) = row else { continue };
            let hit = Hit { seq, killmail_id: row.killmail_id };
            // Decoding is for those that will stay in the tail.
            if seq.0 + (self.config.tail_entries as u64) <= head {
                self.check_frames(hit)?;
                continue;
            }
            let entry = self.read(hit)?;
            let mut gone = Vec::new();
            self.memory.write().tail.push(entry, row.weight, &mut gone);
        }
        Ok(())
    }
}

/// The epoch; a folder without one is a new store.
fn identity(disk: &Disk) -> Result<Epoch, Error> {
    if let Some(schema) = disk.get(Tree::Meta, SCHEMA_KEY)? {
        let found = schema.as_array().copied().map(u32::from_le_bytes).ok_or_else(|| disk.damaged("the schema number"))?;
        if found > SCHEMA {
            return Err(Error::TooNew { found, known: SCHEMA });
        }
        let epoch = epoch(disk)?;
        if disk.get(Tree::Meta, RESTORED_KEY)?.is_none() {
            return Ok(epoch);
        }
        let epoch = new_epoch()?;
        disk.commit(vec![meta(EPOCH_KEY, epoch.0.to_le_bytes().to_vec()), Write { value: None, ..meta(RESTORED_KEY, Vec::new()) }])?;
        return Ok(epoch);
    }
    if disk.scan(Tree::Records, &[]).next().is_some() {
        return Err(disk.damaged("there are records, but the store's own numbers are missing"));
    }
    let ledger = ledger::read(disk.dir()).map_err(Error::io("read", ledger::path(disk.dir())))?;
    if let Some(mark) = ledger.mark.filter(|mark| mark.head > Seq::ZERO) {
        return Err(disk.damaged(format!("it is empty, but the file `ledger` beside it tells of {} entries", mark.head)));
    }
    journal::remove(disk.dir()).map_err(Error::io("remove a former journal in", disk.dir()))?;
    let epoch = new_epoch()?;
    disk.commit(founding(epoch, &Numbers::default(), &[]))?;
    Ok(epoch)
}

/// The identity of a store.
pub fn epoch(disk: &Disk) -> Result<Epoch, Error> {
    let epoch = disk.get(Tree::Meta, EPOCH_KEY)?.ok_or_else(|| disk.damaged("the store's identity is missing"))?;
    epoch.as_array().copied().map(|b| Epoch(u64::from_le_bytes(b))).ok_or_else(|| disk.damaged("the store's identity"))
}

/// An identity no other store has.
pub fn new_epoch() -> Result<Epoch, Error> {
    getrandom::u64().map(Epoch).map_err(|e| Error::Engine { what: "make an identity for the store", why: e.to_string() })
}

/// The writes that make a folder a store.
pub fn founding(epoch: Epoch, numbers: &Numbers, holes: &[(u64, u64)]) -> Vec<Write> {
    let holes: Vec<u8> = holes.iter().flat_map(|(first, last)| [*first, *last]).flat_map(u64::to_le_bytes).collect();
    let mut writes = if holes.is_empty() { Vec::new() } else { pieces::put(Tree::Meta, HOLES_KEY, &holes) };
    writes.push(meta(SCHEMA_KEY, SCHEMA.to_le_bytes().to_vec()));
    writes.push(meta(EPOCH_KEY, epoch.0.to_le_bytes().to_vec()));
    writes.push(meta(NUMBERS_KEY, numbers.to_bytes()));
    writes
}

/// The writes that put a dictionary into a store.
pub fn dictionary_writes(number: u8, bytes: &[u8]) -> Vec<Write> {
    pieces::put(Tree::Meta, &dictionary_key(number), bytes)
}

fn meta(key: &[u8], value: Vec<u8>) -> Write {
    Write { tree: Tree::Meta, key: key.to_vec(), value: Some(value) }
}

/// The dictionaries this store was written with; the embedded one joins them, in `meta` and as a file beside the store.
fn dictionaries(disk: &Disk) -> Result<Dictionaries, Error> {
    let mut known = known_dictionaries(disk)?;
    if let Entry::Vacant(current) = known.entry(CURRENT) {
        let path = disk.dir().join(file_name(CURRENT, EMBEDDED));
        write_whole(&path, EMBEDDED).map_err(Error::io("write", &path))?;
        disk.commit(dictionary_writes(CURRENT, EMBEDDED))?;
        current.insert(EMBEDDED.to_vec());
    }
    Ok(Dictionaries::new(known))
}

/// The dictionaries in the store.
pub fn known_dictionaries(disk: &Disk) -> Result<BTreeMap<u8, Vec<u8>>, Error> {
    let mut known = BTreeMap::new();
    for number in 1..=u8::MAX {
        let Some(bytes) = pieces::get(disk, Tree::Meta, &dictionary_key(number))? else { break };
        known.insert(number, bytes);
    }
    Ok(known)
}

fn dictionary_key(number: u8) -> Vec<u8> {
    [DICTIONARY_PREFIX, &[number]].concat()
}

/// The store's own numbers.
pub fn numbers(disk: &Disk) -> Result<Numbers, Error> {
    let bytes = disk.get(Tree::Meta, NUMBERS_KEY)?.ok_or_else(|| disk.damaged("the store's own numbers are missing"))?;
    Numbers::from_bytes(&bytes).ok_or_else(|| disk.damaged("the store's own numbers"))
}

/// Ranges of numbers known to be lost, first and last.
pub fn holes(disk: &Disk) -> Result<Vec<(u64, u64)>, Error> {
    let bytes = pieces::get(disk, Tree::Meta, HOLES_KEY)?.unwrap_or_default();
    let (numbers, []) = bytes.as_chunks::<8>() else { return Err(disk.damaged("the list of holes")) };
    let (pairs, []) = numbers.as_chunks::<2>() else { return Err(disk.damaged("the list of holes")) };
    Ok(pairs.iter().map(|[first, last]| (u64::from_le_bytes(*first), u64::from_le_bytes(*last))).collect())
}

/// Ranges of numbers without a killmail, first and last, ascending: those known to be lost, and spans.
pub fn unfilled(disk: &Disk) -> Result<Vec<(u64, u64)>, Error> {
    let mut ranges = holes(disk)?;
    ranges.extend(spans::read(disk)?.keys().map(|number| (*number, *number)));
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    Ok(joined)
}

/// The index: of the newest snapshot and what came after it, or of the whole log; and the head of the snapshot.
fn build(disk: &Disk, epoch: Epoch, numbers: &Numbers) -> Result<(Index, Seq), Error> {
    let newest = Mark { epoch, head: Seq(numbers.head), rev: numbers.rev };
    let (mut index, mark) = snapshot::read(disk.dir(), &newest).unwrap_or((Index::default(), Mark { head: Seq::ZERO, rev: 0, ..newest }));
    replay(disk, &mut index, numbers)?;
    if mark.head > Seq::ZERO {
        replay_revisions(disk, &mut index, mark.rev)?;
    }
    if index.count() != numbers.count {
        return Err(disk.damaged(format!("{} killmails are in the log, {} were counted", index.count(), numbers.count)));
    }
    Ok((index, mark.head))
}

/// Takes in revisions behind this one: the terms of what they replaced go, those of what is in the log now come.
fn replay_revisions(disk: &Disk, index: &mut Index, rev: u64) -> Result<(), Error> {
    let mut revised = BTreeSet::new();
    for pair in disk.scan(Tree::Revisions, &(rev + 1).to_be_bytes()) {
        let (key, value) = pair?;
        let Some(rev) = key.as_array::<8>().copied().map(u64::from_be_bytes) else { continue };
        let damaged = || disk.damaged(format!("revision {rev}"));
        let bytes = pieces::join(disk, Tree::Revisions, &key, &value)?;
        let (seq, old) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        index.unlink(&log::decode(old).map_err(|_| damaged())?.facts);
        revised.insert(u64::from_le_bytes(*seq));
    }
    for seq in revised {
        let damaged = || disk.damaged(format!("log entry {seq}"));
        let bytes = pieces::get(disk, Tree::Log, &seq.to_be_bytes())?.ok_or_else(damaged)?;
        let line = log::decode(&bytes).map_err(|_| damaged())?;
        index.insert(Seq(seq), Row::new(&line), &line.facts);
    }
    Ok(())
}

/// Takes in what the log holds behind the index's head: every number up to the last, but for known holes and spans.
fn replay(disk: &Disk, index: &mut Index, numbers: &Numbers) -> Result<(), Error> {
    let holes = unfilled(disk)?;
    let in_hole = |first: u64, last: u64| holes.iter().any(|(from, to)| *from <= first && last <= *to);
    let missing = |first: u64, last: u64| Err(disk.damaged(format!("log entries {first} to {last} are missing")));
    for pair in disk.scan(Tree::Log, &(index.head().0 + 1).to_be_bytes()) {
        let (key, value) = pair?;
        // Keys of further pieces are longer.
        let Some(seq) = key.as_array().copied().map(u64::from_be_bytes) else { continue };
        let next = index.head().0 + 1;
        if seq != next && !in_hole(next, seq - 1) {
            return missing(next, seq - 1);
        }
        let bytes = pieces::join(disk, Tree::Log, &key, &value)?;
        let line = log::decode(&bytes).map_err(|_| disk.damaged(format!("log entry {seq}")))?;
        index.insert(Seq(seq), Row::new(&line), &line.facts);
    }
    let next = index.head().0 + 1;
    if next <= numbers.head {
        if !in_hole(next, numbers.head) {
            return missing(next, numbers.head);
        }
        index.skip_to(Seq(numbers.head));
    }
    if index.head().0 > numbers.head {
        return Err(disk.damaged(format!("the log ends at {}, {} numbers were given out", index.head(), numbers.head)));
    }
    Ok(())
}
