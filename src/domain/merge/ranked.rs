//! Merges the bodies of two copies of a killmail, taking the ranks of their sources into account.
//!
//! A body of higher rank replaces one of lower rank, even if they contradict each other. Parts that only the
//! lower one has stay, and are recorded as of lower rank. A body of lower rank only fills in what one of
//! higher rank lacks; if they contradict each other, that is a conflict.
//!
//! Must not know: the hash, zKillboard's block.

use crate::domain::killmail::{Attacker, Item, Killmail, Victim};
use crate::domain::merge::compare::{
    add_extra, attacker_partners, compare_attacker_keys, compare_item_keys, fill_body, item_partners,
};
use crate::domain::merge::pairing::Budget;
use crate::domain::merge::parts::{clear, list_gained, list_present};
use crate::domain::provenance::{BODY, Provenance};

/// The stored killmail with what the incoming body adds or replaces; `None` if the bodies contradict each
/// other.
pub(crate) fn merge_body(stored: &Killmail, incoming: &Killmail, budget: &mut Budget) -> Option<Killmail> {
    match (stored.provenance.source(BODY), incoming.provenance.source(BODY)) {
        (Some(_), None) => Some(replace_body(stored, incoming, budget)),
        (ours, Some(source)) => {
            let mut merged = stored.clone();
            fill_body(&mut merged, incoming, budget)?;
            if ours != Some(source) {
                let before = list_present(stored);
                list_gained(&before, &merged)
                    .into_iter()
                    .for_each(|part| merged.provenance.set(part, source));
            }
            Some(merged)
        }
        (None, None) => {
            let (mut merged, own) = (without_lower(stored), without_lower(incoming));
            fill_body(&mut merged, &own, budget)?;
            refill(&mut merged, stored);
            refill(&mut merged, incoming);
            Some(merged)
        }
    }
}

/// Replaces a body of lower rank by one of higher rank.
fn replace_body(stored: &Killmail, incoming: &Killmail, budget: &mut Budget) -> Killmail {
    let mut provenance = stored.provenance.clone();
    provenance.remove_body();
    let mut merged = Killmail {
        hash: stored.hash.clone(),
        zkb: stored.zkb.clone(),
        provenance,
        ..without_lower(incoming)
    };
    sort_attackers(&mut merged.attackers, &stored.attackers, budget);
    sort_items(merged.victim.items.as_mut(), stored.victim.items.as_deref(), budget);
    refill(&mut merged, stored);
    refill(&mut merged, incoming);
    merged
}

/// The killmail without the parts of its body that are of lower rank.
fn without_lower(killmail: &Killmail) -> Killmail {
    let mut own = killmail.clone();
    for part in killmail.provenance.body_parts() {
        clear(&mut own, &part);
        own.provenance.remove(&part);
    }
    own
}

/// Fills in absent parts from a copy of the killmail, and records which of them are of lower rank.
fn refill(merged: &mut Killmail, copy: &Killmail) {
    if copy.provenance.is_empty() {
        return;
    }
    let before = list_present(merged);
    fill(&mut merged.moon_id, &copy.moon_id);
    fill(&mut merged.war_id, &copy.war_id);
    fill_victim(&mut merged.victim, &copy.victim);
    if same_order(&merged.attackers, &copy.attackers, |a, b| compare_attacker_keys(a, b).is_eq()) {
        merged
            .attackers
            .iter_mut()
            .zip(&copy.attackers)
            .for_each(|(ours, theirs)| fill_attacker(ours, theirs));
    }
    add_extra(&mut merged.extra, &copy.extra);
    for part in list_gained(&before, merged) {
        if let Some(source) = find_source(&copy.provenance, &part) {
            merged.provenance.set(part, &source);
        }
    }
}

fn find_source(provenance: &Provenance, part: &str) -> Option<String> {
    provenance.source(part).or_else(|| provenance.source(BODY)).map(str::to_owned)
}

fn fill_victim(ours: &mut Victim, theirs: &Victim) {
    fill(&mut ours.character_id, &theirs.character_id);
    fill(&mut ours.corporation_id, &theirs.corporation_id);
    fill(&mut ours.alliance_id, &theirs.alliance_id);
    fill(&mut ours.faction_id, &theirs.faction_id);
    fill(&mut ours.ship_type_id, &theirs.ship_type_id);
    fill(&mut ours.position, &theirs.position);
    fill_items(&mut ours.items, &theirs.items);
    add_extra(&mut ours.extra, &theirs.extra);
}

fn fill_attacker(ours: &mut Attacker, theirs: &Attacker) {
    fill(&mut ours.character_id, &theirs.character_id);
    fill(&mut ours.corporation_id, &theirs.corporation_id);
    fill(&mut ours.alliance_id, &theirs.alliance_id);
    fill(&mut ours.faction_id, &theirs.faction_id);
    fill(&mut ours.ship_type_id, &theirs.ship_type_id);
    fill(&mut ours.weapon_type_id, &theirs.weapon_type_id);
    add_extra(&mut ours.extra, &theirs.extra);
}

fn fill_items(ours: &mut Option<Vec<Item>>, theirs: &Option<Vec<Item>>) {
    let Some(theirs) = theirs else { return };
    let Some(ours) = ours else {
        *ours = Some(theirs.clone());
        return;
    };
    if !same_order(ours, theirs, |a, b| compare_item_keys(a, b).is_eq()) {
        return;
    }
    for (item, theirs) in ours.iter_mut().zip(theirs) {
        fill(&mut item.quantity_dropped, &theirs.quantity_dropped);
        fill(&mut item.quantity_destroyed, &theirs.quantity_destroyed);
        fill_items(&mut item.items, &theirs.items);
        add_extra(&mut item.extra, &theirs.extra);
    }
}

fn fill<T: Clone>(ours: &mut Option<T>, theirs: &Option<T>) {
    if ours.is_none() {
        ours.clone_from(theirs);
    }
}

/// Whether two lists have the same elements in the same order.
fn same_order<T>(ours: &[T], theirs: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| same(a, b))
}

/// Puts attackers into the order in which the same attackers came first.
fn sort_attackers(attackers: &mut Vec<Attacker>, first: &[Attacker], budget: &mut Budget) {
    let partner = attacker_partners(first, attackers, budget);
    if let Some(partner) = partner {
        *attackers = partner.into_iter().map(|at| attackers[at].clone()).collect();
    }
}

fn sort_items(items: Option<&mut Vec<Item>>, first: Option<&[Item]>, budget: &mut Budget) {
    let (Some(items), Some(first)) = (items, first) else { return };
    let Some(partner) = item_partners(first, items, budget) else { return };
    *items = partner.into_iter().map(|at| items[at].clone()).collect();
    for (item, first) in items.iter_mut().zip(first) {
        sort_items(item.items.as_mut(), first.items.as_deref(), budget);
    }
}
