//! Answers: success and failure in their envelopes, lazy bodies, what every answer has around it.
//!
//! Must not know: which route answers.

pub mod error;
pub mod error_from;
pub mod exposition;
pub mod layers;
pub mod lazy_body;
pub mod listing;
pub mod negotiation;
pub mod success;
