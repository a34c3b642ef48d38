//! An entry of the log: the facts of a killmail without items and texts. The index is built from these entries,
//! and roles are tested on them.
//!
//! ```text
//! crc32 u32 | version u8 | killmail id u32 | time i64 | system u32 | received_at_ms i64 | origin u8 | age_secs u32 | weight u32
//! | rev u64 | flags u8 | value f64 if known | attackers varint | victim, attackers, final blow: six ascending lists each | labels
//! ```
//! Constellations, regions and ship groups are not stored, because they follow from static EVE facts. Law 4
//! holds for `version`.
//!
//! Must not know: where entries are stored.

use memchr::memchr;

use crate::domain::entry::{Origin, is_implausible};
use crate::domain::facts::{Columns, Facts, Places};
use crate::domain::term::Dimension;
use crate::store::facts::{derive, is_derived};
use crate::store::format::frame::decode_origin;
use crate::store::format::varint::{Cursor, Malformed, put_ascending, put_varint};

/// The current version. Raise the schema number (`engine/meta`) together with it.
pub const VERSION: u8 = 1;
const CRC_BYTES: usize = 4;
/// Bytes up to the flags.
const FIXED_BYTES: usize = 47;
const NPC: u8 = 1;
const SOLO: u8 = 2;
const AWOX: u8 = 4;
const VALUED: u8 = 8;
/// The lists of ids, in the order of the bytes.
const LISTS: [Dimension; 6] = [
    Dimension::Character,
    Dimension::Corporation,
    Dimension::Alliance,
    Dimension::Faction,
    Dimension::ShipType,
    Dimension::WeaponType,
];

/// A dimension that does not follow from others must be stored, which takes a new version.
const _: () = {
    let mut at = 0;
    while at < Dimension::ALL.len() {
        let dimension = Dimension::ALL[at];
        assert!(is_derived(dimension) || is_stored(dimension));
        at += 1;
    }
};

const fn is_stored(dimension: Dimension) -> bool {
    let mut at = 0;
    while at < LISTS.len() {
        if LISTS[at] as u8 == dimension as u8 {
            return true;
        }
        at += 1;
    }
    dimension as u8 == Dimension::System as u8
}

#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    pub facts: Facts,
    pub received_at_ms: i64,
    pub origin: Origin,
    /// Age of the killmail on arrival, seconds.
    pub age_secs: u32,
    /// Length of its canonical JSON, bytes.
    pub weight: u32,
    /// The last revision that changed the killmail; 0 if none did.
    pub rev: u64,
}

pub fn encode(entry: &LogEntry) -> Vec<u8> {
    let facts = &entry.facts;
    let mut out = Vec::with_capacity(160);
    out.extend_from_slice(&[0; 4]);
    out.push(VERSION);
    out.extend_from_slice(&facts.killmail_id.to_le_bytes());
    out.extend_from_slice(&facts.time.to_le_bytes());
    out.extend_from_slice(&facts.system().to_le_bytes());
    out.extend_from_slice(&entry.received_at_ms.to_le_bytes());
    out.push(entry.origin as u8);
    out.extend_from_slice(&entry.age_secs.to_le_bytes());
    out.extend_from_slice(&entry.weight.to_le_bytes());
    out.extend_from_slice(&entry.rev.to_le_bytes());
    let flags =
        [(facts.npc, NPC), (facts.solo, SOLO), (facts.awox, AWOX), (facts.total_value.is_some(), VALUED)];
    out.push(flags.into_iter().map(|(is_set, bit)| if is_set { bit } else { 0 }).sum());
    if let Some(value) = facts.total_value {
        out.extend_from_slice(&value.to_le_bytes());
    }
    put_varint(&mut out, facts.attacker_count);
    for columns in [&facts.victim, &facts.attackers, &facts.final_blow] {
        put_columns(&mut out, columns);
    }
    put_varint(&mut out, facts.labels.len() as u32);
    for label in &facts.labels {
        put_varint(&mut out, label.len() as u32);
        out.extend_from_slice(label.as_bytes());
    }
    let crc = crc32fast::hash(&out[4..]).to_le_bytes();
    out[..4].copy_from_slice(&crc);
    out
}

/// Why bytes cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// They are damaged.
    Malformed,
    /// They are intact, but a later release wrote them with this version.
    Newer(u8),
}

impl From<Malformed> for Unreadable {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

pub fn decode(bytes: &[u8]) -> Result<LogEntry, Unreadable> {
    let (crc, body) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(Unreadable::Malformed);
    }
    if let Some(version) = body.first().filter(|version| **version > VERSION) {
        return Err(Unreadable::Newer(*version));
    }
    let mut entry = parse(&mut Cursor::new(body))?;
    derive(&mut entry.facts);
    Ok(entry)
}

/// The entry at the start of `bytes`, and its length: entries do not store their length, so reading one yields
/// it.
fn decode_prefix(bytes: &[u8]) -> Result<(LogEntry, usize), Malformed> {
    let (crc, body) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
    let mut cursor = Cursor::new(body);
    let entry = parse(&mut cursor)?;
    let length = body.len() - cursor.remaining();
    if crc32fast::hash(&body[..length]) != u32::from_le_bytes(*crc) {
        return Err(Malformed);
    }
    Ok((entry, 4 + length))
}

/// A revision and the killmail it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revised {
    pub killmail_id: u32,
    pub rev: u64,
}

/// Searches bytes for intact entries of revised killmails.
pub fn find_revised(bytes: &[u8]) -> impl Iterator<Item = Revised> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            // Checks of the fixed part are cheap and rule out most bytes that are not an entry, without
            // computing a checksum.
            at += memchr(VERSION, bytes.get(at + CRC_BYTES..)?)?;
            let rest = bytes.get(at..).filter(|rest| rest.len() > FIXED_BYTES)?;
            let impossible = rest[29] > 1
                || rest[46] > 15
                || rest[14] != 0
                || rest[15] != 0
                || rest[16] != 0
                || rest[28] != 0;
            if impossible || rest[38..46] == [0; 8] {
                at += 1;
                continue;
            }
            match decode_prefix(rest) {
                Ok((entry, length)) => {
                    at += length;
                    return Some(Revised { killmail_id: entry.facts.killmail_id, rev: entry.rev });
                }
                Err(Malformed) => at += 1,
            }
        }
    })
}

/// Reads an entry after its checksum.
fn parse(cursor: &mut Cursor<'_>) -> Result<LogEntry, Malformed> {
    if cursor.u8()? != VERSION {
        return Err(Malformed);
    }
    let mut facts = Facts {
        killmail_id: cursor.u32()?,
        time: cursor.i64()?,
        places: Places::default().with(Dimension::System, cursor.u32()?),
        ..Facts::default()
    };
    let received_at_ms = cursor.i64()?;
    let origin = decode_origin(cursor.u8()?)?;
    let (age_secs, weight, rev) = (cursor.u32()?, cursor.u32()?, cursor.u64()?);
    let flags = cursor.u8()?;
    (facts.npc, facts.solo, facts.awox) = (flags & NPC != 0, flags & SOLO != 0, flags & AWOX != 0);
    facts.total_value = if flags & VALUED == 0 { None } else { Some(cursor.f64()?) };
    facts.attacker_count = cursor.varint()?;
    facts.victim = read_columns(cursor)?;
    facts.attackers = read_columns(cursor)?;
    facts.final_blow = read_columns(cursor)?;
    for _ in 0..cursor.varint()? {
        let length = cursor.varint()? as usize;
        facts.labels.push(String::from_utf8(cursor.bytes(length)?.to_vec()).map_err(|_| Malformed)?);
    }
    facts.time_implausible = is_implausible(facts.time, received_at_ms);
    Ok(LogEntry { facts, received_at_ms, origin, age_secs, weight, rev })
}

fn put_columns(out: &mut Vec<u8>, columns: &Columns) {
    for dimension in LISTS {
        put_ascending(out, columns.ids(dimension));
    }
}

fn read_columns(cursor: &mut Cursor<'_>) -> Result<Columns, Malformed> {
    let mut columns = Columns::default();
    for dimension in LISTS {
        columns.set_sorted(dimension, cursor.ascending()?);
    }
    Ok(columns)
}
