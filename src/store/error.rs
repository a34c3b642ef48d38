//! Why an operation on the store failed.
//!
//! Must not know: the caller, or what the caller shows to users.

use std::io;
use std::path::PathBuf;

use crate::domain::files::is_disk_full;

/// What failed, on what, and why.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What is on disk is not what was written there.
    #[error("the store is damaged: {what}; repair it with `{command}`")]
    Damaged {
        /// What is damaged.
        what: String,
        /// The command that repairs it.
        command: String,
    },
    /// The folder is not a data folder.
    #[error(
        "there is no store in {}; is that the data folder? (set it with --data-dir or DATA_DIR; `killstream serve` creates a new store)",
        dir.display()
    )]
    NoStore {
        /// The folder.
        dir: PathBuf,
    },
    /// Another process has opened the store.
    #[error("data folder in use by pid {pid}; stop it, or use --server URL")]
    InUse {
        /// That process; 0 if its number is not known.
        pid: u32,
    },
    /// Writing would fill the disk.
    #[error(
        "only {free} bytes are free on the disk of the data folder; {min} must stay free (store.min_free_bytes)"
    )]
    NoSpace {
        /// Bytes free.
        free: u64,
        /// Bytes that must stay free.
        min: u64,
    },
    /// Only one of these runs at a time.
    #[error("{what} is already running; try again when it is done")]
    UnderWay {
        /// The operation.
        what: &'static str,
    },
    /// A newer killstream wrote this store.
    #[error("the store has {what} {found}; this version of killstream reads up to {known}")]
    TooNew {
        /// What has a version.
        what: &'static str,
        /// The version in the store.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// An earlier commit failed in the engine; the store is read-only until a restart.
    #[error("an earlier write failed, the store is read-only until a restart: {what}")]
    Failed {
        /// What failed.
        what: String,
    },
    /// The killmail is larger than a record can be.
    #[error("killmail {killmail_id} is too large to store: {bytes} bytes compressed")]
    TooLarge {
        /// The killmail.
        killmail_id: u32,
        /// Its size, compressed bytes.
        bytes: usize,
    },
    /// The operating system reported an error.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The engine, or an encoder, reported an error.
    #[error("cannot {what}: {why}")]
    Engine {
        /// The operation.
        what: &'static str,
        /// Why not.
        why: String,
    },
}

impl StoreError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Io { source, .. } => is_disk_full(source),
            _ => false,
        }
    }

    /// For `map_err` on file system calls.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
