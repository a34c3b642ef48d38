//! JSON in and out: upstream documents become killmails, killmails become the one form every door sends,
//! questions become filters.
//!
//! Must not know: which door asks, how bytes travel, where killmails are kept.

pub mod batch_key;
pub mod event;
pub mod keys;
pub mod killmail;
pub mod query;
pub mod read;
pub mod text;
pub mod time;
pub mod upstream;
