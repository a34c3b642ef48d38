//! Positions in the log, and the opaque event id that clients hold.
//!
//! Must not know: how event ids are transferred (headers, query strings, frames).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The sequence number of an entry in the log: consecutive from 1. 0 is the position before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The position before the first entry.
    pub const ZERO: Self = Self(0);

    /// The number that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a store. No two stores share one, so a position in another store is recognised as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The position of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It has passed everything up to and including this number.
    Live(Seq),
    /// It is in a preload of entries numbered `<= head`, in order of their killmail ids.
    Preload {
        /// The head of the log when the preload began.
        head: Seq,
        /// The killmail id sent last; 0 before the first.
        after: u32,
    },
}

impl Place {
    /// The number after which live delivery continues.
    #[must_use]
    pub const fn head(self) -> Seq {
        match self {
            Self::Live(seq) => seq,
            Self::Preload { head, .. } => head,
        }
    }
}

/// The event id that clients get: `<epoch>-<seq>`, or `<epoch>-<head>.<killmail id>` in a preload. It is
/// opaque to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventId {
    /// The store it belongs to.
    pub epoch: Epoch,
    /// The position it names.
    pub place: Place,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Live(seq) => write!(f, "{}-{seq}", self.epoch),
            Place::Preload { head, after } => write!(f, "{}-{head}.{after}", self.epoch),
        }
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for EventId {
    type Error = MalformedId;

    fn try_from(text: String) -> Result<Self, MalformedId> {
        text.parse()
    }
}

/// The text is not an event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event id")]
pub struct MalformedId;

impl FromStr for EventId {
    type Err = MalformedId;

    fn from_str(text: &str) -> Result<Self, MalformedId> {
        let (epoch, place) = text.split_once('-').ok_or(MalformedId)?;
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if epoch.len() != 16 || !epoch.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(MalformedId);
        }
        let epoch = Epoch(u64::from_str_radix(epoch, 16).map_err(|_| MalformedId)?);
        let (head, after) = match place.split_once('.') {
            Some((head, after)) => (head, Some(after)),
            None => (place, None),
        };
        if !digits(head) || !after.is_none_or(digits) {
            return Err(MalformedId);
        }
        let head = Seq(head.parse().map_err(|_| MalformedId)?);
        let place = match after {
            None => Place::Live(head),
            Some(after) => Place::Preload { head, after: after.parse().map_err(|_| MalformedId)? },
        };
        Ok(Self { epoch, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_come_back() {
        for place in [
            Place::Live(Seq(0)),
            Place::Live(Seq(u64::MAX)),
            Place::Preload { head: Seq(7), after: 96_953_365 },
        ] {
            let id = EventId { epoch: Epoch(0x00ab_cdef_0123_4567), place };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "-",
            "1-2",
            "00abcdef01234567",
            "00abcdef01234567-",
            "00abcdef01234567-x",
            "00abcdef01234567-1.",
            "00abcdef01234567-+1",
            "00ABCDEF01234567-1",
            "00abcdef01234567-1.2.3",
            "00abcdef01234567-99999999999999999999",
            "é0abcdef01234567-1",
        ] {
            assert_eq!(text.parse::<EventId>(), Err(MalformedId), "{text}");
        }
    }
}
