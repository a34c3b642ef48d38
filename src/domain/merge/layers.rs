//! The body of a killmail when it comes again, where sources of the lower rank had a part in it.
//!
//! A body of the lower rank gives way to one of the higher rank, also where the two differ; what only the
//! lower one has stays, noted as such. A body of the higher rank is filled in by one of the lower rank; where
//! the two differ that is a conflict.
//!
//! Must not know: the hash, zKillboard's block.

use crate::domain::killmail::{Attacker, Item, Killmail, Victim};
use crate::domain::merge::pairing::Budget;
use crate::domain::merge::parts::{clear, gained, present};
use crate::domain::merge::sameness::{
    add_extra, attacker_key, attacker_partners, fill_body, item_key, item_partners,
};
use crate::domain::provenance::{BODY, Provenance};

/// The stored killmail with what the incoming body adds or replaces; `None` where the two contradict each
/// other.
pub fn merged_body(stored: &Killmail, incoming: &Killmail, budget: &mut Budget) -> Option<Killmail> {
    match (stored.provenance.source(BODY), incoming.provenance.source(BODY)) {
        (Some(_), None) => Some(raised(stored, incoming, budget)),
        (ours, Some(source)) => {
            let mut merged = stored.clone();
            fill_body(&mut merged, incoming, budget)?;
            if ours != Some(source) {
                let before = present(stored);
                gained(&before, &merged).into_iter().for_each(|part| merged.provenance.set(part, source));
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

/// A body of the higher rank takes the place of one of the lower rank.
fn raised(stored: &Killmail, incoming: &Killmail, budget: &mut Budget) -> Killmail {
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

/// The killmail without the parts of its body that a lower rank filled in.
fn without_lower(killmail: &Killmail) -> Killmail {
    let mut own = killmail.clone();
    for part in killmail.provenance.body_parts() {
        clear(&mut own, &part);
        own.provenance.remove(&part);
    }
    own
}

/// Fills in what is absent from an account of the killmail, and notes what of it is of the lower rank.
fn refill(merged: &mut Killmail, account: &Killmail) {
    if account.provenance.is_empty() {
        return;
    }
    let before = present(merged);
    fill(&mut merged.moon_id, &account.moon_id);
    fill(&mut merged.war_id, &account.war_id);
    fill_victim(&mut merged.victim, &account.victim);
    if alike(&merged.attackers, &account.attackers, |a, b| attacker_key(a, b).is_eq()) {
        merged
            .attackers
            .iter_mut()
            .zip(&account.attackers)
            .for_each(|(ours, theirs)| fill_attacker(ours, theirs));
    }
    add_extra(&mut merged.extra, &account.extra);
    for part in gained(&before, merged) {
        if let Some(source) = source_of(&account.provenance, &part) {
            merged.provenance.set(part, &source);
        }
    }
}

fn source_of(provenance: &Provenance, part: &str) -> Option<String> {
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
    if !alike(ours, theirs, |a, b| item_key(a, b).is_eq()) {
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

/// Whether two lists have the same parts in the same order.
fn alike<T>(ours: &[T], theirs: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| same(a, b))
}

/// The first order stays: attackers stand as those do, where they are the same.
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
