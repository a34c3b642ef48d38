//! A span: a stretch of time whose missing killmails were put in from archives, after readers had passed it.
//!
//! Must not know: archives, or how a reader is told.

/// Killmails put in from archives at once, as an entry of the log of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// When the first of them happened, unix seconds.
    pub from: i64,
    /// Before this all of them happened, unix seconds.
    pub to: i64,
    /// How many they are.
    pub killmails: u64,
}

impl Span {
    /// The span with one more killmail, of this time (unix seconds), in it.
    #[must_use]
    pub fn with(self, time: i64) -> Self {
        let after = time.saturating_add(1);
        Self { from: self.from.min(time), to: self.to.max(after), killmails: self.killmails + 1 }
    }

    /// The span of one killmail.
    #[must_use]
    pub const fn of(time: i64) -> Self {
        Self { from: time, to: time.saturating_add(1), killmails: 1 }
    }
}
