//! What the running server knows about itself: how sources are doing, counters, the usual rate. Anyone
//! writes, the HTTP API reads.
//!
//! Must not know: what is done about it, and how it is shown.

pub mod channel_counters;
pub mod fallback_status;
pub mod source_status;
pub mod unreadable_members;
pub mod usual_rate;
