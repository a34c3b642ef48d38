//! The key under which a batch of a preload has its killmails. Clients of WandererKills read one of two keys.
//!
//! Must not know: which client asks for which.

/// The key, or keys, of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BatchKey {
    /// The killmails come twice, under both keys.
    #[default]
    Both,
    Kills,
    Killmails,
}

impl BatchKey {
    /// How many times a batch has each killmail.
    #[must_use]
    pub const fn copies(self) -> u64 {
        match self {
            Self::Both => 2,
            Self::Kills | Self::Killmails => 1,
        }
    }

    /// The beginning of a `batch` event, which is sent in parts: this, the killmails separated by commas, for
    /// both keys also [`BATCH_KILLMAILS`](crate::wire::event::BATCH_KILLMAILS) and the same killmails again,
    /// and at the end [`batch_tail`](crate::wire::event::batch_tail).
    #[must_use]
    pub const fn head(self) -> &'static [u8] {
        match self {
            Self::Both | Self::Kills => b"{\"kills\":[",
            Self::Killmails => b"{\"killmails\":[",
        }
    }
}
