//! Responses: success and errors in their envelopes, lazy bodies, and the layers around every response.
//!
//! Must not know: which route responds.

pub(crate) mod error;
pub(crate) mod error_from;
pub(crate) mod exposition;
pub(crate) mod layers;
pub(crate) mod lazy_body;
pub(crate) mod listing;
pub(crate) mod negotiation;
pub(crate) mod success;
