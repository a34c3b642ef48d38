//! Responses: success and errors in their envelopes, lazy bodies, and the layers around every response.
//!
//! Must not know: which route responds.

pub mod error;
pub mod error_from;
pub mod exposition;
pub mod layers;
pub mod lazy_body;
pub mod listing;
pub mod negotiation;
pub mod success;
