//! Compaction: the engine's files never shrink, so the store is copied into new ones, the copy is verified and takes the place of the
//! original. Numbers, identity, checkpoints, plugins and everything beside the engine stay.
//!
//! Must not know: why it is wanted.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::store::disk::Disk;
use crate::store::progress::Progress;
use crate::store::space::free_bytes;
use crate::store::verify::{Report, examine};
use crate::store::{Config, Error, copy, folder, spare, swap};

/// What a compaction gained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Size of the engine's files before, bytes.
    pub before_bytes: u64,
    /// And after; the same where a copy would not be smaller, so that the store was left as it is.
    pub after_bytes: u64,
}

/// Compacts the store of a data folder that nobody has open. Cut off at any moment, the store is as it was, or compacted.
///
/// # Errors
/// `InUse`, `NoSpace`, `Damaged`; what the system says. The store is as it was then.
pub fn run(config: &Config, progress: &Progress<'_>) -> Result<Compacted, Error> {
    let dir = &config.dir;
    swap::finish(dir).map_err(Error::io("finish a compaction in", dir))?;
    folder::must_hold_store(dir)?;
    let from = Disk::open(dir, config.cache_bytes)?;
    let before_bytes = from.size_bytes();
    let (free, min) = (free_bytes(dir).map_err(Error::io("ask for free space at", dir))?, config.min_free_bytes);
    if free < min.saturating_add(before_bytes) {
        return Err(Error::NoSpace { free, min: min.saturating_add(before_bytes) });
    }
    let after_bytes = copied(&from, config, progress)?;
    if after_bytes >= before_bytes {
        // The engine's files have a least size, and a young store has nothing to let go of.
        drop(from);
        remove(&swap::copy_dir(dir))?;
        return Ok(Compacted { before_bytes, after_bytes: before_bytes });
    }
    spare::remove(dir).map_err(Error::io("remove the spare in", dir))?;
    swap::aside(dir).map_err(Error::io("move aside the store in", dir))?;
    swap::take_place(dir).map_err(Error::io("move the new store to", dir))?;
    // Held until here, so that nobody opened the original on its way out.
    drop(from);
    swap::finish(dir).map_err(Error::io("remove the former store in", dir))?;
    remove(&swap::copy_dir(dir))?;
    Ok(Compacted { before_bytes, after_bytes })
}

/// Makes the copy, opens it once more from the disk, and lets nothing pass that differs or does not fit together.
fn copied(from: &Disk, config: &Config, progress: &Progress<'_>) -> Result<u64, Error> {
    let dir = swap::copy_dir(&config.dir);
    remove(&dir)?;
    copy::trees(from, &Disk::open(&dir, config.cache_bytes)?, progress)?;
    let after_bytes = {
        let to = Disk::open(&dir, config.cache_bytes)?;
        copy::same(from, &to, progress)?;
        let mut report = Report::default();
        examine(&to, &config.dir, progress, &mut report);
        if let Some(problem) = report.problems.first() {
            return Err(from.damaged(problem.what.clone()));
        }
        to.size_bytes()
    };
    copy::sync_folder(&dir).map_err(Error::io("sync", &dir))?;
    Ok(after_bytes)
}

fn remove(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Io { what: "remove", path: dir.to_owned(), source: error }),
        _ => Ok(()),
    }
}
