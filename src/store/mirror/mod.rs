//! What the mirror needs from the store: which entry belongs to a file, and which older file a file announces
//! as revised.
//!
//! Must not know: what a file looks like, or who reads it.

pub(crate) mod file_numbers;
pub(crate) mod revision_notices;

use crate::domain::id::Seq;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::keys::{Key, Tree};

impl Store {
    /// The number of the mirror's newest file; 0 if there is none.
    #[must_use]
    pub fn newest_file(&self) -> u64 {
        self.files.read().newest()
    }

    /// The entry of a file; `None` if there is no such file yet.
    #[must_use]
    pub fn entry_of_file(&self, file: u64) -> Option<Seq> {
        self.files.read().entry_of(file).map(Seq)
    }

    /// The older file that this one announces as revised, if any.
    ///
    /// # Errors
    /// The disk.
    pub fn revision_notice(&self, file: u64) -> Result<Option<u64>, StoreError> {
        Ok(self
            .engine
            .get(Tree::Meta, &Key::RevisionNotice(file).bytes())?
            .and_then(|value| revision_notices::revised_file(&value)))
    }
}
