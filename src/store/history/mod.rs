//! Queries: pages of history by killmail id, the next page of the log for a reader, counts and sums, and what
//! they cost.
//!
//! Must not know: how killmails are written.

pub(crate) mod daily_counts;
pub(crate) mod effort;
pub(crate) mod page;
pub(crate) mod select;
