//! What can go wrong with plugins that is not a fault of a running guest: refusals of what was handed in, and our own failures.
//!
//! Must not know: status codes or envelopes of doors.

/// What was handed in cannot be used; the text says what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Larger than an upload may be.
    #[error("the component is {bytes} bytes; an upload may be {max} bytes (plugin.upload_bytes)")]
    TooLarge {
        /// Its size, bytes.
        bytes: usize,
        /// The limit, bytes.
        max: usize,
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
    #[error("{0}")]
    TooComplex(String),
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
    /// Too many pairs of plugin and configuration in use.
    #[error("{max} pairs of plugin and configuration are in use, the most there may be (plugin.evaluators_max)")]
    TooMany {
        /// The limit.
        max: usize,
    },
}

impl Refusal {
    /// The word of the reason, for `details.reason`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::NotWasm(_) => "not_wasm",
            Self::MissingExport(_) => "missing_export",
            Self::UnknownImport(_) => "unknown_import",
            Self::TooComplex(_) => "too_complex",
            Self::Compile(_) => "compile",
            Self::Instantiate(_) => "instantiate",
            Self::Configure(_) => "configure",
            Self::NotRepeatable(_) => "not_repeatable",
            Self::TooMany { .. } => "too_many",
        }
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
    Thread(#[from] std::io::Error),
}
