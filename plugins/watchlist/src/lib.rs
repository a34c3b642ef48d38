//! Keeps killmails that involve watched characters, corporations or alliances, and annotates which.
//!
//! Configuration: `{"characters": [..], "corporations": [..], "alliances": [..], "role": "any"}` with
//! at least one id; `role` is `any`, `victim`, `attacker` or `final_blow`.
//!
//! Annotation: `{"matched": [{"kind": "alliance", "id": 99, "as": "victim"}, ..]}`, victims first, then
//! attackers, each in the order of the configuration; the attacker with the final blow is listed as
//! `final_blow`. After 256 entries the rest is left out, and `"more": true` is added.

use killstream_plugin::{Interest, Killmail, Kind, Plugin, Role, Term, Verdict, export, manifest};
use serde::{Deserialize, Serialize};

/// Enough for people to read, and far below the 64 KiB that annotations may have.
const MATCHED_MAX: usize = 256;

/// Who is watched, and in which role.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Watchlist {
    characters: Vec<u32>,
    corporations: Vec<u32>,
    alliances: Vec<u32>,
    role: Watched,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Watched {
    #[default]
    Any,
    Victim,
    Attacker,
    FinalBlow,
}

#[derive(Serialize)]
struct Annotations {
    matched: Vec<Match>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

#[derive(Debug, PartialEq, Serialize)]
struct Match {
    kind: &'static str,
    id: u32,
    #[serde(rename = "as")]
    side: &'static str,
}

impl Plugin for Watchlist {
    fn check(&self) -> Result<(), String> {
        for (field, ids) in [("characters", &self.characters), ("corporations", &self.corporations), ("alliances", &self.alliances)] {
            if let Some(place) = ids.iter().position(|id| *id == 0) {
                return Err(format!("{field}[{place}]: 0 is no id"));
            }
        }
        match self.lists().next() {
            Some(_) => Ok(()),
            None => Err("characters, corporations, alliances: at least one id is needed".to_owned()),
        }
    }

    fn interest(&self) -> Interest {
        let terms = self.lists().map(|(kind, _, ids)| Term::new(kind, self.role.into(), ids)).collect();
        Interest { any_of: terms, ..Interest::default() }
    }

    fn evaluate(&self, killmail: &Killmail) -> Result<Verdict, String> {
        let mut matched = Vec::new();
        if matches!(self.role, Watched::Any | Watched::Victim) {
            self.match_victim(killmail, &mut matched);
        }
        if self.role != Watched::Victim {
            self.match_attackers(killmail, &mut matched);
        }
        if matched.is_empty() {
            return Ok(Verdict::Drop);
        }
        let more = matched.len() > MATCHED_MAX;
        matched.truncate(MATCHED_MAX);
        Verdict::annotate(&Annotations { matched, more })
    }
}

export!(Watchlist);
// A configuration without ids is refused, so uploads are probed with this one.
manifest!(r#"{"default_config": {"alliances": [99003581, 498125261]}}"#);

impl Watchlist {
    /// The lists that are not empty.
    fn lists(&self) -> impl Iterator<Item = (Kind, &'static str, &[u32])> {
        [
            (Kind::Character, "character", &self.characters[..]),
            (Kind::Corporation, "corporation", &self.corporations[..]),
            (Kind::Alliance, "alliance", &self.alliances[..]),
        ]
        .into_iter()
        .filter(|(_, _, ids)| !ids.is_empty())
    }

    fn match_victim(&self, killmail: &Killmail, matched: &mut Vec<Match>) {
        for (of, kind, ids) in self.lists() {
            let id = match of {
                Kind::Character => killmail.victim_character,
                Kind::Corporation => killmail.victim_corporation,
                _ => killmail.victim_alliance,
            };
            if ids.contains(&id) {
                matched.push(Match { kind, id, side: "victim" });
            }
        }
    }

    fn match_attackers(&self, killmail: &Killmail, matched: &mut Vec<Match>) {
        let final_blow_only = self.role == Watched::FinalBlow;
        let role = if final_blow_only { Role::FinalBlow } else { Role::Attacker };
        for (of, kind, ids) in self.lists() {
            // One cheap call before a whole column is copied from the server.
            if !killmail.involves(of, role, ids) {
                continue;
            }
            let blows = killmail.column(of, Role::FinalBlow);
            let attackers = if final_blow_only { blows.clone() } else { killmail.column(of, Role::Attacker) };
            matched.extend(found(ids, &attackers).into_iter().map(|id| {
                let side = if blows.contains(&id) { "final_blow" } else { "attacker" };
                Match { kind, id, side }
            }));
        }
    }
}

/// The watched ids that occur in a column, each once, in the order of the configuration.
fn found(ids: &[u32], column: &[u32]) -> Vec<u32> {
    let mut found = Vec::new();
    for id in ids {
        if column.contains(id) && !found.contains(id) {
            found.push(*id);
        }
    }
    found
}

impl From<Watched> for Role {
    fn from(watched: Watched) -> Self {
        match watched {
            Watched::Any => Self::Any,
            Watched::Victim => Self::Victim,
            Watched::Attacker => Self::Attacker,
            Watched::FinalBlow => Self::FinalBlow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use killstream_plugin::testing::{Stage, configure};
    use serde_json::{Value, json};

    fn matched(config: Value) -> Option<Value> {
        let killmail = json!({
            "killmail_id": 1, "solar_system_id": 30000142,
            "victim": {"character_id": 1, "corporation_id": 10, "alliance_id": 100},
            "attackers": [
                {"character_id": 2, "corporation_id": 20, "alliance_id": 100, "final_blow": false},
                {"character_id": 3, "corporation_id": 20, "final_blow": true},
                {"corporation_id": 30, "final_blow": false},
            ],
        });
        let plugin: Watchlist = configure(&config.to_string()).expect("accepted");
        match Stage::default().judge(&plugin, &killmail).expect("judged") {
            Verdict::KeepWith(annotations) => Some(serde_json::from_str::<Value>(&annotations).expect("JSON")["matched"].clone()),
            Verdict::Drop => None,
            Verdict::Keep => panic!("kept without saying why"),
        }
    }

    fn entry(kind: &str, id: u32, side: &str) -> Value {
        json!({"kind": kind, "id": id, "as": side})
    }

    #[test]
    fn roles_are_exact() {
        assert_eq!(matched(json!({"characters": [1]})), Some(json!([entry("character", 1, "victim")])));
        assert_eq!(matched(json!({"characters": [1], "role": "attacker"})), None);
        assert_eq!(matched(json!({"characters": [2, 3], "role": "final_blow"})), Some(json!([entry("character", 3, "final_blow")])));
        assert_eq!(matched(json!({"corporations": [20], "role": "victim"})), None);
        assert_eq!(matched(json!({"characters": [9]})), None);
    }

    #[test]
    fn both_sides_are_named_and_each_id_once() {
        let both = json!([entry("alliance", 100, "victim"), entry("corporation", 20, "final_blow"), entry("alliance", 100, "attacker")]);
        assert_eq!(matched(json!({"alliances": [100], "corporations": [20]})), Some(both));
    }

    #[test]
    fn interest_has_a_term_for_each_list() {
        let plugin: Watchlist = configure(r#"{"corporations": [20], "alliances": [100, 101], "role": "attacker"}"#).expect("accepted");
        let terms = vec![Term::new(Kind::Corporation, Role::Attacker, [20]), Term::new(Kind::Alliance, Role::Attacker, [100, 101])];
        assert_eq!(plugin.interest().any_of, terms);
    }

    #[test]
    fn refusals_name_the_field() {
        let refusal = |config| configure::<Watchlist>(config).expect_err("refused");
        assert_eq!(refusal("{}"), "characters, corporations, alliances: at least one id is needed");
        assert_eq!(refusal(r#"{"alliances": [5, 0]}"#), "alliances[1]: 0 is no id");
        assert!(refusal(r#"{"characters": [4294967296]}"#).starts_with("characters[0]: invalid value"));
        assert!(refusal(r#"{"characters": [1], "role": "loser"}"#).starts_with("role: unknown variant `loser`, expected one of `any`"));
        assert!(refusal(r#"{"pilots": [1]}"#).starts_with("pilots: unknown field"));
    }
}
