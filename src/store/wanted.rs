//! Killmails that a source named by id and hash, stored until their bodies are fetched.
//!
//! Must not know: who fetches the bodies, or from where.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::store::Store;
use crate::store::engine::Write;
use crate::store::error::StoreError;
use crate::store::keys::{Key, Tree, prefix};

/// Documents that only name a killmail are small, bytes; a longer one is not stored here.
const RAW_MAX: usize = 2_048;
/// Killmails written in one transaction.
const TRANSACTION_MAX: usize = 500;

/// A killmail whose body is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wanted {
    pub killmail_id: u32,
    /// The source that named it.
    pub source: String,
    /// When it was named, unix milliseconds.
    pub at_ms: i64,
    /// The document that named it.
    pub raw: String,
    /// Whether it came from an import or a request rather than from a running source.
    #[serde(default)]
    pub backfill: bool,
    /// The kind of the source, if that is of the lower rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_rank: Option<String>,
    /// How often ESI responded that there is no such pair of id and hash.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unmatched: u32,
    /// It is not fetched before this time, unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<i64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Store {
    /// Stores that a killmail's body is wanted; on disk when this returns. `false` if `max` are wanted already,
    /// or if the document is too long for one that only names a killmail.
    ///
    /// # Errors
    /// `NoSpace` before anything is written; the disk.
    pub fn add_wanted(&self, wanted: &Wanted, max: usize) -> Result<bool, StoreError> {
        Ok(self.add_all_wanted(std::slice::from_ref(wanted), max)?.first() == Some(&true))
    }

    /// As [`Store::add_wanted`] for many, in their order.
    ///
    /// # Errors
    /// `NoSpace` before anything is written; the disk.
    pub fn add_all_wanted(&self, wanted: &[Wanted], max: usize) -> Result<Vec<bool>, StoreError> {
        self.check_space()?;
        let mut ids: HashSet<u32> = self.wanted_ids()?.into_iter().collect();
        let (mut added, mut writes) = (Vec::with_capacity(wanted.len()), Vec::new());
        for wanted in wanted {
            let has_room = ids.len() < max || (max > 0 && ids.contains(&wanted.killmail_id));
            let is_added = has_room && wanted.raw.len() <= RAW_MAX;
            added.push(is_added);
            if is_added {
                let mut wanted = wanted.clone();
                if !ids.insert(wanted.killmail_id)
                    && let Some(before) =
                        self.wanted(wanted.killmail_id)?.filter(|before| before.raw == wanted.raw)
                {
                    // Named again by the same document: it keeps waiting.
                    (wanted.unmatched, wanted.due_ms) = (before.unmatched, before.due_ms);
                }
                writes.push(write(&wanted)?);
            }
            if writes.len() == TRANSACTION_MAX {
                self.engine.commit(std::mem::take(&mut writes))?;
            }
        }
        if !writes.is_empty() {
            self.engine.commit(writes)?;
        }
        Ok(added)
    }

    /// Updates what is stored about a wanted killmail; on disk when this returns.
    ///
    /// # Errors
    /// The disk.
    pub fn update_wanted(&self, wanted: &Wanted) -> Result<(), StoreError> {
        self.engine.commit(vec![write(wanted)?])
    }

    /// The killmails whose bodies are wanted, ascending.
    ///
    /// # Errors
    /// The disk.
    pub fn wanted_ids(&self) -> Result<Vec<u32>, StoreError> {
        let mut ids = Vec::new();
        for pair in self.engine.scan(Tree::Meta, prefix::WANTED) {
            let (key, _) = pair?;
            let Some(id) = key.strip_prefix(prefix::WANTED) else { break };
            ids.extend(id.as_array().copied().map(u32::from_be_bytes));
        }
        Ok(ids)
    }

    /// What is stored about a wanted killmail; `None` if its body is not wanted.
    ///
    /// # Errors
    /// The disk.
    pub fn wanted(&self, killmail_id: u32) -> Result<Option<Wanted>, StoreError> {
        let value = self.engine.get(Tree::Meta, &Key::Wanted(killmail_id).bytes())?;
        Ok(value.and_then(|value| serde_json::from_slice(&value).ok()))
    }

    /// Removes a killmail whose body has come or never will. On disk after the next append; after a crash
    /// before that it is fetched once more, which does no harm.
    ///
    /// # Errors
    /// The disk.
    pub fn remove_wanted(&self, killmail_id: u32) -> Result<(), StoreError> {
        self.engine.remove(Tree::Meta, &Key::Wanted(killmail_id).bytes())
    }
}

fn write(wanted: &Wanted) -> Result<Write, StoreError> {
    let value = serde_json::to_vec(wanted)
        .map_err(|error| StoreError::Engine { what: "encode a wanted killmail", why: error.to_string() })?;
    Ok(Write::new(Key::Wanted(wanted.killmail_id), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_without_waits_are_read() {
        let old = r#"{"killmail_id":7,"source":"redisq","at_ms":5,"raw":"{}"}"#;
        let wanted: Wanted = serde_json::from_str(old).unwrap();
        assert_eq!(
            (wanted.killmail_id, wanted.backfill, wanted.unmatched, wanted.due_ms),
            (7, false, 0, None)
        );
        let later = Wanted { unmatched: 2, due_ms: Some(9), ..wanted };
        assert_eq!(serde_json::from_slice::<Wanted>(&serde_json::to_vec(&later).unwrap()).unwrap(), later);
    }
}
