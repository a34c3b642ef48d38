//! Compaction: the engine's files never shrink, so the store is copied into new ones, and the copy is verified
//! and replaces the original. Numbers, epoch, checkpoints, plugins and everything beside the engine stay.
//!
//! Must not know: who asks for it, or why.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::store::config::Config;
use crate::store::disk_space::free_bytes;
use crate::store::engine::{self, Engine, copy, data_folder, folder_swap, lock, meta, spare};
use crate::store::error::StoreError;
use crate::store::progress::Progress;
use crate::store::upkeep::verify::{FileCheck, Problem, Report, check_engine};

/// The result of a compaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Size of the engine's files before it, bytes.
    pub before_bytes: u64,
    /// Their size after it; the same if a copy would not be smaller and the store was left as it is.
    pub after_bytes: u64,
    /// Damage in files beside the engine, as `verify` reports it. It does not prevent compaction.
    pub problems: Vec<Problem>,
}

/// For a store up to this size, bytes, the engine opens a copy of its files: opening makes the files of a small
/// store larger, and a small store often has nothing to free.
const SMALL_BYTES: u64 = 64 << 20;

/// Compacts the store of a data folder that no process has opened. If it is cut off at any moment, the store is
/// either unchanged or compacted.
///
/// # Errors
/// `InUse`, `NoSpace`, `Damaged`; the file system. The store is unchanged then.
pub fn run(config: &Config, progress: &Progress<'_>) -> Result<Compacted, StoreError> {
    let dir = &config.dir;
    folder_swap::finish(dir).map_err(StoreError::io("finish a compaction in", dir))?;
    data_folder::must_hold_store(dir)?;
    let before_bytes = engine::size_bytes(dir);
    let is_small = before_bytes <= SMALL_BYTES;
    let needed =
        config.min_free_bytes.saturating_add(before_bytes.saturating_mul(if is_small { 2 } else { 1 }));
    let free = free_bytes(dir).map_err(StoreError::io("ask for free space at", dir))?;
    if free < needed {
        return Err(StoreError::NoSpace { free, min: needed });
    }
    let compacted = if is_small {
        compact_small(config, before_bytes, progress)
    } else {
        compact_large(config, before_bytes, progress)
    };
    // If the store is in use, the folders belong to another compaction.
    if !matches!(compacted, Err(StoreError::InUse { .. })) {
        data_folder::remove_unfinished_compaction(dir)?;
    }
    // The error must name the store, not its copy.
    compacted.map_err(|error| {
        if let StoreError::Damaged { what, .. } = error { engine::damaged(dir, what) } else { error }
    })
}

/// Never changes the files of the store, except to replace them with smaller ones.
fn compact_small(
    config: &Config,
    before_bytes: u64,
    progress: &Progress<'_>,
) -> Result<Compacted, StoreError> {
    let dir = &config.dir;
    let twin_dir = &folder_swap::twin_dir(dir);
    // Held to the end, so that no process opens the original in the meantime.
    let lock = lock::lock_exclusive(dir)?;
    data_folder::remove_unfinished_compaction(dir)?;
    copy_files(&dir.join("store"), &twin_dir.join("store"))
        .map_err(StoreError::io("copy the store in", dir))?;
    let copy = Engine::open(twin_dir, config.cache_bytes)
        .and_then(|from| make_verified_copy(&from, config, progress))?;
    if copy.bytes < before_bytes {
        replace(dir, lock)?;
    }
    Ok(copy.into_result(before_bytes))
}

fn compact_large(
    config: &Config,
    before_bytes: u64,
    progress: &Progress<'_>,
) -> Result<Compacted, StoreError> {
    let from = Engine::open(&config.dir, config.cache_bytes)?;
    data_folder::remove_unfinished_compaction(&config.dir)?;
    let copy = make_verified_copy(&from, config, progress)?;
    if copy.bytes < before_bytes {
        replace(&config.dir, from)?;
    } else {
        drop(from);
        spare::remove(&config.dir).map_err(StoreError::io("remove the spare copy in", &config.dir))?;
    }
    Ok(copy.into_result(before_bytes))
}

/// A verified copy of the engine.
struct VerifiedCopy {
    bytes: u64,
    /// Damage in files beside the engine.
    problems: Vec<Problem>,
}

impl VerifiedCopy {
    fn into_result(self, before_bytes: u64) -> Compacted {
        Compacted { before_bytes, after_bytes: self.bytes.min(before_bytes), problems: self.problems }
    }
}

/// Replaces the original with the copy. `lock` keeps other processes from opening the original until then.
fn replace<L>(dir: &Path, lock: L) -> Result<(), StoreError> {
    spare::remove(dir).map_err(StoreError::io("remove the spare copy in", dir))?;
    folder_swap::move_aside(dir).map_err(StoreError::io("move aside the store in", dir))?;
    folder_swap::move_in_place(dir).map_err(StoreError::io("move the new store to", dir))?;
    drop(lock);
    folder_swap::finish(dir).map_err(StoreError::io("remove the old store in", dir))
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

/// Makes the copy, opens it again from the disk, and checks that it equals the original and is consistent.
fn make_verified_copy(
    from: &Engine,
    config: &Config,
    progress: &Progress<'_>,
) -> Result<VerifiedCopy, StoreError> {
    let dir = folder_swap::copy_dir(&config.dir);
    meta::is_initialized(from)?;
    copy::trees(from, &Engine::open(&dir, config.cache_bytes)?, progress)?;
    let verified = {
        let to = Engine::open(&dir, config.cache_bytes)?;
        copy::compare(from, &to, progress)?;
        let mut report = Report::default();
        let numbers = check_engine(&to, &config.dir, progress, &mut report)?;
        if let Some(problem) = report.problems.first() {
            return Err(from.damaged(problem.what.clone()));
        }
        FileCheck { engine: &to, dir: &config.dir, report: &mut report }.check(numbers.as_ref());
        VerifiedCopy { bytes: to.size_bytes(), problems: report.problems }
    };
    copy::sync_folder(&dir).map_err(StoreError::io("sync", &dir))?;
    Ok(verified)
}
