//! Upstream documents become killmails: JSON read without building it, every known form, and why a document
//! is refused.
//!
//! Must not know: which source sent a document.

pub mod body;
pub mod json;
pub mod lenient;
pub mod member;
pub mod node;
pub mod number;
pub mod package;
pub mod reason;
pub mod reference;
pub mod split;
pub mod zkb;
