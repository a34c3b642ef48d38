//! The two classes of components: what compilers make is small and runs from a pool, what carries a scripting
//! language along is large and gets its memory on demand.
//!
//! Must not know: limits, or how a component runs.

use serde::{Deserialize, Serialize};

/// What a component is held to; it follows from the component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// From Rust, C and other compiled languages: tens of kilobytes, a handful of core instances.
    #[default]
    Small,
    /// With the interpreter of a scripting language in it: JavaScript, Python.
    Scripting,
}

impl Class {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Small, Self::Scripting];

    /// The word clients see.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Scripting => "scripting",
        }
    }
}
