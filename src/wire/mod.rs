//! JSON in both directions: reads upstream documents and request parameters, writes killmails and events.
//!
//! Must not know: transports, how bytes are transferred, where killmails are stored.

pub(crate) mod batch_key;
pub(crate) mod count;
pub(crate) mod event;
pub(crate) mod keys;
pub mod killmail;
pub mod query;
pub mod read;
pub(crate) mod sample_entry;
pub(crate) mod text;
pub(crate) mod time;
pub(crate) mod upstream;
