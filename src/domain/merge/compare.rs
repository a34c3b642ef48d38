//! Whether two copies of one killmail agree, and what the incoming one may add.
//!
//! An absent value never replaces a present one: what we lack is filled in, what we have stays. Attackers and
//! items are compared as multisets and keep the order in which they first came. A contradicting body is a
//! conflict, never a change, unless its rank is higher (`ranked`). The hash and the members of zKillboard's
//! block may be replaced (`renewal`). Unknown top-level fields are only filled in.
//!
//! Must not know: which sources there are, or when one is newer.

use std::cmp::Ordering;

use crate::domain::killmail::{Attacker, Extra, Item, Killmail, Victim};
use crate::domain::merge::pairing::{Budget, pair};
use crate::domain::merge::ranked::merge_body;
use crate::domain::merge::renewal::RenewedFields;

/// Outcome of merging two copies of one killmail.
#[derive(Debug, Clone, PartialEq)]
pub enum MergeOutcome {
    /// The incoming copy adds nothing.
    Unchanged,
    /// The stored killmail with what was added or replaced.
    Revised(Box<Killmail>),
    /// The bodies contradict each other.
    Conflict,
}

/// Merges an incoming copy into the stored one. With `newer`, its hash and the members of its zKillboard
/// block replace present ones of the same rank.
#[must_use]
pub fn merge(stored: &Killmail, incoming: &Killmail, newer: bool) -> MergeOutcome {
    let mut budget = Budget::default();
    let renewed = RenewedFields::new(stored, incoming, newer);
    let ranked = !stored.provenance.is_empty() || !incoming.provenance.is_empty();
    let covered = !ranked && covers(stored, incoming, &mut budget);
    if covered && renewed.matches(stored) {
        return MergeOutcome::Unchanged;
    }
    let body = if covered { Some(stored.clone()) } else { merge_body(stored, incoming, &mut budget) };
    let Some(mut merged) = body else { return MergeOutcome::Conflict };
    renewed.apply(&mut merged);
    if merged == *stored { MergeOutcome::Unchanged } else { MergeOutcome::Revised(Box::new(merged)) }
}

/// Whether two copies differ in their provenance and in nothing else.
#[must_use]
pub fn differs_by_provenance_only(a: &Killmail, b: &Killmail) -> bool {
    a.provenance != b.provenance && Killmail { provenance: b.provenance.clone(), ..a.clone() } == *b
}

/// Whether our body has everything that theirs has.
fn covers(ours: &Killmail, theirs: &Killmail, budget: &mut Budget) -> bool {
    ours.killmail_id == theirs.killmail_id
        && ours.time == theirs.time
        && ours.solar_system_id == theirs.solar_system_id
        && has_value(&ours.moon_id, &theirs.moon_id)
        && has_value(&ours.war_id, &theirs.war_id)
        && theirs.extra.keys().all(|name| ours.extra.contains_key(name))
        && covers_victim(&ours.victim, &theirs.victim, budget)
        && pair(
            &ours.attackers,
            &theirs.attackers,
            compare_attacker_keys,
            compare_attackers,
            |a, b, _| covers_attacker(a, b),
            budget,
        )
        .is_some()
}

fn covers_victim(ours: &Victim, theirs: &Victim, budget: &mut Budget) -> bool {
    ours.damage_taken == theirs.damage_taken
        && has_value(&ours.character_id, &theirs.character_id)
        && has_value(&ours.corporation_id, &theirs.corporation_id)
        && has_value(&ours.alliance_id, &theirs.alliance_id)
        && has_value(&ours.faction_id, &theirs.faction_id)
        && has_value(&ours.ship_type_id, &theirs.ship_type_id)
        && has_value(&ours.position, &theirs.position)
        && covers_items(ours.items.as_deref(), theirs.items.as_deref(), budget)
        && covers_extra(&ours.extra, &theirs.extra)
}

fn covers_attacker(ours: &Attacker, theirs: &Attacker) -> bool {
    has_value(&ours.character_id, &theirs.character_id)
        && has_value(&ours.corporation_id, &theirs.corporation_id)
        && has_value(&ours.alliance_id, &theirs.alliance_id)
        && has_value(&ours.faction_id, &theirs.faction_id)
        && has_value(&ours.ship_type_id, &theirs.ship_type_id)
        && has_value(&ours.weapon_type_id, &theirs.weapon_type_id)
        && covers_extra(&ours.extra, &theirs.extra)
}

fn covers_items(ours: Option<&[Item]>, theirs: Option<&[Item]>, budget: &mut Budget) -> bool {
    match (ours, theirs) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(ours), Some(theirs)) => {
            pair(ours, theirs, compare_item_keys, compare_items, covers_item, budget).is_some()
        }
    }
}

fn covers_item(ours: &Item, theirs: &Item, budget: &mut Budget) -> bool {
    has_value(&ours.quantity_dropped, &theirs.quantity_dropped)
        && has_value(&ours.quantity_destroyed, &theirs.quantity_destroyed)
        && covers_extra(&ours.extra, &theirs.extra)
        && covers_items(ours.items.as_deref(), theirs.items.as_deref(), budget)
}

fn covers_extra(ours: &Extra, theirs: &Extra) -> bool {
    theirs.iter().all(|(name, value)| ours.get(name) == Some(value))
}

fn has_value<T: PartialEq>(ours: &Option<T>, theirs: &Option<T>) -> bool {
    theirs.is_none() || ours == theirs
}

/// Attackers that differ here are never the same: these members cannot be absent.
pub(crate) fn compare_attacker_keys(a: &Attacker, b: &Attacker) -> Ordering {
    let fixed = |x: &Attacker| (x.damage_done, x.final_blow);
    fixed(a).cmp(&fixed(b)).then_with(|| (a.security_status + 0.0).total_cmp(&(b.security_status + 0.0)))
}

/// Puts similar attackers at similar places.
fn compare_attackers(a: &Attacker, b: &Attacker) -> Ordering {
    let ids = |x: &Attacker| {
        (
            x.character_id,
            x.ship_type_id,
            x.weapon_type_id,
            x.corporation_id,
            x.alliance_id,
            x.faction_id,
            x.extra.len(),
        )
    };
    ids(a).cmp(&ids(b))
}

/// Items that differ here are never the same.
pub(crate) fn compare_item_keys(a: &Item, b: &Item) -> Ordering {
    let fixed = |x: &Item| (x.flag, x.item_type_id, x.singleton);
    fixed(a).cmp(&fixed(b))
}

/// Puts similar items at similar places.
fn compare_items(a: &Item, b: &Item) -> Ordering {
    let more =
        |x: &Item| (x.quantity_dropped, x.quantity_destroyed, x.items.as_ref().map(Vec::len), x.extra.len());
    more(a).cmp(&more(b))
}

/// Fills in what our body lacks; `None` if the bodies contradict each other.
pub(crate) fn fill_body(ours: &mut Killmail, theirs: &Killmail, budget: &mut Budget) -> Option<()> {
    let fixed = |k: &Killmail| (k.killmail_id, k.time, k.solar_system_id);
    require(fixed(ours) == fixed(theirs))?;
    fill(&mut ours.moon_id, &theirs.moon_id)?;
    fill(&mut ours.war_id, &theirs.war_id)?;
    fill_victim(&mut ours.victim, &theirs.victim, budget)?;
    let partner = attacker_partners(&ours.attackers, &theirs.attackers, budget)?;
    for (attacker, at) in ours.attackers.iter_mut().zip(partner) {
        fill_attacker(attacker, &theirs.attackers[at])?;
    }
    add_extra(&mut ours.extra, &theirs.extra);
    Some(())
}

/// The index of the partner in `theirs` for each of `ours`. If ours already have everything that theirs have,
/// this is a pairing that adds nothing: another pairing could fill in an attacker from its neighbour, so that
/// the same copy would add something each time it comes.
pub(crate) fn attacker_partners(
    ours: &[Attacker],
    theirs: &[Attacker],
    budget: &mut Budget,
) -> Option<Vec<usize>> {
    let known = pair(
        ours,
        theirs,
        compare_attacker_keys,
        compare_attackers,
        |a, b, _| covers_attacker(a, b),
        &mut Budget::default(),
    );
    known.or_else(|| {
        pair(ours, theirs, compare_attacker_keys, compare_attackers, |a, b, _| attackers_fit(a, b), budget)
    })
}

/// As [`attacker_partners`], for items.
pub(crate) fn item_partners(ours: &[Item], theirs: &[Item], budget: &mut Budget) -> Option<Vec<usize>> {
    let known = pair(ours, theirs, compare_item_keys, compare_items, covers_item, &mut Budget::default());
    known.or_else(|| pair(ours, theirs, compare_item_keys, compare_items, items_fit, budget))
}

fn fill_victim(ours: &mut Victim, theirs: &Victim, budget: &mut Budget) -> Option<()> {
    require(ours.damage_taken == theirs.damage_taken)?;
    fill(&mut ours.character_id, &theirs.character_id)?;
    fill(&mut ours.corporation_id, &theirs.corporation_id)?;
    fill(&mut ours.alliance_id, &theirs.alliance_id)?;
    fill(&mut ours.faction_id, &theirs.faction_id)?;
    fill(&mut ours.ship_type_id, &theirs.ship_type_id)?;
    fill(&mut ours.position, &theirs.position)?;
    fill_items(&mut ours.items, &theirs.items, budget)?;
    require(extras_fit(&ours.extra, &theirs.extra))?;
    add_extra(&mut ours.extra, &theirs.extra);
    Some(())
}

fn fill_attacker(ours: &mut Attacker, theirs: &Attacker) -> Option<()> {
    fill(&mut ours.character_id, &theirs.character_id)?;
    fill(&mut ours.corporation_id, &theirs.corporation_id)?;
    fill(&mut ours.alliance_id, &theirs.alliance_id)?;
    fill(&mut ours.faction_id, &theirs.faction_id)?;
    fill(&mut ours.ship_type_id, &theirs.ship_type_id)?;
    fill(&mut ours.weapon_type_id, &theirs.weapon_type_id)?;
    add_extra(&mut ours.extra, &theirs.extra);
    Some(())
}

fn fill_items(ours: &mut Option<Vec<Item>>, theirs: &Option<Vec<Item>>, budget: &mut Budget) -> Option<()> {
    let Some(theirs) = theirs else { return Some(()) };
    let Some(ours) = ours else {
        *ours = Some(theirs.clone());
        return Some(());
    };
    let partner = item_partners(ours, theirs, budget)?;
    for (item, at) in ours.iter_mut().zip(partner) {
        let incoming = &theirs[at];
        fill(&mut item.quantity_dropped, &incoming.quantity_dropped)?;
        fill(&mut item.quantity_destroyed, &incoming.quantity_destroyed)?;
        fill_items(&mut item.items, &incoming.items, budget)?;
        add_extra(&mut item.extra, &incoming.extra);
    }
    Some(())
}

/// Whether the two can be the same attacker.
fn attackers_fit(a: &Attacker, b: &Attacker) -> bool {
    fit(&a.character_id, &b.character_id)
        && fit(&a.corporation_id, &b.corporation_id)
        && fit(&a.alliance_id, &b.alliance_id)
        && fit(&a.faction_id, &b.faction_id)
        && fit(&a.ship_type_id, &b.ship_type_id)
        && fit(&a.weapon_type_id, &b.weapon_type_id)
        && extras_fit(&a.extra, &b.extra)
}

/// Whether the two can be the same item.
fn items_fit(a: &Item, b: &Item, budget: &mut Budget) -> bool {
    fit(&a.quantity_dropped, &b.quantity_dropped)
        && fit(&a.quantity_destroyed, &b.quantity_destroyed)
        && extras_fit(&a.extra, &b.extra)
        && match (&a.items, &b.items) {
            (Some(a), Some(b)) => pair(a, b, compare_item_keys, compare_items, items_fit, budget).is_some(),
            _ => true,
        }
}

fn extras_fit(a: &Extra, b: &Extra) -> bool {
    a.iter().all(|(name, value)| b.get(name).is_none_or(|other| other == value))
}

fn fit<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
    a.is_none() || b.is_none() || a == b
}

fn fill<T: PartialEq + Clone>(ours: &mut Option<T>, theirs: &Option<T>) -> Option<()> {
    require(fit(ours, theirs))?;
    if ours.is_none() {
        ours.clone_from(theirs);
    }
    Some(())
}

/// Adds unknown fields that ours lack.
pub(crate) fn add_extra(ours: &mut Extra, theirs: &Extra) {
    for (name, value) in theirs {
        if !ours.contains_key(name) {
            ours.insert(name.clone(), value.clone());
        }
    }
}

const fn require(yes: bool) -> Option<()> {
    if yes { Some(()) } else { None }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
