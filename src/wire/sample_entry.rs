//! Killmails of the bundled sample as entries that no log contains.
//!
//! Must not know: what they are used for.

use std::sync::{Arc, OnceLock};

use crate::domain::entry::{Entry, Origin, SharedEntry};
use crate::domain::id::Seq;
use crate::store::facts::facts;
use crate::wire::read::package;

/// The killmail of a line of the sample, `None` if it has none. Its place is before the log, so what the history says
/// about it never changes.
#[must_use]
pub fn parse(line: &str) -> Option<SharedEntry> {
    let killmail = package::parse(line.as_bytes()).ok()?.killmail?;
    Some(Arc::new(Entry {
        seq: Seq::ZERO,
        rev: 0,
        origin: Origin::Backfill,
        received_at_ms: 0,
        uploaded_at: None,
        age_secs: 0,
        facts: facts(&killmail),
        killmail,
        json: OnceLock::new(),
    }))
}
