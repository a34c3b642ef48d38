//! Why the store could not do what it was asked.
//!
//! Must not know: who asked, or what they tell their users.

use std::io;
use std::path::PathBuf;

use crate::domain::files::is_disk_full;

/// What went wrong, with which thing, because of what.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What is on disk is not what was written there.
    #[error("the store is damaged: {what}; mend it with `{command}`")]
    Damaged {
        /// What is damaged.
        what: String,
        /// The command that mends it.
        command: String,
    },
    /// The folder is not a data folder.
    #[error(
        "there is no store in {}; is that the data folder? (--data-dir or DATA_DIR name it, `killstream serve` makes a new one)",
        dir.display()
    )]
    NoStore {
        /// The folder.
        dir: PathBuf,
    },
    /// Another process has the store open.
    #[error("data folder in use by pid {pid}; stop it, or use --server URL")]
    InUse {
        /// That process; 0 where it left no number.
        pid: u32,
    },
    /// Writing would fill the disk.
    #[error("only {free} bytes are free where the store is, {min} must stay free")]
    NoSpace {
        /// Bytes free.
        free: u64,
        /// Bytes that must stay free.
        min: u64,
    },
    /// There is one of these at a time.
    #[error("{what} is under way already; try again when it is done")]
    UnderWay {
        /// What.
        what: &'static str,
    },
    /// A newer killstream wrote this store.
    #[error("the store has {what} {found}, this killstream knows up to {known}")]
    TooNew {
        /// What has a version.
        what: &'static str,
        /// The version in the store.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// An earlier write failed half-way in the engine; only reading is safe until the store is opened again.
    #[error("an earlier write failed, the store takes no more until it is opened again: {what}")]
    Failed {
        /// What failed.
        what: String,
    },
    /// The killmail is larger than a record can be.
    #[error("killmail {killmail_id} is too large to keep: {bytes} bytes compressed")]
    TooLarge {
        /// The killmail.
        killmail_id: u32,
        /// Its size, compressed bytes.
        bytes: usize,
    },
    /// The operating system said no.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The engine said no.
    #[error("cannot {what}: {why}")]
    Engine {
        /// What was tried.
        what: &'static str,
        /// Why not.
        why: String,
    },
}

impl StoreError {
    /// Whether it is for want of room on the disk.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Io { source, .. } => is_disk_full(source),
            _ => false,
        }
    }

    /// For `map_err` on calls of the file system.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
