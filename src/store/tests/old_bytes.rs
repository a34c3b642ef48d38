//! Law 4, old bytes decode forever: every version of a record or a log entry that was ever written decodes.
//!
//! A fixture was written by the version it is named for and is never rebuilt; a new version adds a file. The
//! index snapshot is the exception: only its current version has a fixture, because a start rebuilds the index
//! from the log when it finds any other one.
//!
//! Must not know: how today's encoder works.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::Path;

use hashbrown::HashMap;
use parking_lot::RwLock;
use serde_json::json;

use crate::domain::entry::Origin;
use crate::domain::facts::Facts;
use crate::domain::filter::Filter;
use crate::domain::id::{Epoch, Seq};
use crate::domain::killmail::{Attacker, Extra, Item, Killmail, Position, Victim};
use crate::domain::term::Dimension;
use crate::domain::zkb::Zkb;
use crate::store::facts::facts;
use crate::store::format::dictionary::Dictionaries;
use crate::store::format::frame::{self, Header};
use crate::store::format::log_entry::{self, LogEntry};
use crate::store::format::record::{Codec, VERSION};
use crate::store::index::newest_entries::NewestEntries;
use crate::store::index::resident::Resident;
use crate::store::index::rows::Row;
use crate::store::index::snapshot::{self, Mark, checksum_of_terms};
use crate::store::index::{Flag, Index, SHARDS};
use crate::store::tests::{folder, history, incoming, killmail, open};

static RECORD_V1: &[u8] = include_bytes!("record-v1.bin");
static LOG_V1: &[u8] = include_bytes!("log-v1.bin");
static SNAPSHOT_V2: &[u8] = include_bytes!("snapshot-v2.bin");
/// What the snapshot fixture is of.
const SNAPSHOT_MARK: Mark = Mark { epoch: Epoch(0x1234_5678_9abc_def0), head: Seq(302), rev: 4 };

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

fn log_entry() -> LogEntry {
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
fn a_log_entry_of_version_1_decodes() {
    assert_eq!(log_entry::decode(LOG_V1), Ok(log_entry()));
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
    assert_eq!(log_entry::decode(&log_entry::encode(&log_entry())), Ok(log_entry()));
}

#[test]
fn a_flipped_bit_in_a_log_entry_is_noticed() {
    for bit in 0..LOG_V1.len() * 8 {
        let mut bent = LOG_V1.to_vec();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(log_entry::decode(&bent).is_err(), "bit {bit}");
    }
}

/// 299 killmails in one system (more than a list holds, so its postings are a bitmap), a missing number, one
/// killmail with every field, and one whose time is implausible.
fn snapshot_index() -> Index {
    let mut index = Index::default();
    let mut insert = |seq: u64, facts: Facts| {
        let entry = LogEntry { facts, ..log_entry() };
        index.insert(Seq(seq), Row::new(&entry), &entry.facts);
    };
    for seq in 1..=299_u32 {
        let attacker = Attacker { character_id: Some(90_000_000 + seq % 3), ..Attacker::default() };
        let zkb = Zkb { npc: Some(seq % 2 == 0), solo: Some(seq % 5 == 0), ..Zkb::default() };
        insert(
            seq.into(),
            facts(&Killmail {
                killmail_id: 139_000_000 + seq,
                time: 1_763_500_000 + i64::from(seq) * 60,
                solar_system_id: 30_000_142,
                attackers: vec![attacker],
                zkb: Some(zkb),
                ..Killmail::default()
            }),
        );
    }
    insert(301, facts(&full()));
    insert(302, facts(&Killmail { killmail_id: 5, time_implausible: true, ..full() }));
    index
}

fn write_snapshot(dir: &Path, index: Index, mark: &Mark) {
    let memory = Resident { index, tail: NewestEntries::new(1, 1), revs: HashMap::new() };
    snapshot::write(dir, &RwLock::new(memory), mark).expect("written");
}

/// Sets the header field that stands for dimensions and static facts, and the header's checksum.
fn set_terms_checksum(bytes: &mut [u8], checksum: u32) {
    bytes[32..36].copy_from_slice(&checksum.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..36]).to_le_bytes();
    bytes[36..40].copy_from_slice(&crc);
}

fn dimension_words() -> Vec<&'static str> {
    Dimension::ALL.iter().map(|dimension| dimension.word()).collect()
}

/// Everything a snapshot holds, in a form that can be compared.
fn contents(index: &Index) -> impl PartialEq + Debug + use<> {
    let rows: Vec<_> =
        (1..=index.head().0).map(|seq| index.rows.get(Seq(seq)).map(|row| row.to_bytes())).collect();
    let mut terms: Vec<_> = (0..SHARDS)
        .flat_map(|shard| index.shard(shard))
        .map(|(term, postings)| (term, postings.clone()))
        .collect();
    terms.sort_unstable_by_key(|(term, _)| *term);
    let labels: BTreeMap<String, Vec<u32>> =
        index.labels().map(|(label, postings)| (label.to_owned(), postings.to_vec())).collect();
    let flags = [Flag::Npc, Flag::Solo, Flag::Awox].map(|flag| index.flagged(flag).to_vec());
    let counts = (index.count(), index.systems(), index.terms());
    (rows, terms, labels, flags, counts, index.undated().to_vec())
}

#[test]
fn an_index_snapshot_of_version_2_loads() {
    let dir = folder();
    let mut bytes = SNAPSHOT_V2.to_vec();
    // Static facts change with the game, the layout does not.
    set_terms_checksum(&mut bytes, checksum_of_terms(dimension_words().into_iter()));
    fs::write(dir.path().join("idx-00000000000000000302.snap"), bytes).expect("written");
    let (index, mark) = snapshot::load_newest(dir.path(), &SNAPSHOT_MARK).expect("loads");
    assert_eq!(mark, SNAPSHOT_MARK);
    assert_eq!(contents(&index), contents(&snapshot_index()));
}

/// A dimension that is added later has no postings in older snapshots, so such a snapshot must not be loaded.
#[test]
fn an_index_snapshot_of_other_dimensions_is_rebuilt_from_the_log() {
    let dir = folder();
    let store = open(&dir);
    store.append((1..=5).map(|id| incoming(killmail(id))).collect(), None).expect("appended");
    let mark = Mark { epoch: store.epoch(), head: store.head(), rev: 0 };
    let mut without_terms = Index::default();
    for seq in (1..=5).map(Seq) {
        let row = *store.resident.read().index.rows.get(seq).expect("appended");
        without_terms.restore_row(seq, row);
    }
    drop(store);
    let found = || {
        let mut filter = Filter::default();
        filter.set_ids(Dimension::System, (30_000_140..30_000_147).collect());
        open(&dir).select(&history(&filter)).expect("selected").len()
    };
    write_snapshot(dir.path(), without_terms, &mark);
    assert_eq!(found(), 0, "a snapshot of the current dimensions is trusted");
    let path = snapshot::list_files(dir.path()).expect("listed").remove(0);
    let mut bytes = fs::read(&path).expect("read");
    let mut words = dimension_words();
    words.pop();
    set_terms_checksum(&mut bytes, checksum_of_terms(words.into_iter()));
    fs::write(&path, bytes).expect("written");
    assert_eq!(found(), 5);
}

/// Writes the fixture of a new version. Create an empty file of its name, then run
/// `cargo test --lib writes_the_fixtures -- --ignored`; files that are not empty are left alone.
#[test]
#[ignore = "fixtures of a version are written once, by its first author"]
fn writes_the_fixtures() {
    let packed = codec().pack([&full()].into_iter()).expect("packed").remove(0);
    let frames =
        frame::seal(&Header { raw_bytes: packed.raw_bytes, ..header() }, &packed.payload).expect("small");
    let dir = folder();
    write_snapshot(dir.path(), snapshot_index(), &SNAPSHOT_MARK);
    let snapshot = fs::read(&snapshot::list_files(dir.path()).expect("listed")[0]).expect("read");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/tests");
    let record = frames[0].clone();
    for (name, bytes) in [
        ("record-v1.bin", record),
        ("log-v1.bin", log_entry::encode(&log_entry())),
        ("snapshot-v2.bin", snapshot),
    ] {
        let path = fixtures.join(name);
        if fs::metadata(&path).is_ok_and(|file| file.len() == 0) {
            fs::write(path, bytes).expect("written");
        }
    }
}
