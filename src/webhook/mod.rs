//! Webhooks: killmails are sent to the URLs of subscribers.
//!
//! Must not know: HTTP requests to this server.

pub mod target;
