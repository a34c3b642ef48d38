//! The current killmail: its summary is included, everything else is fetched on demand.

use std::ops::Deref;

use crate::host::killmail as host;
use crate::{AttackerColumns, IskValues, ItemColumns, Kind, Point, Role, Summary};

/// The killmail to evaluate. The fields of its [`Summary`] are free; every method calls the server.
#[derive(Debug)]
pub struct Killmail {
    summary: Summary,
}

impl Killmail {
    pub(crate) fn new(summary: Summary) -> Self {
        Self { summary }
    }

    /// Whether a participant in that role (or the place) has one of these ids. The cheapest call.
    pub fn involves(&self, of: Kind, role: Role, ids: &[u32]) -> bool {
        host::involves(of, role, ids)
    }

    /// One property of the participants in a role, 0 if absent; with [`Role::Any`] the victim is first.
    pub fn column(&self, of: Kind, role: Role) -> Vec<u32> {
        host::column(of, role)
    }

    /// All attackers.
    pub fn attackers(&self) -> AttackerColumns {
        host::attackers()
    }

    /// The victim's items.
    pub fn items(&self) -> ItemColumns {
        host::items()
    }

    /// Its values, ISK.
    pub fn values(&self) -> IskValues {
        host::values()
    }

    /// The victim's position in the solar system.
    pub fn position(&self) -> Option<Point> {
        host::position()
    }

    /// zKillboard's labels.
    pub fn labels(&self) -> Vec<String> {
        host::labels()
    }

    /// The whole killmail as JSON: slow, so only a last resort.
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
