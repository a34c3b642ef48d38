//! The queue of bodies to fetch: transports and sources add killmails they only know by name, the fetcher is
//! woken and works through it.
//!
//! The requests themselves are on disk, so they survive the server; here are the bound and the wakeup.
//!
//! Must not know: who adds, who fetches, from where.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::wanted::Wanted;

/// Shared by those who add requests and the fetcher.
pub struct BodyRequests {
    store: Arc<Store>,
    max: usize,
    added: Notify,
}

impl BodyRequests {
    /// A queue that holds at most `max` requests; with 0, because nothing fetches, it takes none.
    #[must_use]
    pub const fn new(store: Arc<Store>, max: usize) -> Self {
        Self { store, max, added: Notify::const_new() }
    }

    /// How many requests may wait at a time.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.max
    }

    /// Adds requests and wakes the fetcher. They are on disk when this returns; blocks on the disk. Returns
    /// for each request whether it was taken: not if the queue is full or its document is too long.
    ///
    /// # Errors
    /// `NoSpace` before anything is written; the disk.
    pub fn add(&self, requests: &[Wanted]) -> Result<Vec<bool>, StoreError> {
        let taken = self.store.add_all_wanted(requests, self.max)?;
        if taken.contains(&true) {
            self.added.notify_one();
        }
        Ok(taken)
    }

    /// Waits until requests were added since the last call.
    pub async fn added(&self) {
        self.added.notified().await;
    }
}
