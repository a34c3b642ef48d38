//! The list of issued tokens, in a file beside the store that only its owner can read.
//!
//! Must not know: what a token is, or what it permits; the list is bytes here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::store::error::StoreError;
use crate::store::{Store, whole_file};

/// The file's name in the data folder.
pub const NAME: &str = "tokens";

impl Store {
    /// The list as it was last stored; `None` if there never was one.
    ///
    /// # Errors
    /// The file system.
    pub fn tokens(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let path = path(self.engine.dir());
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { what: "read", path, source }),
        }
    }

    /// Stores the list; complete and on disk when this returns.
    ///
    /// # Errors
    /// The file system.
    pub fn put_tokens(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let path = path(self.engine.dir());
        whole_file::write_private(&path, bytes).map_err(StoreError::io("write", &path))
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}
