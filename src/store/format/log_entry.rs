//! An entry of the log: the facts of a killmail without its items and texts, from which the index is built
//! and every role is exact.
//!
//! ```text
//! crc32 u32 | version u8 | killmail id u32 | time i64 | system u32 | received_at_ms i64 | origin u8 | age_secs u32 | weight u32
//! | rev u64 | flags u8 | value f64 if known | attackers varint | victim, attackers, final blow: six ascending lists each | labels
//! ```
//! Constellations, regions and ship groups are not stored: they follow from static EVE facts. Law 4 holds for
//! `version`.
//!
//! Must not know: where entries are kept.

use memchr::memchr;

use crate::domain::entry::{Origin, is_implausible};
use crate::domain::facts::{Columns, Facts};
use crate::store::facts::derive;
use crate::store::format::frame::origin;
use crate::store::format::varint::{Cursor, Malformed, put_ascending, put_varint};

/// The version written now. A new one raises the schema number (`engine/meta`), too.
pub const VERSION: u8 = 1;
const CRC_BYTES: usize = 4;
/// Bytes up to the flags.
const FIXED_BYTES: usize = 47;
const NPC: u8 = 1;
const SOLO: u8 = 2;
const AWOX: u8 = 4;
const VALUED: u8 = 8;

/// What the log keeps of a killmail.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    /// What filters ask.
    pub facts: Facts,
    /// When we got it, unix milliseconds.
    pub received_at_ms: i64,
    /// How it came.
    pub origin: Origin,
    /// How old it was then, seconds.
    pub age_secs: u32,
    /// Length of its canonical JSON, bytes.
    pub weight: u32,
    /// The revision its content is at; 0 at first.
    pub rev: u64,
}

/// The line as bytes.
pub fn encode(line: &LogEntry) -> Vec<u8> {
    let facts = &line.facts;
    let mut out = Vec::with_capacity(160);
    out.extend_from_slice(&[0; 4]);
    out.push(VERSION);
    out.extend_from_slice(&facts.killmail_id.to_le_bytes());
    out.extend_from_slice(&facts.time.to_le_bytes());
    out.extend_from_slice(&facts.system.to_le_bytes());
    out.extend_from_slice(&line.received_at_ms.to_le_bytes());
    out.push(line.origin as u8);
    out.extend_from_slice(&line.age_secs.to_le_bytes());
    out.extend_from_slice(&line.weight.to_le_bytes());
    out.extend_from_slice(&line.rev.to_le_bytes());
    let flags =
        [(facts.npc, NPC), (facts.solo, SOLO), (facts.awox, AWOX), (facts.total_value.is_some(), VALUED)];
    out.push(flags.into_iter().map(|(is, bit)| if is { bit } else { 0 }).sum());
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

/// Why bytes cannot be read as a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// They are not what was written.
    Malformed,
    /// They are whole, of a version that a later killstream writes.
    Newer(u8),
}

impl From<Malformed> for Unreadable {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The line these bytes hold.
pub fn decode(bytes: &[u8]) -> Result<LogEntry, Unreadable> {
    let (crc, body) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(Unreadable::Malformed);
    }
    if let Some(version) = body.first().filter(|version| **version > VERSION) {
        return Err(Unreadable::Newer(*version));
    }
    let mut line = parse(&mut Cursor::new(body))?;
    derive(&mut line.facts);
    Ok(line)
}

/// The line somewhere at the start of raw bytes, with its length: lines name no length, so it is known only
/// once all is read.
fn open(bytes: &[u8]) -> Result<(LogEntry, usize), Malformed> {
    let (crc, body) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
    let mut cursor = Cursor::new(body);
    let line = parse(&mut cursor)?;
    let length = body.len() - cursor.remaining();
    if crc32fast::hash(&body[..length]) != u32::from_le_bytes(*crc) {
        return Err(Malformed);
    }
    Ok((line, 4 + length))
}

/// Every whole line of a revision in raw bytes: its killmail, and the revision. Lines of revision 0 tell
/// nothing and are passed over.
pub fn find(bytes: &[u8]) -> impl Iterator<Item = (u32, u64)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            // The fixed part looks like little else: cheap to tell before a checksum is.
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
            match open(rest) {
                Ok((line, length)) => {
                    at += length;
                    return Some((line.facts.killmail_id, line.rev));
                }
                Err(Malformed) => at += 1,
            }
        }
    })
}

/// What stands between checksum and end.
fn parse(cursor: &mut Cursor<'_>) -> Result<LogEntry, Malformed> {
    if cursor.u8()? != VERSION {
        return Err(Malformed);
    }
    let mut facts =
        Facts { killmail_id: cursor.u32()?, time: cursor.i64()?, system: cursor.u32()?, ..Facts::default() };
    let received_at_ms = cursor.i64()?;
    let origin = origin(cursor.u8()?)?;
    let (age_secs, weight, rev) = (cursor.u32()?, cursor.u32()?, cursor.u64()?);
    let flags = cursor.u8()?;
    (facts.npc, facts.solo, facts.awox) = (flags & NPC != 0, flags & SOLO != 0, flags & AWOX != 0);
    facts.total_value = if flags & VALUED == 0 { None } else { Some(cursor.f64()?) };
    facts.attacker_count = cursor.varint()?;
    facts.victim = columns(cursor)?;
    facts.attackers = columns(cursor)?;
    facts.final_blow = columns(cursor)?;
    for _ in 0..cursor.varint()? {
        let length = cursor.varint()? as usize;
        facts.labels.push(String::from_utf8(cursor.take(length)?.to_vec()).map_err(|_| Malformed)?);
    }
    facts.time_implausible = is_implausible(facts.time, received_at_ms);
    Ok(LogEntry { facts, received_at_ms, origin, age_secs, weight, rev })
}

fn put_columns(out: &mut Vec<u8>, c: &Columns) {
    for column in [&c.characters, &c.corporations, &c.alliances, &c.factions, &c.ship_types, &c.weapon_types]
    {
        put_ascending(out, column);
    }
}

fn columns(cursor: &mut Cursor<'_>) -> Result<Columns, Malformed> {
    Ok(Columns {
        characters: cursor.ascending()?,
        corporations: cursor.ascending()?,
        alliances: cursor.ascending()?,
        factions: cursor.ascending()?,
        ship_types: cursor.ascending()?,
        weapon_types: cursor.ascending()?,
        ship_groups: Vec::new(),
    })
}
