//! Backups: a store copied as it stands at one moment, with a mark by which its first start makes it a store of its own.
//!
//! Not in a backup: the token (a secret), and what the first start makes again (snapshots of the index, the ledger).
//!
//! Must not know: who asks for them, or when.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::store::disk::{Disk, Tree, Write};
use crate::store::progress::Progress;
use crate::store::start::RESTORED_KEY;
use crate::store::{Error, Store, copy, dictionary};

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// Killmails.
    pub killmails: u64,
    /// The number of the newest entry.
    pub head: u64,
    /// Its size, bytes.
    pub bytes: u64,
}

impl Store {
    /// Copies the store into a folder that is empty or does not exist yet. Nothing is appended meanwhile; reads go on.
    ///
    /// # Errors
    /// The folder is not empty; `Damaged`; else the disk.
    pub fn backup(&self, to: &Path, progress: &Progress<'_>) -> Result<Backup, Error> {
        make_empty(to)?;
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
        copy::sync_folder(to).map_err(Error::io("sync", to))?;
        Ok(Backup { killmails: numbers.count, head: numbers.head, bytes })
    }
}

/// Makes a folder, or takes one in which there is nothing.
pub fn make_empty(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
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
