//! Whether a filter of 1,000 characters accepts a killmail of 1,000 attackers, and what ordinary killmails cost.
//!
//! The baselines look up each attacker in a `HashSet`, or compare every attacker with every id.

mod support;

use std::collections::HashSet;

use killstream::domain::entry::Entry;
use killstream::domain::filter::Filter;
use killstream::domain::killmail::{Attacker, Killmail};
use killstream::domain::term::Dimension;
use killstream::sample::generate::Recipe;
use support::{Ledger, entry, filter_of};

/// Upstream's test allows this much for 1,000 attackers and 1,000 ids.
const UPSTREAM_NANOS: f64 = 50e6;

/// A killmail of `count` attackers with ids from `from`, 7 apart.
fn crowd(count: u32, from: u32) -> Killmail {
    let model = Recipe { killmails: 1, ..Recipe::default() }.generate().next().expect("one").killmail;
    let attacker = model.attackers[0].clone();
    let attackers = (0..count)
        .map(|n| Attacker { character_id: Some(from + n * 7), final_blow: n == 0, ..attacker.clone() })
        .collect::<Vec<_>>();
    Killmail { attackers, ..model }
}

fn hashed(wanted: &HashSet<u32>, entry: &Entry) -> bool {
    let killmail = &entry.killmail;
    let parties = killmail.attackers.iter().map(|a| a.character_id).chain([killmail.victim.character_id]);
    parties.flatten().any(|id| wanted.contains(&id))
}

fn each_by_each(wanted: &[u32], entry: &Entry) -> bool {
    entry.killmail.attackers.iter().filter_map(|a| a.character_id).any(|id| wanted.contains(&id))
}

fn main() {
    let mut ledger = Ledger::new("accept");
    // The ids interleave and are never equal, so every list is searched to its end.
    let ids: Vec<u32> = (0..1_000).map(|n| 90_000_003 + n * 7).collect();
    let filter = filter_of(Dimension::Character, &ids);
    let wanted: HashSet<u32> = ids.iter().copied().collect();
    for attackers in [1, 10, 100, 1_000] {
        let entry = entry(1, crowd(attackers, 90_000_000));
        assert!(!filter.accepts(&entry.facts) && !hashed(&wanted, &entry) && !each_by_each(&ids, &entry));
        ledger.measure(&format!("1,000 characters, {attackers} attackers"), || filter.accepts(&entry.facts));
        ledger.measure(&format!("HashSet, {attackers} attackers"), || hashed(&wanted, &entry));
        ledger.measure(&format!("each by each, {attackers} attackers"), || each_by_each(&ids, &entry));
    }
    ordinary(&mut ledger);
    ledger.table();
    for attackers in [1, 10, 100, 1_000] {
        let ours = format!("1,000 characters, {attackers} attackers");
        ledger.ratio(&ours, &format!("HashSet, {attackers} attackers"));
        ledger.ratio(&ours, &format!("each by each, {attackers} attackers"));
    }
    ledger.against("1,000 characters, 1000 attackers", "upstream's limit", UPSTREAM_NANOS);
    ledger.ratio("50,000 characters, real killmails", "HashSet of 50,000, real killmails");
}

fn ordinary(ledger: &mut Ledger) {
    let entries: Vec<_> = Recipe { killmails: 5_000, ..Recipe::default() }
        .generate()
        .zip(1..)
        .map(|(made, seq)| entry(seq, made.killmail))
        .collect();
    let ids: Vec<u32> = (0..50_000).map(|n| 90_000_003 + n * 41).collect();
    let filter: Filter = filter_of(Dimension::Character, &ids);
    let wanted: HashSet<u32> = ids.iter().copied().collect();
    let mut at = 0;
    let mut next = || {
        at = (at + 1) % entries.len();
        &entries[at]
    };
    ledger.measure("50,000 characters, real killmails", || filter.accepts(&next().facts));
    let mut at = 0;
    let mut next = || {
        at = (at + 1) % entries.len();
        &entries[at]
    };
    ledger.measure("HashSet of 50,000, real killmails", || hashed(&wanted, next()));
}
