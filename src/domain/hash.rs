//! The hash of a killmail, which ESI requires to hand out its body: the one a source gave, or else computed
//! from the body as the game does.
//!
//! Must not know: which source gave it.

use std::borrow::Cow;

use sha1::{Digest as _, Sha1};

use crate::domain::killmail::Killmail;

/// How a hash that was computed, because no source gave one, is marked in JSON.
pub const COMPUTED: &str = "computed";
/// A Windows file time counts steps of 100 nanoseconds.
const STEPS_PER_SEC: i128 = 10_000_000;
/// The Windows file time of 1970-01-01.
const STEPS_TO_1970: i128 = 116_444_736_000_000_000;

/// A hash and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash<'a> {
    /// 40 hex digits.
    pub text: Cow<'a, str>,
    /// Whether it was computed because no source gave one.
    pub computed: bool,
}

/// The hash a source gave, or else the computed one; `None` if the body lacks what it is computed from.
#[must_use]
pub fn resolve(killmail: &Killmail) -> Option<Hash<'_>> {
    match from_source(killmail) {
        Some(hash) => Some(Hash { text: Cow::Borrowed(hash), computed: false }),
        None => compute(killmail).map(|hash| Hash { text: Cow::Owned(hash), computed: true }),
    }
}

/// Whether [`resolve`] finds a hash, without computing it.
#[must_use]
pub fn is_known(killmail: &Killmail) -> bool {
    from_source(killmail).is_some() || Inputs::collect(killmail).is_some()
}

/// The hash a source gave, beside the body or in zKillboard's block.
#[must_use]
pub fn from_source(killmail: &Killmail) -> Option<&str> {
    let in_zkb = || killmail.zkb.as_ref()?.hash.as_deref();
    killmail
        .hash
        .as_deref()
        .filter(|hash| !hash.is_empty())
        .or_else(|| in_zkb().filter(|hash| !hash.is_empty()))
}

/// SHA-1 of the victim's character, the character with the final blow, the victim's ship type and the time as
/// a Windows file time, concatenated in decimal. A missing character is the text `None`.
#[must_use]
pub fn compute(killmail: &Killmail) -> Option<String> {
    let Inputs { victim, killer, ship_type_id } = Inputs::collect(killmail)?;
    let name = |id: Option<u32>| id.map_or_else(|| "None".to_owned(), |id| id.to_string());
    let steps = i128::from(killmail.time) * STEPS_PER_SEC + STEPS_TO_1970;
    let mut sha1 = Sha1::new();
    for text in [name(victim), name(killer), ship_type_id.to_string(), steps.to_string()] {
        sha1.update(text);
    }
    Some(sha1.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The inputs of the computed hash beside the time.
struct Inputs {
    victim: Option<u32>,
    killer: Option<u32>,
    ship_type_id: u32,
}

impl Inputs {
    /// `None` if the result would be a guess: the victim's ship is unknown, there is not exactly one final
    /// blow, or one of the inputs could not be read.
    fn collect(killmail: &Killmail) -> Option<Self> {
        let is_unreadable = killmail.unreadable.contains("attackers")
            || killmail.victim.unreadable.contains("character_id")
            || killmail.attackers.iter().any(|attacker| attacker.unreadable.contains("final_blow"));
        if is_unreadable {
            return None;
        }
        let mut blows = killmail.attackers.iter().filter(|attacker| attacker.final_blow);
        let (Some(killer), None) = (blows.next(), blows.next()) else { return None };
        if killer.unreadable.contains("character_id") {
            return None;
        }
        // Some sources send 0 for no character.
        let character = |id: Option<u32>| id.filter(|id| *id != 0);
        let ship_type_id = killmail.victim.ship_type_id.filter(|id| *id != 0)?;
        Some(Self {
            victim: character(killmail.victim.character_id),
            killer: character(killer.character_id),
            ship_type_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::killmail::{Attacker, Victim};
    use crate::domain::zkb::Zkb;

    fn killmail() -> Killmail {
        Killmail {
            time: 1_638_014_400,
            victim: Victim { ship_type_id: Some(670), ..Victim::default() },
            attackers: vec![
                Attacker::default(),
                Attacker { character_id: Some(7), final_blow: true, ..Attacker::default() },
            ],
            ..Killmail::default()
        }
    }

    #[test]
    fn a_given_hash_counts_before_a_computed_one() {
        let killmail = killmail();
        let computed = resolve(&killmail).expect("all is there");
        assert!(computed.computed && computed.text.len() == 40, "{computed:?}");
        let zkb = Zkb { hash: Some("bb".to_owned()), ..Zkb::default() };
        let given = Killmail { hash: Some(String::new()), zkb: Some(zkb), ..killmail.clone() };
        assert_eq!(resolve(&given), Some(Hash { text: "bb".into(), computed: false }));
        let given = Killmail { hash: Some("aa".to_owned()), ..given };
        assert_eq!(resolve(&given), Some(Hash { text: "aa".into(), computed: false }));
    }

    #[test]
    fn nothing_is_computed_from_what_is_not_there() {
        let mut cases = vec![killmail(); 7];
        cases[0].victim.ship_type_id = None;
        cases[1].attackers[1].final_blow = false;
        cases[2].attackers[0].final_blow = true;
        cases[3].victim.unreadable.insert("character_id", json!("x"));
        cases[4].attackers[1].unreadable.insert("character_id", json!("x"));
        cases[5].attackers[0].unreadable.insert("final_blow", json!("x"));
        cases[6].unreadable.insert("attackers", json!([7]));
        for killmail in cases {
            assert_eq!((resolve(&killmail), is_known(&killmail)), (None, false));
        }
    }

    #[test]
    fn a_character_of_0_is_none() {
        let mut zero = killmail();
        zero.victim.character_id = Some(0);
        assert_eq!(compute(&zero), compute(&killmail()));
    }
}
