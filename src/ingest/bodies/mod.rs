//! Fetching the bodies of killmails that a source only named, from ESI.
//!
//! Must not know: which source named them.

pub mod esi;
pub mod esi_limiter;
pub mod fetcher;
pub mod unmatched;
