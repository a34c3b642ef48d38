//! What a plugin says of a killmail, and the words for what a plugin can do wrong.
//!
//! Must not know: how plugins are run.

use std::fmt;
use std::sync::Arc;

/// A plugin's judgment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not wanted.
    Drop,
    /// Wanted.
    Keep,
    /// Wanted, with a JSON object to put beside the killmail.
    KeepWith(Arc<str>),
}

/// What a plugin did wrong: one closed set for API, metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Used up its CPU time.
    Deadline,
    /// Asked for more memory than it may have.
    Memory,
    /// Grew a table beyond its limit.
    Table,
    /// Ran out of stack.
    Stack,
    /// Trapped.
    Trap,
    /// Handed over more data than it may.
    Output,
    /// Answered with an error or with annotations that are no JSON object.
    BadOutput,
    /// Asked the host for more work than it may.
    HostBudget,
    /// Could not be instantiated.
    Instantiate,
    /// Refused or failed its configuration after it was accepted before.
    Configure,
}

impl Fault {
    /// Every fault, in the order metrics list them.
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

    /// The word.
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

/// A call that ended in a fault, and what is told of it to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The word for it.
    pub fault: Fault,
    /// What happened, in one legible line; empty where nothing more is known.
    pub message: Arc<str>,
}

impl Failure {
    /// With these words.
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
