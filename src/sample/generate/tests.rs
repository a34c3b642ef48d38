//! Compares made-up killmails with a real week of 83,228.
//!
//! Must not know: how the generator gets there.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::domain::killmail::Attacker;
use crate::sample::document;

const WEEK: u64 = 83_228;

fn week() -> Vec<Made> {
    Recipe { killmails: WEEK, days: 7.0, ..Recipe::default() }.generate().collect()
}

fn near(what: &str, got: f64, real: f64, tolerance: f64) {
    assert!((got - real).abs() <= tolerance, "{what}: {got:.4}, real {real}");
}

fn at(sorted: &[usize], share: f64) -> f64 {
    sorted[(sorted.len() as f64 * share) as usize] as f64
}

fn sorted(of: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut all: Vec<usize> = of.collect();
    all.sort_unstable();
    all
}

fn share(part: usize, all: usize) -> f64 {
    part as f64 / all as f64
}

fn mean(of: &[usize]) -> f64 {
    share(of.iter().sum(), of.len())
}

#[test]
fn the_same_recipe_makes_the_same_killmails() {
    let make = |seed| Recipe { seed, killmails: 500, ..Recipe::default() }.generate().collect::<Vec<_>>();
    assert_eq!(make(1), make(1));
    assert_ne!(make(1), make(2));
}

#[test]
fn every_killmail_occurs_once_and_ids_follow_time() {
    let made = week();
    let first: Vec<&Made> = made.iter().filter(|m| !m.revision).collect();
    assert_eq!(first.len() as u64, WEEK);
    let mut by_id: Vec<(u32, i64)> =
        first.iter().map(|m| (m.killmail.killmail_id, m.killmail.time)).collect();
    by_id.sort_unstable();
    assert!(by_id.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1));
    near("ids used", WEEK as f64 / f64::from(by_id[by_id.len() - 1].0 - by_id[0].0), 0.58, 0.02);
    assert!(made.is_sorted_by_key(|m| m.uploaded_at));
    assert!(made.iter().all(|m| m.uploaded_at >= m.killmail.time));
    let late = first.iter().filter(|m| m.uploaded_at - m.killmail.time > 3600).count();
    near("late", share(late, first.len()), 0.05, 0.004);
    near("revised", share(made.len() - first.len(), first.len()), 0.005, 0.001);
}

#[test]
fn a_revision_is_the_same_killmail_with_another_block() {
    let made = Recipe { revised: 0.5, killmails: 400, ..Recipe::default() }.generate().collect::<Vec<_>>();
    let mut seen: HashMap<u32, &Killmail> = HashMap::new();
    let mut revised = 0;
    for made in &made {
        match seen.insert(made.killmail.killmail_id, &made.killmail) {
            None => assert!(!made.revision),
            Some(before) => {
                assert!(made.revision && before.zkb != made.killmail.zkb);
                assert_eq!(
                    Killmail { zkb: None, ..before.clone() },
                    Killmail { zkb: None, ..made.killmail.clone() }
                );
                revised += 1;
            }
        }
    }
    assert!(revised > 150);
}

#[test]
fn numbers_of_attackers_are_realistic() {
    let counts = sorted(week().iter().map(|m| m.killmail.attackers.len()));
    near("mean", mean(&counts), 5.13, 0.25);
    for (most, real) in [
        (1, 0.453),
        (2, 0.645),
        (5, 0.830),
        (10, 0.912),
        (25, 0.966),
        (50, 0.987),
        (100, 0.995),
        (250, 0.9993),
    ] {
        near(
            &format!("at most {most}"),
            share(counts.partition_point(|n| *n <= most), counts.len()),
            real,
            0.012,
        );
    }
    assert!((400..=603).contains(counts.last().unwrap()));
}

#[test]
fn numbers_of_items_are_realistic() {
    let made = week();
    let counts = sorted(made.iter().map(|m| m.killmail.victim.items.as_ref().unwrap().len()));
    near("mean", mean(&counts), 16.2, 1.0);
    for (part, real, tolerance) in [
        (0.5, 15.0, 2.0),
        (0.75, 27.0, 2.0),
        (0.9, 35.0, 2.0),
        (0.95, 41.0, 3.0),
        (0.99, 61.0, 8.0),
        (0.999, 137.0, 40.0),
    ] {
        near(&format!("p{part}"), at(&counts, part), real, tolerance);
    }
    let items: Vec<_> = made.iter().flat_map(|m| m.killmail.victim.items.iter().flatten()).collect();
    assert!(items.iter().all(|i| i.quantity_destroyed.is_some() != i.quantity_dropped.is_some()));
    near(
        "destroyed",
        share(items.iter().filter(|i| i.quantity_destroyed.is_some()).count(), items.len()),
        0.55,
        0.02,
    );
    let nested =
        made.iter().filter(|m| m.killmail.victim.items.iter().flatten().any(|i| i.items.is_some())).count();
    near("nested", share(nested, made.len()), 0.007, 0.002);
    let capsules = made.iter().filter(|m| m.killmail.victim.ship_type_id == Some(670)).count();
    near("capsules", share(capsules, made.len()), 0.27, 0.01);
}

#[test]
fn invariants_of_real_killmails_hold() {
    let (mut top_blow, mut all_damage, mut no_damage, mut made_count) = (0, 0, 0, 0);
    for Made { killmail, .. } in week() {
        let attackers = &killmail.attackers;
        assert_eq!(attackers.iter().filter(|a| a.final_blow).count(), 1);
        assert!(attackers.is_sorted_by_key(|a| -a.damage_done));
        let mut seen = HashSet::new();
        assert!(attackers.iter().filter_map(|a| a.character_id).all(|id| seen.insert(id)));
        assert!(killmail.victim.position.is_some() && killmail.solar_system_id != 0);
        let done: i64 = attackers.iter().map(|a| a.damage_done).sum();
        assert!(done <= killmail.victim.damage_taken);
        made_count += 1;
        top_blow += usize::from(attackers[0].final_blow);
        all_damage += usize::from(done == killmail.victim.damage_taken);
        no_damage += usize::from(killmail.victim.damage_taken == 0);
    }
    near("top damage has the final blow", share(top_blow, made_count), 0.721, 0.03);
    near("damage adds up", share(all_damage, made_count), 0.993, 0.002);
    near("no damage", share(no_damage, made_count), 0.0096, 0.003);
}

#[test]
fn characters_corporations_and_ships_are_realistic() {
    let made = week();
    let attackers: Vec<_> = made.iter().flat_map(|m| &m.killmail.attackers).collect();
    let part =
        |has: fn(&Attacker) -> bool| share(attackers.iter().filter(|a| has(a)).count(), attackers.len());
    near("character", part(|a| a.character_id.is_some()), 0.939, 0.02);
    near("corporation", part(|a| a.corporation_id.is_some()), 0.971, 0.02);
    near("alliance", part(|a| a.alliance_id.is_some()), 0.856, 0.05);
    near("faction", part(|a| a.faction_id.is_some()), 0.053, 0.04);
    near("ship", part(|a| a.ship_type_id.is_some()), 0.988, 0.01);
    near("weapon", part(|a| a.weapon_type_id.is_some()), 0.939, 0.03);
    near(
        "weapon is ship",
        part(|a| a.weapon_type_id.is_some() && a.weapon_type_id == a.ship_type_id),
        0.316,
        0.03,
    );
    near("no damage", part(|a| a.damage_done == 0), 0.234, 0.06);
    let victims =
        |has: fn(&Victim) -> bool| share(made.iter().filter(|m| has(&m.killmail.victim)).count(), made.len());
    near("victim's alliance", victims(|v| v.alliance_id.is_some()), 0.68, 0.05);
    near("victim without character", victims(|v| v.character_id.is_none()), 0.018, 0.004);
    let npc = made.iter().filter(|m| m.killmail.zkb.as_ref().unwrap().npc == Some(true)).count();
    near("npc only", share(npc, made.len()), 0.151, 0.02);
}

#[test]
fn some_systems_and_characters_occur_far_more_often() {
    let made = week();
    let (mut systems, mut characters) = (HashMap::<u32, usize>::new(), HashMap::<u32, usize>::new());
    for Made { killmail, .. } in made.iter().filter(|m| !m.revision) {
        *systems.entry(killmail.solar_system_id).or_default() += 1;
        let parties = killmail.attackers.iter().filter_map(|a| a.character_id);
        for id in parties.chain(killmail.victim.character_id).filter(|id| *id > 4_000_000) {
            *characters.entry(id).or_default() += 1;
        }
    }
    let systems = sorted(systems.into_values());
    let top = |of: &[usize], ranks: usize| share(of[of.len() - ranks..].iter().sum(), of.iter().sum());
    for (ranks, real) in [(1, 0.022), (10, 0.11), (50, 0.275), (100, 0.367), (500, 0.636), (1000, 0.77)] {
        near(&format!("top {ranks} systems"), top(&systems, ranks), real, 0.035);
    }
    assert!((4_600..=5_300).contains(&systems.len()), "{}", systems.len());
    let characters = sorted(characters.into_values());
    near("characters", characters.len() as f64, 39_637.0, 2_500.0);
    near("appearances", mean(&characters), 12.2, 1.5);
    near("top 1,000 characters", top(&characters, 1000), 0.257, 0.03);
    near("half appear at most", at(&characters, 0.5), 3.0, 2.0);
    near("p90 appear", at(&characters, 0.9), 32.0, 5.0);
    near("p99 appear", at(&characters, 0.99), 117.0, 20.0);
}

#[test]
fn sizes_of_documents_are_realistic() {
    let made = Recipe { killmails: 5_000, ..Recipe::default() }.generate().collect::<Vec<_>>();
    let bytes = sorted(made.iter().map(|m| document::esi(&m.killmail).to_string().len()));
    near("mean bytes", mean(&bytes), 2_319.0, 300.0);
    near("median bytes", at(&bytes, 0.5), 1_758.0, 300.0);
    let text = document::r2z2(&made[0].killmail, made[0].uploaded_at, 96_000_000);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["esi"]["killmail_id"], document["killmail_id"]);
    assert_eq!(document["sequence_id"], 96_000_000);
    assert!(document["zkb"]["totalValue"].as_f64().unwrap() > 0.0);
    assert!(!text.contains("\":null"));
}
