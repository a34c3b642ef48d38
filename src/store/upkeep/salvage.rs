//! Salvage: a new store out of what is intact in the files of one that is damaged. The damaged one is only
//! read; where a compaction was cut off, its files first go back to their place.
//!
//! What counts of each killmail is its newest revision. The ledger beside the engine, the lines of the log
//! and every frame tell which that is; where it is destroyed, an older one that survived is not taken for it:
//! the number becomes a hole, and the loss is named. Numbers are kept, holes are recorded, the log is made
//! anew from the records, and the store gets an identity of its own, so that clients see that it is not the
//! one they knew.
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
use crate::store::keys::{Key, Tree};
use crate::store::progress::{Phase, Progress};
use crate::store::upkeep::backup::make_empty;
use crate::store::upkeep::small::{self, Small};
use crate::store::{tokens, whole_file};
use crate::tasks;

/// Killmails written in one transaction.
const STEP: usize = 1_000;

/// What was saved and what was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Killmails in the new store.
    pub killmails: u64,
    /// The greatest number known to have been given out.
    pub head: u64,
    /// Numbers lost; `holes` names them.
    pub lost: u64,
    /// Ranges of lost numbers, first and last.
    pub holes: Vec<(u64, u64)>,
    /// Killmails of which an older revision is intact, but not the newest; they are among the holes.
    pub stale: Vec<u32>,
    /// Killmails whose frame is intact but could not be decoded; they are among the holes.
    pub unreadable: Vec<u32>,
    /// Frames of what was being written when a process died and never counted.
    pub unfinished: u64,
    /// Values of the small trees (plugins, refused documents, spans, how far sources were read) carried over.
    pub carried: BTreeMap<String, u64>,
    /// What besides killmails could not be carried over, in words.
    pub notes: Vec<String>,
    /// The identity of the new store.
    pub epoch: String,
}

/// Writes what is intact in the data folder `from` into the folder `config.dir`, which is empty or does not
/// exist yet.
///
/// # Errors
/// There is no store, or nothing intact in it; it is in use; a newer killstream wrote it; the new folder is
/// not empty; the disk.
pub fn run(from: &Path, config: &Config, progress: &Progress<'_>) -> Result<Losses, StoreError> {
    data_folder::must_hold_killmails(from)?;
    if !from.join("store").exists() {
        // A compaction that was cut off may have left it aside.
        folder_swap::finish(from).map_err(StoreError::io("finish a compaction in", from))?;
    }
    // Without the engine's main file there is nothing to lock, and what the journal holds is all there is.
    let held = db_path(from).exists().then(|| lock::lock_shared(from)).transpose()?;
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
    make_empty(&config.dir)?;
    let mut losses =
        Losses { unfinished: choice.unfinished, stale: choice.stale.clone(), ..Losses::default() };
    let small = small::read(from, config, &mut losses.notes)?;
    let engine = Engine::open(&config.dir, config.cache_bytes)?;
    let salvage = Salvage { raw: &raw, codec: codec(from, &engine, &mut losses.notes)?, config };
    let kept = salvage.write(&engine, &choice, progress, &mut losses)?;
    losses.carried = small.write(&engine, choice.head)?;
    files(from, &config.dir, &mut losses.notes)?;
    let epoch = finish(&engine, &choice, &kept, &ledger, &small, &mut losses)?;
    losses.epoch = epoch.to_string();
    drop(held);
    Ok(losses)
}

/// A killmail in the new store: its id and revision by number.
type Kept = BTreeMap<u64, (u32, u64)>;

struct Salvage<'a> {
    raw: &'a Raw,
    codec: Codec,
    config: &'a Config,
}

/// What is written of one killmail.
struct Saved {
    killmail_id: u32,
    version: Version,
    frames: Vec<Vec<u8>>,
    line: Vec<u8>,
}

impl Salvage<'_> {
    fn write(
        &self,
        engine: &Engine,
        choice: &Choice,
        progress: &Progress<'_>,
        losses: &mut Losses,
    ) -> Result<Kept, StoreError> {
        let mut phase = Phase::new(progress, "write", choice.chosen.len() as u64);
        let mut kept = Kept::new();
        for step in choice.chosen.chunks(STEP) {
            let saved =
                tasks::spread(step, |part| part.iter().map(|version| self.save(version)).collect::<Vec<_>>());
            let mut writes = Vec::new();
            for saved in saved.into_iter().flatten() {
                match saved {
                    Ok(saved) => {
                        kept.insert(saved.version.seq.0, (saved.killmail_id, saved.version.rev));
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

    fn save(&self, version: &Version) -> Result<Saved, Version> {
        self.saved(version, self.raw.versions.get(version).ok_or(*version)?).ok_or(*version)
    }

    fn saved(&self, version: &Version, places: &Places) -> Option<Saved> {
        let RawRecord { header, payload, frames } = self.raw.read(places)?;
        let killmail = self
            .codec
            .unpack(&header, &payload)
            .ok()
            .filter(|k| u64::from(k.killmail_id) == header.killmail_id)?;
        let line = log_entry::encode(&log_entry_of(&header, &killmail, self.config.encode));
        Some(Saved { killmail_id: killmail.killmail_id, version: *version, frames, line })
    }
}

impl Saved {
    fn writes(self) -> Vec<Write> {
        let mut writes = chunked_values::writes(Key::LogEntry(self.version.seq.0), &self.line);
        let key = self.version.killmail_id.to_be_bytes();
        writes.extend((0..).zip(self.frames).map(|(part, frame)| {
            let key = chunked_values::chunk_key(&key, part);
            Write { tree: Tree::Records, key, value: Some(frame) }
        }));
        writes
    }
}

/// What makes it a store comes last: cut off before, it is seen to be unfinished.
fn finish(
    engine: &Engine,
    choice: &Choice,
    kept: &Kept,
    old: &ledger::Contents,
    small: &Small,
    losses: &mut Losses,
) -> Result<Epoch, StoreError> {
    let epoch = new_epoch()?;
    let numbers =
        Numbers { head: choice.head, count: kept.len() as u64, rev: choice.rev, conflicts: small.conflicts };
    losses.killmails = numbers.count;
    losses.head = numbers.head;
    let whole: BTreeSet<u64> = kept.keys().copied().chain(small.spans()).collect();
    losses.holes = holes(&whole, choice.horizon, numbers.head);
    losses.lost = losses.holes.iter().map(|(first, last)| last - first + 1).sum();
    let mut recorded = losses.holes.clone();
    if choice.horizon > 0 {
        recorded.push((1, choice.horizon));
    }
    engine.commit(initial_writes(epoch, &numbers, &recorded))?;
    let kept: HashMap<u32, u64> = kept.values().copied().filter(|(_, rev)| *rev > 0).collect();
    let mut revised = old.revised.clone();
    revised.resize(usize::try_from(numbers.rev).unwrap_or(0), None);
    for (id, rev) in &kept {
        revised[(rev - 1) as usize] = Some(*id);
    }
    // Killmails that are holes now may come again, as new ones.
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

/// The dictionaries beside the damaged store; they go to the new one as well.
fn codec(from: &Path, engine: &Engine, notes: &mut Vec<String>) -> Result<Codec, StoreError> {
    let mut known = dictionary::read_files(from).map_err(StoreError::io("read dictionaries of", from))?;
    known.entry(CURRENT).or_insert_with(|| {
        notes.push(
            "the dictionary's file is missing or damaged; the one of this killstream is used".to_owned(),
        );
        EMBEDDED.to_vec()
    });
    for (number, bytes) in &known {
        let path = engine.dir().join(dictionary::file_name(*number, bytes));
        whole_file::write(&path, bytes).map_err(StoreError::io("write", &path))?;
        engine.commit(dictionary_writes(*number, bytes))?;
    }
    Ok(Codec::new(Dictionaries::new(known)))
}

/// What stands beside the store: tokens, the plugins' components that are whole.
fn files(from: &Path, to: &Path, notes: &mut Vec<String>) -> Result<(), StoreError> {
    for name in ["token", tokens::NAME] {
        copy::file(&from.join(name), &to.join(name))?;
    }
    for component in copy::list_files(&from.join("plugins"))? {
        let path = component.path();
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        if path.file_stem().and_then(|stem| stem.to_str()) != Some(&sha256_hex(&bytes)) {
            notes.push(format!("{} is damaged and was left behind", path.display()));
            continue;
        }
        let dir = to.join("plugins");
        data_folder::make(&dir).map_err(StoreError::io("make", &dir))?;
        let path = dir.join(component.file_name());
        whole_file::write(&path, &bytes).map_err(StoreError::io("write", &path))?;
    }
    Ok(())
}
