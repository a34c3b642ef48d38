//! Fetching the bodies of killmails that a source only named, from ESI.
//!
//! Must not know: which source named them.

pub(crate) mod esi;
pub(crate) mod esi_limiter;
pub(crate) mod fetcher;
pub(crate) mod unmatched;
