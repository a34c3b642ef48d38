//! Opening a store: the engine, the store's own numbers, the index from a snapshot or from the log, and the
//! checks that they agree.
//!
//! Law 3 (prefix) guards this file: wherever the process was cut, the store found is a prefix of what was
//! published and contains everything that was acknowledged.
//!
//! Must not know: what the store is opened for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};

use crate::domain::id::{Epoch, Seq};
use crate::store::config::Config;
use crate::store::engine::journal::{self, Journal};
use crate::store::engine::ledger::{self, Ledger};
use crate::store::engine::meta::{self, Numbers};
use crate::store::engine::repair::rebuild_log;
use crate::store::engine::{Engine, Write, chunked_values, data_folder, records, spare};
use crate::store::error::StoreError;
use crate::store::format::dictionary::{self, CURRENT, Dictionaries, EMBEDDED, file_name};
use crate::store::format::record::Codec;
use crate::store::incoming::Encoder;
use crate::store::index::Index;
use crate::store::index::newest_entries::NewestEntries;
use crate::store::index::resident::Resident;
use crate::store::index::rows::Row;
use crate::store::index::snapshot::{self, Mark};
use crate::store::keys::{Key, Tree};
use crate::store::mirror::file_numbers::FileNumbers;
use crate::store::mirror::revision_notices::RevisionNotices;
use crate::store::query::Hit;
use crate::store::refused::list::RefusedList;
use crate::store::snapshots::Snapshots;
use crate::store::writer::Writer;
use crate::store::{Store, whole_file};

/// How many of the newest entries have their records checked at every start.
const CHECKED_AT_START: u64 = 10_000;

impl Store {
    /// Opens the store of a data folder, or creates one. `encode` makes the canonical JSON of each killmail that
    /// is appended.
    ///
    /// # Errors
    /// `InUse`; `TooNew`; `Damaged` with the command that repairs it; the file system.
    pub fn open(config: Config, encode: Encoder) -> Result<Arc<Self>, StoreError> {
        let engine = Engine::open(&config.dir, config.cache_bytes)?;
        data_folder::remove_unfinished_backup(&config.dir)?;
        data_folder::remove_unfinished_compaction(&config.dir)?;
        snapshot::remove_unfinished(&config.dir)
            .map_err(StoreError::io("remove an unfinished snapshot in", &config.dir))?;
        let epoch = load_epoch(&engine)?;
        let codec = Codec::new(load_dictionaries(&engine)?);
        let numbers = meta::numbers(&engine)?;
        let (ledger, revs) = Ledger::open(&engine, epoch, &numbers)?;
        let (index, snapshot) = match build_index(&engine, epoch, &numbers) {
            Err(error @ StoreError::Damaged { .. })
                if rebuild_log(&engine, &codec, encode, &numbers)? == 0 =>
            {
                return Err(error);
            }
            Err(StoreError::Damaged { .. }) => build_index(&engine, epoch, &numbers)?,
            built => built?,
        };
        let resident =
            Resident { index, tail: NewestEntries::new(config.tail_entries, config.tail_bytes), revs };
        let refused = Mutex::new(RefusedList::load(&engine)?);
        let spans = RwLock::new(meta::spans(&engine)?);
        let journal = Journal::new(engine.dir());
        let files = FileNumbers::load(&engine, numbers.head)?;
        let notices = RevisionNotices::load(&engine, files.newest())?;
        let store = Self {
            config,
            encode,
            epoch,
            engine,
            codec,
            resident: Arc::new(RwLock::new(resident)),
            writer: Mutex::new(Writer::new(numbers, ledger, journal, notices)),
            refused,
            spans,
            files: RwLock::new(files),
            snapshots: Mutex::new(Snapshots::new(snapshot)),
            revised: AtomicU64::new(numbers.rev),
            conflicts: AtomicU64::new(numbers.conflicts),
            scrubbed: Mutex::default(),
        };
        store.check_newest()?;
        if let Err(error) = store.engine.start_second_copy() {
            tracing::warn!("small values have no second copy until the next start: {error}");
        }
        if let Err(error) = spare::remove(store.engine.dir()) {
            tracing::warn!("cannot remove the spare copy of the end of the store: {error}");
        }
        Ok(Arc::new(store))
    }

    /// Checks the records of the newest entries, and loads those that stay in memory.
    fn check_newest(&self) -> Result<(), StoreError> {
        let head = self.head().0;
        for seq in (head.saturating_sub(CHECKED_AT_START) + 1..=head).map(Seq) {
            let row = self.resident.read().index.rows.get(seq).copied();
            let Some(row) = row else { continue };
            let hit = Hit { seq, killmail_id: row.killmail_id };
            // Only entries that stay in memory need decoding.
            if seq.0 + (self.config.tail_entries as u64) <= head {
                self.check_frames(hit)?;
                continue;
            }
            let entry = self.read(hit)?;
            let mut evicted = Vec::new();
            self.resident.write().tail.push(entry, row.weight, &mut evicted);
        }
        Ok(())
    }
}

/// The epoch. A folder without one becomes a new store; a restored backup gets a new one.
fn load_epoch(engine: &Engine) -> Result<Epoch, StoreError> {
    if meta::is_initialized(engine)? {
        let epoch = meta::epoch(engine)?;
        if engine.get(Tree::Meta, &Key::Restored.bytes())?.is_none() {
            return Ok(epoch);
        }
        let epoch = meta::new_epoch()?;
        engine.commit(vec![
            Write::new(Key::Epoch, epoch.0.to_le_bytes().to_vec()),
            Write::removal(Key::Restored),
        ])?;
        return Ok(epoch);
    }
    if engine.scan(Tree::Records, &[]).next().is_some() {
        return Err(engine.damaged("there are records, but the store's own numbers are missing"));
    }
    let ledger = ledger::read(engine.dir()).map_err(StoreError::io("read", ledger::path(engine.dir())))?;
    let (entries, revisions) = (ledger.mark.map_or(0, |mark| mark.head.0), ledger.rev());
    if entries > 0 || revisions > 0 {
        return Err(engine.damaged(format!(
            "it is empty, but the file `ledger` beside it records {entries} entries and {revisions} revisions"
        )));
    }
    journal::remove(engine.dir()).map_err(StoreError::io("remove an old journal in", engine.dir()))?;
    let epoch = meta::new_epoch()?;
    engine.commit(meta::initial_writes(epoch, &Numbers::default(), &[]))?;
    Ok(epoch)
}

/// The dictionaries this store was written with and the embedded one. Each is also written to a file beside
/// the store if it is not there yet.
fn load_dictionaries(engine: &Engine) -> Result<Dictionaries, StoreError> {
    let mut known = meta::dictionaries(engine)?;
    let is_new = !known.contains_key(&CURRENT);
    if is_new {
        known.insert(CURRENT, EMBEDDED.to_vec());
    }
    let files =
        dictionary::read_files(engine.dir()).map_err(StoreError::io("read dictionaries of", engine.dir()))?;
    for (number, bytes) in known.iter().filter(|(number, bytes)| files.get(number) != Some(bytes)) {
        let path = engine.dir().join(file_name(*number, bytes));
        whole_file::write(&path, bytes).map_err(StoreError::io("write", &path))?;
    }
    if is_new {
        engine.commit(meta::dictionary_writes(CURRENT, EMBEDDED))?;
    }
    Ok(Dictionaries::new(known))
}

/// Builds the index from the newest snapshot and the log after it, or from the whole log. Also gives the head
/// of the snapshot.
fn build_index(engine: &Engine, epoch: Epoch, numbers: &Numbers) -> Result<(Index, Seq), StoreError> {
    let newest = Mark { epoch, head: Seq(numbers.head), rev: numbers.rev };
    let (mut index, mark) = snapshot::load_newest(engine.dir(), &newest)
        .unwrap_or((Index::default(), Mark { head: Seq::ZERO, rev: 0, ..newest }));
    replay(engine, &mut index, numbers)?;
    if mark.head > Seq::ZERO {
        replay_revisions(engine, &mut index, mark.rev)?;
    }
    if index.count() != numbers.count {
        return Err(engine.damaged(format!(
            "{} killmails are in the log, {} were counted",
            index.count(),
            numbers.count
        )));
    }
    Ok((index, mark.head))
}

/// Applies revisions after `rev` to the index: removes what they replaced, and adds what the log has now.
fn replay_revisions(engine: &Engine, index: &mut Index, rev: u64) -> Result<(), StoreError> {
    let mut revised = BTreeSet::new();
    for pair in engine.scan(Tree::Revisions, &Key::Revision(rev + 1).bytes()) {
        let (key, value) = pair?;
        let Some(rev) = key.as_array::<8>().copied().map(u64::from_be_bytes) else { continue };
        let damaged = || engine.damaged(format!("revision {rev}"));
        let bytes = chunked_values::join(engine, Tree::Revisions, &key, &value)?;
        let (seq, old) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        index.unlink(&records::decode_log_entry(engine, old, || format!("revision {rev}"))?.facts);
        revised.insert(u64::from_le_bytes(*seq));
    }
    for seq in revised {
        let damaged = || engine.damaged(format!("log entry {seq}"));
        let bytes = chunked_values::read(engine, Key::LogEntry(seq))?.ok_or_else(damaged)?;
        let entry = records::decode_log_entry(engine, &bytes, || format!("log entry {seq}"))?;
        index.insert(Seq(seq), Row::new(&entry), &entry.facts);
    }
    Ok(())
}

/// Adds the log entries after the index's head. Every number up to the last must be there, except for known
/// holes and spans.
pub(crate) fn replay(engine: &Engine, index: &mut Index, numbers: &Numbers) -> Result<(), StoreError> {
    let holes = meta::numbers_without_killmail(engine)?;
    let in_hole = |first: u64, last: u64| holes.iter().any(|(from, to)| *from <= first && last <= *to);
    let missing =
        |first: u64, last: u64| Err(engine.damaged(format!("log entries {first} to {last} are missing")));
    for pair in engine.scan(Tree::Log, &Key::LogEntry(index.head().0 + 1).bytes()) {
        let (key, value) = pair?;
        // Keys of further chunks are longer.
        let Some(seq) = key.as_array().copied().map(u64::from_be_bytes) else { continue };
        let next = index.head().0 + 1;
        if seq != next && !in_hole(next, seq - 1) {
            return missing(next, seq - 1);
        }
        let bytes = chunked_values::join(engine, Tree::Log, &key, &value)?;
        let entry = records::decode_log_entry(engine, &bytes, || format!("log entry {seq}"))?;
        index.insert(Seq(seq), Row::new(&entry), &entry.facts);
    }
    let next = index.head().0 + 1;
    if next <= numbers.head {
        if !in_hole(next, numbers.head) {
            return missing(next, numbers.head);
        }
        index.skip_to(Seq(numbers.head));
    }
    if index.head().0 > numbers.head {
        return Err(engine.damaged(format!(
            "the log ends at {}, {} numbers were assigned",
            index.head(),
            numbers.head
        )));
    }
    Ok(())
}
