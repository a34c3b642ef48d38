//! Salvage: makes a new store from what is intact in the files of a damaged one. The damaged store is only
//! read; if a compaction was cut off, its files are first moved back.
//!
//! Only the newest revision of each killmail counts. The ledger beside the engine, the log entries and every
//! frame show which one that is. If it is destroyed, an older intact revision does not replace it: the number
//! becomes a hole, and the report lists the killmail. Numbers stay, holes are recorded, the log is made from the
//! records, and the store gets a new epoch, so that clients notice that it is not the store they knew.
//!
//! Must not know: how the damage came about.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use hashbrown::HashMap;
use serde::Serialize;

use crate::domain::hex::sha256_hex;
use crate::domain::id::{Epoch, Seq};
use crate::store::config::Config;
use crate::store::engine::choice::{Choice, choose};
use crate::store::engine::ledger::{self, Mark};
use crate::store::engine::meta::{Numbers, dictionary_writes, initial_writes, new_epoch};
use crate::store::engine::raw::{Places, Raw, RawRecord, Version};
use crate::store::engine::repair::log_entry_of;
use crate::store::engine::segments::db_path;
use crate::store::engine::{Engine, Write, chunked_values, copy, data_folder, folder_swap, lock};
use crate::store::error::StoreError;
use crate::store::format::dictionary::{self, CURRENT, Dictionaries, EMBEDDED};
use crate::store::format::log_entry;
use crate::store::format::record::{Codec, VERSION};
use crate::store::incoming::Encoder;
use crate::store::keys::{Key, Tree};
use crate::store::progress::{Phase, Progress};
use crate::store::upkeep::backup::require_empty;
use crate::store::upkeep::small_values::{self, SmallValues};
use crate::store::{tokens, whole_file};
use crate::tasks;

/// Killmails written in one transaction.
const TRANSACTION_MAX: usize = 1_000;

/// The result of a salvage: what was saved and what was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Killmails in the new store.
    pub killmails: u64,
    /// The greatest number that was assigned, as far as that is known.
    pub head: u64,
    /// How many numbers are lost; `holes` lists them.
    pub lost: u64,
    /// Ranges of lost numbers, first and last.
    pub holes: Vec<(u64, u64)>,
    /// Killmails whose newest revision is destroyed and an older one intact; their numbers are holes.
    pub stale: Vec<u32>,
    /// Killmails whose frames are intact but could not be decoded; their numbers are holes.
    pub unreadable: Vec<u32>,
    /// Frames of transactions that were not committed when a process died.
    pub unfinished: u64,
    /// Small values (plugins, refused documents, spans, checkpoints) that were carried over, by kind.
    pub carried: BTreeMap<String, u64>,
    /// What could not be carried over besides killmails, for people.
    pub notes: Vec<String>,
    /// The epoch of the new store.
    pub epoch: String,
}

/// Writes what is intact in the data folder `from` to the folder `config.dir`, which is empty or does not exist
/// yet.
///
/// # Errors
/// There is no store, or nothing intact in it; it is in use; a newer killstream wrote it; the new folder is
/// not empty; the disk.
pub fn run(
    from: &Path,
    config: &Config,
    encode: Encoder,
    progress: &Progress<'_>,
) -> Result<Losses, StoreError> {
    data_folder::must_hold_killmails(from)?;
    if !from.join("store").exists() {
        // A compaction that was cut off may have left it aside.
        folder_swap::finish(from).map_err(StoreError::io("finish a compaction in", from))?;
    }
    // Without the engine's main file there is nothing to lock, and everything comes from the journal.
    let lock = db_path(from).exists().then(|| lock::lock_shared(from)).transpose()?;
    let raw = Raw::scan(from, progress)?;
    if raw.record_version > VERSION {
        return Err(StoreError::TooNew {
            what: "record version",
            found: raw.record_version.into(),
            known: VERSION.into(),
        });
    }
    let ledger = ledger::read(from).map_err(StoreError::io("read", ledger::path(from)))?;
    let choice = choose(&raw, &ledger);
    if choice.chosen.is_empty() {
        let why = format!("nothing in {} is intact", from.display());
        return Err(StoreError::Engine { what: "salvage the store", why });
    }
    require_empty(&config.dir)?;
    let mut losses =
        Losses { unfinished: choice.unfinished, stale: choice.stale.clone(), ..Losses::default() };
    let small_values = small_values::read(from, config, &mut losses.notes)?;
    let engine = Engine::open(&config.dir, config.cache_bytes)?;
    let salvage = Salvage { raw: &raw, codec: copy_dictionaries(from, &engine, &mut losses.notes)?, encode };
    let kept = salvage.write(&engine, &choice, progress, &mut losses)?;
    losses.carried = small_values.write(&engine, choice.head)?;
    copy_files(from, &config.dir, &mut losses.notes)?;
    let epoch = finish(&engine, &choice, &kept, &ledger, &small_values, &mut losses)?;
    losses.epoch = epoch.to_string();
    drop(lock);
    Ok(losses)
}

/// A killmail in the new store.
struct Kept {
    killmail_id: u32,
    rev: u64,
}

/// Killmails in the new store, by their numbers.
type KeptByNumber = BTreeMap<u64, Kept>;

struct Salvage<'a> {
    raw: &'a Raw,
    codec: Codec,
    encode: Encoder,
}

/// What is written for one killmail.
struct Saved {
    killmail_id: u32,
    version: Version,
    frames: Vec<Vec<u8>>,
    log_entry: Vec<u8>,
}

impl Salvage<'_> {
    fn write(
        &self,
        engine: &Engine,
        choice: &Choice,
        progress: &Progress<'_>,
        losses: &mut Losses,
    ) -> Result<KeptByNumber, StoreError> {
        let mut phase = Phase::new(progress, "write", choice.chosen.len() as u64);
        let mut kept = KeptByNumber::new();
        for step in choice.chosen.chunks(TRANSACTION_MAX) {
            let saved = tasks::map_chunks(step, |part| {
                part.iter().map(|version| self.save(version)).collect::<Vec<_>>()
            });
            let mut writes = Vec::new();
            for saved in saved.into_iter().flatten() {
                match saved {
                    Ok(saved) => {
                        let Saved { killmail_id, version, .. } = saved;
                        kept.insert(version.seq.0, Kept { killmail_id, rev: version.rev });
                        writes.extend(saved.writes());
                    }
                    Err(version) => losses.unreadable.extend(u32::try_from(version.killmail_id)),
                }
            }
            engine.commit(writes)?;
            phase.advance(step.len() as u64);
        }
        Ok(kept)
    }

    /// Decodes a version; the error is the version itself.
    fn save(&self, version: &Version) -> Result<Saved, Version> {
        self.decode(version, self.raw.versions.get(version).ok_or(*version)?).ok_or(*version)
    }

    fn decode(&self, version: &Version, places: &Places) -> Option<Saved> {
        let RawRecord { header, payload, frames } = self.raw.read(places)?;
        let killmail = self
            .codec
            .unpack(&header, &payload)
            .ok()
            .filter(|k| u64::from(k.killmail_id) == header.killmail_id)?;
        let log_entry = log_entry::encode(&log_entry_of(&header, &killmail, self.encode));
        Some(Saved { killmail_id: killmail.killmail_id, version: *version, frames, log_entry })
    }
}

impl Saved {
    fn writes(self) -> Vec<Write> {
        let mut writes = chunked_values::writes(Key::LogEntry(self.version.seq.0), &self.log_entry);
        let key = self.version.killmail_id.to_be_bytes();
        writes.extend((0..).zip(self.frames).map(|(part, frame)| {
            let key = chunked_values::chunk_key(&key, part);
            Write { tree: Tree::Records, key, value: Some(frame) }
        }));
        writes
    }
}

/// Writes the schema, epoch and numbers, and the ledger. They come last: without them, a store that was cut off
/// is recognised as unfinished.
fn finish(
    engine: &Engine,
    choice: &Choice,
    kept: &KeptByNumber,
    old: &ledger::Contents,
    small_values: &SmallValues,
    losses: &mut Losses,
) -> Result<Epoch, StoreError> {
    let epoch = new_epoch()?;
    let numbers = Numbers {
        head: choice.head,
        count: kept.len() as u64,
        rev: choice.rev,
        conflicts: small_values.conflicts,
    };
    losses.killmails = numbers.count;
    losses.head = numbers.head;
    let whole: BTreeSet<u64> = kept.keys().copied().chain(small_values.spans()).collect();
    losses.holes = holes(&whole, choice.horizon, numbers.head);
    losses.lost = losses.holes.iter().map(|(first, last)| last - first + 1).sum();
    let mut recorded = losses.holes.clone();
    if choice.horizon > 0 {
        recorded.push((1, choice.horizon));
    }
    engine.commit(initial_writes(epoch, &numbers, &recorded))?;
    let kept: HashMap<u32, u64> =
        kept.values().filter(|kept| kept.rev > 0).map(|kept| (kept.killmail_id, kept.rev)).collect();
    let mut revised = old.revised.clone();
    revised.resize(usize::try_from(numbers.rev).unwrap_or(0), None);
    for (id, rev) in &kept {
        revised[(rev - 1) as usize] = Some(*id);
    }
    // A killmail whose number is a hole now may come again, as a new one.
    revised.iter_mut().for_each(|id| *id = id.filter(|id| kept.contains_key(id)));
    let mark = Mark { epoch, head: Seq(numbers.head), rev: numbers.rev, horizon: Seq(choice.horizon) };
    ledger::write(engine.dir(), mark, &revised)
        .map_err(StoreError::io("write", ledger::path(engine.dir())))?;
    Ok(epoch)
}

fn holes(whole: &BTreeSet<u64>, horizon: u64, head: u64) -> Vec<(u64, u64)> {
    let mut holes = Vec::new();
    let mut next = horizon + 1;
    for seq in whole.range(next..=head).copied().chain([head + 1]) {
        if seq > next {
            holes.push((next, seq - 1));
        }
        next = seq + 1;
    }
    holes
}

/// Reads the dictionaries beside the damaged store, and writes them to the new one.
fn copy_dictionaries(from: &Path, engine: &Engine, notes: &mut Vec<String>) -> Result<Codec, StoreError> {
    let mut dictionaries =
        dictionary::read_files(from).map_err(StoreError::io("read dictionaries of", from))?;
    dictionaries.entry(CURRENT).or_insert_with(|| {
        notes.push(
            "the dictionary's file is missing or damaged; the one built into this version is used".to_owned(),
        );
        EMBEDDED.to_vec()
    });
    for (number, bytes) in &dictionaries {
        let path = engine.dir().join(dictionary::file_name(*number, bytes));
        whole_file::write(&path, bytes).map_err(StoreError::io("write", &path))?;
        engine.commit(dictionary_writes(*number, bytes))?;
    }
    Ok(Codec::new(Dictionaries::new(dictionaries)))
}

/// Copies the files beside the store: tokens, and components that are intact.
fn copy_files(from: &Path, to: &Path, notes: &mut Vec<String>) -> Result<(), StoreError> {
    for name in ["token", tokens::NAME] {
        copy::file(&from.join(name), &to.join(name))?;
    }
    for component in copy::list_files(&from.join("plugins"))? {
        let path = component.path();
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        if path.file_stem().and_then(|stem| stem.to_str()) != Some(&sha256_hex(&bytes)) {
            notes.push(format!("{} is damaged and was not copied", path.display()));
            continue;
        }
        let dir = to.join("plugins");
        data_folder::make(&dir).map_err(StoreError::io("make", &dir))?;
        let path = dir.join(component.file_name());
        whole_file::write(&path, &bytes).map_err(StoreError::io("write", &path))?;
    }
    Ok(())
}
