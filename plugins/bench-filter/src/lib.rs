//! A filter for measuring: at least `min_isk`, and with `characters` (ascending) at least one of them among the attackers.
//! It names no interest, so every killmail reaches it.
//!
//! `ask` decides how attackers are looked at: `true` asks the server, `false` goes through them itself.

use killstream_plugin::{Killmail, Kind, Plugin, Role, Verdict, export};
use serde::Deserialize;

/// What is kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    min_isk: f64,
    characters: Vec<u32>,
    ask: bool,
}

impl Plugin for Filter {
    fn evaluate(&self, killmail: &Killmail) -> Result<Verdict, String> {
        let valued = killmail.total_value >= self.min_isk;
        Ok(Verdict::keep_if(valued && (self.characters.is_empty() || self.attacked(killmail))))
    }
}

export!(Filter);

impl Filter {
    fn attacked(&self, killmail: &Killmail) -> bool {
        if self.ask {
            return killmail.involves(Kind::Character, Role::Attacker, &self.characters);
        }
        killmail.column(Kind::Character, Role::Attacker).iter().any(|id| self.characters.binary_search(id).is_ok())
    }
}
