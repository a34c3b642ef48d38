//! What the running server knows about itself: source status, counters, the usual rate, a silence that is too
//! long. Anyone writes, the HTTP API reads.
//!
//! Must not know: what is done about it, and how it is shown.

pub(crate) mod channel_counters;
pub(crate) mod fallback_status;
pub(crate) mod silence;
pub mod source_kind;
pub(crate) mod source_status;
pub(crate) mod unreadable_members;
pub(crate) mod usual_rate;

use std::sync::Arc;

use crate::telemetry::channel_counters::ChannelCounters;
use crate::telemetry::fallback_status::FallbackStatus;
use crate::telemetry::source_status::SourceStatus;
use crate::telemetry::unreadable_members::Unreadable;

/// What is written while the server runs. Clones share their parts, so that each writer can be given only the
/// part it writes.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// The status of the first source.
    pub source_status: Arc<SourceStatus>,
    /// The sources beside the first one, and the fetching of bodies.
    pub fallback_status: Arc<FallbackStatus>,
    /// The counters of channels.
    pub channel_counters: Arc<ChannelCounters>,
    /// Killmail fields that could not be read.
    pub unreadable: Arc<Unreadable>,
}
