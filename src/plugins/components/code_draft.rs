//! Compiled code that is not kept yet, and what can go wrong on the way.
//!
//! Must not know: which plugin it is of.

use std::fs;
use std::path::PathBuf;

use crate::domain::hex::sha256_hex;
use crate::plugin::error::{BuildError, Refusal};
use crate::store::error::StoreError;

/// Code that is not kept yet; gone when it is dropped, unless it was kept.
pub struct CodeDraft(pub PathBuf);

impl Drop for CodeDraft {
    fn drop(&mut self) {
        // Kept, it has another name by now.
        let _ = fs::remove_file(&self.0);
    }
}

/// Why compiled code could not be kept.
pub fn build_error_from(error: StoreError) -> BuildError {
    match error {
        StoreError::Io { what, path, source } => {
            BuildError::write(&format!("{what} {}", path.display()), &path, &source)
        }
        StoreError::NoSpace { .. } => BuildError::DiskFull(error.to_string()),
        other => BuildError::Internal(other.to_string()),
    }
}

/// Checks that what was read is still the component that was kept under this digest.
///
/// # Errors
/// `NotWasm`: it was changed on disk.
pub fn check_unchanged(digest: &str, bytes: &[u8]) -> Result<(), Refusal> {
    if sha256_hex(bytes) == digest {
        Ok(())
    } else {
        Err(Refusal::NotWasm(format!("the kept component {digest} was changed on disk")))
    }
}
