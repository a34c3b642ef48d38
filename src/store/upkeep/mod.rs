//! Operations on a store as a whole: verify, salvage, compact, back up, scrub, digest.
//!
//! Must not know: who asks for them.

pub(crate) mod backup;
pub(crate) mod compact;
pub(crate) mod cross_check;
pub mod digest;
pub mod salvage;
pub(crate) mod scrub;
pub(crate) mod small_values;
pub mod verify;
