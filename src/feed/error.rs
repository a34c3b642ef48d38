//! Errors of the feed.
//!
//! Must not know: how a transport reports them.

use crate::feed::filters;
use crate::plugins::error::PluginsError;
use crate::{store, tasks};

/// Why the feed could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::error::StoreError),
    /// The plugin cannot judge for this subscription.
    #[error(transparent)]
    Plugin(#[from] PluginsError),
    #[error("the preload selects {count} killmails, more than preload_max_killmails {max}")]
    PreloadTooLarge {
        max: u64,
        /// Killmails it selects.
        count: u64,
    },
    /// The filters of all clients take all the memory they may.
    #[error(transparent)]
    Filters(#[from] filters::Full),
    /// The server is stopping.
    #[error("the server is stopping")]
    Closing,
    /// The work panicked or was cancelled.
    #[error(transparent)]
    Lost(#[from] tasks::Lost),
}
