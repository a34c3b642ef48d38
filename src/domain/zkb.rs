//! What zKillboard knows about a killmail beyond ESI: values in ISK, points, labels.
//!
//! Members as written by zKillboard's publisher in 2026; every one may be missing.
//!
//! Must not know: how the block is spelled on any wire.

use crate::domain::killmail::Extra;
use crate::domain::unreadable::Unreadable;

/// zKillboard's block. `None` means the source did not say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Zkb {
    /// The celestial nearest to the victim; 0 if none was found.
    pub location_id: Option<u64>,
    /// ESI's key to the killmail.
    pub hash: Option<String>,
    /// ISK value of what was fitted, hull included.
    pub fitted_value: Option<f64>,
    /// ISK value of what dropped.
    pub dropped_value: Option<f64>,
    /// ISK value of what was destroyed, hull included.
    pub destroyed_value: Option<f64>,
    /// Dropped plus destroyed, ISK.
    pub total_value: Option<f64>,
    /// zKillboard's points.
    pub points: Option<i64>,
    /// Only NPCs attacked.
    pub npc: Option<bool>,
    /// Exactly one player attacked a ship.
    pub solo: Option<bool>,
    /// The final blow came from the victim's own corporation.
    pub awox: Option<bool>,
    /// `loc:highsec`, `isk:1b+`, `cat:6` and so on.
    pub labels: Option<Vec<String>>,
    /// Number of attackers as zKillboard counted.
    pub attacker_count: Option<u64>,
    /// ESI address of the killmail.
    pub href: Option<String>,
    /// Members we have no name for (`totalDroppableValue` among them).
    pub extra: Extra,
    /// Members that cannot be read.
    pub unreadable: Unreadable,
}
