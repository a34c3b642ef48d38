//! What can go wrong with plugins that is not a fault of a running guest: refusals of what was handed in, and
//! our own failures.
//!
//! Must not know: status codes or envelopes of doors.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::domain::files::is_disk_full;
use crate::domain::safe_text::sanitize;

/// What was handed in cannot be used; the text says what is wrong with it. It crosses from the process that
/// compiles as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Larger than an upload may be.
    #[error("the component is {bytes} bytes; an upload may be {max} bytes ({setting})")]
    TooLarge {
        /// Its size, bytes.
        bytes: usize,
        /// The limit, bytes.
        max: usize,
        /// The setting that says so.
        setting: String,
    },
    /// No WebAssembly, or cut off.
    #[error("not a WebAssembly component: {0}")]
    NotWasm(String),
    /// It does not provide what a plugin must.
    #[error("{0}")]
    MissingExport(String),
    /// It needs what this server does not provide.
    #[error("{0}")]
    UnknownImport(String),
    /// It would take too long to compile.
    #[error("{message}")]
    TooComplex {
        /// What there is too much of.
        message: String,
        /// The limit; `None`: it is no number.
        limit: Option<u64>,
    },
    /// The compiler refused it.
    #[error("does not compile: {0}")]
    Compile(String),
    /// It cannot be brought to life.
    #[error("cannot be instantiated: {0}")]
    Instantiate(String),
    /// It refused its configuration, or failed on it; the guest's own words.
    #[error("{0}")]
    Configure(String),
    /// The same killmails gave other verdicts in another order.
    #[error("not repeatable: {0}")]
    NotRepeatable(String),
    /// It took more CPU or wall time to compile and try than it may.
    #[error("{message}")]
    TooSlowToCompile {
        /// What took how long.
        message: String,
        /// The limit, seconds.
        limit: u64,
    },
    /// It took more memory to compile and try than it may: another time it may go well.
    #[error("{message}")]
    TooMuchMemory {
        /// What took how much.
        message: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// Loaded, it takes more memory than all guests may have together.
    #[error("{message}")]
    NeverFits {
        /// How much it takes, and the setting.
        message: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// The process that compiles it ended without a word.
    #[error("{0}")]
    Crashed(String),
    /// In its trial a call took more CPU time than it may, alone too.
    #[error("{message}")]
    Deadline {
        /// Which call.
        message: String,
        /// The limit, milliseconds.
        limit: u64,
    },
    /// In its trial it asked more of the host than it may, alone too.
    #[error("{message}")]
    HostBudget {
        /// What it asked.
        message: String,
        /// The limit, milliseconds.
        limit: u64,
    },
    /// Too many pairs of plugin and configuration in use.
    #[error(
        "{max} pairs of plugin and configuration are in use, the most there may be (plugin.evaluators_max)"
    )]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// Something else that all evaluators share is used up: memory, places of the pool.
    #[error("{message}")]
    Full {
        /// What is used up, and the setting.
        message: String,
        /// The limit.
        limit: u64,
    },
    /// The memory that one address may have is used up, by what it alone uses.
    #[error("{message}")]
    AddressFull {
        /// How much is in use, and the setting.
        message: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// Too many configurations wait to be tried.
    #[error("{max} configurations wait to be tried, the most that may (plugin.trials_waiting_max)")]
    TooManyTrials {
        /// The limit.
        max: usize,
    },
}

impl Refusal {
    /// Whether nothing is wrong with what was handed in: a limit of the server is reached, and later there
    /// may be room.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::TooMany { .. } | Self::TooManyTrials { .. } | Self::Full { .. } | Self::AddressFull { .. }
        )
    }

    /// Whether the component itself is the reason: not a limit of time or memory while it is compiled, which
    /// a busy machine may bring about as well.
    #[must_use]
    pub const fn is_certain(&self) -> bool {
        !self.is_busy()
            && !matches!(self, Self::Crashed(_) | Self::TooSlowToCompile { .. } | Self::TooMuchMemory { .. })
    }

    /// The same in a text of at most so many bytes that shows what it says: parts of it are of the
    /// component's own making.
    #[must_use]
    pub fn legible(mut self, bytes_max: usize) -> Self {
        let text = match &mut self {
            Self::NotWasm(text)
            | Self::MissingExport(text)
            | Self::UnknownImport(text)
            | Self::TooComplex { message: text, .. }
            | Self::Compile(text)
            | Self::Instantiate(text)
            | Self::Configure(text)
            | Self::NotRepeatable(text)
            | Self::Crashed(text)
            | Self::TooSlowToCompile { message: text, .. }
            | Self::TooMuchMemory { message: text, .. }
            | Self::NeverFits { message: text, .. }
            | Self::Deadline { message: text, .. }
            | Self::HostBudget { message: text, .. }
            | Self::Full { message: text, .. }
            | Self::AddressFull { message: text, .. }
            | Self::TooLarge { setting: text, .. } => text,
            Self::TooMany { .. } | Self::TooManyTrials { .. } => return self,
        };
        *text = sanitize(text, bytes_max);
        self
    }

    /// The word of the reason, for `details.reason`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::NotWasm(_) => "not_wasm",
            Self::MissingExport(_) => "missing_export",
            Self::UnknownImport(_) => "unknown_import",
            Self::TooComplex { .. } => "too_complex",
            Self::Compile(_) => "compile",
            Self::Instantiate(_) => "instantiate",
            Self::Configure(_) => "configure",
            Self::NotRepeatable(_) => "not_repeatable",
            Self::TooSlowToCompile { .. } => "too_slow_to_compile",
            Self::TooMuchMemory { .. } | Self::NeverFits { .. } => "too_much_memory",
            Self::Crashed(_) => "crashed",
            Self::Deadline { .. } => "deadline",
            Self::HostBudget { .. } => "host_budget",
            Self::TooMany { .. } | Self::TooManyTrials { .. } => "too_many",
            Self::Full { .. } | Self::AddressFull { .. } => "full",
        }
    }

    /// The limit that was exceeded, for `details.limit`; its unit stands in the text.
    #[must_use]
    pub const fn limit(&self) -> Option<u64> {
        match self {
            Self::TooLarge { max, .. } | Self::TooMany { max } | Self::TooManyTrials { max } => {
                Some(*max as u64)
            }
            Self::TooSlowToCompile { limit, .. }
            | Self::TooMuchMemory { limit, .. }
            | Self::NeverFits { limit, .. }
            | Self::Deadline { limit, .. }
            | Self::HostBudget { limit, .. }
            | Self::Full { limit, .. }
            | Self::AddressFull { limit, .. } => Some(*limit),
            Self::TooComplex { limit, .. } => *limit,
            _ => None,
        }
    }
}

/// A component was not compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// It cannot be used.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It may be as good as any: we could not.
    #[error("{0}")]
    Failed(String),
    /// The disk is full, in words for the operator.
    #[error("{0}")]
    DiskFull(String),
}

impl Failed {
    /// The system did not do what it takes.
    #[must_use]
    pub fn system(what: &str, error: &io::Error) -> Self {
        Self::Failed(format!("cannot {what}: {error}"))
    }

    /// A file could not be written.
    #[must_use]
    pub fn unwritten(what: &str, file: &Path, error: &io::Error) -> Self {
        if !is_disk_full(error) {
            return Self::system(what, error);
        }
        let folder = file.parent().unwrap_or(file).display();
        Self::DiskFull(format!(
            "the disk of the folder {folder} is full, cannot {what}: {error}; make room there and try again"
        ))
    }
}

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The compiler or the pool of instances could not be set up.
    #[error("the plugin engine could not be set up: {0}")]
    Engine(String),
    /// A thread could not be started.
    #[error("a thread for plugins could not be started: {0}")]
    Thread(#[from] io::Error),
}

/// The causes of an error in one line.
pub fn causes(error: &wasmtime::Error) -> String {
    let causes: Vec<String> = error.chain().map(|cause| cause.to_string().replace('\n', " ")).collect();
    causes.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_names_its_folder() {
        let failed = |kind: io::ErrorKind| {
            Failed::unwritten("keep compiled code", Path::new("/data/compiled/x.draft"), &kind.into())
        };
        let Failed::DiskFull(message) = failed(io::ErrorKind::StorageFull) else { panic!("another failure") };
        assert!(
            message.starts_with("the disk of the folder /data/compiled is full, cannot keep compiled code: "),
            "{message}"
        );
        assert!(matches!(failed(io::ErrorKind::PermissionDenied), Failed::Failed(_)));
    }
}
