//! Which URLs webhooks may call, and calling them.
//!
//! Must not know: what is sent, and what follows from the answer.

pub mod sender;
