//! The killmail now judged: its summary at hand, everything else on demand.

use std::ops::Deref;

use crate::host::killmail as host;
use crate::{AttackerColumns, IskValues, ItemColumns, Kind, Point, Role, Summary};

/// The killmail now judged. The fields of its [`Summary`] are free; every method asks the server.
#[derive(Debug)]
pub struct Killmail {
    summary: Summary,
}

impl Killmail {
    pub(crate) fn new(summary: Summary) -> Self {
        Self { summary }
    }

    /// Whether a participant in that role (or the place) has one of these ids. The cheapest question.
    pub fn involves(&self, of: Kind, role: Role, ids: &[u32]) -> bool {
        host::involves(of, role, ids)
    }

    /// One property of the participants in a role, 0 where absent; with [`Role::Any`] the victim comes first.
    pub fn column(&self, of: Kind, role: Role) -> Vec<u32> {
        host::column(of, role)
    }

    /// All attackers.
    pub fn attackers(&self) -> AttackerColumns {
        host::attackers()
    }

    /// What the victim carried.
    pub fn items(&self) -> ItemColumns {
        host::items()
    }

    /// What it is worth, ISK.
    pub fn values(&self) -> IskValues {
        host::values()
    }

    /// Where in the solar system the victim was.
    pub fn position(&self) -> Option<Point> {
        host::position()
    }

    /// zKillboard's labels.
    pub fn labels(&self) -> Vec<String> {
        host::labels()
    }

    /// The whole killmail as JSON: the last resort, it is slow.
    pub fn json(&self) -> String {
        host::json()
    }
}

impl Deref for Killmail {
    type Target = Summary;

    fn deref(&self) -> &Summary {
        &self.summary
    }
}
