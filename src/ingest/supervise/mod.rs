//! Opens the configured sources, runs them, and starts fallbacks while they are unavailable.
//!
//! Must not know: how a source sends requests and waits.

pub mod fallback;
pub mod open;
pub mod outage_detector;
pub mod run;
