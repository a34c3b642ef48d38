//! Why the feed could not do what it was asked.
//!
//! Must not know: how a transport tells it.

use crate::feed::filters;
use crate::plugins::error::PluginsError;
use crate::{store, tasks};

/// What a caller can be told.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::error::StoreError),
    /// The plugin cannot judge for this subscription.
    #[error(transparent)]
    Plugin(#[from] PluginsError),
    /// The preload asked for is too large.
    #[error("the preload selects {count} killmails, more than preload_max_killmails {max}")]
    PreloadTooLarge {
        /// The limit.
        max: u64,
        /// What was selected.
        count: u64,
    },
    /// There is no room for another filter.
    #[error(transparent)]
    Filters(#[from] filters::Full),
    /// The server is stopping.
    #[error("the server is stopping")]
    Closing,
    /// Work was lost.
    #[error(transparent)]
    Lost(#[from] tasks::Lost),
}
