//! The canonical JSON: snapshots of it, and its rules for any killmail.
//!
//! Must not know: real files.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::*;
use crate::domain::entry::Origin;
use crate::domain::facts::Facts;
use crate::domain::id::Seq;
use crate::domain::merge::compare::{MergeOutcome, merge};
use crate::wire::read::package;

fn attacker() -> Attacker {
    Attacker {
        character_id: Some(95_000_001),
        corporation_id: Some(98_000_001),
        alliance_id: Some(99_000_001),
        faction_id: Some(500_001),
        ship_type_id: Some(587),
        weapon_type_id: Some(2873),
        damage_done: 1360,
        final_blow: true,
        security_status: -1.5,
        ..Attacker::default()
    }
}

fn full() -> Killmail {
    let inside =
        Item { item_type_id: 34, flag: 5, quantity_destroyed: Some(3_000_000_000), ..Item::default() };
    let container = Item {
        item_type_id: 3465,
        flag: 5,
        singleton: 1,
        quantity_dropped: Some(1),
        items: Some(vec![inside]),
        ..Item::default()
    };
    let victim = Victim {
        character_id: Some(90_000_001),
        corporation_id: Some(1_000_167),
        ship_type_id: Some(670),
        damage_taken: 1360,
        position: Some(Position { x: -946_664_691_001.75, y: 7_781_349_935.702_2, z: 0.0 }),
        items: Some(vec![container]),
        extra: json!({"unheard_of": {"deep": [1, null, {"gone": null}]}, "position": {"celestial": 7}})
            .as_object()
            .cloned()
            .unwrap_or_default(),
        ..Victim::default()
    };
    let zkb = Zkb {
        location_id: Some(50_000_088),
        hash: Some("a".repeat(40)),
        fitted_value: Some(10_000.0),
        dropped_value: Some(0.0),
        destroyed_value: Some(1_234.56),
        total_value: Some(1_234.56),
        points: Some(1),
        npc: Some(false),
        solo: Some(true),
        awox: Some(false),
        labels: Some(vec!["cat:6".into(), "isk:1b+".into()]),
        attacker_count: Some(2),
        href: Some("https://esi.evetech.net/killmails/1/a/".into()),
        extra: json!({"totalDroppableValue": 12.5}).as_object().cloned().unwrap_or_default(),
        ..Zkb::default()
    };
    Killmail {
        killmail_id: 96_953_365,
        time: 1_637_971_201,
        solar_system_id: 30_000_142,
        moon_id: Some(40_009_082),
        war_id: Some(7),
        hash: Some("b".repeat(40)),
        victim,
        attackers: vec![attacker(), Attacker { ship_type_id: Some(17_841), ..Attacker::default() }],
        zkb: Some(zkb),
        extra:
            json!({"http_last_modified": "then", "killID": 1, "victim_char_id": 2, "npc": true, "none": null})
                .as_object()
                .cloned()
                .unwrap_or_default(),
        ..Killmail::default()
    }
}

#[test]
fn provenance_is_written_by_source_and_read_back() {
    let parts =
        [("zkb.points", "redisq"), ("zkb.labels", "redisq"), ("attackers.1.ship_type_id", "websocket")];
    let provenance = parts.into_iter().map(|(part, source)| (part.to_owned(), source.to_owned())).collect();
    let killmail = Killmail { provenance, ..full() };
    let written = encode(&killmail);
    let expected = json!({"redisq": ["zkb.labels", "zkb.points"], "websocket": ["attackers.1.ship_type_id"]});
    assert_eq!(parsed(&written).unwrap()["provenance"], expected);
    assert_eq!(package::parse(&written).unwrap().killmail.unwrap().provenance, killmail.provenance);
    assert_eq!(parsed(&encode(&full())).unwrap().get("provenance"), None);
}

#[test]
fn a_computed_hash_is_marked_and_not_read_as_a_hash_of_a_source() {
    let mut killmail = full();
    killmail.hash = None;
    killmail.zkb.as_mut().unwrap().hash = None;
    let written = encode(&killmail);
    let found = parsed(&written).unwrap();
    assert_eq!((&found["hash_source"], &found["killmail_hash"]), (&json!("computed"), &found["zkb"]["hash"]));
    assert_eq!(package::parse(&written).unwrap().killmail.unwrap().hash, None);
    assert_eq!(parsed(&encode(&full())).unwrap().get("hash_source"), None);
}

#[test]
fn a_full_killmail_matches_its_snapshot() {
    insta::assert_json_snapshot!("full", parsed(&encode(&full())).unwrap());
}

#[test]
fn a_bare_killmail_matches_its_snapshot() {
    let victim = Victim { ship_type_id: Some(35_832), corporation_id: Some(98_000_001), ..Victim::default() };
    let attackers = vec![Attacker {
        faction_id: Some(500_021),
        damage_done: 960,
        final_blow: true,
        ..Attacker::default()
    }];
    let bare = Killmail {
        killmail_id: 1,
        time: 0,
        solar_system_id: 31_002_525,
        victim,
        attackers,
        ..Killmail::default()
    };
    insta::assert_snapshot!("bare", String::from_utf8(encode(&bare).to_vec()).unwrap());
}

#[test]
fn annotations_are_inserted() {
    let json = encode(&full());
    let said: Arc<str> = r#"{"kills_within":4}"#.into();
    let spliced =
        with_annotations(&json, &[("gatecamp".to_owned(), Arc::clone(&said)), ("other".to_owned(), said)]);
    let mut expected = parsed(&json).unwrap();
    expected["enriched"] = json!({"gatecamp": {"kills_within": 4}, "other": {"kills_within": 4}});
    assert_eq!(parsed(&spliced).unwrap(), expected);
    assert_eq!(with_annotations(&json, &[]), json);
}

/// Readers that split lines at them would end an event there.
#[test]
fn line_breaks_of_unicode_are_escaped_in_every_free_text() {
    let mut killmail = full();
    killmail.extra.insert("note\u{2028}".to_owned(), json!("a\u{2029}b"));
    killmail.zkb.get_or_insert_default().labels = Some(vec!["c\u{85}d".to_owned()]);
    let json = encode(&killmail);
    let said: Arc<str> = "{\"why\":\"e\u{2028}f\"}".into();
    let annotations = [("gatecamp".to_owned(), said)];
    let spliced = with_annotations(&json, &annotations);
    let text = std::str::from_utf8(&spliced).unwrap();
    assert!(!text.contains(['\u{2028}', '\u{2029}', '\u{85}']), "{text}");
    assert!(spliced.len() <= json.len() + annotations_bytes(&annotations));
    let read = parsed(&spliced).unwrap();
    assert_eq!(
        (&read["note\u{2028}"], &read["zkb"]["labels"][0]),
        (&json!("a\u{2029}b"), &json!("c\u{85}d"))
    );
    assert_eq!(read["enriched"]["gatecamp"]["why"], "e\u{2028}f");
}

#[test]
fn an_entry_is_encoded_once() {
    let entry = Entry {
        seq: Seq(1),
        rev: 0,
        origin: Origin::Live,
        received_at_ms: 0,
        uploaded_at: None,
        age_secs: 0,
        killmail: full(),
        facts: Facts::default(),
        json: std::sync::OnceLock::new(),
    };
    let (first, second) = (json(&entry), json(&entry));
    assert_eq!(first.as_ptr(), second.as_ptr(), "the same buffer");
}

/// JSON in which repeated keys and nulls are errors.
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON without nulls and repeated keys")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(serde::de::Error::custom(format!("{key} comes twice")));
            }
            // Unreadable members keep their nulls.
            if key == "unreadable" {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value::<Self>()?;
            }
        }
        Ok(self)
    }
}

fn parsed(json: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Strict>(json)?;
    serde_json::from_slice(json)
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..4)
                .prop_map(|pairs| pairs.into_iter().collect::<Extra>().into()),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    let ours: Vec<&str> =
        [keys::KILLMAIL, keys::VICTIM, keys::ATTACKER, keys::ITEM, keys::ZKB, keys::POSITION].concat();
    prop_oneof![prop::sample::select(ours).prop_map(str::to_owned), "\\PC{0,5}"]
}

fn extra() -> impl Strategy<Value = Extra> {
    prop::collection::vec((name(), anything()), 0..5).prop_map(|pairs| pairs.into_iter().collect())
}

prop_compose! {
    fn odd()(
        mut killmail in Just(full()),
        extras in prop::collection::vec(extra(), 5),
        unreadable in prop::collection::vec(extra(), 5),
        values in prop::array::uniform4(any::<f64>()),
        drops in any::<u16>(),
    ) -> Killmail {
        let drop = |bit: u32| drops >> bit & 1 == 1;
        if let Some(zkb) = &mut killmail.zkb {
            zkb.total_value = (!drop(0)).then_some(values[0]);
            zkb.labels = (!drop(1)).then(|| vec!["\"\\\n".to_owned()]);
            zkb.npc = (!drop(2)).then_some(true);
            zkb.hash = (!drop(3)).then(String::new);
            zkb.extra.clone_from(&extras[0]);
        }
        killmail.victim.position = (!drop(4)).then_some(Position { x: values[1], y: values[2], z: 0.0 });
        killmail.attackers[0].security_status = values[3];
        killmail.attackers[1].extra.clone_from(&extras[1]);
        killmail.victim.extra.clone_from(&extras[2]);
        killmail.extra.clone_from(&extras[3]);
        if let Some(item) = killmail.victim.items.as_mut().and_then(|items| items.first_mut()) {
            item.extra.clone_from(&extras[4]);
        }
        killmail.unreadable = unreadable[0].clone().into();
        killmail.victim.unreadable = unreadable[1].clone().into();
        killmail.attackers[1].unreadable = unreadable[2].clone().into();
        if let Some(item) = killmail.victim.items.as_mut().and_then(|items| items[0].items.as_mut()?.first_mut()) {
            item.unreadable = unreadable[3].clone().into();
        }
        if let Some(zkb) = &mut killmail.zkb {
            zkb.unreadable = unreadable[4].clone().into();
        }
        if drop(5) {
            killmail.zkb = None;
        }
        killmail
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]
    #[test]
    fn every_killmail_keeps_the_rules(killmail in odd()) {
        let found = parsed(&encode(&killmail));
        prop_assert!(found.is_ok(), "{found:?}");
        let found = found.unwrap();
        prop_assert!(found.get("killID").is_none() && found.get("victim_char_id").is_none());
        prop_assert_eq!(&found["killmail_id"], &json!(killmail.killmail_id));
        prop_assert_eq!(&found["attacker_count"], &json!(2));
        prop_assert!(found["zkb"]["totalValue"].is_number() && found["zkb"]["totalValue"] == found["zkb"]["total_value"]);
        prop_assert_eq!(&found["total_value"], &found["zkb"]["totalValue"]);
        prop_assert_eq!(&found["npc"], &found["zkb"]["npc"]);
        prop_assert!(found["zkb"]["points"].is_u64() && found["zkb"]["labels"].is_array());
        prop_assert!(["npc", "solo", "awox"].iter().all(|flag| found["zkb"][flag].is_boolean()));
    }

    #[test]
    fn our_own_format_reads_back_and_adds_nothing(killmail in odd()) {
        let once = package::parse(&encode(&killmail)).map(|p| p.killmail);
        prop_assert!(once.is_ok(), "{once:?}");
        let once = once.unwrap().unwrap();
        let twice = package::parse(&encode(&once)).unwrap().killmail.unwrap();
        prop_assert_eq!(merge(&once, &twice, true), MergeOutcome::Unchanged);
        prop_assert_eq!(encode(&once), encode(&twice));
    }
}
