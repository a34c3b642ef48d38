//! Short constructors for types of the contract.

use serde::Serialize;

use crate::history::Query;
use crate::{Interest, Kind, Role, Term, Traits, Verdict};

impl Default for Interest {
    /// All killmails.
    fn default() -> Self {
        Self { any_of: Vec::new(), min_value: 0.0, min_attackers: 0, max_attackers: 0, having: Traits::empty(), lacking: Traits::empty() }
    }
}

impl Term {
    /// Killmails in which a participant in that role (or the place) has one of these ids.
    pub fn new(of: Kind, role: Role, ids: impl Into<Vec<u32>>) -> Self {
        Self { of, role, ids: ids.into() }
    }
}

impl Query {
    /// Killmails with this id in that role, at any time.
    pub fn new(of: Kind, role: Role, id: u32) -> Self {
        Self { of, role, id, since: 0, until: 0 }
    }

    /// Only killmails that happened at this time or later, unix seconds.
    pub fn since(self, since: i64) -> Self {
        Self { since, ..self }
    }

    /// Only killmails that happened before this time, unix seconds.
    pub fn until(self, until: i64) -> Self {
        Self { until, ..self }
    }
}

impl Verdict {
    /// Keeps or drops the killmail.
    pub fn keep_if(keep: bool) -> Self {
        if keep { Self::Keep } else { Self::Drop }
    }

    /// Keeps the killmail with annotations, which must serialize to a JSON object.
    pub fn annotate(annotations: &impl Serialize) -> Result<Self, String> {
        serde_json::to_string(annotations).map(Self::KeepWith).map_err(|error| format!("annotations are not JSON: {error}"))
    }
}
