//! What a request carries: client address, token, parameters, body, path.
//!
//! Must not know: what is done with it.

pub mod address;
pub mod api_tokens;
pub mod auth;
pub mod body;
pub mod connections;
pub mod parameters;
pub mod path;
