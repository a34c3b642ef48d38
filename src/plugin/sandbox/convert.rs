//! Conversions between the domain's types and those of the plugin contract: killmails to summaries and
//! columns, interests and verdicts back.
//!
//! Must not know: how calls are made or limited.

use std::iter;

use serde_json::Value;

use crate::domain::entry::Entry;
use crate::domain::facts::Facts;
use crate::domain::filter::{IdSet, Interest, RoleClause};
use crate::domain::killmail::{Attacker, Item, Killmail, Victim};
use crate::domain::term::{Dimension, Role};
use crate::domain::verdict::{Failure, Fault, Verdict};
use crate::plugin::history::{HistoryQuestion, Totals};
use crate::plugin::sandbox::bindings::exports::killstream::plugin::guest;
use crate::plugin::sandbox::bindings::killstream::plugin::{history as wit_history, types};
use crate::universe;

/// Ids of the regions of abyssal deadspace.
const ABYSSAL_REGIONS: std::ops::RangeInclusive<u32> = 12_000_000..=12_999_999;
/// zKillboard's label for a suicide gank.
const GANKED: &str = "ganked";

/// The sixteen values that every call of `evaluate` carries.
#[must_use]
pub fn summary(entry: &Entry) -> types::Summary {
    let (killmail, facts) = (&entry.killmail, &entry.facts);
    let victim = &killmail.victim;
    let last = killmail.attackers.iter().find(|a| a.final_blow);
    let of_final_blow = |id: fn(&Attacker) -> Option<u32>| last.and_then(id).unwrap_or(0);
    types::Summary {
        id: u64::from(killmail.killmail_id),
        time: killmail.time,
        system: facts.system(),
        region: facts.region(),
        victim_character: victim.character_id.unwrap_or(0),
        victim_corporation: victim.corporation_id.unwrap_or(0),
        victim_alliance: victim.alliance_id.unwrap_or(0),
        victim_ship: victim.ship_type_id.unwrap_or(0),
        victim_ship_group: facts.victim.ids(Dimension::ShipGroup).first().copied().unwrap_or(0),
        final_blow_character: of_final_blow(|a| a.character_id),
        final_blow_corporation: of_final_blow(|a| a.corporation_id),
        final_blow_alliance: of_final_blow(|a| a.alliance_id),
        attacker_count: facts.attacker_count,
        points: killmail.zkb.as_ref().and_then(|z| z.points).and_then(|p| u32::try_from(p).ok()).unwrap_or(0),
        total_value: facts.total_value.unwrap_or(0.0),
        traits: traits(entry),
    }
}

/// The flags of a killmail.
#[must_use]
pub fn traits(entry: &Entry) -> types::Traits {
    let facts: &Facts = &entry.facts;
    let mut traits = types::Traits::empty();
    let mut set = |is: bool, flag: types::Traits| {
        if is {
            traits |= flag;
        }
    };
    set(facts.npc, types::Traits::NPC);
    set(facts.solo, types::Traits::SOLO);
    set(facts.awox, types::Traits::AWOX);
    set(ABYSSAL_REGIONS.contains(&facts.region()), types::Traits::ABYSSAL);
    set(facts.labels.iter().any(|label| label == GANKED), types::Traits::GANKED);
    set(entry.is_late(), types::Traits::LATE);
    traits
}

/// All attackers, in columns.
#[must_use]
pub fn attackers(killmail: &Killmail) -> types::AttackerColumns {
    let all = &killmail.attackers;
    let ids = |id: fn(&Attacker) -> Option<u32>| all.iter().map(|a| id(a).unwrap_or(0)).collect();
    types::AttackerColumns {
        characters: ids(|a| a.character_id),
        corporations: ids(|a| a.corporation_id),
        alliances: ids(|a| a.alliance_id),
        factions: ids(|a| a.faction_id),
        ships: ids(|a| a.ship_type_id),
        weapons: ids(|a| a.weapon_type_id),
        damage: all.iter().map(|a| clamp_u32(a.damage_done)).collect(),
        security: all.iter().map(|a| to_f32(a.security_status)).collect(),
        final_blow: all.iter().position(|a| a.final_blow).and_then(|row| u32::try_from(row).ok()),
    }
}

/// What the victim carried, in columns. The contents of an item follow it.
#[must_use]
pub fn items(killmail: &Killmail) -> types::ItemColumns {
    let mut columns = types::ItemColumns {
        type_ids: Vec::new(),
        slots: Vec::new(),
        destroyed: Vec::new(),
        dropped: Vec::new(),
        singletons: Vec::new(),
        depth: Vec::new(),
    };
    add_items(&mut columns, killmail.victim.items.as_deref().unwrap_or_default(), 0);
    columns
}

/// The number of items, contents of other items included.
#[must_use]
pub fn item_count(killmail: &Killmail) -> u64 {
    fn count(items: &[Item]) -> u64 {
        items.iter().map(|item| 1 + count(item.items.as_deref().unwrap_or_default())).sum()
    }
    count(killmail.victim.items.as_deref().unwrap_or_default())
}

fn add_items(columns: &mut types::ItemColumns, items: &[Item], depth: u8) {
    for item in items {
        columns.type_ids.push(u32::try_from(item.item_type_id).unwrap_or(0));
        columns.slots.push(clamp_u32(item.flag));
        columns.destroyed.push(item.quantity_destroyed.unwrap_or(0));
        columns.dropped.push(item.quantity_dropped.unwrap_or(0));
        columns.singletons.push(u8::try_from(item.singleton).unwrap_or(0));
        columns.depth.push(depth);
        add_items(columns, item.items.as_deref().unwrap_or_default(), depth.saturating_add(1));
    }
}

/// The ISK values of a killmail; 0 where unknown.
#[must_use]
pub fn values(killmail: &Killmail) -> types::IskValues {
    let zkb = killmail.zkb.as_ref();
    let value = |of: Option<f64>| of.unwrap_or(0.0);
    types::IskValues {
        fitted: value(zkb.and_then(|z| z.fitted_value)),
        dropped: value(zkb.and_then(|z| z.dropped_value)),
        destroyed: value(zkb.and_then(|z| z.destroyed_value)),
        total: value(zkb.and_then(|z| z.total_value)),
    }
}

/// What plugins see of a dimension.
struct Shown {
    /// The victim's id; `None` as well for places.
    victim: fn(&Victim) -> Option<u32>,
    /// An attacker's id; `None` as well for places.
    attacker: fn(&Attacker) -> Option<u32>,
    /// The name that belongs to an id.
    name: fn(u32) -> Option<&'static str>,
}

impl Shown {
    const fn place(name: fn(u32) -> Option<&'static str>) -> Self {
        Self { victim: |_| None, attacker: |_| None, name }
    }

    /// Killmails do not contain names of participants. A plugin gets no names from elsewhere, because names change.
    const fn unnamed(victim: fn(&Victim) -> Option<u32>, attacker: fn(&Attacker) -> Option<u32>) -> Self {
        Self { victim, attacker, name: |_| None }
    }
}

const fn shown(dimension: Dimension) -> Shown {
    match dimension {
        Dimension::System => Shown::place(|id| universe::system(id).map(|system| system.name)),
        Dimension::Constellation => Shown::place(universe::constellation_name),
        Dimension::Region => Shown::place(universe::region_name),
        Dimension::Character => Shown::unnamed(|v| v.character_id, |a| a.character_id),
        Dimension::Corporation => Shown::unnamed(|v| v.corporation_id, |a| a.corporation_id),
        Dimension::Alliance => Shown::unnamed(|v| v.alliance_id, |a| a.alliance_id),
        Dimension::Faction => Shown::unnamed(|v| v.faction_id, |a| a.faction_id),
        Dimension::ShipType => Shown {
            victim: |victim| victim.ship_type_id,
            attacker: |attacker| attacker.ship_type_id,
            name: universe::type_name,
        },
        Dimension::ShipGroup => Shown {
            victim: |victim| victim.ship_type_id.and_then(universe::group_of),
            attacker: |attacker| attacker.ship_type_id.and_then(universe::group_of),
            name: universe::group_name,
        },
        Dimension::WeaponType => Shown {
            victim: |_| None,
            attacker: |attacker| attacker.weapon_type_id,
            name: universe::type_name,
        },
    }
}

/// The English name of an id, if the server has one.
#[must_use]
pub fn name(dimension: Dimension, id: u32) -> Option<&'static str> {
    (shown(dimension).name)(id)
}

/// One property of the participants in a role, a row each, 0 where absent.
#[must_use]
pub fn column(entry: &Entry, dimension: Dimension, role: Role) -> Vec<u32> {
    if let Some(place) = entry.facts.place(dimension) {
        return vec![place];
    }
    let shown = shown(dimension);
    let victim = (shown.victim)(&entry.killmail.victim).unwrap_or(0);
    let attackers = &entry.killmail.attackers;
    let id = |attacker: &Attacker| (shown.attacker)(attacker).unwrap_or(0);
    match role {
        Role::Victim => vec![victim],
        Role::Any => iter::once(victim).chain(attackers.iter().map(id)).collect(),
        Role::Attacker => attackers.iter().map(id).collect(),
        Role::FinalBlow => attackers.iter().filter(|attacker| attacker.final_blow).map(id).collect(),
    }
}

/// Whether a participant in the role, or the place, has one of the ids.
#[must_use]
pub fn involves(facts: &Facts, dimension: Dimension, role: Role, ids: &[u32]) -> bool {
    if let Some(place) = facts.place(dimension) {
        return place != 0 && ids.contains(&place);
    }
    facts.columns(role).into_iter().flatten().map(|columns| columns.ids(dimension)).any(|column| {
        // The column is sorted and contains no 0, so 0 is never found.
        !column.is_empty() && ids.iter().any(|id| column.binary_search(id).is_ok())
    })
}

/// The contract's kind as a dimension.
#[must_use]
pub const fn dimension(of: types::Kind) -> Dimension {
    match of {
        types::Kind::Character => Dimension::Character,
        types::Kind::Corporation => Dimension::Corporation,
        types::Kind::Alliance => Dimension::Alliance,
        types::Kind::Faction => Dimension::Faction,
        types::Kind::Ship => Dimension::ShipType,
        types::Kind::ShipGroup => Dimension::ShipGroup,
        types::Kind::Weapon => Dimension::WeaponType,
        types::Kind::System => Dimension::System,
        types::Kind::Constellation => Dimension::Constellation,
        types::Kind::Region => Dimension::Region,
    }
}

/// The contract's role as a role.
#[must_use]
pub const fn role(role: types::Role) -> Role {
    match role {
        types::Role::Any => Role::Any,
        types::Role::Victim => Role::Victim,
        types::Role::Attacker => Role::Attacker,
        types::Role::FinalBlow => Role::FinalBlow,
    }
}

/// One term; ids of 0 are left out.
#[must_use]
pub fn role_clause(of: types::Kind, in_role: types::Role, mut ids: Vec<u32>) -> RoleClause {
    ids.retain(|id| *id != 0);
    RoleClause { dimension: dimension(of), role: role(in_role), ids: IdSet::new(ids) }
}

/// Terms with a time range, unix seconds; 0 is no bound.
#[must_use]
pub fn history_question(terms: Vec<types::Term>, since: i64, until: i64) -> HistoryQuestion {
    let bound = |at: i64| (at != 0).then_some(at);
    let terms = terms.into_iter().map(|t| role_clause(t.of, t.role, t.ids)).collect();
    HistoryQuestion { terms, since: bound(since), until: bound(until) }
}

/// Totals in the contract's type.
#[must_use]
pub const fn totals(totals: Totals) -> wit_history::Totals {
    wit_history::Totals {
        killmails: totals.killmails,
        value: totals.value,
        first: totals.first,
        last: totals.last,
    }
}

/// Which killmails a guest needs to see: the part that the index can answer, and the flags.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestInterest {
    /// The part that the index can answer; `None` restricts nothing.
    pub interest: Option<Interest>,
    /// Flags a killmail must have.
    pub having: types::Traits,
    /// Flags a killmail must not have.
    pub lacking: types::Traits,
}

impl Default for GuestInterest {
    fn default() -> Self {
        Self { interest: None, having: types::Traits::empty(), lacking: types::Traits::empty() }
    }
}

impl GuestInterest {
    /// Whether the guest needs to see this killmail.
    #[must_use]
    pub fn accepts(&self, entry: &Entry) -> bool {
        if !self.interest.as_ref().is_none_or(|interest| interest.accepts(&entry.facts)) {
            return false;
        }
        let none = types::Traits::empty();
        if self.having == none && self.lacking == none {
            return true;
        }
        let traits = traits(entry);
        traits & self.having == self.having && traits & self.lacking == none
    }
}

/// What the guest answered to `configure`, and the number of ids it names.
#[must_use]
pub fn guest_interest(interest: Option<guest::Interest>) -> (GuestInterest, usize) {
    let Some(answer) = interest else { return (GuestInterest::default(), 0) };
    let named = answer.any_of.iter().map(|term| term.ids.len()).sum();
    let interest = Interest {
        any_of: answer.any_of.into_iter().map(|t| role_clause(t.of, t.role, t.ids)).collect(),
        min_value: (answer.min_value > 0.0).then_some(answer.min_value),
        min_attackers: (answer.min_attackers > 0).then_some(answer.min_attackers),
        max_attackers: (answer.max_attackers > 0).then_some(answer.max_attackers),
    };
    let interest = (interest != Interest::default()).then_some(interest);
    (GuestInterest { interest, having: answer.having, lacking: answer.lacking }, named)
}

/// Checks the guest's verdict.
///
/// # Errors
/// `Output` for annotations over the limit, `BadOutput` for an error or for annotations that are not a JSON
/// object.
pub fn verdict(answer: Result<guest::Verdict, String>, bytes_max: usize) -> Result<Verdict, Failure> {
    match answer {
        Ok(guest::Verdict::Drop) => Ok(Verdict::Drop),
        Ok(guest::Verdict::Keep) => Ok(Verdict::Keep),
        Ok(guest::Verdict::KeepWith(json)) => annotations(&json, bytes_max),
        Err(text) => Err(Failure::new(Fault::BadOutput, text)),
    }
}

fn annotations(json: &str, bytes_max: usize) -> Result<Verdict, Failure> {
    if json.len() > bytes_max {
        let message =
            format!("annotations of {} bytes; at most {bytes_max} (plugin.verdict_bytes)", json.len());
        return Err(Failure::new(Fault::Output, message));
    }
    // Parsed completely: numbers out of range, and nesting that clients cannot read, must not reach them.
    let value = match serde_json::from_str::<Value>(json) {
        Ok(value @ Value::Object(_)) => value,
        Ok(_) => return Err(Failure::new(Fault::BadOutput, "the annotations are not a JSON object")),
        Err(error) => {
            return Err(Failure::new(Fault::BadOutput, format!("the annotations are not JSON: {error}")));
        }
    };
    // Line breaks are allowed between JSON tokens but would end a line of an event stream.
    let has_breaks = json.bytes().any(|b| b.is_ascii_control());
    Ok(Verdict::KeepWith(if has_breaks { value.to_string().into() } else { json.trim().into() }))
}

fn clamp_u32(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "a security status has few digits")]
const fn to_f32(number: f64) -> f32 {
    number as f32
}
