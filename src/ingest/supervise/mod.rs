//! Opens the configured sources, runs them, and starts fallbacks while they are unavailable.
//!
//! Must not know: how a source sends requests and waits.

pub(crate) mod fallback;
pub(crate) mod open;
pub(crate) mod outage_detector;
pub(crate) mod run;
