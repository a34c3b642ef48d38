//! What sources that are no R2Z2 have in common: a pulse they keep, waits after troubles, one way to take a
//! document.
//!
//! Must not know: how a source talks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::clock;
use crate::domain::entry::Origin;
use crate::domain::provenance::Provenance;
use crate::ingest::arrival::Arrival;
use crate::ingest::backoff::{BREAKER_FAILURES, Backoff, Trouble, Waits};
use crate::ingest::package::{self, Rule};
use crate::store::incoming::{AgeRule, ZkbRule};
use crate::telemetry::source_kind::SourceKind;
use crate::telemetry::source_status::{Doing, SourceStatus};

/// A link to a source, as it stands.
#[derive(Debug)]
pub struct SourceLink {
    /// Who this is, for logs and refused documents.
    name: String,
    /// The kind of source, under which it is noted that what it brings is of the lower rank.
    kind: SourceKind,
    backoff: Backoff,
    status: Arc<SourceStatus>,
}

impl SourceLink {
    /// Nothing happened yet.
    #[must_use]
    pub const fn new(name: String, kind: SourceKind, waits: Waits, status: Arc<SourceStatus>) -> Self {
        Self { name, kind, backoff: Backoff::new(waits), status }
    }

    /// Something is asked.
    pub fn asks(&self) {
        self.status.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// The other side answers as it should.
    pub fn is_well(&mut self) {
        self.backoff.well();
        self.status.consecutive_errors.store(0, Ordering::Relaxed);
        self.status.last_success_ms.store(clock::now_ms(), Ordering::Relaxed);
        self.status.note(Doing::Following, clock::now_ms());
    }

    /// The other side does not; how long to keep away.
    pub fn troubles(&mut self, trouble: Trouble, why: &str) -> Duration {
        let wait = self.backoff.after(trouble);
        tracing::warn!("{}: {why}; next try in {} ms", self.name, wait.as_millis());
        self.status.errors.fetch_add(1, Ordering::Relaxed);
        self.status.consecutive_errors.fetch_add(1, Ordering::Relaxed);
        let open = trouble == Trouble::Forbidden || self.backoff.failures() >= BREAKER_FAILURES;
        let why = format!("{}: {why}", self.name);
        self.status
            .note(if open { Doing::BreakerOpen(why) } else { Doing::BackingOff(why) }, clock::now_ms());
        wait
    }

    /// A document arrived: a killmail, the name of one, or something to be refused.
    #[must_use]
    pub fn takes(&self, document: Bytes) -> Arrival {
        let rule = Rule { origin: Origin::Live, age: AgeRule::ByUpload, zkb: ZkbRule::IfNewer };
        let mut arrival = Arrival { lower_rank: Some(self.kind), ..Arrival::default() };
        match package::take(&document, rule, &self.name, clock::now_ms()) {
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
