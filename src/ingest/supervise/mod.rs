//! Sources at work: opened as they are configured, run, and replaced while they are away.
//!
//! Must not know: how a source asks and waits.

pub mod fallback;
pub mod open;
pub mod outage_detector;
pub mod run;
