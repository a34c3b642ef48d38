//! Copies the contents of one engine into another, value by value, and compares both. Also copies files of a
//! data folder.
//!
//! Must not know: what the copy is for.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::domain::hex::hex;
use crate::store::engine::{Engine, meta};
use crate::store::error::StoreError;
use crate::store::format::frame;
use crate::store::keys::Tree;
use crate::store::progress::{Phase, Progress};

/// Values written to the copy before it is synced.
const SYNC_EVERY: u64 = 20_000;

/// Copies every tree into an empty engine; the copy is on disk when this returns.
///
/// # Errors
/// `Damaged` at the first damaged record of the original; the disk.
pub fn trees(from: &Engine, to: &Engine, progress: &Progress<'_>) -> Result<(), StoreError> {
    let mut phase = Phase::new(progress, "copy", expected(from)?);
    let mut copied = 0;
    for tree in Tree::ALL {
        for pair in from.scan(tree, &[]) {
            let (key, value) = pair?;
            if tree == Tree::Records && frame::open(&value).is_err() {
                return Err(from.damaged(format!("the record under key {}", hex(&key))));
            }
            to.put(tree, &key, &value)?;
            phase.advance(1);
            copied += 1;
            if copied % SYNC_EVERY == 0 {
                to.sync()?;
            }
        }
        to.sync()?;
    }
    Ok(())
}

/// Compares both engines value by value.
///
/// # Errors
/// They differ; the disk.
pub fn compare(from: &Engine, to: &Engine, progress: &Progress<'_>) -> Result<(), StoreError> {
    let mut phase = Phase::new(progress, "compare", expected(from)?);
    for tree in Tree::ALL {
        let (mut originals, mut copies) = (from.scan(tree, &[]), to.scan(tree, &[]));
        loop {
            let (original, copy) = (originals.next().transpose()?, copies.next().transpose()?);
            let equal = match (&original, &copy) {
                (Some((key, value)), Some((copied_key, copied))) => {
                    **key == **copied_key && **value == **copied
                }
                (None, None) => break,
                _ => false,
            };
            if !equal {
                let key = original.or(copy).map_or_else(String::new, |(key, _)| hex(&key));
                return Err(StoreError::Engine {
                    what: "copy the store",
                    why: format!("the copy of {} differs at key {key}", tree.name()),
                });
            }
            phase.advance(1);
        }
    }
    Ok(())
}

/// Syncs a folder and everything in it.
pub fn sync_folder(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folder(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

/// Copies a file and its permissions. Returns false if it does not exist.
pub fn file(from: &Path, to: &Path) -> Result<bool, StoreError> {
    match fs::copy(from, to) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(StoreError::Io { what: "copy", path: from.to_owned(), source }),
    }
}

/// The files in a folder, sorted by name; empty if the folder does not exist.
pub fn list_files(dir: &Path) -> Result<Vec<fs::DirEntry>, StoreError> {
    let list = match fs::read_dir(dir) {
        Ok(list) => list.collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let mut list = list.map_err(StoreError::io("list", dir))?;
    list.retain(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    list.sort_unstable_by_key(fs::DirEntry::file_name);
    Ok(list)
}

/// The approximate number of values in the trees.
fn expected(engine: &Engine) -> Result<u64, StoreError> {
    let numbers = meta::numbers(engine)?;
    Ok(numbers.count * 2 + numbers.rev)
}
