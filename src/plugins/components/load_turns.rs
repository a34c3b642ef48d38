//! Decides who may load a component, and which compiled code must stay on disk.
//!
//! Must not know: how components are loaded or compiled.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync;

use crate::plugin::error::Refusal;

/// A component that did not fit into memory is not tried again for this long.
const FULL_FOR: Duration = Duration::from_secs(1);

/// A turn; it ends when it is dropped.
pub type Turn = sync::OwnedMutexGuard<()>;

/// Turns to load components. Waiting for one does not occupy a thread.
#[derive(Debug, Default)]
pub struct LoadTurns {
    all: Arc<sync::Mutex<()>>,
    by_component: Mutex<HashMap<String, Weak<sync::Mutex<()>>>>,
    /// Components that did not fit into memory: when, and the refusal.
    refusals: Mutex<HashMap<String, (Instant, Refusal)>>,
}

impl LoadTurns {
    /// A turn among those who want the same component. Those who come later may find it loaded.
    pub async fn for_component(&self, digest: &str) -> Turn {
        let turns = {
            let mut by_component = self.by_component.lock();
            let existing = by_component.get(digest).and_then(Weak::upgrade);
            existing.unwrap_or_else(|| {
                by_component.retain(|_, turns| turns.strong_count() > 0);
                let turns = Arc::default();
                by_component.insert(digest.to_owned(), Arc::downgrade(&turns));
                turns
            })
        };
        turns.lock_owned().await
    }

    /// A turn among those who want any component.
    pub async fn for_any(&self) -> Turn {
        Arc::clone(&self.all).lock_owned().await
    }

    /// Remembers that there was not enough memory for a component just now.
    pub fn remember_refusal(&self, digest: &str, refusal: &Refusal) {
        let mut refusals = self.refusals.lock();
        refusals.retain(|_, (since, _)| since.elapsed() < FULL_FOR);
        refusals.insert(digest.to_owned(), (Instant::now(), refusal.clone()));
    }

    /// The refusal for lack of memory that a component got a moment ago.
    #[must_use]
    pub fn recent_refusal(&self, digest: &str) -> Option<Refusal> {
        let refusals = self.refusals.lock();
        refusals
            .get(digest)
            .filter(|(since, _)| since.elapsed() < FULL_FOR)
            .map(|(_, refusal)| refusal.clone())
    }
}

/// The number of uploads in progress of each component.
type ClaimCounts = Arc<Mutex<HashMap<String, usize>>>;

/// The components being uploaded.
#[derive(Debug, Default)]
pub struct Claims(ClaimCounts);

/// One upload of a component. As long as it lives, the compiled code of the component stays.
#[derive(Debug)]
pub struct Claim {
    digest: String,
    claims: ClaimCounts,
}

impl Claims {
    /// Claims a component for one more upload.
    #[must_use]
    pub fn claim(&self, digest: &str) -> Claim {
        *self.0.lock().entry(digest.to_owned()).or_default() += 1;
        Claim { digest: digest.to_owned(), claims: Arc::clone(&self.0) }
    }

    /// Does `work` unless the component is claimed. It cannot be claimed meanwhile.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn unless_claimed<E>(&self, digest: &str, work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let claims = self.0.lock();
        if claims.contains_key(digest) { Ok(()) } else { work() }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.claims.lock();
        if let Some(count) = claims.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                claims.remove(&self.digest);
            }
        }
    }
}
