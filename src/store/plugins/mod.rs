//! Storage for plugins: their state under a name, their components as files.
//!
//! Must not know: what a plugin is; state and components are bytes here.

pub(crate) mod compiled;

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use crate::store::Store;
use crate::store::engine::{chunked_values, data_folder};
use crate::store::error::StoreError;
use crate::store::keys::{Key, Tree};
use crate::store::plugins::compiled::UploadFile;

impl Store {
    /// The name and state of every plugin.
    ///
    /// # Errors
    /// The disk.
    pub fn plugins(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut found = Vec::new();
        for pair in self.engine.scan(Tree::Plugins, &[]) {
            let (key, value) = pair?;
            // Keys of further chunks have a zero byte and a number after the name; names contain no zero byte.
            let name = key.strip_suffix(&[0]).filter(|name| !name.contains(&0));
            let Some(name) = name.and_then(|name| str::from_utf8(name).ok()) else { continue };
            found.push((name.to_owned(), chunked_values::join(&self.engine, Tree::Plugins, &key, &value)?));
        }
        Ok(found)
    }

    /// Stores a plugin's state; on disk when this returns.
    ///
    /// # Errors
    /// The disk.
    pub fn put_plugin(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let writes = chunked_values::replacement(&self.engine, Key::Plugin(name), bytes)?;
        self.engine.commit(writes)
    }

    /// Removes a plugin's state; on disk when this returns.
    ///
    /// # Errors
    /// The disk.
    pub fn remove_plugin(&self, name: &str) -> Result<(), StoreError> {
        let key = Key::Plugin(name);
        self.engine.commit(chunked_values::removals(&self.engine, key.tree(), &key.bytes())?)
    }

    /// Stores an upload as the component of this digest (hex); on disk when this returns. Moves the upload's
    /// file.
    ///
    /// # Errors
    /// The file system.
    pub fn keep_component(&self, sha256_hex: &str, upload: &UploadFile) -> Result<(), StoreError> {
        let path = self.component_path(sha256_hex)?;
        let dir = self.engine.dir().join("plugins");
        data_folder::make(&dir).map_err(StoreError::io("make", &dir))?;
        let kept = File::open(upload.path())
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(upload.path(), &path));
        kept.and_then(|()| File::open(&dir)?.sync_all()).map_err(StoreError::io("write", &path))
    }

    /// The file of a component, if it is stored.
    ///
    /// # Errors
    /// The text is not a digest.
    pub fn component_file(&self, sha256_hex: &str) -> Result<Option<PathBuf>, StoreError> {
        let path = self.component_path(sha256_hex)?;
        Ok(path.exists().then_some(path))
    }

    /// A component; `None` if it is not stored.
    ///
    /// # Errors
    /// The file system.
    pub fn read_component(&self, sha256_hex: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.component_path(sha256_hex)?;
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { what: "read", path, source }),
        }
    }

    /// Removes a component; does nothing if it is not stored.
    ///
    /// # Errors
    /// The file system.
    pub fn remove_component(&self, sha256_hex: &str) -> Result<(), StoreError> {
        let path = self.component_path(sha256_hex)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Io { what: "remove", path, source: error })
            }
            _ => Ok(()),
        }
    }

    /// Digests become file names, so only hex is accepted.
    fn component_path(&self, sha256_hex: &str) -> Result<PathBuf, StoreError> {
        if sha256_hex.len() != 64 || !sha256_hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(StoreError::Engine {
                what: "name a component",
                why: format!("{sha256_hex:?} is not a SHA-256 in hex"),
            });
        }
        Ok(self.engine.dir().join("plugins").join(format!("{sha256_hex}.wasm")))
    }
}
