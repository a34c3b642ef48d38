//! The journal: a second copy of the newest frames, in two files of about 32 MiB, of which the older is
//! replaced. A damaged block in the engine's file destroys ten or twenty small records that are adjacent in it;
//! while they are recent, `salvage` finds them here.
//!
//! It is written after the commit and not synced, so everything in it was committed.
//!
//! Must not know: what the frames hold.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::store::engine::Write;
use crate::store::keys::Tree;

/// A file is full at this size; both together contain about 100,000 killmails.
const FILE_BYTES: u64 = 32 << 20;

#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    /// Not open before the first write, and after a failed one.
    file: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    length: u64,
}

/// The files of the journal, older first. They may not exist.
pub fn paths(data_dir: &Path) -> [PathBuf; 2] {
    [data_dir.join("recent.old"), data_dir.join("recent")]
}

/// The frames among these writes, concatenated.
pub fn frames(writes: &[Write]) -> Vec<u8> {
    writes
        .iter()
        .filter(|write| write.tree == Tree::Records)
        .filter_map(|write| write.value.as_deref())
        .flatten()
        .copied()
        .collect()
}

/// Removes the journal, which belongs to an earlier store of this folder.
pub fn remove(data_dir: &Path) -> io::Result<()> {
    paths(data_dir).into_iter().filter(|path| path.exists()).try_for_each(fs::remove_file)
}

impl Journal {
    pub fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.to_owned(), file: None }
    }

    /// Appends committed frames. A failure is only logged, because these are second copies.
    pub fn add(&mut self, frames: &[u8]) {
        if frames.is_empty() {
            return;
        }
        if let Err(error) = self.write(frames) {
            self.file = None;
            tracing::warn!("cannot write the second copy of new records: {error}");
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let [old, new] = paths(&self.dir);
        if self.file.as_ref().is_some_and(|open| open.length >= FILE_BYTES) {
            self.file = None;
            fs::rename(&new, old)?;
        }
        let mut open = match self.file.take() {
            Some(open) => open,
            None => {
                let file = File::options().create(true).append(true).open(new)?;
                let length = file.metadata()?.len();
                OpenFile { file, length }
            }
        };
        open.file.write_all(bytes)?;
        open.length += bytes.len() as u64;
        self.file = Some(open);
        Ok(())
    }
}
