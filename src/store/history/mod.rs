//! Questions about what is kept: pages of history by killmail id, the next page of the log for a reader,
//! counts and sums, and what they cost.
//!
//! Must not know: how killmails come in.

pub mod daily_counts;
pub mod effort;
pub(crate) mod page;
pub(crate) mod select;
