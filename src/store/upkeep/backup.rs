//! Backups: a store copied as it stands at one moment, with a mark by which its first start makes it a store
//! of its own.
//!
//! Not in a backup: tokens (secrets), and what the first start makes again (snapshots of the index, the
//! ledger).
//!
//! Must not know: who asks for them, or when.

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

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Backup {
    /// Killmails.
    pub killmails: u64,
    /// The number of the newest entry.
    pub head: u64,
    /// Its size, bytes.
    pub bytes: u64,
}

/// A backup that stands beside the store while somebody takes it; gone when this is dropped.
#[derive(Debug)]
pub struct Aside {
    dir: PathBuf,
    held: Backup,
    /// Locked: there is one at a time.
    _lock: File,
}

impl Aside {
    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it holds.
    #[must_use]
    pub const fn held(&self) -> Backup {
        self.held
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!("cannot remove the backup in {}: {error}", self.dir.display());
        }
    }
}

impl Store {
    /// Makes a backup beside the store, for whoever cannot reach this disk. Needs as much room as the store
    /// once more.
    ///
    /// # Errors
    /// `UnderWay`: there is one at a time; `NoSpace`; else as [`Store::backup`].
    pub fn backup_aside(&self) -> Result<Aside, StoreError> {
        let dir = data_folder::backup_dir(self.engine.dir());
        let lock_path = dir.with_extension("lock");
        let lock = File::create(&lock_path).map_err(StoreError::io("make", &lock_path))?;
        if lock.try_lock().is_err() {
            return Err(StoreError::UnderWay { what: "a backup" });
        }
        data_folder::remove_unfinished_backup(self.engine.dir())?;
        let mut aside = Aside { dir, held: Backup::default(), _lock: lock };
        aside.held = self.backup(&aside.dir, &|_| {})?;
        Ok(aside)
    }

    /// Copies the store into a folder that is empty or does not exist yet. Nothing is appended meanwhile;
    /// reads go on.
    ///
    /// # Errors
    /// The folder is not empty; `NoSpace` before anything is written; `Damaged`; else the disk.
    pub fn backup(&self, to: &Path, progress: &Progress<'_>) -> Result<Backup, StoreError> {
        make_empty(to)?;
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
        components(self.engine.dir(), to)?;
        drop(refused);
        engine.commit(vec![Write::new(Key::Restored, vec![1])])?;
        let bytes = engine.size_bytes();
        drop(engine);
        // Nobody has it open.
        let pid = lock::pid_path(to);
        fs::remove_file(&pid).map_err(StoreError::io("remove", &pid))?;
        sync(to)?;
        Ok(Backup { killmails: numbers.count, head: numbers.head, bytes })
    }
}

/// Makes sure that a folder with all in it is on disk.
///
/// # Errors
/// The disk.
pub fn sync(dir: &Path) -> Result<(), StoreError> {
    copy::sync_folder(dir).map_err(StoreError::io("sync", dir))
}

/// Makes a folder, or takes one in which there is nothing.
///
/// # Errors
/// There is something in it; the disk.
pub fn make_empty(dir: &Path) -> Result<(), StoreError> {
    data_folder::make(dir).map_err(StoreError::io("make", dir))?;
    if fs::read_dir(dir).map_err(StoreError::io("list", dir))?.next().is_some() {
        return Err(StoreError::Engine {
            what: "write to a folder of one's own",
            why: format!("{} is not empty", dir.display()),
        });
    }
    Ok(())
}

fn components(from: &Path, to: &Path) -> Result<(), StoreError> {
    let (from, to) = (from.join("plugins"), to.join("plugins"));
    for component in copy::list_files(&from)? {
        data_folder::make(&to).map_err(StoreError::io("make", &to))?;
        copy::file(&component.path(), &to.join(component.file_name()))?;
    }
    Ok(())
}
