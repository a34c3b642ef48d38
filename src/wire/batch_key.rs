//! Under which names a batch of a preload has its killmails: the two names that clients of the older service
//! read.
//!
//! Must not know: who asks for which.

/// Under which names a batch has its killmails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BatchKey {
    /// Under both that clients read.
    #[default]
    Both,
    /// `kills`.
    Kills,
    /// `killmails`.
    Killmails,
}

impl BatchKey {
    /// How often a batch has each killmail.
    #[must_use]
    pub const fn copies(self) -> u64 {
        match self {
            Self::Both => 2,
            Self::Kills | Self::Killmails => 1,
        }
    }

    /// `batch`: killmails of the past, in parts to be sent one after the other: this, the killmails with
    /// commas between, for both names [`BATCH_KILLMAILS`](crate::wire::event::BATCH_KILLMAILS) and the same
    /// killmails again, and [`batch_tail`](crate::wire::event::batch_tail).
    #[must_use]
    pub const fn head(self) -> &'static [u8] {
        match self {
            Self::Both | Self::Kills => b"{\"kills\":[",
            Self::Killmails => b"{\"killmails\":[",
        }
    }
}
