//! Two accounts of one killmail of which one could not be read in every part: what cannot be read is absent,
//! so that what one account says fills in what the other one could not say, and its raw JSON goes.
//!
//! Members that always have a value are settled first, attacker by attacker and item by item where both
//! accounts have them in one order; then `sameness` decides as it does on readable ones.
//!
//! Must not know: where either account came from.

use std::mem;

use crate::domain::killmail::{Attacker, Item, Killmail};
use crate::domain::merge::members::{any_unreadable, of_attacker, of_item, of_killmail, of_victim, of_zkb};
use crate::domain::merge::sameness::{self, Sameness};
use crate::domain::unreadable::Unreadable;

/// Merges an incoming account into the stored one, as `sameness::merge` does, whatever of either could not be
/// read.
#[must_use]
pub fn merge(stored: &Killmail, incoming: &Killmail, renew: bool) -> Sameness {
    if !any_unreadable(stored) && !any_unreadable(incoming) {
        return sameness::merge(stored, incoming, renew);
    }
    let (mut ours, mut theirs) = (stored.clone(), incoming.clone());
    settle(&mut ours, &mut theirs);
    let mut merged = match sameness::merge(&ours, &theirs, renew) {
        Sameness::Conflict => return Sameness::Conflict,
        Sameness::Known => ours.clone(),
        Sameness::Revised(merged) => *merged,
    };
    keep_unreadable(&mut merged, &ours, &theirs);
    if merged == *stored { Sameness::Known } else { Sameness::Revised(Box::new(merged)) }
}

/// One account and its member that always has a value, against the other's.
struct Side<'a, T> {
    value: &'a mut T,
    unreadable: &'a mut Unreadable,
}

/// Where one account could not say a member that always has a value, it takes the other's. One that was left
/// out counts as said, as it does on readable accounts.
fn level<T: Clone>(name: &str, ours: Side<'_, T>, theirs: Side<'_, T>) {
    let (from, to) = match (ours.unreadable.contains(name), theirs.unreadable.contains(name)) {
        (true, false) => (theirs, ours),
        (false, true) => (ours, theirs),
        _ => return,
    };
    to.value.clone_from(from.value);
    to.unreadable.remove(name);
}

macro_rules! level {
    ($ours:expr, $theirs:expr, $($field:ident)*) => {
        $(level(
            stringify!($field),
            Side { value: &mut $ours.$field, unreadable: &mut $ours.unreadable },
            Side { value: &mut $theirs.$field, unreadable: &mut $theirs.unreadable },
        );)*
    };
}

fn settle(ours: &mut Killmail, theirs: &mut Killmail) {
    level!(ours, theirs, attackers);
    level!(ours.victim, theirs.victim, damage_taken);
    if ours.attackers.len() == theirs.attackers.len() {
        for (a, b) in ours.attackers.iter_mut().zip(&mut theirs.attackers).filter(|(a, b)| parties_fit(a, b))
        {
            level!(a, b, damage_done final_blow security_status);
        }
    }
    settle_items(ours.victim.items.as_deref_mut(), theirs.victim.items.as_deref_mut());
}

fn settle_items(ours: Option<&mut [Item]>, theirs: Option<&mut [Item]>) {
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return };
    if ours.len() == theirs.len() {
        for (a, b) in ours.iter_mut().zip(theirs) {
            level!(a, b, item_type_id flag singleton);
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

/// Keeps in every part what neither account could read, but for what has become known.
fn keep_unreadable(merged: &mut Killmail, ours: &Killmail, theirs: &Killmail) {
    for account in [ours, theirs] {
        merged.unreadable.add(&account.unreadable);
        merged.victim.unreadable.add(&account.victim.unreadable);
        if let (Some(zkb), Some(said)) = (&mut merged.zkb, &account.zkb) {
            zkb.unreadable.add(&said.unreadable);
        }
        let same = |a: &Attacker, b: &Attacker| {
            parties_fit(a, b) && (a.damage_done, a.final_blow) == (b.damage_done, b.final_blow)
        };
        for (attacker, said) in
            merged.attackers.iter_mut().zip(&account.attackers).filter(|(a, b)| same(a, b))
        {
            attacker.unreadable.add(&said.unreadable);
        }
        add_to_items(merged.victim.items.as_deref_mut(), account.victim.items.as_deref());
    }
    let unreadable = mem::take(&mut merged.unreadable);
    merged.unreadable = still(unreadable, |name| of_killmail(merged, name));
    let unreadable = mem::take(&mut merged.victim.unreadable);
    merged.victim.unreadable = still(unreadable, |name| of_victim(&merged.victim, name));
    for attacker in &mut merged.attackers {
        let unreadable = mem::take(&mut attacker.unreadable);
        attacker.unreadable = still(unreadable, |name| of_attacker(attacker, name));
    }
    if let Some(zkb) = &mut merged.zkb {
        let unreadable = mem::take(&mut zkb.unreadable);
        zkb.unreadable = still(unreadable, |name| of_zkb(zkb, name));
    }
    forget_known(merged.victim.items.as_deref_mut());
}

fn still(mut unreadable: Unreadable, known: impl Fn(&str) -> Option<bool>) -> Unreadable {
    unreadable.retain(|name| known(name) != Some(true));
    unreadable
}

fn add_to_items(merged: Option<&mut [Item]>, said: Option<&[Item]>) {
    let (Some(merged), Some(said)) = (merged, said) else { return };
    let same =
        |a: &Item, b: &Item| (a.item_type_id, a.flag, a.singleton) == (b.item_type_id, b.flag, b.singleton);
    for (item, said) in merged.iter_mut().zip(said).filter(|(a, b)| same(a, b)) {
        item.unreadable.add(&said.unreadable);
        add_to_items(item.items.as_deref_mut(), said.items.as_deref());
    }
}

fn forget_known(items: Option<&mut [Item]>) {
    for item in items.into_iter().flatten() {
        let unreadable = mem::take(&mut item.unreadable);
        item.unreadable = still(unreadable, |name| of_item(item, name));
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
    fn what_one_cannot_say_the_other_fills_in() {
        let (full, odd) = (killmail(), without_damage([0, 1]));
        assert_eq!(merge(&odd, &full, false), Sameness::Revised(Box::new(full.clone())));
        assert_eq!(merge(&full, &odd, false), Sameness::Known);
        assert_eq!(merge(&odd, &odd, false), Sameness::Known);
    }

    #[test]
    fn nobody_gets_the_damage_of_another() {
        assert_eq!(merge(&without_damage([1, 0]), &killmail(), false), Sameness::Conflict);
    }

    #[test]
    fn what_neither_can_say_is_kept_once() {
        let full = killmail();
        let mut odd = killmail();
        odd.unreadable.insert("war_id", json!("seven"));
        let Sameness::Revised(merged) = merge(&full, &odd, false) else {
            unreachable!("the raw JSON is new")
        };
        assert_eq!(*merged, odd);
        odd.unreadable.insert("war_id", json!("eight"));
        assert_eq!(merge(&merged, &odd, true), Sameness::Known);
        let known = Killmail { war_id: Some(7), ..killmail() };
        assert_eq!(merge(&merged, &known, false), Sameness::Revised(Box::new(known.clone())));
        assert_eq!(merge(&known, &merged, true), Sameness::Known);
    }

    #[test]
    fn contradictions_stay_conflicts() {
        let mut other = without_damage([0, 1]);
        other.victim.damage_taken = 15;
        assert_eq!(merge(&killmail(), &other, true), Sameness::Conflict);
    }

    #[test]
    fn readable_attackers_take_the_place_of_others() {
        let mut odd = killmail();
        odd.attackers.truncate(1);
        odd.unreadable.insert("attackers", json!([7]));
        assert_eq!(merge(&odd, &killmail(), false), Sameness::Revised(Box::new(killmail())));
        assert_eq!(merge(&killmail(), &odd, false), Sameness::Known);
    }
}
