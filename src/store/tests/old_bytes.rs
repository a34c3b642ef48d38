//! Law 4, old bytes speak: every version of a record or a log line ever written decodes.
//!
//! The fixtures were written by the version they are named for and are never made again; a new version adds a
//! file.
//!
//! Must not know: how today's encoder works.

use std::collections::BTreeMap;

use serde_json::json;

use crate::domain::entry::Origin;
use crate::domain::id::Seq;
use crate::domain::killmail::{Attacker, Extra, Item, Killmail, Position, Victim};
use crate::domain::zkb::Zkb;
use crate::store::facts::facts;
use crate::store::format::dictionary::Dictionaries;
use crate::store::format::frame::{self, Header};
use crate::store::format::log_entry::{self, LogEntry};
use crate::store::format::record::{Codec, VERSION};

static RECORD_V1: &[u8] = include_bytes!("record-v1.bin");
static LOG_V1: &[u8] = include_bytes!("log-v1.bin");

fn extra(name: &str) -> Extra {
    Extra::from_iter([(name.to_owned(), json!({"deep": [1, 2.5, null, "é"], "big": u64::MAX}))])
}

/// A killmail with every field there is.
fn full() -> Killmail {
    let item = |items| Item {
        item_type_id: 1 << 40,
        flag: -5,
        singleton: 2,
        quantity_dropped: Some(1 << 41),
        quantity_destroyed: Some(3),
        items,
        extra: extra("item"),
        ..Item::default()
    };
    let victim = Victim {
        character_id: Some(2_112_345_678),
        corporation_id: Some(98_000_001),
        alliance_id: Some(99_000_001),
        faction_id: Some(500_001),
        ship_type_id: Some(587),
        damage_taken: 123_456_789_012,
        position: Some(Position { x: -1.5e12, y: 0.1, z: f64::MAX }),
        items: Some(vec![item(Some(vec![item(Some(Vec::new()))])), Item::default()]),
        extra: extra("victim"),
        ..Victim::default()
    };
    let attacker = Attacker {
        character_id: Some(90_000_001),
        corporation_id: Some(98_000_002),
        alliance_id: Some(99_000_002),
        faction_id: Some(500_002),
        ship_type_id: Some(670),
        weapon_type_id: Some(2488),
        damage_done: -1,
        final_blow: true,
        security_status: -9.87,
        extra: extra("attacker"),
        ..Attacker::default()
    };
    Killmail {
        killmail_id: 140_000_001,
        time: 1_763_600_000,
        solar_system_id: 30_000_142,
        moon_id: Some(40_009_082),
        war_id: Some(700_001),
        hash: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
        victim,
        attackers: vec![attacker, Attacker { final_blow: false, ..Attacker::default() }],
        zkb: Some(zkb()),
        extra: extra("top"),
        ..Killmail::default()
    }
}

/// One with members in every part that could not be read.
fn unreadable() -> Killmail {
    let mut killmail = full();
    killmail.unreadable = extra("war_id").into();
    killmail.victim.unreadable = extra("items").into();
    killmail.attackers[0].unreadable = extra("final_blow").into();
    if let Some(item) = killmail.victim.items.as_mut().and_then(|items| items.first_mut()) {
        item.unreadable = extra("flag").into();
    }
    if let Some(zkb) = &mut killmail.zkb {
        zkb.unreadable = extra("points").into();
    }
    killmail
}

fn zkb() -> Zkb {
    Zkb {
        location_id: Some(40_009_080),
        hash: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
        fitted_value: Some(1.25),
        dropped_value: Some(0.0),
        destroyed_value: Some(1e12),
        total_value: Some(1e12 + 0.5),
        points: Some(-3),
        npc: Some(false),
        solo: Some(true),
        awox: Some(false),
        labels: Some(vec!["loc:highsec".to_owned(), "isk:1b+".to_owned()]),
        attacker_count: Some(2),
        href: Some("https://esi.evetech.net/v1/killmails/140000001/0/".to_owned()),
        extra: extra("zkb"),
        ..Zkb::default()
    }
}

fn header() -> Header {
    Header {
        killmail_id: 140_000_001,
        version: VERSION,
        dictionary: 1,
        seq: Seq(77),
        rev: 3,
        received_at_ms: 1_763_600_061_234,
        uploaded_at: Some(1_763_600_060),
        origin: Origin::Live,
        age_secs: 60,
        raw_bytes: 0,
    }
}

fn line() -> LogEntry {
    LogEntry {
        facts: facts(&full()),
        received_at_ms: 1_763_600_061_234,
        origin: Origin::Backfill,
        age_secs: 61,
        weight: 4_321,
        rev: 3,
    }
}

fn codec() -> Codec {
    Codec::new(Dictionaries::new(BTreeMap::new()))
}

#[test]
fn a_record_of_version_1_decodes() {
    let frame = frame::open(RECORD_V1).expect("whole");
    assert_eq!(Header { raw_bytes: 0, ..frame.header }, header());
    assert_eq!((frame.part, frame.parts), (0, 1));
    assert_eq!(codec().unpack(&frame.header, frame.payload), Ok(full()));
}

#[test]
fn a_log_line_of_version_1_decodes() {
    assert_eq!(log_entry::decode(LOG_V1), Ok(line()));
}

#[test]
fn what_is_written_now_decodes() {
    let bare = Killmail {
        killmail_id: 1,
        time: -5,
        solar_system_id: 31_000_005,
        attackers: vec![Attacker::default()],
        ..Killmail::default()
    };
    let parts = [("zkb.points", "redisq"), ("attackers.1.ship_type_id", "websocket")];
    let provenance = parts.into_iter().map(|(part, source)| (part.to_owned(), source.to_owned())).collect();
    for killmail in [full(), bare, unreadable(), Killmail { provenance, ..full() }] {
        let packed = codec().pack([&killmail].into_iter()).expect("packed").remove(0);
        let header = Header { raw_bytes: packed.raw_bytes, ..header() };
        let time_implausible = killmail.time < 0;
        assert_eq!(codec().unpack(&header, &packed.payload), Ok(Killmail { time_implausible, ..killmail }));
    }
    assert_eq!(log_entry::decode(&log_entry::encode(&line())), Ok(line()));
}

#[test]
fn bent_log_lines_are_noticed() {
    for bit in 0..LOG_V1.len() * 8 {
        let mut bent = LOG_V1.to_vec();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(log_entry::decode(&bent).is_err(), "bit {bit}");
    }
}

/// Made the fixtures once: `cargo test --lib writes_the_fixtures -- --ignored`.
#[test]
#[ignore = "fixtures of a version are written once, by its first author"]
fn writes_the_fixtures() {
    let packed = codec().pack([&full()].into_iter()).expect("packed").remove(0);
    let frames =
        frame::seal(&Header { raw_bytes: packed.raw_bytes, ..header() }, &packed.payload).expect("small");
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/tests");
    for (name, bytes) in [("record-v1.bin", &frames[0]), ("log-v1.bin", &log_entry::encode(&line()))] {
        let path = dir.join(name);
        assert!(std::fs::metadata(&path).is_ok_and(|m| m.len() == 0), "{name} has been written");
        std::fs::write(path, bytes).expect("written");
    }
}
