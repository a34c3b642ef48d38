//! JSON in both directions: reads upstream documents and request parameters, writes killmails and events.
//!
//! Must not know: transports, how bytes are transferred, where killmails are stored.

pub mod batch_key;
pub mod count;
pub mod event;
pub mod keys;
pub mod killmail;
pub mod query;
pub mod read;
pub mod text;
pub mod time;
pub mod upstream;
