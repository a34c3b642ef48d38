//! Who may load a component, and whose compiled code stays.
//!
//! Must not know: how components are loaded or compiled.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync;

use crate::plugin::error::Refusal;

/// A component for which there was no memory is not tried again for so long.
const FULL_FOR: Duration = Duration::from_secs(1);

/// A turn; over when it is dropped.
pub type Turn = sync::OwnedMutexGuard<()>;

/// Turns of those who want components loaded. Who waits for one takes no thread.
#[derive(Debug, Default)]
pub struct LoadTurns {
    all: Arc<sync::Mutex<()>>,
    by_component: Mutex<HashMap<String, Weak<sync::Mutex<()>>>>,
    /// Components for which there was no memory, with when and why.
    refusals: Mutex<HashMap<String, (Instant, Refusal)>>,
}

impl LoadTurns {
    /// A turn among those who want this component. Those who come later may find it loaded.
    pub async fn for_component(&self, digest: &str) -> Turn {
        let turns = {
            let mut by_component = self.by_component.lock();
            let cache = by_component.get(digest).and_then(Weak::upgrade);
            cache.unwrap_or_else(|| {
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

    /// There was no memory for it just now.
    pub fn remember_refusal(&self, digest: &str, refusal: &Refusal) {
        let mut refusals = self.refusals.lock();
        refusals.retain(|_, (since, _)| since.elapsed() < FULL_FOR);
        refusals.insert(digest.to_owned(), (Instant::now(), refusal.clone()));
    }

    /// What it was refused with a moment ago, for want of memory.
    #[must_use]
    pub fn recent_refusal(&self, digest: &str) -> Option<Refusal> {
        let refusals = self.refusals.lock();
        refusals
            .get(digest)
            .filter(|(since, _)| since.elapsed() < FULL_FOR)
            .map(|(_, refusal)| refusal.clone())
    }
}

/// How many uploads of each component are on their way.
type ClaimCounts = Arc<Mutex<HashMap<String, usize>>>;

/// The components that are being taken in.
#[derive(Debug, Default)]
pub struct Claims(ClaimCounts);

/// One upload of a component; what is compiled of the component stays while it lives.
#[derive(Debug)]
pub struct Claim {
    digest: String,
    claims: ClaimCounts,
}

impl Claims {
    /// One more upload of this component.
    #[must_use]
    pub fn claim(&self, digest: &str) -> Claim {
        *self.0.lock().entry(digest.to_owned()).or_default() += 1;
        Claim { digest: digest.to_owned(), claims: Arc::clone(&self.0) }
    }

    /// Does this unless the component is being taken in; nobody begins to meanwhile.
    ///
    /// # Errors
    /// What the work says.
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
