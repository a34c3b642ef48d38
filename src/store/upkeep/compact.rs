//! Compaction: the engine's files never shrink, so the store is copied into new ones, the copy is verified
//! and takes the place of the original. Numbers, identity, checkpoints, plugins and everything beside the
//! engine stay.
//!
//! Must not know: why it is wanted.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::store::config::Config;
use crate::store::disk_space::free_bytes;
use crate::store::engine::{self, Engine, copy, data_folder, folder_swap, lock, meta, spare};
use crate::store::error::StoreError;
use crate::store::progress::Progress;
use crate::store::upkeep::verify::{Beside, Problem, Report, examine};

/// What a compaction gained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Size of the engine's files before, bytes.
    pub before_bytes: u64,
    /// And after; the same where a copy would not be smaller, so that the store was left as it is.
    pub after_bytes: u64,
    /// What is damaged beside the engine, as `verify` tells it: that does not keep the store from being
    /// compacted.
    pub problems: Vec<Problem>,
}

/// A store up to this size is opened as a copy of itself, bytes: opening makes the files of a young one
/// larger, and it is the young that have nothing to let go of.
const YOUNG_BYTES: u64 = 64 << 20;

/// Compacts the store of a data folder that nobody has open. Cut off at any moment, the store is as it was,
/// or compacted.
///
/// # Errors
/// `InUse`, `NoSpace`, `Damaged`; what the system says. The store is as it was then.
pub fn run(config: &Config, progress: &Progress<'_>) -> Result<Compacted, StoreError> {
    let dir = &config.dir;
    folder_swap::finish(dir).map_err(StoreError::io("finish a compaction in", dir))?;
    data_folder::must_hold_store(dir)?;
    let before_bytes = engine::size_bytes(dir);
    let is_young = before_bytes <= YOUNG_BYTES;
    let needed =
        config.min_free_bytes.saturating_add(before_bytes.saturating_mul(if is_young { 2 } else { 1 }));
    let free = free_bytes(dir).map_err(StoreError::io("ask for free space at", dir))?;
    if free < needed {
        return Err(StoreError::NoSpace { free, min: needed });
    }
    let compacted =
        if is_young { young(config, before_bytes, progress) } else { grown(config, before_bytes, progress) };
    // In use means that the folders are those of another compaction.
    if !matches!(compacted, Err(StoreError::InUse { .. })) {
        data_folder::remove_unfinished_compaction(dir)?;
    }
    // The command must name the store, not a copy of it.
    compacted.map_err(|error| {
        if let StoreError::Damaged { what, .. } = error { engine::damaged(dir, what) } else { error }
    })
}

/// A young store: its files are not touched but to be replaced by smaller ones.
fn young(config: &Config, before_bytes: u64, progress: &Progress<'_>) -> Result<Compacted, StoreError> {
    let dir = &config.dir;
    let twin = &folder_swap::twin_dir(dir);
    // Held to the end, so that nobody opens the original meanwhile.
    let held = lock::lock_exclusive(dir)?;
    data_folder::remove_unfinished_compaction(dir)?;
    copy_files(&dir.join("store"), &twin.join("store")).map_err(StoreError::io("copy the store in", dir))?;
    let copied = Engine::open(twin, config.cache_bytes).and_then(|from| copied(&from, config, progress))?;
    if copied.bytes < before_bytes {
        exchange(dir, held)?;
    }
    Ok(copied.told(before_bytes))
}

fn grown(config: &Config, before_bytes: u64, progress: &Progress<'_>) -> Result<Compacted, StoreError> {
    let from = Engine::open(&config.dir, config.cache_bytes)?;
    data_folder::remove_unfinished_compaction(&config.dir)?;
    let copied = copied(&from, config, progress)?;
    if copied.bytes < before_bytes {
        exchange(&config.dir, from)?;
    } else {
        drop(from);
        spare::remove(&config.dir).map_err(StoreError::io("remove the spare in", &config.dir))?;
    }
    Ok(copied.told(before_bytes))
}

/// A copy that is as good as the original.
struct Copied {
    bytes: u64,
    /// What is damaged beside it.
    problems: Vec<Problem>,
}

impl Copied {
    fn told(self, before_bytes: u64) -> Compacted {
        Compacted { before_bytes, after_bytes: self.bytes.min(before_bytes), problems: self.problems }
    }
}

/// The copy takes the place of the original, which is held until then, so that nobody opens it on its way
/// out.
fn exchange<H>(dir: &Path, held: H) -> Result<(), StoreError> {
    spare::remove(dir).map_err(StoreError::io("remove the spare in", dir))?;
    folder_swap::move_aside(dir).map_err(StoreError::io("move aside the store in", dir))?;
    folder_swap::move_in_place(dir).map_err(StoreError::io("move the new store to", dir))?;
    drop(held);
    folder_swap::finish(dir).map_err(StoreError::io("remove the former store in", dir))
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Makes the copy, opens it once more from the disk, and lets nothing pass that differs or does not fit
/// together.
fn copied(from: &Engine, config: &Config, progress: &Progress<'_>) -> Result<Copied, StoreError> {
    let dir = folder_swap::copy_dir(&config.dir);
    meta::is_initialized(from)?;
    copy::trees(from, &Engine::open(&dir, config.cache_bytes)?, progress)?;
    let copied = {
        let to = Engine::open(&dir, config.cache_bytes)?;
        copy::compare(from, &to, progress)?;
        let mut report = Report::default();
        let numbers = examine(&to, &config.dir, progress, &mut report)?;
        if let Some(problem) = report.problems.first() {
            return Err(from.damaged(problem.what.clone()));
        }
        Beside { engine: &to, dir: &config.dir, report: &mut report }.examine(numbers.as_ref());
        Copied { bytes: to.size_bytes(), problems: report.problems }
    };
    copy::sync_folder(&dir).map_err(StoreError::io("sync", &dir))?;
    Ok(copied)
}
