//! How the sources beside the first one are doing, and the fetching of bodies: written by ingest, read by
//! whoever reports.
//!
//! Must not know: what the sources are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use parking_lot::RwLock;

use crate::telemetry::source_kind::SourceKind;
use crate::telemetry::source_status::SourceStatus;

/// A source beside the first one.
#[derive(Debug)]
pub struct FallbackSource {
    /// The name it was given.
    pub name: String,
    pub kind: SourceKind,
    /// Whether it stands in for those before it while they are away; else it always runs.
    pub fallback: bool,
    /// Whether it runs now.
    pub active: AtomicBool,
    /// When that last changed, unix milliseconds; 0: never.
    pub since_ms: AtomicI64,
    /// How often it began to stand in.
    pub switches: AtomicU64,
    /// How it is doing.
    pub status: Arc<SourceStatus>,
}

/// Requests to one server outside, counted when they are sent.
#[derive(Debug, Default)]
pub struct Requests {
    /// Sent.
    pub sent: AtomicU64,
    /// Those that brought no body.
    pub failed: AtomicU64,
    /// Time spent in them, milliseconds.
    pub took_ms: AtomicU64,
}

/// All that runs beside the first source.
#[derive(Debug, Default)]
pub struct FallbackStatus {
    /// The other sources, in the order of the configuration.
    pub sources: RwLock<Vec<Arc<FallbackSource>>>,
    /// Requests to ESI.
    pub esi: Requests,
    /// Bodies fetched.
    pub fetched: AtomicU64,
    /// Tries to fetch one that failed.
    pub fetch_failures: AtomicU64,
    /// Bodies given up; their documents are among the refused.
    pub fetch_given_up: AtomicU64,
    /// Bodies still to be fetched.
    pub fetch_waiting: AtomicU64,
}
