//! What zKillboard knows about a killmail beyond ESI: values in ISK, points, labels.
//!
//! Members as zKillboard publishes them in 2026. Every one may be missing.
//!
//! Must not know: how the block is written in any format.

use crate::domain::killmail::Extra;
use crate::domain::unreadable::UnreadableMembers;

/// zKillboard's block. `None` means that the source did not give the member.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Zkb {
    /// The celestial object nearest to the victim; 0 if zKillboard found none.
    pub location_id: Option<u64>,
    /// The hash that ESI requires.
    pub hash: Option<String>,
    /// Value of the fitted items and the hull, ISK.
    pub fitted_value: Option<f64>,
    /// Value of the dropped items, ISK.
    pub dropped_value: Option<f64>,
    /// Value of the destroyed items and the hull, ISK.
    pub destroyed_value: Option<f64>,
    /// Dropped and destroyed value together, ISK.
    pub total_value: Option<f64>,
    /// zKillboard's score.
    pub points: Option<i64>,
    /// Whether only NPCs attacked.
    pub npc: Option<bool>,
    /// Whether one player attacked a ship alone.
    pub solo: Option<bool>,
    /// Whether the final blow came from the victim's own corporation.
    pub awox: Option<bool>,
    /// Labels such as `loc:highsec`, `isk:1b+`, `cat:6`.
    pub labels: Option<Vec<String>>,
    /// Number of attackers as counted by zKillboard.
    pub attacker_count: Option<u64>,
    /// URL of the killmail at ESI.
    pub href: Option<String>,
    /// Members of unknown names, `totalDroppableValue` among them.
    pub extra: Extra,
    /// Members that could not be read.
    pub unreadable: UnreadableMembers,
}
