//! JSON in and out: upstream documents become killmails, killmails become the one form every door sends, questions become filters.
//!
//! Must not know: which door asks, how bytes travel, where killmails are kept.

pub mod body;
pub mod event;
pub mod filter_echo;
pub mod json;
pub mod keys;
pub mod killmail;
pub mod lenient;
pub mod member;
pub mod node;
pub mod number;
pub mod origin;
pub mod package;
pub mod parameters;
pub mod query;
pub mod reason;
pub mod reference;
pub mod spelling;
pub mod split;
pub mod text;
pub mod time;
pub mod unknown;
pub mod upstream;
pub mod zkb;
