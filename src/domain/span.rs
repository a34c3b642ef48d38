//! A span of time whose missing killmails were added from archives after readers had passed it.
//!
//! Must not know: archives, or how a reader is notified.

/// Killmails added from archives together. A span is an entry in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// Time of the oldest one, unix seconds.
    pub from: i64,
    /// End of the span, exclusive, unix seconds.
    pub to: i64,
    /// Number of killmails.
    pub killmails: u64,
}

impl Span {
    /// The span extended by one killmail of this time, unix seconds.
    #[must_use]
    pub fn with(self, time: i64) -> Self {
        let after = time.saturating_add(1);
        Self { from: self.from.min(time), to: self.to.max(after), killmails: self.killmails + 1 }
    }

    /// The span of one killmail of this time, unix seconds.
    #[must_use]
    pub const fn at(time: i64) -> Self {
        Self { from: time, to: time.saturating_add(1), killmails: 1 }
    }
}
