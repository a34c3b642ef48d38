//! Backups: a store copied as it stands at one moment, with a mark by which its first start makes it a store of its own.
//!
//! Not in a backup: tokens (secrets), and what the first start makes again (snapshots of the index, the ledger).
//!
//! Must not know: who asks for them, or when.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::store::disk::{Disk, Tree, Write};
use crate::store::progress::Progress;
use crate::store::space::free_bytes;
use crate::store::start::RESTORED_KEY;
use crate::store::{Error, Store, copy, dictionary, folder};

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
    /// Makes a backup beside the store, for whoever cannot reach this disk. Needs as much room as the store once more.
    ///
    /// # Errors
    /// `UnderWay`: there is one at a time; `NoSpace`; else as [`Store::backup`].
    pub fn backup_aside(&self) -> Result<Aside, Error> {
        let dir = aside_dir(self.disk.dir());
        let lock_path = dir.with_extension("lock");
        let lock = File::create(&lock_path).map_err(Error::io("make", &lock_path))?;
        if lock.try_lock().is_err() {
            return Err(Error::UnderWay { what: "a backup" });
        }
        tidy(self.disk.dir())?;
        let mut aside = Aside { dir, held: Backup::default(), _lock: lock };
        aside.held = self.backup(&aside.dir, &|_| {})?;
        Ok(aside)
    }

    /// Copies the store into a folder that is empty or does not exist yet. Nothing is appended meanwhile; reads go on.
    ///
    /// # Errors
    /// The folder is not empty; `NoSpace` before anything is written; `Damaged`; else the disk.
    pub fn backup(&self, to: &Path, progress: &Progress<'_>) -> Result<Backup, Error> {
        make_empty(to)?;
        let min = self.disk.size_bytes().saturating_add(self.config.min_free_bytes);
        let free = free_bytes(to).map_err(Error::io("ask for free space at", to))?;
        if free < min {
            return Err(Error::NoSpace { free, min });
        }
        let writer = self.writer.lock();
        let refused = self.refused.lock();
        let disk = Disk::open(to, self.config.cache_bytes)?;
        copy::trees(&self.disk, &disk, progress)?;
        copy::same(&self.disk, &disk, progress)?;
        let numbers = writer.numbers;
        let from = self.disk.dir();
        for (number, bytes) in dictionary::files(from).map_err(Error::io("read dictionaries of", from))? {
            let name = dictionary::file_name(number, &bytes);
            copy::file(&from.join(&name), &to.join(&name))?;
        }
        components(from, to)?;
        drop(refused);
        disk.commit(vec![Write { tree: Tree::Meta, key: RESTORED_KEY.to_vec(), value: Some(vec![1]) }])?;
        let bytes = disk.size_bytes();
        drop(disk);
        sync(to)?;
        Ok(Backup { killmails: numbers.count, head: numbers.head, bytes })
    }
}

/// Removes what a process that ended amid a backup left behind.
pub fn tidy(data_dir: &Path) -> Result<(), Error> {
    let dir = aside_dir(data_dir);
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Io { what: "remove", path: dir, source: error }),
        _ => Ok(()),
    }
}

fn aside_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("backup.aside")
}

/// Makes sure that a folder with all in it is on disk.
///
/// # Errors
/// The disk.
pub fn sync(dir: &Path) -> Result<(), Error> {
    copy::sync_folder(dir).map_err(Error::io("sync", dir))
}

/// Makes a folder, or takes one in which there is nothing.
///
/// # Errors
/// There is something in it; the disk.
pub fn make_empty(dir: &Path) -> Result<(), Error> {
    folder::make(dir).map_err(Error::io("make", dir))?;
    if fs::read_dir(dir).map_err(Error::io("list", dir))?.next().is_some() {
        return Err(Error::Engine { what: "write to a folder of one's own", why: format!("{} is not empty", dir.display()) });
    }
    Ok(())
}

fn components(from: &Path, to: &Path) -> Result<(), Error> {
    let (from, to) = (from.join("plugins"), to.join("plugins"));
    for component in copy::files(&from)? {
        fs::create_dir_all(&to).map_err(Error::io("make", &to))?;
        copy::file(&component.path(), &to.join(component.file_name()))?;
    }
    Ok(())
}
