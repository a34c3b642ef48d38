//! One killmail as an embed: what was lost, where, to whom, for how much, with a picture of the hull.
//!
//! Must not know: the rest of the message.

use serde_json::{Value, json};

use crate::domain::entry::Entry;
use crate::domain::filter::Filter;
use crate::domain::killmail::{Attacker, Killmail};
use crate::universe;
use crate::webhook::message::discord::markdown::{self, chars, isk, security, system_text, type_text};
use crate::webhook::message::discord::outcome::{Outcome, outcome};
use crate::wire::time::iso_seconds;

/// Characters of a title.
const TITLE_CHARS_MAX: usize = 256;
/// Characters of the value of a field.
const VALUE_CHARS_MAX: usize = 1_024;
const ZKILLBOARD: &str = "https://zkillboard.com";
const IMAGES: &str = "https://images.evetech.net";

const RED: u32 = 0x00d6_3031;
const GREEN: u32 = 0x0027_ae60;
const GREY: u32 = 0x0063_6e72;

/// How much an embed says. Ten in one message have 600 characters each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// With links to everyone.
    Full,
    /// Without.
    Brief,
}

/// The parts of an embed that we use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embed {
    title: String,
    url: String,
    color: u32,
    timestamp: Option<String>,
    thumbnail_url: Option<String>,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    name: &'static str,
    value: String,
    inline: bool,
}

impl Embed {
    /// The embed of a killmail, colored for those the filter names.
    #[must_use]
    pub fn new(entry: &Entry, filter: &Filter, detail: Detail) -> Self {
        let (killmail, facts) = (&entry.killmail, &entry.facts);
        let (word, color) = match outcome(filter, facts) {
            Outcome::Loss => ("Loss", RED),
            Outcome::Kill => ("Kill", GREEN),
            Outcome::Neutral => ("Killmail", GREY),
        };
        let ship = killmail.victim.ship_type_id;
        let title = format!("{word}: {} in {}", type_text(ship), system_text(facts.system()));
        Self {
            title: markdown::cut(&title, TITLE_CHARS_MAX),
            url: format!("{ZKILLBOARD}/kill/{}/", killmail.killmail_id),
            color,
            timestamp: (!facts.time_implausible).then(|| iso_seconds(killmail.time)),
            thumbnail_url: ship.map(|id| format!("{IMAGES}/types/{id}/render?size=128")),
            fields: fields(entry, detail),
        }
    }

    /// The characters that count towards the limit of a message.
    #[must_use]
    pub fn chars(&self) -> usize {
        let field = |field: &Field| chars(field.name) + chars(&field.value);
        chars(&self.title) + self.fields.iter().map(field).sum::<usize>()
    }

    /// As Discord reads it.
    #[must_use]
    pub fn json(&self) -> Value {
        let field =
            |field: &Field| json!({ "name": field.name, "value": field.value, "inline": field.inline });
        let mut embed = json!({
            "title": self.title,
            "url": self.url,
            "color": self.color,
            "fields": self.fields.iter().map(field).collect::<Vec<_>>(),
        });
        if let Some(time) = &self.timestamp {
            embed["timestamp"] = Value::from(time.as_str());
        }
        if let Some(url) = &self.thumbnail_url {
            embed["thumbnail"] = json!({ "url": url });
        }
        embed
    }
}

fn fields(entry: &Entry, detail: Detail) -> Vec<Field> {
    let (killmail, facts) = (&entry.killmail, &entry.facts);
    let victim = &killmail.victim;
    let ids = [victim.character_id, victim.corporation_id, victim.alliance_id, victim.faction_id];
    let found = [
        ("System", Some(system(facts.system(), detail)), false),
        ("Victim", party(ids, detail), false),
        ("Final blow", final_blow(killmail, detail), false),
        ("Attackers", Some(attackers(entry)), true),
        ("Value", Some(isk(facts.total_value)), true),
    ];
    let field = |(name, value, inline): (&'static str, Option<String>, bool)| {
        Some(Field { name, value: markdown::cut(&value?, VALUE_CHARS_MAX), inline })
    };
    found.into_iter().filter_map(field).collect()
}

fn system(id: u32, detail: Detail) -> String {
    let Some(known) = universe::system(id) else { return system_text(id) };
    let security = security(known.security);
    match detail {
        Detail::Full => format!("[{}]({ZKILLBOARD}/system/{id}/), security {security}", system_text(id)),
        Detail::Brief => format!("{}, security {security}", system_text(id)),
    }
}

/// A character, corporation, alliance and faction; `None` if none is known.
fn party(ids: [Option<u32>; 4], detail: Detail) -> Option<String> {
    let kinds = ["character", "corporation", "alliance", "faction"];
    let known = kinds.into_iter().zip(ids).filter_map(|(kind, id)| Some((kind, id?)));
    let texts: Vec<String> = known
        .map(|(kind, id)| match detail {
            Detail::Full => format!("{kind} [{id}]({ZKILLBOARD}/{kind}/{id}/)"),
            Detail::Brief => format!("{kind} {id}"),
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// The attacker with the final blow, their ship and weapon.
fn final_blow(killmail: &Killmail, detail: Detail) -> Option<String> {
    let attacker: &Attacker = killmail.attackers.iter().find(|attacker| attacker.final_blow)?;
    let ids = [attacker.character_id, attacker.corporation_id, attacker.alliance_id, attacker.faction_id];
    let who = party(ids, detail).unwrap_or_else(|| "unknown".to_owned());
    let ship = attacker.ship_type_id.map_or_else(String::new, |id| format!(" in {}", type_text(Some(id))));
    let weapon = attacker.weapon_type_id.filter(|id| Some(*id) != attacker.ship_type_id);
    let weapon = weapon.map_or_else(String::new, |id| format!(" with {}", type_text(Some(id))));
    Some(format!("{who}{ship}{weapon}"))
}

fn attackers(entry: &Entry) -> String {
    let facts = &entry.facts;
    let note = if facts.npc {
        ", NPCs only"
    } else if facts.solo {
        ", solo"
    } else {
        ""
    };
    format!("{}{note}", facts.attacker_count)
}
