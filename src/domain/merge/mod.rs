//! Merging of two copies of one killmail: whether they agree, and what the incoming copy may add or replace.
//!
//! `killmails` is the entry point and handles unreadable members. `compare` decides whether the copies agree,
//! `ranked` merges the body and `renewal` the rest.
//!
//! Must not know: where copies come from, or how they are stored.

pub mod compare;
pub(crate) mod killmails;
pub(crate) mod members;
pub(crate) mod pairing;
pub(crate) mod parts;
pub(crate) mod ranked;
pub(crate) mod renewal;
