//! Replaces the folder of the engine by a copy with two renames. Whenever the process ends, the next start finds
//! the original or the copy.
//!
//! Must not know: what is in the folders.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const STORE: &str = "store";
const BEFORE: &str = "store.before-compact";

/// The data folder that a compaction writes the copy to.
pub fn copy_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("compact.new")
}

/// The data folder of the twin, a copy of the files of a small store that the compaction reads from.
pub fn twin_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("compact.from")
}

/// The main file of the engine in an original that was moved aside.
pub fn before_path(data_dir: &Path) -> PathBuf {
    data_dir.join(BEFORE).join("db")
}

/// First step: moves the original aside.
pub fn move_aside(data_dir: &Path) -> io::Result<()> {
    fs::rename(data_dir.join(STORE), data_dir.join(BEFORE))?;
    sync(data_dir)
}

/// Second step: moves the copy to the place of the original.
pub fn move_in_place(data_dir: &Path) -> io::Result<()> {
    fs::rename(copy_dir(data_dir).join(STORE), data_dir.join(STORE))?;
    sync(data_dir)
}

/// Last step, which a start also runs for an interrupted swap: removes the original if the copy is in its place,
/// otherwise moves it back.
pub fn finish(data_dir: &Path) -> io::Result<()> {
    let (store, before) = (data_dir.join(STORE), data_dir.join(BEFORE));
    if !before.exists() {
        return Ok(());
    }
    if store.exists() {
        return fs::remove_dir_all(before);
    }
    fs::rename(before, store)?;
    sync(data_dir)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
