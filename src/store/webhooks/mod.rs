//! Storage for webhook subscriptions: what each asks for, how far it was delivered, its last attempts. The state is
//! apart from the definition, since it is written after each attempt.
//!
//! Must not know: what a subscription is; all values are bytes here.

use crate::store::Store;
use crate::store::engine::{Write, chunked_values};
use crate::store::error::StoreError;
use crate::store::keys::{Key, Tree, prefix};

/// Characters of a subscription's id; keys of further chunks are longer.
pub const ID_CHARS: usize = 22;

impl Store {
    /// The id and definition of every subscription.
    ///
    /// # Errors
    /// The disk.
    pub fn webhooks(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut found = Vec::new();
        for pair in self.engine.scan(Tree::Meta, prefix::WEBHOOK) {
            let (key, first) = pair?;
            let Some(id) = key.strip_prefix(prefix::WEBHOOK) else { break };
            let Some(id) = str::from_utf8(id).ok().filter(|id| id.len() == ID_CHARS) else { continue };
            found.push((id.to_owned(), chunked_values::join(&self.engine, Tree::Meta, &key, &first)?));
        }
        Ok(found)
    }

    /// The state of a subscription, if it has one.
    ///
    /// # Errors
    /// The disk.
    pub fn webhook_state(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = Key::WebhookState(id);
        Ok(self.engine.get(key.tree(), &key.bytes())?.map(|value| value.to_vec()))
    }

    /// The kept attempts of a subscription, in the order of their slots.
    ///
    /// # Errors
    /// The disk.
    pub fn webhook_attempts(&self, id: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut found = Vec::new();
        let first = [prefix::WEBHOOK_ATTEMPT, id.as_bytes()].concat();
        for pair in self.engine.scan(Tree::Meta, &first) {
            let (key, value) = pair?;
            if !key.starts_with(&first) {
                break;
            }
            found.push(value.to_vec());
        }
        Ok(found)
    }

    /// Stores a new definition; on disk when this returns.
    ///
    /// # Errors
    /// The disk.
    pub fn put_webhook(&self, id: &str, definition: &[u8], state: &[u8]) -> Result<(), StoreError> {
        let mut writes = chunked_values::replacement(&self.engine, Key::Webhook(id), definition)?;
        writes.push(Write::new(Key::WebhookState(id), state.to_vec()));
        self.engine.commit(writes)
    }

    /// Stores a state, and an attempt in its slot; both or neither, on disk when this returns.
    ///
    /// # Errors
    /// The disk.
    pub fn put_webhook_state(
        &self,
        id: &str,
        state: &[u8],
        attempt: Option<(u8, &[u8])>,
    ) -> Result<(), StoreError> {
        let mut writes = vec![Write::new(Key::WebhookState(id), state.to_vec())];
        writes.extend(attempt.map(|(slot, bytes)| Write::new(Key::WebhookAttempt(id, slot), bytes.to_vec())));
        self.engine.commit(writes)
    }

    /// Removes everything about a subscription; on disk when this returns.
    ///
    /// # Errors
    /// The disk.
    pub fn remove_webhook(&self, id: &str) -> Result<(), StoreError> {
        let mut writes = Vec::new();
        for kind in [prefix::WEBHOOK, prefix::WEBHOOK_STATE, prefix::WEBHOOK_ATTEMPT] {
            let first = [kind, id.as_bytes()].concat();
            writes.extend(chunked_values::removals(&self.engine, Tree::Meta, &first)?);
        }
        self.engine.commit(writes)
    }
}
