//! A webhook in memory: its definition and its state, and how its delivery learns of changes.
//!
//! Must not know: delivery, the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;

use crate::clock::now_ms;
use crate::domain::id::EventId;
use crate::webhook::message::MessageWriter;
use crate::webhook::record::{StoredDefinition, StoredState};
use crate::webhook::request::{self, Request};
use crate::webhook::signature::Secret;
use crate::wire::query::limits::Limits;

/// What is asked for, as stored and as read.
#[derive(Debug, Clone)]
pub struct Definition {
    pub stored: StoredDefinition,
    pub request: Request,
}

impl Definition {
    /// Reads a stored definition.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(mut stored: StoredDefinition, limits: Limits) -> Result<Self, String> {
        let request = request::read(&mut stored.members, limits)?;
        Ok(Self { stored, request })
    }

    /// The secrets that sign now.
    pub fn secrets(&self) -> Vec<Secret> {
        let now_ms = now_ms();
        self.stored.secrets.iter().filter_map(|secret| secret.live(now_ms)).collect()
    }

    pub const fn writer(&self) -> MessageWriter<'_> {
        let Request { subscription, format, discord, .. } = &self.request;
        MessageWriter { format: *format, filter: &subscription.filter, discord }
    }
}

/// A webhook.
#[derive(Debug)]
pub struct Hook {
    id: String,
    definition: RwLock<Arc<Definition>>,
    state: Mutex<StoredState>,
    /// Held while something about it is written to disk.
    writing: Mutex<()>,
    /// Set under `writing`, and read without it: the event loop must not wait for the disk.
    is_removed: AtomicBool,
    /// Notified when the definition or the state changes; only its delivery waits for it.
    changed: Notify,
}

/// The right to change a webhook.
pub struct Writing<'a> {
    _guard: MutexGuard<'a, ()>,
}

impl Hook {
    #[must_use]
    pub fn new(id: String, definition: Definition, state: StoredState) -> Self {
        Self {
            id,
            definition: RwLock::new(Arc::new(definition)),
            state: Mutex::new(state),
            writing: Mutex::default(),
            is_removed: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn definition(&self) -> Arc<Definition> {
        Arc::clone(&self.definition.read())
    }

    pub fn state(&self) -> StoredState {
        self.state.lock().clone()
    }

    /// Whether it was not removed.
    pub fn exists(&self) -> bool {
        !self.is_removed.load(Ordering::Acquire)
    }

    /// Waits for a change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Locks it for a change, which may write to disk; `None` if it was removed.
    pub fn lock(&self) -> Option<Writing<'_>> {
        let guard = self.writing.lock();
        self.exists().then_some(Writing { _guard: guard })
    }

    /// Replaces the definition.
    pub fn set_definition(&self, _: &Writing<'_>, definition: Definition) {
        *self.definition.write() = Arc::new(definition);
        self.changed.notify_one();
    }

    /// Replaces the state.
    pub fn set_state(&self, _: &Writing<'_>, state: StoredState) {
        let mut current = self.state.lock();
        let is_other = (state.status, state.redeliveries) != (current.status, current.redeliveries);
        let is_sooner = state.next_attempt_ms.is_none() && current.next_attempt_ms.is_some();
        *current = state;
        if is_other || is_sooner {
            self.changed.notify_one();
        }
    }

    /// Notes in memory that everything up to a place was examined.
    pub fn pass(&self, place: EventId, redeliveries: u32) {
        let mut state = self.state.lock();
        if state.redeliveries == redeliveries {
            state.place = place;
        }
    }

    /// Removes it with `work`; nothing is written afterwards.
    ///
    /// # Errors
    /// That of `work`.
    pub fn remove<E>(&self, work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let _guard = self.writing.lock();
        work()?;
        self.is_removed.store(true, Ordering::Release);
        self.changed.notify_one();
        Ok(())
    }
}
