//! When two accounts of one killmail are the same, and what the newer one may add.
//!
//! Absent never replaces present: what we lack is filled, what we have stays. Attackers and items are
//! compared as multisets and keep the order they first came in. A differing body is a conflict, never a
//! change, unless its rank is higher (`layers`). The hash and zKillboard's members may be renewed
//! (`renewal`); unknown top-level fields are filled only.
//!
//! Must not know: which sources there are, or when one is newer.

use std::cmp::Ordering;

use crate::domain::killmail::{Attacker, Extra, Item, Killmail, Victim};
use crate::domain::merge::layers::merged_body;
use crate::domain::merge::pairing::{Budget, pair};
use crate::domain::merge::renewal::Renewed;

/// What comparing two accounts of one killmail gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Sameness {
    /// Nothing new.
    Known,
    /// The killmail with what was added or renewed.
    Revised(Box<Killmail>),
    /// The bodies contradict each other.
    Conflict,
}

/// Merges an incoming account into the stored one. With `newer` its zkb members and its hash replace present
/// ones of the same rank.
#[must_use]
pub fn merge(stored: &Killmail, incoming: &Killmail, newer: bool) -> Sameness {
    let mut budget = Budget::default();
    let renewed = Renewed::new(stored, incoming, newer);
    let ranked = !stored.provenance.is_empty() || !incoming.provenance.is_empty();
    let covered = !ranked && covers(stored, incoming, &mut budget);
    if covered && renewed.is_in(stored) {
        return Sameness::Known;
    }
    let body = if covered { Some(stored.clone()) } else { merged_body(stored, incoming, &mut budget) };
    let Some(mut merged) = body else { return Sameness::Conflict };
    renewed.put(&mut merged);
    if merged == *stored { Sameness::Known } else { Sameness::Revised(Box::new(merged)) }
}

/// Whether two accounts say the same and only their provenance differs.
#[must_use]
pub fn differs_by_provenance_only(a: &Killmail, b: &Killmail) -> bool {
    a.provenance != b.provenance && Killmail { provenance: b.provenance.clone(), ..a.clone() } == *b
}

/// Whether we know all of what their body says.
fn covers(ours: &Killmail, theirs: &Killmail, budget: &mut Budget) -> bool {
    ours.killmail_id == theirs.killmail_id
        && ours.time == theirs.time
        && ours.solar_system_id == theirs.solar_system_id
        && knows(&ours.moon_id, &theirs.moon_id)
        && knows(&ours.war_id, &theirs.war_id)
        && theirs.extra.keys().all(|name| ours.extra.contains_key(name))
        && covers_victim(&ours.victim, &theirs.victim, budget)
        && pair(
            &ours.attackers,
            &theirs.attackers,
            attacker_key,
            attacker_order,
            |a, b, _| covers_attacker(a, b),
            budget,
        )
        .is_some()
}

fn covers_victim(ours: &Victim, theirs: &Victim, budget: &mut Budget) -> bool {
    ours.damage_taken == theirs.damage_taken
        && knows(&ours.character_id, &theirs.character_id)
        && knows(&ours.corporation_id, &theirs.corporation_id)
        && knows(&ours.alliance_id, &theirs.alliance_id)
        && knows(&ours.faction_id, &theirs.faction_id)
        && knows(&ours.ship_type_id, &theirs.ship_type_id)
        && knows(&ours.position, &theirs.position)
        && covers_items(ours.items.as_deref(), theirs.items.as_deref(), budget)
        && covers_extra(&ours.extra, &theirs.extra)
}

fn covers_attacker(ours: &Attacker, theirs: &Attacker) -> bool {
    knows(&ours.character_id, &theirs.character_id)
        && knows(&ours.corporation_id, &theirs.corporation_id)
        && knows(&ours.alliance_id, &theirs.alliance_id)
        && knows(&ours.faction_id, &theirs.faction_id)
        && knows(&ours.ship_type_id, &theirs.ship_type_id)
        && knows(&ours.weapon_type_id, &theirs.weapon_type_id)
        && covers_extra(&ours.extra, &theirs.extra)
}

fn covers_items(ours: Option<&[Item]>, theirs: Option<&[Item]>, budget: &mut Budget) -> bool {
    match (ours, theirs) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(ours), Some(theirs)) => pair(ours, theirs, item_key, item_order, covers_item, budget).is_some(),
    }
}

fn covers_item(ours: &Item, theirs: &Item, budget: &mut Budget) -> bool {
    knows(&ours.quantity_dropped, &theirs.quantity_dropped)
        && knows(&ours.quantity_destroyed, &theirs.quantity_destroyed)
        && covers_extra(&ours.extra, &theirs.extra)
        && covers_items(ours.items.as_deref(), theirs.items.as_deref(), budget)
}

fn covers_extra(ours: &Extra, theirs: &Extra) -> bool {
    theirs.iter().all(|(name, value)| ours.get(name) == Some(value))
}

fn knows<T: PartialEq>(ours: &Option<T>, theirs: &Option<T>) -> bool {
    theirs.is_none() || ours == theirs
}

/// Parts that differ here are never the same: these are always said.
pub fn attacker_key(a: &Attacker, b: &Attacker) -> Ordering {
    let said = |x: &Attacker| (x.damage_done, x.final_blow);
    said(a).cmp(&said(b)).then_with(|| (a.security_status + 0.0).total_cmp(&(b.security_status + 0.0)))
}

/// Most alike first.
fn attacker_order(a: &Attacker, b: &Attacker) -> Ordering {
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

/// Parts that differ here are never the same.
pub fn item_key(a: &Item, b: &Item) -> Ordering {
    let said = |x: &Item| (x.flag, x.item_type_id, x.singleton);
    said(a).cmp(&said(b))
}

/// Most alike first.
fn item_order(a: &Item, b: &Item) -> Ordering {
    let more =
        |x: &Item| (x.quantity_dropped, x.quantity_destroyed, x.items.as_ref().map(Vec::len), x.extra.len());
    more(a).cmp(&more(b))
}

/// Fills what our body lacks; `None` when the two contradict each other.
pub fn fill_body(ours: &mut Killmail, theirs: &Killmail, budget: &mut Budget) -> Option<()> {
    let fixed = |k: &Killmail| (k.killmail_id, k.time, k.solar_system_id);
    agree(fixed(ours) == fixed(theirs))?;
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

/// Which attacker of theirs is which of ours. Where ours know all that theirs do, a pairing that adds
/// nothing: another one could give an attacker what belongs to one beside it, so that the same account would
/// add something a second time.
pub fn attacker_partners(ours: &[Attacker], theirs: &[Attacker], budget: &mut Budget) -> Option<Vec<usize>> {
    let known = pair(
        ours,
        theirs,
        attacker_key,
        attacker_order,
        |a, b, _| covers_attacker(a, b),
        &mut Budget::default(),
    );
    known.or_else(|| pair(ours, theirs, attacker_key, attacker_order, |a, b, _| attackers_fit(a, b), budget))
}

/// The same for items.
pub fn item_partners(ours: &[Item], theirs: &[Item], budget: &mut Budget) -> Option<Vec<usize>> {
    let known = pair(ours, theirs, item_key, item_order, covers_item, &mut Budget::default());
    known.or_else(|| pair(ours, theirs, item_key, item_order, items_fit, budget))
}

fn fill_victim(ours: &mut Victim, theirs: &Victim, budget: &mut Budget) -> Option<()> {
    agree(ours.damage_taken == theirs.damage_taken)?;
    fill(&mut ours.character_id, &theirs.character_id)?;
    fill(&mut ours.corporation_id, &theirs.corporation_id)?;
    fill(&mut ours.alliance_id, &theirs.alliance_id)?;
    fill(&mut ours.faction_id, &theirs.faction_id)?;
    fill(&mut ours.ship_type_id, &theirs.ship_type_id)?;
    fill(&mut ours.position, &theirs.position)?;
    fill_items(&mut ours.items, &theirs.items, budget)?;
    agree(extras_fit(&ours.extra, &theirs.extra))?;
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

/// Whether the two may be one attacker.
fn attackers_fit(a: &Attacker, b: &Attacker) -> bool {
    fit(&a.character_id, &b.character_id)
        && fit(&a.corporation_id, &b.corporation_id)
        && fit(&a.alliance_id, &b.alliance_id)
        && fit(&a.faction_id, &b.faction_id)
        && fit(&a.ship_type_id, &b.ship_type_id)
        && fit(&a.weapon_type_id, &b.weapon_type_id)
        && extras_fit(&a.extra, &b.extra)
}

/// Whether the two may be one item.
fn items_fit(a: &Item, b: &Item, budget: &mut Budget) -> bool {
    fit(&a.quantity_dropped, &b.quantity_dropped)
        && fit(&a.quantity_destroyed, &b.quantity_destroyed)
        && extras_fit(&a.extra, &b.extra)
        && match (&a.items, &b.items) {
            (Some(a), Some(b)) => pair(a, b, item_key, item_order, items_fit, budget).is_some(),
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
    agree(fit(ours, theirs))?;
    if ours.is_none() {
        ours.clone_from(theirs);
    }
    Some(())
}

/// Adds the unknown fields we lack.
pub fn add_extra(ours: &mut Extra, theirs: &Extra) {
    for (name, value) in theirs {
        if !ours.contains_key(name) {
            ours.insert(name.clone(), value.clone());
        }
    }
}

const fn agree(yes: bool) -> Option<()> {
    if yes { Some(()) } else { None }
}

#[cfg(test)]
#[path = "sameness_tests.rs"]
mod tests;
