//! Bodies of killmails that a source only named, fetched from ESI.
//!
//! Must not know: which source named them.

pub mod esi;
pub mod esi_limiter;
pub mod fetcher;
pub mod unmatched;
