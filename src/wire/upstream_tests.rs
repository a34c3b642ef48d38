//! Upstream formats: reading a written document gives the same killmail again.

use std::sync::OnceLock;

use serde_json::Value;

use super::*;
use crate::domain::entry::Origin;
use crate::domain::facts::Facts;
use crate::domain::id::Seq;
use crate::sample;
use crate::wire::read::package;
use crate::wire::read::reason::Reason;

fn entry(killmail: Killmail) -> Entry {
    Entry {
        seq: Seq(7),
        rev: 0,
        origin: Origin::Live,
        received_at_ms: 0,
        uploaded_at: Some(1_700_000_100),
        age_secs: 100,
        killmail,
        facts: Facts::default(),
        json: OnceLock::new(),
    }
}

fn read(document: &[u8]) -> Value {
    serde_json::from_slice(document).unwrap()
}

/// A document as R2Z2 publishes it, with unknown fields everywhere.
fn published() -> Value {
    json!({
        "killmail_id": 128_000_001, "hash": "0123456789abcdef0123456789abcdef01234567",
        "esi": {
            "killmail_id": 128_000_001, "killmail_time": "2026-11-20T23:59:59Z", "solar_system_id": 30_000_142, "war_id": 7,
            "moon_id": 40_009_082, "new_at_the_top": [1, {"deep": true}],
            "victim": {
                "character_id": 90_000_001, "corporation_id": 98_000_001, "ship_type_id": 670, "damage_taken": 1360, "mood": "bad",
                "position": { "x": -946_664_691_001.75, "y": 7_781_349_935.702_2, "z": 0.5, "celestial": 7 },
                "items": [{ "item_type_id": 3465, "flag": 5, "singleton": 0, "quantity_dropped": 1, "odd": "item",
                    "items": [{ "item_type_id": 34, "flag": 5, "singleton": 0, "quantity_destroyed": 3_000_000_000_u64 }] }],
            },
            "attackers": [
                { "faction_id": 500_021, "damage_done": 960, "final_blow": true, "security_status": -1.5, "new": 1 },
                { "character_id": 95_000_001, "corporation_id": 98_000_002, "alliance_id": 99_000_001, "ship_type_id": 587,
                    "weapon_type_id": 2873, "damage_done": 400, "final_blow": false, "security_status": 0.5 },
            ],
        },
        "zkb": {
            "locationID": 50_000_088, "hash": "0123456789abcdef0123456789abcdef01234567", "fittedValue": 10_000.25, "droppedValue": 0.5,
            "destroyedValue": 1_234.56, "totalValue": 1_235.06, "totalDroppableValue": 12.5, "points": 1, "npc": false, "solo": true,
            "awox": false, "labels": ["cat:6", "pvp"], "attackerCount": 2,
            "href": "https://esi.evetech.net/killmails/128000001/0123456789abcdef0123456789abcdef01234567/",
        },
        "uploaded_at": 1_700_000_100, "sequence_id": 7, "sequence_updated": 3,
    })
}

#[test]
fn a_document_is_written_as_it_came() {
    let published = published();
    let killmail = package::parse(published.to_string().as_bytes()).unwrap().killmail.unwrap();
    assert_eq!(read(&document(&entry(killmail.clone()), 7, Some(3)).unwrap()), published);
    assert_eq!(read(&body(&killmail)), published["esi"]);
}

#[test]
fn the_zkb_block_gets_no_defaults() {
    let mut published = published();
    published["zkb"] = json!({ "hash": published["hash"], "npc": true });
    published.as_object_mut().unwrap().remove("sequence_updated");
    let killmail = package::parse(published.to_string().as_bytes()).unwrap().killmail.unwrap();
    assert_eq!(read(&document(&entry(killmail), 7, None).unwrap()), published);
}

#[test]
fn a_computed_hash_is_marked() {
    let body = published()["esi"].to_string();
    let mut killmail = package::parse(body.as_bytes()).unwrap().killmail.unwrap();
    let written = document(&entry(killmail.clone()), 7, None).unwrap();
    let text = read(&written);
    assert_eq!((&text["hash_source"], &text["hash"]), (&json!("computed"), &text["zkb"]["hash"]));
    // A reader computes it as well, and replaces it by one from a source.
    assert_eq!(package::parse(&written).unwrap().killmail.unwrap(), killmail);
    killmail.attackers[0].final_blow = false;
    assert_eq!(
        document(&entry(killmail), 7, None),
        None,
        "without a final blow there is nothing to compute it from"
    );
}

#[test]
fn a_number_without_a_killmail_is_read_as_a_placeholder() {
    assert_eq!(package::parse(&placeholder(7)).unwrap_err().reason, Reason::Placeholder);
}

#[test]
fn a_missing_upload_time_follows_from_the_age() {
    let killmail = package::parse(published().to_string().as_bytes()).unwrap().killmail.unwrap();
    let time = killmail.time;
    let silent = Entry { uploaded_at: None, ..entry(killmail) };
    assert_eq!(read(&document(&silent, 7, None).unwrap())["uploaded_at"], time + 100);
}

#[test]
fn every_real_killmail_reads_back_the_same() {
    let mut read = 0;
    for line in sample::lines() {
        let mut killmail = package::parse(line.as_bytes()).unwrap().killmail.unwrap();
        assert_eq!(
            package::parse(&body(&killmail)).unwrap().killmail.unwrap(),
            Killmail { hash: None, zkb: None, ..killmail.clone() }
        );
        killmail.hash.get_or_insert_with(|| "a".repeat(40));
        let mut again = package::parse(&document(&entry(killmail.clone()), 7, None).unwrap()).unwrap();
        let again = again.killmail.take().unwrap();
        if let Some(zkb) = &mut killmail.zkb {
            zkb.hash.get_or_insert_with(|| "a".repeat(40));
        }
        assert_eq!(again, killmail);
        read += 1;
    }
    assert!(read > 3000, "{read}");
}
