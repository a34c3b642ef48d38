//! The kinds of sources. A new kind is a variant here; the compiler then names every place that must know it.
//!
//! Must not know: how a source is opened or followed.

use serde::{Deserialize, Serialize};

enum_with_all! {
    /// A kind of source, as the configuration, reports and `provenance` name it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum SourceKind {
        /// zKillboard's feed of numbered files, or a mirror of it.
        R2z2,
        /// A websocket like EVE-KILL's.
        Websocket,
        /// A RedisQ-compatible queue.
        Redisq,
        /// Files, played back as if they happened now.
        Replay,
        /// Nothing arrives live.
        #[default]
        None,
    }
}

impl SourceKind {
    /// The word used in configuration, metrics and stored provenance: never changes.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::R2z2 => "r2z2",
            Self::Websocket => "websocket",
            Self::Redisq => "redisq",
            Self::Replay => "replay",
            Self::None => "none",
        }
    }

    /// Whether `[ingest] source` may name it.
    #[must_use]
    pub const fn can_be_first(self) -> bool {
        match self {
            Self::R2z2 | Self::Replay | Self::None => true,
            Self::Websocket | Self::Redisq => false,
        }
    }

    /// The URL schemes a `[[sources]]` entry of this kind may have; empty if it cannot be such an entry.
    #[must_use]
    pub const fn url_schemes(self) -> &'static [&'static str] {
        match self {
            Self::R2z2 | Self::Redisq => &["http://", "https://"],
            Self::Websocket => &["ws://", "wss://"],
            Self::Replay | Self::None => &[],
        }
    }

    /// Whether a long silence means that something is wrong.
    #[must_use]
    pub const fn should_never_be_silent(self) -> bool {
        match self {
            Self::R2z2 | Self::Websocket | Self::Redisq => true,
            Self::Replay | Self::None => false,
        }
    }
}
