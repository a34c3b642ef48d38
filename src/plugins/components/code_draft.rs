//! Compiled code before it is saved, and the errors on the way.
//!
//! Must not know: which plugin it belongs to.

use std::fs;
use std::path::PathBuf;

use crate::domain::hex::sha256_hex;
use crate::plugin::error::{BuildError, Refusal};
use crate::store::error::StoreError;

/// A file with compiled code that is not saved yet. Removed on drop, unless it was saved.
pub struct CodeDraft(pub PathBuf);

impl Drop for CodeDraft {
    fn drop(&mut self) {
        // A saved draft has another file name by now.
        let _ = fs::remove_file(&self.0);
    }
}

/// The error of a build for a failure of the store.
pub fn build_error_from(error: StoreError) -> BuildError {
    match error {
        StoreError::Io { what, path, source } => {
            BuildError::write(&format!("{what} {}", path.display()), &path, &source)
        }
        StoreError::NoSpace { .. } => BuildError::DiskFull(error.to_string()),
        other => BuildError::Internal(other.to_string()),
    }
}

/// Checks that the stored component was not changed on disk.
///
/// # Errors
/// `NotWasm` if it was changed.
pub fn check_unchanged(digest: &str, bytes: &[u8]) -> Result<(), Refusal> {
    if sha256_hex(bytes) == digest {
        Ok(())
    } else {
        Err(Refusal::NotWasm(format!("the stored component {digest} was changed on disk")))
    }
}
