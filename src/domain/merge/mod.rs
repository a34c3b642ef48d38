//! What two accounts of one killmail make together: whether they are the same, and what the newer one may
//! add.
//!
//! Must not know: where accounts come from, or how they are kept.

pub mod accounts;
pub mod layers;
pub mod members;
pub mod pairing;
pub mod parts;
pub mod renewal;
pub mod sameness;
