//! The journal: the frames committed last once more, in files of their own. A damaged block of the engine's
//! file takes ten or twenty small records that stand side by side; as long as they are recent, `salvage`
//! finds them here.
//!
//! Written after the commit and not synced, two files of at most 32 MiB, the older one replaced: what is in
//! it did count.
//!
//! Must not know: what the frames hold.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::store::engine::Write;
use crate::store::keys::Tree;

/// A file is full at this size, bytes: together they hold the newest 100,000 killmails or so.
const FILE_BYTES: u64 = 32 << 20;

/// The file being written.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    file: Option<(File, u64)>,
}

/// The journal's files, the older first; they may be missing.
pub fn paths(data_dir: &Path) -> [PathBuf; 2] {
    [data_dir.join("recent.old"), data_dir.join("recent")]
}

/// The frames among these writes, one after the other.
pub fn frames(writes: &[Write]) -> Vec<u8> {
    writes
        .iter()
        .filter(|write| write.tree == Tree::Records)
        .filter_map(|write| write.value.as_deref())
        .flatten()
        .copied()
        .collect()
}

/// Removes the journal of a store that stood here before.
pub fn remove(data_dir: &Path) -> io::Result<()> {
    paths(data_dir).into_iter().filter(|path| path.exists()).try_for_each(fs::remove_file)
}

impl Journal {
    /// The journal of a data folder; nothing is opened before something is written.
    pub fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.to_owned(), file: None }
    }

    /// Adds frames that were committed. What cannot be written is only logged: it is a second copy.
    pub fn add(&mut self, frames: &[u8]) {
        if frames.is_empty() {
            return;
        }
        if let Err(error) = self.write(frames) {
            self.file = None;
            tracing::warn!("cannot write a second copy of what was stored: {error}");
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let [old, new] = paths(&self.dir);
        if self.file.as_ref().is_some_and(|(_, length)| *length >= FILE_BYTES) {
            self.file = None;
            fs::rename(&new, old)?;
        }
        let (mut file, length) = match self.file.take() {
            Some(open) => open,
            None => {
                let file = File::options().create(true).append(true).open(new)?;
                let length = file.metadata()?.len();
                (file, length)
            }
        };
        file.write_all(bytes)?;
        self.file = Some((file, length + bytes.len() as u64));
        Ok(())
    }
}
