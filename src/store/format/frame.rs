//! The frame around the payload of every stored killmail, with which it can be found in a damaged file.
//!
//! ```text
//! killmail id u64 | version u8 | dictionary u8 | part u8 | parts u8 | seq u64 | rev u64
//! | received_at_ms i64 | uploaded_at i64 (minimum: unknown) | origin u8 | age_secs u32 | raw length u32 | payload
//! ```
//! Little endian, in an envelope. A payload that is too large for one value is split into parts, and each part
//! has its own frame. Only this file creates, reads and searches for frames.
//!
//! Must not know: what is in the payload, or where frames are stored.

use crate::domain::entry::Origin;
use crate::domain::id::Seq;
use crate::store::format::envelope::{self, Magic};
use crate::store::format::varint::{Cursor, Malformed};

const MAGIC: Magic = [0xB5, b'K', b'M', 0x1F];
/// Bytes from the start of the contents to the payload.
const HEADER_BYTES: usize = 53;
/// Length of the longest frame, bytes.
pub const FRAME_MAX: usize = envelope::BYTES + HEADER_BYTES + PART_BYTES;
/// Payload bytes of one part. Large values slow down their neighbours in the engine; no value of this program
/// exceeds 64 KiB.
pub const PART_BYTES: usize = 48 << 10;
const UNKNOWN: i64 = i64::MIN;

/// The fields that every part of a killmail has in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub killmail_id: u64,
    /// Version of the record in the payload.
    pub version: u8,
    /// Number of the dictionary that compressed the payload, from 1: no payload is stored without one.
    pub dictionary: u8,
    pub seq: Seq,
    /// The last revision that changed the killmail; 0 if none did.
    pub rev: u64,
    pub received_at_ms: i64,
    /// When the source published it, unix seconds.
    pub uploaded_at: Option<i64>,
    pub origin: Origin,
    /// Age of the killmail on arrival, seconds.
    pub age_secs: u32,
    /// Length of the whole payload before compression, bytes.
    pub raw_bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub header: Header,
    /// Index of this part, from 0.
    pub part: u8,
    pub parts: u8,
    /// The bytes of this part.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Length including the envelope, bytes.
    pub const fn bytes(&self) -> usize {
        envelope::BYTES + HEADER_BYTES + self.payload.len()
    }
}

/// Splits a payload into one or more frames. `None` if it is too large for 255 parts (12 MiB).
pub fn seal(header: &Header, payload: &[u8]) -> Option<Vec<Vec<u8>>> {
    let parts = u8::try_from(payload.len().div_ceil(PART_BYTES).max(1)).ok()?;
    let mut rest = payload;
    let frames = (0..parts).map(|part| {
        let (payload, after) = rest.split_at(rest.len().min(PART_BYTES));
        rest = after;
        seal_part(header, part, parts, payload)
    });
    Some(frames.collect())
}

fn seal_part(header: &Header, part: u8, parts: u8, payload: &[u8]) -> Vec<u8> {
    envelope::seal(MAGIC, HEADER_BYTES + payload.len(), |out| {
        out.extend_from_slice(&header.killmail_id.to_le_bytes());
        out.extend_from_slice(&[header.version, header.dictionary, part, parts]);
        out.extend_from_slice(&header.seq.0.to_le_bytes());
        out.extend_from_slice(&header.rev.to_le_bytes());
        out.extend_from_slice(&header.received_at_ms.to_le_bytes());
        out.extend_from_slice(&header.uploaded_at.unwrap_or(UNKNOWN).to_le_bytes());
        out.push(header.origin as u8);
        out.extend_from_slice(&header.age_secs.to_le_bytes());
        out.extend_from_slice(&header.raw_bytes.to_le_bytes());
        out.extend_from_slice(payload);
    })
}

/// Reads the frame at the start of `bytes`; the bytes after it are ignored.
pub fn open(bytes: &[u8]) -> Result<Frame<'_>, Malformed> {
    envelope::open(MAGIC, bytes).and_then(read)
}

fn read(contents: &[u8]) -> Result<Frame<'_>, Malformed> {
    let mut cursor = Cursor::new(contents);
    let killmail_id = cursor.u64()?;
    let (version, dictionary, part, parts) = (cursor.u8()?, cursor.u8()?, cursor.u8()?, cursor.u8()?);
    let header = Header {
        killmail_id,
        version,
        dictionary,
        seq: Seq(cursor.u64()?),
        rev: cursor.u64()?,
        received_at_ms: cursor.i64()?,
        uploaded_at: Some(cursor.i64()?).filter(|at| *at != UNKNOWN),
        origin: decode_origin(cursor.u8()?)?,
        age_secs: cursor.u32()?,
        raw_bytes: cursor.u32()?,
    };
    if part >= parts {
        return Err(Malformed);
    }
    Ok(Frame { header, part, parts, payload: &contents[HEADER_BYTES..] })
}

pub fn decode_origin(byte: u8) -> Result<Origin, Malformed> {
    match byte {
        0 => Ok(Origin::Live),
        1 => Ok(Origin::Backfill),
        _ => Err(Malformed),
    }
}

/// Searches bytes for intact frames; yields where each begins, and the frame.
pub fn find(bytes: &[u8]) -> impl Iterator<Item = (usize, Frame<'_>)> {
    envelope::find(MAGIC, bytes, read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            killmail_id: 140_000_001,
            version: 1,
            dictionary: 1,
            seq: Seq(7),
            rev: 2,
            received_at_ms: 1_700_000_000_123,
            uploaded_at: None,
            origin: Origin::Backfill,
            age_secs: 61,
            raw_bytes: 99,
        }
    }

    #[test]
    fn a_payload_in_parts_is_read_back() {
        let payload: Vec<u8> = (0..PART_BYTES * 2 + 5).map(|n| n as u8).collect();
        let frames = seal(&header(), &payload).expect("three parts fit");
        assert_eq!(frames.len(), 3);
        let opened: Vec<_> = frames.iter().map(|f| open(f).expect("whole")).collect();
        assert!(opened.iter().all(|f| f.header == header() && f.parts == 3));
        assert_eq!(opened.iter().flat_map(|f| f.payload).copied().collect::<Vec<_>>(), payload);
        assert!(frames.iter().all(|f| f.len() <= 64 << 10));
    }

    #[test]
    fn any_flipped_bit_is_detected() {
        let frame = seal(&header(), b"some payload").expect("small").remove(0);
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&damaged), Err(Malformed), "bit {bit}");
        }
    }

    #[test]
    fn frames_are_found_between_other_bytes() {
        let frame = seal(&header(), b"some payload").expect("small").remove(0);
        let mut bytes = vec![0xB5; 9];
        bytes.extend_from_slice(&frame);
        bytes.extend_from_slice(&frame[..20]);
        bytes.extend_from_slice(&frame);
        bytes.extend_from_slice(&MAGIC);
        let found: Vec<usize> = find(&bytes).map(|(at, _)| at).collect();
        assert_eq!(found, [9, 9 + frame.len() + 20]);
    }
}
