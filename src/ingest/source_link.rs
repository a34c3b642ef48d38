//! What the sources other than R2Z2 share: the status they write, waits after failures, one way to parse a
//! document.
//!
//! Must not know: the protocol of the source.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::clock;
use crate::domain::entry::Origin;
use crate::domain::provenance::Provenance;
use crate::ingest::arrival::Arrival;
use crate::ingest::backoff::{Backoff, Trouble, Waits, opens_breaker};
use crate::ingest::package::{self, Rule};
use crate::store::incoming::{AgeRule, ZkbRule};
use crate::telemetry::source_kind::SourceKind;
use crate::telemetry::source_status::{Doing, SourceStatus};

/// The state of the link to one source.
#[derive(Debug)]
pub struct SourceLink {
    /// For the log and for refused documents.
    name: String,
    /// Noted as the provenance of everything the source sends: its data ranks below that of R2Z2 and ESI.
    kind: SourceKind,
    backoff: Backoff,
    status: Arc<SourceStatus>,
}

impl SourceLink {
    #[must_use]
    pub const fn new(name: String, kind: SourceKind, waits: Waits, status: Arc<SourceStatus>) -> Self {
        Self { name, kind, backoff: Backoff::new(waits), status }
    }

    pub fn count_request(&self) {
        self.status.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the other side responds as it should.
    pub fn note_success(&mut self) {
        self.backoff.reset();
        self.status.consecutive_errors.store(0, Ordering::Relaxed);
        self.status.last_success_ms.store(clock::now_ms(), Ordering::Relaxed);
        self.status.note(Doing::Following, clock::now_ms());
    }

    /// Notes and logs a failure; returns how long to wait before the next request.
    pub fn note_failure(&mut self, trouble: Trouble, why: &str) -> Duration {
        let wait = self.backoff.after(trouble);
        tracing::warn!("{}: {why}; next try in {} ms", self.name, wait.as_millis());
        self.status.errors.fetch_add(1, Ordering::Relaxed);
        self.status.consecutive_errors.fetch_add(1, Ordering::Relaxed);
        let is_open = opens_breaker(trouble == Trouble::Forbidden, self.backoff.failures().into());
        let why = format!("{}: {why}", self.name);
        let doing = if is_open { Doing::BreakerOpen(why) } else { Doing::BackingOff(why) };
        self.status.note(doing, clock::now_ms());
        wait
    }

    /// Parses a document: a killmail, the name of one, or something to refuse.
    #[must_use]
    pub fn parse(&self, document: Bytes) -> Arrival {
        let rule = Rule { origin: Origin::Live, age: AgeRule::ByUpload, zkb: ZkbRule::IfNewer };
        let mut arrival = Arrival { lower_rank: Some(self.kind), ..Arrival::default() };
        match package::parse_document(&document, rule, &self.name, clock::now_ms()) {
            Ok(mut incoming) => {
                incoming.killmail.provenance = Provenance::all(&incoming.killmail, self.kind.word());
                arrival.killmails.push(incoming);
            }
            Err(refused) => arrival.refused.push(*refused),
        }
        arrival.raw.push(document);
        arrival
    }
}
