//! What the mirror asks of the store: which entry a file is, and which older one it tells of.
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
        self.files.read().head()
    }

    /// The entry of a file of the mirror that is out.
    #[must_use]
    pub fn entry_of_file(&self, file: u64) -> Option<Seq> {
        self.files.read().entry(file).map(Seq)
    }

    /// The older file of the mirror whose revision this one tells of, if it tells of any.
    ///
    /// # Errors
    /// The disk.
    pub fn told_by(&self, file: u64) -> Result<Option<u64>, StoreError> {
        Ok(self
            .engine
            .get(Tree::Meta, &Key::RevisionNotice(file).bytes())?
            .and_then(|value| revision_notices::told_by(&value)))
    }
}
