//! The two classes of components. Output of a compiler is small and runs from a pool; a component that
//! contains the runtime of a scripting language is large and gets its memory on demand.
//!
//! Must not know: limits, or how a component runs.

use serde::{Deserialize, Serialize};

/// Decides which limits apply. It follows from the component itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// From Rust, C and other compiled languages: tens of kilobytes, a handful of core instances.
    #[default]
    Small,
    /// Contains the interpreter of a scripting language: JavaScript, Python.
    Scripting,
}

impl Class {
    pub const ALL: [Self; 2] = [Self::Small, Self::Scripting];

    /// The name in the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Scripting => "scripting",
        }
    }
}
