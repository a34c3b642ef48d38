//! Errors of named plugins.
//!
//! Must not know: status codes or envelopes of transports.

use crate::plugin::error::{BuildError, Refusal};
use crate::plugins::manifest::PREFIX_DIGITS_MIN;
use crate::{store, tasks};

/// Why a plugin cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum PluginsError {
    /// There is no plugin of this name.
    #[error("there is no plugin named {name:?}")]
    Unknown {
        /// The plugin's name.
        name: String,
    },
    /// The plugin has no such version.
    #[error("the plugin {name:?} has no version {digest:?}")]
    UnknownVersion {
        /// The plugin's name.
        name: String,
        /// The digest as requested.
        digest: String,
    },
    /// Neither a digest nor the prefix of one.
    #[error("{digest:?} is not a digest: sha256:<hex>, or at least its first {PREFIX_DIGITS_MIN} hex digits")]
    MalformedDigest {
        /// The digest as requested.
        digest: String,
    },
    /// Several versions have digests with this prefix.
    #[error("the digests of {count} versions of the plugin {name:?} begin with {digest:?}; give more digits")]
    AmbiguousDigest {
        /// The plugin's name.
        name: String,
        /// The prefix as requested.
        digest: String,
        /// The number of versions it fits.
        count: usize,
    },
    /// None of its versions is active.
    #[error("the plugin {name:?} has no active version; promote one")]
    NotActive {
        /// The plugin's name.
        name: String,
    },
    /// No version was active before.
    #[error("the plugin {name:?} has no earlier version to go back to")]
    NothingBefore {
        /// The plugin's name.
        name: String,
    },
    /// Not a valid name.
    #[error(
        "a plugin's name begins with a lowercase letter and has at most {max} lowercase letters, digits and dashes; `uploads` is reserved"
    )]
    BadName {
        /// The longest name, letters.
        max: usize,
    },
    /// There are too many plugins.
    #[error("there are {max} plugins, the most there may be")]
    TooManyNames { max: u64 },
    /// The upload or the configuration is refused.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It is being compiled.
    #[error("the plugin {name:?} is being prepared; try again in a moment")]
    Preparing {
        /// The plugin's name.
        name: String,
    },
    /// It was accepted once, but the current limits or the current compiler refuse it.
    #[error("the plugin {name:?} can no longer run: {why}; upload it again, or delete it")]
    Unusable {
        /// The plugin's name.
        name: String,
        /// Why it is refused.
        why: Refusal,
    },
    /// Too many uploads are in progress.
    #[error("{max} uploads are in progress, the most there may be (plugin.uploads_max); try again later")]
    TooManyUploads { max: usize },
    /// The client that uploaded it disconnected.
    #[error("the upload was cancelled: its client disconnected before the response")]
    GivenUp,
    /// The server failed to compile it.
    #[error("{0}")]
    Internal(String),
    #[error("{0}")]
    DiskFull(String),
    /// A background task was lost.
    #[error(transparent)]
    Lost(#[from] tasks::Lost),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::error::StoreError),
    /// The record of a plugin cannot be read or written.
    #[error("the record of the plugin {name:?} cannot be written: {why}")]
    Record {
        /// The plugin's name.
        name: String,
        /// What is wrong with the record.
        why: String,
    },
}

impl PluginsError {
    /// The parameter of a subscription that is to blame: `plugin` or `plugin_config`; `None` if neither is.
    #[must_use]
    pub const fn parameter(&self) -> Option<&'static str> {
        match self {
            Self::Unknown { .. }
            | Self::UnknownVersion { .. }
            | Self::NotActive { .. }
            | Self::BadName { .. } => Some("plugin"),
            Self::MalformedDigest { .. } | Self::AmbiguousDigest { .. } => Some("plugin"),
            // It could be instantiated when it was uploaded and now it cannot, so the configuration is not to
            // blame.
            Self::Refused(Refusal::Instantiate { .. }) => Some("plugin"),
            Self::Refused(
                Refusal::Configure { .. }
                | Refusal::NotRepeatable(_)
                | Refusal::Deadline { .. }
                | Refusal::HostBudget { .. },
            ) => Some("plugin_config"),
            _ => None,
        }
    }

    /// The limit that was exceeded, for `details.limit`, in the unit the message names.
    #[must_use]
    pub const fn limit(&self) -> Option<u64> {
        match self {
            Self::Refused(refusal) => refusal.limit(),
            Self::TooManyNames { max } => Some(*max),
            Self::TooManyUploads { max } => Some(*max as u64),
            _ => None,
        }
    }

    /// Whether it may succeed in a moment: a limit of the server was reached, or the server failed.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_busy(),
            Self::Store(_) | Self::Internal(_) | Self::DiskFull(_) | Self::Lost(_) => true,
            _ => false,
        }
    }
}

impl From<BuildError> for PluginsError {
    fn from(failed: BuildError) -> Self {
        match failed {
            BuildError::Refused(refusal) => Self::Refused(refusal),
            BuildError::Internal(message) => Self::Internal(message),
            BuildError::DiskFull(message) => Self::DiskFull(message),
        }
    }
}
