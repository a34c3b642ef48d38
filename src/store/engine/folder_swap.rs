//! A copy of the engine's folder takes the original's place, in two renames; whatever moment the process ends
//! at, one of both is found.
//!
//! Must not know: what is in the folders.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const STORE: &str = "store";
const BEFORE: &str = "store.before-compact";

/// The data folder in which the copy is made.
pub fn copy_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("compact.new")
}

/// The data folder of a copy of a young store, from which the copy is made.
pub fn twin_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("compact.from")
}

/// The engine's main file of an original that stands aside.
pub fn before_path(data_dir: &Path) -> PathBuf {
    data_dir.join(BEFORE).join("db")
}

/// First step: the original goes aside.
pub fn aside(data_dir: &Path) -> io::Result<()> {
    fs::rename(data_dir.join(STORE), data_dir.join(BEFORE))?;
    sync(data_dir)
}

/// Second step: the copy takes its place.
pub fn take_place(data_dir: &Path) -> io::Result<()> {
    fs::rename(copy_dir(data_dir).join(STORE), data_dir.join(STORE))?;
    sync(data_dir)
}

/// Last step, and what a start does about a swap that was cut off: without a copy in its place the original
/// comes back, else it goes.
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
