//! Properties of merging, over small killmails in which everything may be unknown.
//!
//! Must not know: real killmails.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::killmail::Position;
use crate::domain::merge::parts::{clear, list_gained, list_present};
use crate::domain::provenance::{BODY, HASH, Provenance};
use crate::domain::zkb::Zkb;

fn extra() -> impl Strategy<Value = Extra> {
    prop::option::weighted(0.2, 0..2_u8)
        .prop_map(|v| v.into_iter().map(|v| ("unheard_of".to_owned(), json!(v))).collect())
}

fn id() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(1..4_u32)
}

fn attacker() -> impl Strategy<Value = Attacker> {
    (id(), id(), id(), id(), 0..2_i64, any::<bool>(), extra()).prop_map(
        |(who, corporation, ship, weapon, damage, blow, extra)| Attacker {
            character_id: who,
            corporation_id: corporation,
            ship_type_id: ship,
            weapon_type_id: weapon,
            damage_done: damage,
            final_blow: blow,
            extra,
            ..Attacker::default()
        },
    )
}

fn item() -> impl Strategy<Value = Item> {
    let leaf = (1..3_u64, 0..2_i64, prop::option::of(1..3_u64), prop::option::of(1..3_u64), extra())
        .prop_map(|(item_type_id, flag, quantity_dropped, quantity_destroyed, extra)| Item {
            item_type_id,
            flag,
            quantity_dropped,
            quantity_destroyed,
            extra,
            ..Item::default()
        });
    leaf.prop_recursive(2, 8, 3, |inner| {
        (inner.clone(), prop::option::of(prop::collection::vec(inner, 0..3)))
            .prop_map(|(item, items)| Item { items, ..item })
    })
}

fn zkb() -> impl Strategy<Value = Zkb> {
    (
        prop::option::of(0..3_u8),
        prop::option::of(0..3_i64),
        prop::option::of(any::<bool>()),
        prop::option::of(Just(vec!["pvp".to_owned()])),
        extra(),
    )
        .prop_map(|(value, points, npc, labels, extra)| Zkb {
            total_value: value.map(f64::from),
            points,
            npc,
            labels,
            extra,
            ..Zkb::default()
        })
}

prop_compose! {
    fn killmail()(
        war_id in prop::option::of(1..3_u64),
        hash in prop::option::of(Just("aa".to_owned())),
        victim in (id(), id(), prop::option::of(Just(Position { x: 1.0, y: 2.0, z: 3.0 })), prop::option::of(prop::collection::vec(item(), 0..4)), extra()),
        attackers in prop::collection::vec(attacker(), 1..5),
        zkb in prop::option::of(zkb()),
        extra in extra(),
    ) -> Killmail {
        let (character_id, ship_type_id, position, items, victim_extra) = victim;
        let victim = Victim { character_id, ship_type_id, position, items, extra: victim_extra, ..Victim::default() };
        Killmail { killmail_id: 7, time: 1, solar_system_id: 30_000_142, war_id, hash, victim, attackers, zkb, extra, ..Killmail::default() }
    }
}

fn forget_some(items: &mut [Item], bits: &mut u64) {
    let mut flip = || {
        *bits = bits.rotate_right(1);
        *bits & 1 == 1
    };
    for item in items {
        if flip() {
            item.quantity_dropped = None;
        }
        if flip() {
            item.quantity_destroyed = None;
        }
    }
}

/// The same killmail with fewer known parts, in another order.
fn poorer(killmail: &Killmail, mut bits: u64) -> Killmail {
    let mut poor = killmail.clone();
    let mut flip = || {
        bits = bits.rotate_right(1);
        bits & 1 == 1
    };
    if flip() {
        poor.war_id = None;
    }
    if flip() {
        poor.victim.character_id = None;
    }
    if flip() {
        poor.victim.extra.clear();
    }
    if flip() {
        poor.zkb = None;
    }
    for attacker in &mut poor.attackers {
        if flip() {
            attacker.corporation_id = None;
        }
        if flip() {
            attacker.weapon_type_id = None;
        }
    }
    if flip() {
        poor.attackers.reverse();
    }
    if let Some(items) = &mut poor.victim.items {
        items.reverse();
        forget_some(items, &mut bits);
    }
    poor
}

fn after(stored: &Killmail, incoming: &Killmail, renew: bool) -> Option<Killmail> {
    match merge(stored, incoming, renew) {
        MergeOutcome::Unchanged => Some(stored.clone()),
        MergeOutcome::Revised(merged) => Some(*merged),
        MergeOutcome::Conflict => None,
    }
}

/// No source of lower rank, or one of two.
fn source() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![Just(None), Just(Some("redisq")), Just(Some("websocket"))]
}

fn from(mut killmail: Killmail, source: Option<&str>) -> Killmail {
    killmail.provenance =
        source.map_or_else(Provenance::default, |source| Provenance::all(&killmail, source));
    killmail
}

/// The parts of a killmail that are of higher rank.
fn own(killmail: &Killmail) -> Killmail {
    let mut own = killmail.clone();
    killmail.provenance.body_parts().iter().for_each(|part| clear(&mut own, part));
    if own.provenance.source(HASH).is_some() {
        own.hash = None;
    }
    let provenance = std::mem::take(&mut own.provenance);
    let of = |name: &str| provenance.source_of_member(name).is_some();
    if provenance.source("zkb").is_some() {
        own.zkb = None;
    }
    if let Some(zkb) = &mut own.zkb {
        zkb.total_value = zkb.total_value.filter(|_| !of("totalValue"));
        zkb.points = zkb.points.filter(|_| !of("points"));
        zkb.npc = zkb.npc.filter(|_| !of("npc"));
        zkb.labels = zkb.labels.take().filter(|_| !of("labels"));
        zkb.extra.retain(|name, _| !of(name));
    }
    without_empty_block(own)
}

/// Drops a block without any member.
fn without_empty_block(killmail: Killmail) -> Killmail {
    Killmail { zkb: killmail.zkb.filter(|zkb| *zkb != Zkb::default()), ..killmail }
}

fn zkb_without(killmail: &Killmail) -> Killmail {
    Killmail { zkb: None, ..killmail.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_same_copy_adds_nothing(killmail in killmail(), renew in any::<bool>()) {
        prop_assert_eq!(merge(&killmail, &killmail, renew), MergeOutcome::Unchanged);
    }

    #[test]
    fn merging_twice_is_merging_once(
        stored in killmail(), incoming in killmail(), bits in any::<u64>(), related in any::<bool>(), newer in any::<bool>(),
        ranks in (source(), source()),
    ) {
        let incoming = if related { poorer(&stored, bits) } else { incoming };
        let stored = if related { poorer(&stored, bits.rotate_left(29)) } else { stored };
        let (stored, incoming) = (from(stored, ranks.0), from(incoming, ranks.1));
        if let Some(merged) = after(&stored, &incoming, newer) {
            prop_assert_eq!(merge(&merged, &incoming, newer), MergeOutcome::Unchanged);
        }
    }

    #[test]
    fn a_lower_rank_only_fills_in(upper in killmail(), lower in killmail(), bits in any::<u64>(), related in any::<bool>()) {
        let lower = if related { poorer(&upper, bits) } else { lower };
        let upper = if related { poorer(&upper, bits.rotate_left(29)) } else { upper };
        let lower = from(lower, Some("redisq"));
        let Some(merged) = after(&upper, &lower, true) else { return Ok(()) };
        prop_assert_eq!(own(&merged), without_empty_block(upper.clone()), "all of the higher rank is there, and nothing else of it");
        prop_assert_eq!(merge(&merged, &upper, true), MergeOutcome::Unchanged);
        let count = |killmail: &Killmail| list_present(killmail).len();
        prop_assert!(count(&merged) >= count(&lower).max(count(&upper)), "what either says is there");
    }

    #[test]
    fn a_higher_rank_replaces_whatever_a_lower_one_gave(upper in killmail(), lower in killmail(), bits in any::<u64>(), related in any::<bool>()) {
        let lower = if related { poorer(&upper, bits) } else { lower };
        let lower = from(lower, Some("redisq"));
        let Some(merged) = after(&lower, &upper, false) else { return Err(TestCaseError::fail("a higher rank contradicts no lower one")) };
        prop_assert_eq!(merged.provenance.source(BODY), None);
        let own = own(&merged);
        prop_assert_eq!(merge(&zkb_without(&own), &zkb_without(&upper), false), MergeOutcome::Unchanged);
        prop_assert_eq!(merge(&zkb_without(&upper), &zkb_without(&own), false), MergeOutcome::Unchanged, "and nothing else counts as its word");
        prop_assert_eq!(own.zkb, without_empty_block(upper).zkb);
        if related {
            prop_assert_eq!(merged.attackers.len(), lower.attackers.len());
            for (before, now) in lower.attackers.iter().zip(&merged.attackers) {
                prop_assert!(covers_attacker(now, before), "each attacker stays in its place");
            }
        }
    }

    #[test]
    fn what_was_gained_can_be_cleared(killmail in killmail(), bits in any::<u64>()) {
        let poor = poorer(&killmail, bits);
        let Some(mut filled) = after(&poor, &killmail, false) else { return Err(TestCaseError::fail("the fuller copy fits")) };
        for part in list_gained(&list_present(&poor), &filled) {
            clear(&mut filled, &part);
        }
        prop_assert_eq!(Killmail { hash: None, ..zkb_without(&filled) }, Killmail { hash: None, ..zkb_without(&poor) });
    }

    #[test]
    fn the_order_of_parts_does_not_matter(stored in killmail(), other in killmail(), bits in any::<u64>(), related in any::<bool>()) {
        let incoming = if related { poorer(&stored, bits) } else { other };
        let mut turned = incoming.clone();
        turned.attackers.rotate_left(1);
        if let Some(items) = &mut turned.victim.items {
            items.reverse();
        }
        let word = |s: &MergeOutcome| std::mem::discriminant(s);
        prop_assert_eq!(word(&merge(&stored, &incoming, false)), word(&merge(&stored, &turned, false)));
    }

    #[test]
    fn an_absent_value_never_wins(killmail in killmail(), bits in any::<u64>(), renew in any::<bool>()) {
        let poor = poorer(&killmail, bits);
        prop_assert_eq!(merge(&killmail, &poor, renew), MergeOutcome::Unchanged, "the poorer copy adds nothing");
        let filled = after(&poor, &killmail, renew);
        prop_assert!(filled.is_some(), "the fuller copy fits");
        if let Some(filled) = filled {
            prop_assert_eq!(merge(&zkb_without(&filled), &zkb_without(&killmail), false), MergeOutcome::Unchanged, "all of it was taken");
            prop_assert_eq!(filled.attackers.len(), poor.attackers.len());
            for (before, now) in poor.attackers.iter().zip(&filled.attackers) {
                prop_assert!(covers_attacker(now, before), "each attacker stays in its place");
            }
        }
    }

    #[test]
    fn a_contradicting_body_is_a_conflict(killmail in killmail(), which in 0..6_u8) {
        let mut other = killmail.clone();
        match which {
            0 => other.time += 1,
            1 => other.solar_system_id += 1,
            2 => other.victim.damage_taken += 1,
            3 => other.attackers[0].damage_done += 10,
            4 => other.attackers.push(Attacker::default()),
            _ => other.victim.items.get_or_insert_default().push(Item { item_type_id: 99, ..Item::default() }),
        }
        let fills = which == 5 && killmail.victim.items.is_none();
        let found = merge(&killmail, &other, true);
        prop_assert!(if fills { matches!(found, MergeOutcome::Revised(_)) } else { found == MergeOutcome::Conflict }, "{found:?}");
    }

    #[test]
    fn only_renewal_replaces_members_of_the_block(killmail in killmail(), old in zkb(), new in zkb()) {
        let stored = Killmail { zkb: Some(old.clone()), ..killmail.clone() };
        let incoming = Killmail { zkb: Some(new.clone()), ..killmail };
        let kept = after(&stored, &incoming, false).and_then(|k| k.zkb).unwrap_or_default();
        prop_assert_eq!(kept.total_value, old.total_value.or(new.total_value));
        prop_assert_eq!(kept.points, old.points.or(new.points));
        let renewed = after(&stored, &incoming, true).and_then(|k| k.zkb).unwrap_or_default();
        prop_assert_eq!(renewed.total_value, new.total_value.or(old.total_value));
        prop_assert_eq!(renewed.labels, new.labels.or(old.labels));
    }
}

#[test]
fn unknown_top_level_fields_are_only_filled() {
    let stored =
        Killmail { extra: [("new".to_owned(), json!(1))].into_iter().collect(), ..Killmail::default() };
    let other =
        Killmail { extra: [("new".to_owned(), json!(2))].into_iter().collect(), ..Killmail::default() };
    assert_eq!(merge(&stored, &other, true), MergeOutcome::Unchanged);
    assert!(
        matches!(merge(&Killmail::default(), &other, false), MergeOutcome::Revised(merged) if *merged == other)
    );
}

#[test]
fn a_corrected_hash_replaces_the_old_one_everywhere() {
    let (old, new) = ("aa".repeat(20), "bb".repeat(20));
    let href = |hash: &str| Some(format!("https://esi.evetech.net/killmails/7/{hash}/"));
    let zkb = Zkb { hash: Some(old.clone()), href: href(&old), points: Some(1), ..Zkb::default() };
    let stored = Killmail { hash: Some(old), zkb: Some(zkb.clone()), ..Killmail::default() };
    let expected = Killmail {
        hash: Some(new.clone()),
        zkb: Some(Zkb { hash: Some(new.clone()), href: href(&new), ..zkb.clone() }),
        ..Killmail::default()
    };
    let bare = Killmail { hash: Some(new.clone()), ..Killmail::default() };
    let silent = Killmail { zkb: Some(Zkb { hash: Some(new.clone()), ..Zkb::default() }), ..bare.clone() };
    for incoming in [&expected, &bare, &silent] {
        assert_eq!(after(&stored, incoming, true).as_ref(), Some(&expected));
        assert_eq!(merge(&stored, incoming, false), MergeOutcome::Unchanged, "only a newer one corrects");
    }
    let lower = from(expected.clone(), Some("redisq"));
    assert_eq!(merge(&stored, &lower, true), MergeOutcome::Unchanged, "a lower rank corrects nothing");
    let stored = from(stored, Some("redisq"));
    assert_eq!(after(&stored, &expected, false), Some(expected), "a higher one need not be newer");
}

#[test]
fn a_fetched_body_and_the_block_of_a_queue_have_their_own_ranks() {
    let zkb = |value| Some(Zkb { total_value: Some(value), points: Some(0), ..Zkb::default() });
    let mut fetched = Killmail { zkb: zkb(5.0), ..Killmail::default() };
    fetched.provenance.set("zkb", "redisq");
    let mut wrong = fetched.clone();
    wrong.victim.damage_taken = 7;
    assert_eq!(
        merge(&fetched, &from(wrong.clone(), Some("websocket")), true),
        MergeOutcome::Conflict,
        "its body is not lower"
    );
    let r2z2 =
        Killmail { zkb: Some(Zkb { points: None, ..zkb(9.0).unwrap_or_default() }), ..Killmail::default() };
    let merged = after(&fetched, &r2z2, false).expect("the bodies are the same");
    assert_eq!(merged.zkb.as_ref().and_then(|zkb| zkb.total_value), Some(9.0));
    assert_eq!(
        merged.provenance.iter().collect::<Vec<_>>(),
        [("zkb.points", "redisq")],
        "only what R2Z2 does not say"
    );
    let again = from(Killmail { zkb: zkb(1.0), ..Killmail::default() }, Some("redisq"));
    assert_eq!(merge(&merged, &again, true), MergeOutcome::Unchanged);
}

#[test]
fn thousands_of_shuffled_attackers_add_nothing() {
    let attackers: Vec<_> = (0..3_753)
        .map(|n| Attacker {
            character_id: (n % 3 != 0).then_some(n),
            ship_type_id: Some(n % 50),
            ..Attacker::default()
        })
        .collect();
    let stored = Killmail { attackers, ..Killmail::default() };
    let mut turned = stored.clone();
    turned.attackers.reverse();
    assert_eq!(merge(&stored, &turned, false), MergeOutcome::Unchanged);
    turned.attackers[9].alliance_id = Some(1);
    let MergeOutcome::Revised(merged) = merge(&stored, &turned, false) else {
        panic!("an alliance was added")
    };
    assert_eq!(merged.attackers.iter().filter(|a| a.alliance_id.is_some()).count(), 1);
    assert_eq!(merged.attackers[3_743].character_id, Some(3_743), "the first order stays");
}

#[test]
fn an_attacker_is_not_filled_in_from_its_neighbour() {
    let of = |corporations: [Option<u32>; 2]| {
        let attackers = corporations.map(|corporation_id| Attacker {
            corporation_id,
            damage_done: 1,
            ..Attacker::default()
        });
        Killmail { killmail_id: 7, attackers: attackers.to_vec(), ..Killmail::default() }
    };
    let (stored, shuffled) = (of([None, Some(1)]), of([Some(1), None]));
    assert_eq!(merge(&stored, &shuffled, false), MergeOutcome::Unchanged);
    let raised = after(&from(stored, Some("redisq")), &shuffled, false).unwrap();
    assert_eq!(raised.attackers.iter().filter(|attacker| attacker.corporation_id.is_some()).count(), 1);
}
