//! A filter for benchmarks: keeps killmails of at least `min_isk` and, with `characters` (ascending), with one of them attacking.
//! It declares no interest, so it evaluates every killmail.
//!
//! `ask` decides how attackers are checked: `true` calls the server, `false` reads the column itself.

use killstream_plugin::{Killmail, Kind, Plugin, Role, Verdict, export};
use serde::Deserialize;

/// Which killmails are kept.
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
