//! Killmails known by name only, until their bodies are fetched: kept on disk as the documents that name
//! them.
//!
//! Must not know: who fetches, from where.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::store::Store;
use crate::store::engine::Write;
use crate::store::error::StoreError;
use crate::store::keys::{Key, Tree, prefix};

/// A document that only names a killmail is small, bytes; a longer one is not kept here.
const RAW_MAX: usize = 2_048;
/// Written in one transaction.
const STEP: usize = 500;

/// A killmail whose body is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wanted {
    /// Which one.
    pub killmail_id: u32,
    /// Who named it.
    pub source: String,
    /// When, unix milliseconds.
    pub at_ms: i64,
    /// The document that names it.
    pub raw: String,
    /// Whether it is put in, not brought by a running source.
    #[serde(default)]
    pub backfill: bool,
    /// The kind of the source, where what it says is of the lower rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_rank: Option<String>,
    /// How often ESI said that there is no such pair of id and hash.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unmatched: u32,
    /// It is not asked for before, unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<i64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Store {
    /// Keeps in mind that a killmail's body is wanted; on disk when this returns. `false` if `max` are wanted
    /// already, or the document is too long for one that only names a killmail.
    ///
    /// # Errors
    /// `NoSpace` before anything is written; the disk.
    pub fn want(&self, wanted: &Wanted, max: usize) -> Result<bool, StoreError> {
        Ok(self.want_all(std::slice::from_ref(wanted), max)?.first() == Some(&true))
    }

    /// The same for many, in their order, as long as there is room.
    ///
    /// # Errors
    /// `NoSpace` before anything is written; the disk.
    pub fn want_all(&self, wanted: &[Wanted], max: usize) -> Result<Vec<bool>, StoreError> {
        self.check_space()?;
        let mut ids: HashSet<u32> = self.wanted_ids()?.into_iter().collect();
        let (mut answers, mut writes) = (Vec::with_capacity(wanted.len()), Vec::new());
        for one in wanted {
            let has_room = ids.len() < max || (max > 0 && ids.contains(&one.killmail_id));
            let takes = has_room && one.raw.len() <= RAW_MAX;
            answers.push(takes);
            if takes {
                let mut one = one.clone();
                if !ids.insert(one.killmail_id)
                    && let Some(before) = self.wanted(one.killmail_id)?.filter(|before| before.raw == one.raw)
                {
                    // Named again in the same words, it waits on.
                    (one.unmatched, one.due_ms) = (before.unmatched, before.due_ms);
                }
                writes.push(write(&one)?);
            }
            if writes.len() == STEP {
                self.engine.commit(std::mem::take(&mut writes))?;
            }
        }
        if !writes.is_empty() {
            self.engine.commit(writes)?;
        }
        Ok(answers)
    }

    /// Keeps what has changed about a killmail that is wanted; on disk when this returns.
    ///
    /// # Errors
    /// The disk.
    pub fn want_still(&self, wanted: &Wanted) -> Result<(), StoreError> {
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

    /// What is known of a killmail whose body is wanted.
    ///
    /// # Errors
    /// The disk.
    pub fn wanted(&self, killmail_id: u32) -> Result<Option<Wanted>, StoreError> {
        let value = self.engine.get(Tree::Meta, &Key::Wanted(killmail_id).bytes())?;
        Ok(value.and_then(|value| serde_json::from_slice(&value).ok()))
    }

    /// Forgets that it was wanted. On disk after the next append; until then a crash has it fetched once
    /// more, which does no harm.
    ///
    /// # Errors
    /// The disk.
    pub fn unwant(&self, killmail_id: u32) -> Result<(), StoreError> {
        self.engine.remove(Tree::Meta, &Key::Wanted(killmail_id).bytes())
    }
}

fn write(wanted: &Wanted) -> Result<Write, StoreError> {
    let value = serde_json::to_vec(wanted)
        .map_err(|error| StoreError::Engine { what: "encode what is wanted", why: error.to_string() })?;
    Ok(Write::new(Key::Wanted(wanted.killmail_id), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_waits_were_kept_is_read() {
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
