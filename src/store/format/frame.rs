//! The frame around every stored killmail: enough to find it in a damaged file and to know that it is whole.
//!
//! ```text
//! killmail id u64 | version u8 | dictionary u8 | part u8 | parts u8 | seq u64 | rev u64
//! | received_at_ms i64 | uploaded_at i64 (minimum: unknown) | origin u8 | age_secs u32 | raw length u32 | payload
//! ```
//! Little endian, in an envelope. A payload beyond one value's limit is cut into parts, each in a frame of
//! its own. This is the only file that makes, reads or looks for frames.
//!
//! Must not know: what is in the payload, or where frames are kept.

use crate::domain::entry::Origin;
use crate::domain::id::Seq;
use crate::store::format::envelope::{self, Magic};
use crate::store::format::varint::{Cursor, Malformed};

const MAGIC: Magic = [0xB5, b'K', b'M', 0x1F];
/// Bytes between the length and the payload.
const HEADER_BYTES: usize = 53;
/// No frame is longer, bytes.
pub const FRAME_MAX: usize = envelope::BYTES + HEADER_BYTES + PART_BYTES;
/// Payload bytes of one part: large values make their neighbours in the engine slow, and 64 KiB is the
/// house's limit.
pub const PART_BYTES: usize = 48 << 10;
const UNKNOWN: i64 = i64::MIN;

/// What a frame says of its killmail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The killmail.
    pub killmail_id: u64,
    /// How the payload is encoded.
    pub version: u8,
    /// The dictionary it is compressed with, from 1 on: there is no payload without one.
    pub dictionary: u8,
    /// The number in the log.
    pub seq: Seq,
    /// The revision; 0 at first.
    pub rev: u64,
    /// When we got it, unix milliseconds.
    pub received_at_ms: i64,
    /// When the source published it, unix seconds.
    pub uploaded_at: Option<i64>,
    /// How it came.
    pub origin: Origin,
    /// How old it was then, seconds.
    pub age_secs: u32,
    /// Length of the payload before compression, bytes.
    pub raw_bytes: u32,
}

/// One frame, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it says of its killmail.
    pub header: Header,
    /// Which part of the payload it holds, from 0.
    pub part: u8,
    /// How many parts there are.
    pub parts: u8,
    /// The bytes of that part.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Its length with the envelope, bytes.
    pub const fn bytes(&self) -> usize {
        envelope::BYTES + HEADER_BYTES + self.payload.len()
    }
}

/// Frames a payload: one frame, or several if it is large; `None` if it is beyond what parts can hold (12
/// MiB).
pub fn seal(header: &Header, payload: &[u8]) -> Option<Vec<Vec<u8>>> {
    let parts = u8::try_from(payload.len().div_ceil(PART_BYTES).max(1)).ok()?;
    let mut rest = payload;
    let frames = (0..parts).map(|part| {
        let (piece, after) = rest.split_at(rest.len().min(PART_BYTES));
        rest = after;
        seal_part(header, part, parts, piece)
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

/// Reads the frame at the start of `bytes`; what follows it is left alone.
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
        origin: origin(cursor.u8()?)?,
        age_secs: cursor.u32()?,
        raw_bytes: cursor.u32()?,
    };
    if part >= parts {
        return Err(Malformed);
    }
    Ok(Frame { header, part, parts, payload: &contents[HEADER_BYTES..] })
}

/// The byte of an origin, read back.
pub fn origin(byte: u8) -> Result<Origin, Malformed> {
    match byte {
        0 => Ok(Origin::Live),
        1 => Ok(Origin::Backfill),
        _ => Err(Malformed),
    }
}

/// Every whole frame in raw bytes, with where it begins; what lies between is passed over.
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
    fn frames_come_back_whole_and_in_parts() {
        let payload: Vec<u8> = (0..PART_BYTES * 2 + 5).map(|n| n as u8).collect();
        let frames = seal(&header(), &payload).expect("three parts fit");
        assert_eq!(frames.len(), 3);
        let opened: Vec<_> = frames.iter().map(|f| open(f).expect("whole")).collect();
        assert!(opened.iter().all(|f| f.header == header() && f.parts == 3));
        assert_eq!(opened.iter().flat_map(|f| f.payload).copied().collect::<Vec<_>>(), payload);
        assert!(frames.iter().all(|f| f.len() <= 64 << 10));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let frame = seal(&header(), b"some payload").expect("small").remove(0);
        for bit in 0..frame.len() * 8 {
            let mut bent = frame.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&bent), Err(Malformed), "bit {bit}");
        }
    }

    #[test]
    fn frames_are_found_between_rubbish() {
        let frame = seal(&header(), b"some payload").expect("small").remove(0);
        let mut raw = vec![0xB5; 9];
        raw.extend_from_slice(&frame);
        raw.extend_from_slice(&frame[..20]);
        raw.extend_from_slice(&frame);
        raw.extend_from_slice(&MAGIC);
        let found: Vec<usize> = find(&raw).map(|(at, _)| at).collect();
        assert_eq!(found, [9, 9 + frame.len() + 20]);
    }
}
