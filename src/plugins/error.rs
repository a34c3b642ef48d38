//! What can go wrong with plugins by name.
//!
//! Must not know: status codes or envelopes of doors.

use crate::plugin::error::{BuildError, Refusal};
use crate::plugins::manifest::PREFIX_DIGITS_MIN;
use crate::{store, tasks};

/// Why a plugin cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum PluginsError {
    /// No such name.
    #[error("there is no plugin named {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// No such version of it.
    #[error("the plugin {name:?} has no version {digest:?}")]
    UnknownVersion {
        /// The name.
        name: String,
        /// The digest as asked for.
        digest: String,
    },
    /// Not a digest, nor the beginning of one.
    #[error("{digest:?} is not a digest: sha256:<hex>, or at least its first {PREFIX_DIGITS_MIN} hex digits")]
    MalformedDigest {
        /// The digest as asked for.
        digest: String,
    },
    /// Several versions have digests that begin so.
    #[error("the digests of {count} versions of the plugin {name:?} begin with {digest:?}; give more digits")]
    AmbiguousDigest {
        /// The name.
        name: String,
        /// The digest as asked for.
        digest: String,
        /// How many.
        count: usize,
    },
    /// No version of it is active.
    #[error("the plugin {name:?} has no active version; promote one")]
    NotActive {
        /// The name.
        name: String,
    },
    /// No version was active before.
    #[error("the plugin {name:?} has no earlier version to go back to")]
    NothingBefore {
        /// The name.
        name: String,
    },
    /// Not a name.
    #[error(
        "a plugin's name begins with a small letter and has at most {max} small letters, digits and dashes; `uploads` is not free"
    )]
    BadName {
        /// The longest name, letters.
        max: usize,
    },
    /// Too many names.
    #[error("there are {max} plugins, the most there may be")]
    TooManyNames {
        /// The limit.
        max: u64,
    },
    /// The upload or the configuration is refused.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It is being compiled.
    #[error("the plugin {name:?} is being prepared; try again in a moment")]
    Preparing {
        /// The name.
        name: String,
    },
    /// What was good once is refused by today's limits or compiler.
    #[error("the plugin {name:?} can no longer run: {why}; upload it anew, or remove it")]
    Unusable {
        /// The name.
        name: String,
        /// Why.
        why: Refusal,
    },
    /// As many uploads are on their way as may be.
    #[error("{max} uploads are on their way, the most there may be (plugin.uploads_max); try again")]
    TooManyUploads {
        /// The limit.
        max: usize,
    },
    /// The client that uploaded it went away.
    #[error("the upload was given up: its client went away before it was told to wait")]
    GivenUp,
    /// The machine did not do what compiling takes.
    #[error("{0}")]
    Internal(String),
    /// The disk is full.
    #[error("{0}")]
    DiskFull(String),
    /// Work was lost.
    #[error(transparent)]
    Lost(#[from] tasks::Lost),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::error::StoreError),
    /// The record of a plugin cannot be read or written.
    #[error("the record of the plugin {name:?} cannot be understood: {why}")]
    Record {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

impl PluginsError {
    /// Which parameter of a subscription is to blame: `plugin` or `plugin_config`; `None` where none is.
    #[must_use]
    pub const fn parameter(&self) -> Option<&'static str> {
        match self {
            Self::Unknown { .. }
            | Self::UnknownVersion { .. }
            | Self::NotActive { .. }
            | Self::BadName { .. } => Some("plugin"),
            Self::MalformedDigest { .. } | Self::AmbiguousDigest { .. } => Some("plugin"),
            // It was brought to life when it was uploaded, and now it fails at that: no matter of the
            // configuration.
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
}

impl PluginsError {
    /// Whether it may go well in a moment: a limit of the server was reached, or we could not.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
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
