//! What a request carries: client address, token, parameters, body, path.
//!
//! Must not know: what is done with it.

pub(crate) mod address;
pub(crate) mod api_tokens;
pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod connections;
pub(crate) mod parameters;
pub(crate) mod path;
