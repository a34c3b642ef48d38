//! Backups: a consistent copy of a store. A mark in it makes its first start assign a new epoch.
//!
//! A backup does not contain tokens (they are secrets), nor what the first start creates again (snapshots of
//! the index, the ledger).
//!
//! Must not know: who asks for backups, or when.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::store::disk_space::free_bytes;
use crate::store::engine::{Engine, Write, copy, data_folder, lock, meta};
use crate::store::error::StoreError;
use crate::store::format::dictionary;
use crate::store::keys::Key;
use crate::store::progress::Progress;
use crate::store::{Store, whole_file};

/// What a backup contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Backup {
    pub killmails: u64,
    /// The number of the newest entry.
    pub head: u64,
    /// Its size, bytes.
    pub bytes: u64,
}

/// A backup in a folder beside the store, for a client to download; removed when this is dropped.
#[derive(Debug)]
pub struct TemporaryBackup {
    dir: PathBuf,
    contents: Backup,
    /// Locked while it exists: there is one at a time.
    _lock: File,
}

impl TemporaryBackup {
    /// The folder it is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it contains.
    #[must_use]
    pub const fn contents(&self) -> Backup {
        self.contents
    }
}

impl Drop for TemporaryBackup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!("cannot remove the backup in {}: {error}", self.dir.display());
        }
    }
}

impl Store {
    /// Makes a backup beside the store, for clients that cannot access this disk. Needs as much free space as
    /// the store takes.
    ///
    /// # Errors
    /// `UnderWay`, since there is one at a time; otherwise as [`Store::backup`].
    pub fn temporary_backup(&self) -> Result<TemporaryBackup, StoreError> {
        let dir = data_folder::backup_dir(self.engine.dir());
        let lock_path = dir.with_extension("lock");
        let lock = File::create(&lock_path).map_err(StoreError::io("make", &lock_path))?;
        if lock.try_lock().is_err() {
            return Err(StoreError::UnderWay { what: "a backup" });
        }
        data_folder::remove_unfinished_backup(self.engine.dir())?;
        let mut backup = TemporaryBackup { dir, contents: Backup::default(), _lock: lock };
        backup.contents = self.backup(&backup.dir, &|_| {})?;
        Ok(backup)
    }

    /// Copies the store into a folder that is empty or does not exist yet. Appends wait until it is done; reads
    /// go on.
    ///
    /// # Errors
    /// The folder is not empty; `NoSpace` before anything is written; `Damaged`; otherwise the disk.
    pub fn backup(&self, to: &Path, progress: &Progress<'_>) -> Result<Backup, StoreError> {
        require_empty(to)?;
        let min = self.engine.size_bytes().saturating_add(self.config.min_free_bytes);
        let free = free_bytes(to).map_err(StoreError::io("ask for free space at", to))?;
        if free < min {
            return Err(StoreError::NoSpace { free, min });
        }
        let writer = self.writer.lock();
        let refused = self.refused.lock();
        let engine = Engine::open(to, self.config.cache_bytes)?;
        copy::trees(&self.engine, &engine, progress)?;
        copy::compare(&self.engine, &engine, progress)?;
        let numbers = writer.numbers;
        for (number, bytes) in meta::dictionaries(&engine)? {
            let path = to.join(dictionary::file_name(number, &bytes));
            whole_file::write(&path, &bytes).map_err(StoreError::io("write", &path))?;
        }
        copy_components(self.engine.dir(), to)?;
        drop(refused);
        engine.commit(vec![Write::new(Key::Restored, vec![1])])?;
        let bytes = engine.size_bytes();
        drop(engine);
        // No process has opened the copy.
        let pid = lock::pid_path(to);
        fs::remove_file(&pid).map_err(StoreError::io("remove", &pid))?;
        sync(to)?;
        Ok(Backup { killmails: numbers.count, head: numbers.head, bytes })
    }
}

/// Syncs a folder with everything in it.
///
/// # Errors
/// The disk.
pub fn sync(dir: &Path) -> Result<(), StoreError> {
    copy::sync_folder(dir).map_err(StoreError::io("sync", dir))
}

/// Creates a folder, or accepts an empty one.
///
/// # Errors
/// The folder is not empty; the disk.
pub fn require_empty(dir: &Path) -> Result<(), StoreError> {
    data_folder::make(dir).map_err(StoreError::io("make", dir))?;
    if fs::read_dir(dir).map_err(StoreError::io("list", dir))?.next().is_some() {
        return Err(StoreError::Engine {
            what: "write into the folder",
            why: format!("{} is not empty", dir.display()),
        });
    }
    Ok(())
}

fn copy_components(from: &Path, to: &Path) -> Result<(), StoreError> {
    let (from, to) = (from.join("plugins"), to.join("plugins"));
    for component in copy::list_files(&from)? {
        data_folder::make(&to).map_err(StoreError::io("make", &to))?;
        copy::file(&component.path(), &to.join(component.file_name()))?;
    }
    Ok(())
}
