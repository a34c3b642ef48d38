//! Merges two copies of one killmail when members of either could not be read. An unreadable member counts as
//! absent: a readable value of the other copy fills it in, and the raw JSON is dropped.
//!
//! Members that cannot be absent are settled first, attacker by attacker and item by item if both copies have
//! them in the same order. Then `compare` decides as it does on readable copies.
//!
//! Must not know: where either copy came from.

use std::mem;

use crate::domain::killmail::{Attacker, Item, Killmail};
use crate::domain::merge::compare::{self, MergeOutcome};
use crate::domain::merge::members::{
    any_unreadable, attacker_has, item_has, killmail_has, victim_has, zkb_has,
};
use crate::domain::unreadable::UnreadableMembers;

/// Merges an incoming copy into the stored one as [`compare::merge`] does, even if members of either could
/// not be read.
#[must_use]
pub fn merge(stored: &Killmail, incoming: &Killmail, renew: bool) -> MergeOutcome {
    if !any_unreadable(stored) && !any_unreadable(incoming) {
        return compare::merge(stored, incoming, renew);
    }
    let (mut ours, mut theirs) = (stored.clone(), incoming.clone());
    settle(&mut ours, &mut theirs);
    let mut merged = match compare::merge(&ours, &theirs, renew) {
        MergeOutcome::Conflict => return MergeOutcome::Conflict,
        MergeOutcome::Unchanged => ours.clone(),
        MergeOutcome::Revised(merged) => *merged,
    };
    keep_unreadable(&mut merged, &ours, &theirs);
    if merged == *stored { MergeOutcome::Unchanged } else { MergeOutcome::Revised(Box::new(merged)) }
}

/// A member that cannot be absent, in one copy.
struct Side<'a, T> {
    value: &'a mut T,
    unreadable: &'a mut UnreadableMembers,
}

/// If a member that cannot be absent is unreadable in one copy, copies the value from the other. A member
/// that was left out counts as given, as it does in readable copies.
fn copy_readable<T: Clone>(name: &str, ours: Side<'_, T>, theirs: Side<'_, T>) {
    let (from, to) = match (ours.unreadable.contains(name), theirs.unreadable.contains(name)) {
        (true, false) => (theirs, ours),
        (false, true) => (ours, theirs),
        _ => return,
    };
    to.value.clone_from(from.value);
    to.unreadable.remove(name);
}

macro_rules! copy_readable {
    ($ours:expr, $theirs:expr, $($field:ident)*) => {
        $(copy_readable(
            stringify!($field),
            Side { value: &mut $ours.$field, unreadable: &mut $ours.unreadable },
            Side { value: &mut $theirs.$field, unreadable: &mut $theirs.unreadable },
        );)*
    };
}

fn settle(ours: &mut Killmail, theirs: &mut Killmail) {
    copy_readable!(ours, theirs, attackers);
    copy_readable!(ours.victim, theirs.victim, damage_taken);
    if ours.attackers.len() == theirs.attackers.len() {
        for (a, b) in ours.attackers.iter_mut().zip(&mut theirs.attackers).filter(|(a, b)| parties_fit(a, b))
        {
            copy_readable!(a, b, damage_done final_blow security_status);
        }
    }
    settle_items(ours.victim.items.as_deref_mut(), theirs.victim.items.as_deref_mut());
}

fn settle_items(ours: Option<&mut [Item]>, theirs: Option<&mut [Item]>) {
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return };
    if ours.len() == theirs.len() {
        for (a, b) in ours.iter_mut().zip(theirs) {
            copy_readable!(a, b, item_type_id flag singleton);
            settle_items(a.items.as_deref_mut(), b.items.as_deref_mut());
        }
    }
}

fn parties_fit(a: &Attacker, b: &Attacker) -> bool {
    let fit = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
    fit(a.character_id, b.character_id)
        && fit(a.corporation_id, b.corporation_id)
        && fit(a.ship_type_id, b.ship_type_id)
        && fit(a.weapon_type_id, b.weapon_type_id)
}

/// Keeps the raw JSON that was unreadable in both copies, except for members that have become known.
fn keep_unreadable(merged: &mut Killmail, ours: &Killmail, theirs: &Killmail) {
    for copy in [ours, theirs] {
        merged.unreadable.add(&copy.unreadable);
        merged.victim.unreadable.add(&copy.victim.unreadable);
        if let (Some(zkb), Some(incoming)) = (&mut merged.zkb, &copy.zkb) {
            zkb.unreadable.add(&incoming.unreadable);
        }
        let same = |a: &Attacker, b: &Attacker| {
            parties_fit(a, b) && (a.damage_done, a.final_blow) == (b.damage_done, b.final_blow)
        };
        for (attacker, incoming) in
            merged.attackers.iter_mut().zip(&copy.attackers).filter(|(a, b)| same(a, b))
        {
            attacker.unreadable.add(&incoming.unreadable);
        }
        add_to_items(merged.victim.items.as_deref_mut(), copy.victim.items.as_deref());
    }
    let unreadable = mem::take(&mut merged.unreadable);
    merged.unreadable = retain_unknown(unreadable, |name| killmail_has(merged, name));
    let unreadable = mem::take(&mut merged.victim.unreadable);
    merged.victim.unreadable = retain_unknown(unreadable, |name| victim_has(&merged.victim, name));
    for attacker in &mut merged.attackers {
        let unreadable = mem::take(&mut attacker.unreadable);
        attacker.unreadable = retain_unknown(unreadable, |name| attacker_has(attacker, name));
    }
    if let Some(zkb) = &mut merged.zkb {
        let unreadable = mem::take(&mut zkb.unreadable);
        zkb.unreadable = retain_unknown(unreadable, |name| zkb_has(zkb, name));
    }
    forget_known(merged.victim.items.as_deref_mut());
}

fn retain_unknown(
    mut unreadable: UnreadableMembers,
    known: impl Fn(&str) -> Option<bool>,
) -> UnreadableMembers {
    unreadable.retain(|name| known(name) != Some(true));
    unreadable
}

fn add_to_items(merged: Option<&mut [Item]>, incoming: Option<&[Item]>) {
    let (Some(merged), Some(incoming)) = (merged, incoming) else { return };
    let same =
        |a: &Item, b: &Item| (a.item_type_id, a.flag, a.singleton) == (b.item_type_id, b.flag, b.singleton);
    for (item, incoming) in merged.iter_mut().zip(incoming).filter(|(a, b)| same(a, b)) {
        item.unreadable.add(&incoming.unreadable);
        add_to_items(item.items.as_deref_mut(), incoming.items.as_deref());
    }
}

fn forget_known(items: Option<&mut [Item]>) {
    for item in items.into_iter().flatten() {
        let unreadable = mem::take(&mut item.unreadable);
        item.unreadable = retain_unknown(unreadable, |name| item_has(item, name));
        forget_known(item.items.as_deref_mut());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::killmail::Victim;

    fn killmail() -> Killmail {
        let attacker = |id| Attacker { character_id: Some(id), damage_done: 7, ..Attacker::default() };
        let item = Item { item_type_id: 34, flag: 5, quantity_dropped: Some(1), ..Item::default() };
        let victim = Victim {
            ship_type_id: Some(587),
            damage_taken: 14,
            items: Some(vec![item]),
            ..Victim::default()
        };
        Killmail {
            killmail_id: 1,
            solar_system_id: 2,
            victim,
            attackers: vec![attacker(8), attacker(9)],
            ..Killmail::default()
        }
    }

    fn without_damage(order: [usize; 2]) -> Killmail {
        let mut odd = killmail();
        odd.attackers[0].damage_done = 0;
        odd.attackers[0].unreadable.insert("damage_done", json!("much"));
        odd.attackers = order.map(|at| odd.attackers[at].clone()).to_vec();
        odd
    }

    #[test]
    fn a_readable_value_replaces_an_unreadable_one() {
        let (full, odd) = (killmail(), without_damage([0, 1]));
        assert_eq!(merge(&odd, &full, false), MergeOutcome::Revised(Box::new(full.clone())));
        assert_eq!(merge(&full, &odd, false), MergeOutcome::Unchanged);
        assert_eq!(merge(&odd, &odd, false), MergeOutcome::Unchanged);
    }

    #[test]
    fn attackers_do_not_get_the_damage_of_others() {
        assert_eq!(merge(&without_damage([1, 0]), &killmail(), false), MergeOutcome::Conflict);
    }

    #[test]
    fn raw_json_is_kept_once() {
        let full = killmail();
        let mut odd = killmail();
        odd.unreadable.insert("war_id", json!("seven"));
        let MergeOutcome::Revised(merged) = merge(&full, &odd, false) else {
            unreachable!("the raw JSON is new")
        };
        assert_eq!(*merged, odd);
        odd.unreadable.insert("war_id", json!("eight"));
        assert_eq!(merge(&merged, &odd, true), MergeOutcome::Unchanged);
        let known = Killmail { war_id: Some(7), ..killmail() };
        assert_eq!(merge(&merged, &known, false), MergeOutcome::Revised(Box::new(known.clone())));
        assert_eq!(merge(&known, &merged, true), MergeOutcome::Unchanged);
    }

    #[test]
    fn contradictions_stay_conflicts() {
        let mut other = without_damage([0, 1]);
        other.victim.damage_taken = 15;
        assert_eq!(merge(&killmail(), &other, true), MergeOutcome::Conflict);
    }

    #[test]
    fn readable_attackers_replace_unreadable_ones() {
        let mut odd = killmail();
        odd.attackers.truncate(1);
        odd.unreadable.insert("attackers", json!([7]));
        assert_eq!(merge(&odd, &killmail(), false), MergeOutcome::Revised(Box::new(killmail())));
        assert_eq!(merge(&killmail(), &odd, false), MergeOutcome::Unchanged);
    }
}
