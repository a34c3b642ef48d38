//! Errors with plugins other than faults of a running guest: refusals of an upload or a configuration, and
//! failures of the server.
//!
//! Must not know: status codes or envelopes of transports.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::domain::files::is_disk_full;
use crate::domain::safe_text::sanitize;

/// An upload or a configuration cannot be used; the message says why. It comes from the compiling process as
/// JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Larger than an upload may be.
    #[error("the component is {bytes} bytes; an upload may be {max} bytes ({setting})")]
    TooLarge {
        /// Its size, bytes.
        bytes: usize,
        /// The limit, bytes.
        max: usize,
        /// The setting of the limit.
        setting: String,
    },
    /// Not WebAssembly, or truncated.
    #[error("not a WebAssembly component: {0}")]
    NotWasm(String),
    /// It does not export what a plugin must.
    #[error("{0}")]
    MissingExport(String),
    /// It imports what this server does not provide.
    #[error("{0}")]
    UnknownImport(String),
    /// It would take too long to compile.
    #[error("{message}")]
    TooComplex {
        /// What there is too much of.
        message: String,
        /// The limit; `None` if it is not a number.
        limit: Option<u64>,
    },
    /// The compiler refused it.
    #[error("does not compile: {0}")]
    Compile(String),
    /// It cannot be instantiated.
    #[error("cannot be instantiated: {message}")]
    Instantiate {
        /// What went wrong.
        message: String,
        /// The limit it exceeded, in the unit the message names; `None` if no single limit was exceeded.
        limit: Option<u64>,
    },
    /// It refused its configuration (in the guest's own words), or failed on it.
    #[error("{message}")]
    Configure {
        /// What went wrong.
        message: String,
        /// The limit it exceeded, in the unit the message names; `None` if no single limit was exceeded.
        limit: Option<u64>,
    },
    /// The same killmails got different verdicts in another order.
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
    /// It took more memory to compile and try than it may. It may succeed another time.
    #[error("{message}")]
    TooMuchMemory {
        /// What took how much.
        message: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// Once loaded, it takes more memory than all guests together may have.
    #[error("{message}")]
    NeverFits {
        /// How much it takes, and the setting.
        message: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// The compiling process ended without a report.
    #[error("{0}")]
    Crashed(String),
    /// In its trial a call took more CPU time than it may, even when repeated alone.
    #[error("{message}")]
    Deadline {
        message: String,
        /// The limit, milliseconds.
        limit: u64,
    },
    /// In its trial a call asked more of the host than it may, even when repeated alone.
    #[error("{message}")]
    HostBudget {
        /// What it asked.
        message: String,
        /// The limit, milliseconds.
        limit: u64,
    },
    /// Too many pairs of plugin and configuration are in use.
    #[error(
        "{max} pairs of plugin and configuration are in use, the most there may be (plugin.evaluators_max)"
    )]
    TooMany { max: usize },
    /// Another budget that all evaluators share is used up: memory, or slots of the pool.
    #[error("{message}")]
    Full {
        /// What is used up, and the setting.
        message: String,
        limit: u64,
    },
    /// The memory that one address may have is used up by what only that address uses.
    #[error("{message}")]
    AddressFull {
        /// How much is in use, and the setting.
        message: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// Too many configurations wait to be tried.
    #[error("{max} configurations wait to be tried, the most there may be (plugin.trials_waiting_max)")]
    TooManyTrials { max: usize },
}

impl Refusal {
    /// Whether nothing is wrong with what was refused: a limit of the server is reached, and it may succeed
    /// later.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::TooMany { .. } | Self::TooManyTrials { .. } | Self::Full { .. } | Self::AddressFull { .. }
        )
    }

    /// Whether the component itself is the reason, rather than a limit of time or memory during compilation,
    /// which a busy machine may exceed as well.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        !self.is_busy()
            && !matches!(self, Self::Crashed(_) | Self::TooSlowToCompile { .. } | Self::TooMuchMemory { .. })
    }

    /// The same refusal with a printable text of at most `bytes_max` bytes. Parts of the text come from the
    /// component.
    #[must_use]
    pub fn legible(mut self, bytes_max: usize) -> Self {
        let text = match &mut self {
            Self::NotWasm(text)
            | Self::MissingExport(text)
            | Self::UnknownImport(text)
            | Self::TooComplex { message: text, .. }
            | Self::Compile(text)
            | Self::Instantiate { message: text, .. }
            | Self::Configure { message: text, .. }
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

    /// The word for `details.reason`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::NotWasm(_) => "not_wasm",
            Self::MissingExport(_) => "missing_export",
            Self::UnknownImport(_) => "unknown_import",
            Self::TooComplex { .. } => "too_complex",
            Self::Compile(_) => "compile",
            Self::Instantiate { .. } => "instantiate",
            Self::Configure { .. } => "configure",
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

    /// The limit that was exceeded, for `details.limit`, in the unit the message names.
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
            Self::TooComplex { limit, .. }
            | Self::Instantiate { limit, .. }
            | Self::Configure { limit, .. } => *limit,
            _ => None,
        }
    }
}

/// Why a component was not built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// It cannot be used.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing may be wrong with it; the server failed.
    #[error("{0}")]
    Internal(String),
    /// The disk is full, with advice for the operator.
    #[error("{0}")]
    DiskFull(String),
}

impl BuildError {
    /// A system call failed while doing `what`.
    #[must_use]
    pub fn io(what: &str, error: &io::Error) -> Self {
        Self::Internal(format!("cannot {what}: {error}"))
    }

    /// A file could not be written.
    #[must_use]
    pub fn write(what: &str, file: &Path, error: &io::Error) -> Self {
        if !is_disk_full(error) {
            return Self::io(what, error);
        }
        let folder = file.parent().unwrap_or(file).display();
        Self::DiskFull(format!(
            "the disk of the folder {folder} is full, cannot {what}: {error}; free some space there and try again"
        ))
    }
}

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The compiler or the pool of instances could not be set up.
    #[error("the plugin engine could not be set up: {0}")]
    Engine(String),
    /// A thread could not be started.
    #[error("a thread for plugins could not be started: {0}")]
    Thread(#[from] io::Error),
}

/// An error and its causes in one line.
pub fn error_chain(error: &wasmtime::Error) -> String {
    let error_chain: Vec<String> = error.chain().map(|cause| cause.to_string().replace('\n', " ")).collect();
    error_chain.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_names_its_folder() {
        let failed = |kind: io::ErrorKind| {
            BuildError::write("save compiled code", Path::new("/data/compiled/x.draft"), &kind.into())
        };
        let BuildError::DiskFull(message) = failed(io::ErrorKind::StorageFull) else {
            panic!("another failure")
        };
        assert!(
            message.starts_with("the disk of the folder /data/compiled is full, cannot save compiled code: "),
            "{message}"
        );
        assert!(matches!(failed(io::ErrorKind::PermissionDenied), BuildError::Internal(_)));
    }
}
