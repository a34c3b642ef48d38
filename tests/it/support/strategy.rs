//! Proptest strategies for killmails and filters: few ids, so that filters match, and everything that may be missing
//! sometimes is.
//!
//! Must not know: how filters are evaluated or killmails stored.

use killstream::domain::filter::{Filter, Match};
use killstream::domain::killmail::{Attacker, Killmail, Victim};
use killstream::domain::term::{Dimension, Role};
use killstream::domain::zkb::Zkb;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::support::killmail::{SHIPS, SYSTEMS, WEAPONS};

const LABELS: [&str; 4] = ["pvp", "loc:highsec", "isk:1b+", "cat:6"];
/// Values of killmails and filters: the same ones, so that bounds are hit exactly.
const VALUES: [f64; 5] = [0.0, 1.0, 1_000_000.0, 1_000_000_000.5, 9.9e12];

fn party(first: u32) -> impl Strategy<Value = Option<u32>> {
    option::weighted(0.8, first..first + 6)
}

fn attacker() -> impl Strategy<Value = Attacker> {
    let ids = (party(90_000_000), party(98_000_000), party(99_000_000), option::weighted(0.1, Just(500_010)));
    let gear = (option::weighted(0.9, select(&SHIPS[..])), option::weighted(0.8, select(&WEAPONS[..])));
    (ids, gear, 0..50_000_i64, prop::bool::weighted(0.4), -100..100_i32).prop_map(
        |(ids, gear, damage_done, final_blow, status)| Attacker {
            character_id: ids.0,
            corporation_id: ids.1,
            alliance_id: ids.2,
            faction_id: ids.3,
            ship_type_id: gear.0,
            weapon_type_id: gear.1,
            damage_done,
            final_blow,
            security_status: f64::from(status) / 10.0,
            ..Attacker::default()
        },
    )
}

fn victim() -> impl Strategy<Value = Victim> {
    let ids = (party(90_000_000), party(98_000_000), party(99_000_000), option::weighted(0.1, Just(500_010)));
    (ids, option::weighted(0.95, select(&SHIPS[..])), 0..50_000_i64).prop_map(
        |(ids, ship_type_id, damage_taken)| Victim {
            character_id: ids.0,
            corporation_id: ids.1,
            alliance_id: ids.2,
            faction_id: ids.3,
            ship_type_id,
            damage_taken,
            items: Some(Vec::new()),
            ..Victim::default()
        },
    )
}

/// zKillboard's block, any member of which may be missing.
pub fn zkb() -> impl Strategy<Value = Zkb> {
    let flag = || option::weighted(0.7, any::<bool>());
    let labels = option::weighted(0.8, subsequence(LABELS.to_vec(), 0..=LABELS.len()));
    (
        option::weighted(0.8, select(&VALUES[..])),
        flag(),
        flag(),
        flag(),
        labels,
        option::weighted(0.5, 0..500_i64),
    )
        .prop_map(|(total_value, npc, solo, awox, labels, points)| Zkb {
            total_value,
            npc,
            solo,
            awox,
            points,
            labels: labels.map(|labels| labels.into_iter().map(str::to_owned).collect()),
            ..Zkb::default()
        })
}

/// A killmail with an id in the range. Its time is `epoch` plus one second per id, with a jitter of some seconds.
pub fn killmail(ids: std::ops::Range<u32>, epoch: i64) -> impl Strategy<Value = Killmail> {
    let parts = (victim(), vec(attacker(), 1..5), option::weighted(0.8, zkb()));
    (ids, select(&SYSTEMS[..]), -5..5_i64, parts).prop_map(
        move |(id, system, jitter, (victim, attackers, zkb))| Killmail {
            killmail_id: id,
            time: epoch + i64::from(id) + jitter,
            solar_system_id: system,
            hash: Some(format!("{id:040x}")),
            victim,
            attackers,
            zkb,
            ..Killmail::default()
        },
    )
}

fn ids_of(dimension: Dimension) -> BoxedStrategy<Vec<u32>> {
    let parties = |first: u32| vec(first..first + 8, 1..4).boxed();
    match dimension {
        Dimension::System => vec(select(&SYSTEMS[..]), 1..3).boxed(),
        // Kimotoro and The Forge (Jita), Throne Worlds and Domain (Amarr), and ones without test killmails.
        Dimension::Constellation => vec(select(vec![20_000_020, 20_000_322, 20_000_001]), 1..3).boxed(),
        Dimension::Region => vec(select(vec![10_000_002, 10_000_043, 10_000_001]), 1..3).boxed(),
        Dimension::Character => parties(90_000_000),
        Dimension::Corporation => parties(98_000_000),
        Dimension::Alliance => parties(99_000_000),
        Dimension::Faction => vec(select(vec![500_010, 500_001]), 1..3).boxed(),
        Dimension::ShipType => vec(select(&SHIPS[..]), 1..3).boxed(),
        // Frigates, cruisers, capsules, interdictors.
        Dimension::ShipGroup => vec(select(vec![25, 26, 29, 541]), 1..3).boxed(),
        Dimension::WeaponType => vec(select(&WEAPONS[..]), 1..3).boxed(),
    }
}

/// A filter for what [`killmail`] generates: up to three dimensions, any role, sometimes restrictions.
pub fn filter(times: std::ops::Range<i64>) -> impl Strategy<Value = Filter> {
    let dimension = select(Dimension::ALL.to_vec())
        .prop_flat_map(|dimension| ids_of(dimension).prop_map(move |ids| (dimension, ids)));
    let roles = select(vec![Role::Any, Role::Any, Role::Victim, Role::Attacker, Role::FinalBlow]);
    let flag = || option::weighted(0.1, any::<bool>());
    let bound = || option::weighted(0.15, select(&VALUES[..]));
    let time = move || option::weighted(0.15, times.clone());
    let labels = prop_oneof![4 => Just(Vec::new()), 1 => subsequence(LABELS.to_vec(), 1..3)];
    (
        vec(dimension, 0..4),
        any::<bool>(),
        roles,
        labels,
        (flag(), flag(), flag()),
        (bound(), bound()),
        (time(), time()),
    )
        .prop_map(
            |(dimensions, all, role, labels, (npc, solo, awox), (min_value, max_value), (since, until))| {
                let mut filter = Filter {
                    matching: if all { Match::All } else { Match::Any },
                    role,
                    labels: labels.into_iter().map(str::to_owned).collect(),
                    npc,
                    solo,
                    awox,
                    min_value,
                    max_value,
                    since,
                    until,
                    ..Filter::default()
                };
                for (dimension, ids) in dimensions {
                    filter.set_ids(dimension, ids);
                }
                filter
            },
        )
}
