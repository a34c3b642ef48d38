//! Work on a store as a whole: verify, salvage, compact, back up, look for damage, compare.
//!
//! Must not know: who asks for it.

pub mod backup;
pub(crate) mod check;
pub mod compact;
pub mod digest;
pub mod salvage;
pub(crate) mod scrub;
pub(crate) mod small;
pub mod verify;
