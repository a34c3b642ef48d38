//! What the running server knows about itself: source status, counters, the usual rate. Anyone writes, the
//! HTTP API reads.
//!
//! Must not know: what is done about it, and how it is shown.

pub(crate) mod channel_counters;
pub(crate) mod fallback_status;
pub mod source_kind;
pub(crate) mod source_status;
pub(crate) mod unreadable_members;
pub(crate) mod usual_rate;
