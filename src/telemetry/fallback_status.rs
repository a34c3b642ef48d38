//! The status of the sources beside the first one, and counters of fetching bodies: written by ingest, read
//! by the HTTP API.
//!
//! Must not know: how a source is followed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use parking_lot::RwLock;

use crate::telemetry::source_kind::SourceKind;
use crate::telemetry::source_status::SourceStatus;

/// A source beside the first one.
#[derive(Debug)]
pub struct FallbackSource {
    /// The configured or default name.
    pub name: String,
    pub kind: SourceKind,
    /// Whether it only runs while the sources before it are unavailable; otherwise it always runs.
    pub fallback: bool,
    /// Whether it is running.
    pub active: AtomicBool,
    /// When `active` last changed, unix milliseconds; 0: never.
    pub since_ms: AtomicI64,
    /// How often it started to stand in.
    pub switches: AtomicU64,
    pub status: Arc<SourceStatus>,
}

/// Requests to one upstream server.
#[derive(Debug, Default)]
pub struct Requests {
    pub sent: AtomicU64,
    /// Requests that returned no body.
    pub failed: AtomicU64,
    /// The time they took together.
    pub took_ms: AtomicU64,
}

/// The state of everything that runs beside the first source.
#[derive(Debug, Default)]
pub struct FallbackStatus {
    /// In the order of the configuration.
    pub sources: RwLock<Vec<Arc<FallbackSource>>>,
    pub esi: Requests,
    pub fetched: AtomicU64,
    /// Failed tries to fetch a body.
    pub fetch_failures: AtomicU64,
    /// Bodies given up; their documents are stored with the refused ones.
    pub fetch_given_up: AtomicU64,
    /// Bodies waiting to be fetched.
    pub fetch_waiting: AtomicU64,
}
