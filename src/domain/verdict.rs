//! The verdict of a plugin on a killmail, and the faults of plugins.
//!
//! Must not know: how plugins are run.

use std::fmt;
use std::sync::Arc;

/// What a plugin decided about a killmail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Do not deliver it.
    Drop,
    /// Deliver it.
    Keep,
    /// Deliver it, with this JSON object as annotation.
    KeepWith(Arc<str>),
}

/// What a plugin did wrong. The API, metrics and logs use this closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Used up its CPU time.
    Deadline,
    /// Requested more memory than it may have.
    Memory,
    /// Grew a table beyond its limit.
    Table,
    /// Ran out of stack.
    Stack,
    /// Trapped.
    Trap,
    /// Passed more data to the host than it may.
    Output,
    /// Returned an error, or annotations that are not a JSON object.
    BadOutput,
    /// Requested more work of the host than it may.
    HostBudget,
    /// Could not be instantiated.
    Instantiate,
    /// Rejected a configuration, or failed with it, that it had accepted before.
    Configure,
}

impl Fault {
    /// Every fault, in the order in which metrics list them.
    pub const ALL: [Self; 10] = [
        Self::Deadline,
        Self::Memory,
        Self::Table,
        Self::Stack,
        Self::Trap,
        Self::Output,
        Self::BadOutput,
        Self::HostBudget,
        Self::Instantiate,
        Self::Configure,
    ];

    /// Its name in the API, metrics and logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Table => "table",
            Self::Stack => "stack",
            Self::Trap => "trap",
            Self::Output => "output",
            Self::BadOutput => "bad_output",
            Self::HostBudget => "host_budget",
            Self::Instantiate => "instantiate",
            Self::Configure => "configure",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A call of a plugin that ended in a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of fault.
    pub fault: Fault,
    /// What happened, as one sanitized line for people; empty if nothing more is known.
    pub message: Arc<str>,
}

impl Failure {
    /// With a message for people.
    #[must_use]
    pub fn new(fault: Fault, message: impl Into<Arc<str>>) -> Self {
        Self { fault, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.message {
            "" => self.fault.fmt(f),
            message => write!(f, "{}: {message}", self.fault),
        }
    }
}
