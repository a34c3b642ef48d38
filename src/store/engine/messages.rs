//! Reads the messages in one segment of the engine's log file, to predict which of them the engine will accept
//! when it opens. It skips those after a damaged message, and it discards a batch from its first message on if
//! it does not find the end of the batch.
//!
//! ```text
//! crc32 u32, flipped (of the body, then of the rest of the head) | kind u8 | length varint | segment varint | page varint | body
//! ```
//!
//! Must not know: what bodies hold.

use memchr::memmem;

use crate::store::engine::segments::SEGMENT_BYTES;

/// Where the first message of a segment begins.
const BEGIN: usize = 20;
/// In fewer bytes at the end of a segment there is no message.
const LEAST_BYTES: usize = 32;
const BROKEN: u8 = 0;
/// Marks the rest of the segment as empty.
const CAP: u8 = 2;
/// The page number, as a varint, of the message at the start of a batch. Its body is the log position of the last
/// message of the batch.
const BATCH: [u8; 9] = [0xFF, 0x65, 0xFD, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];

/// Whether every message up to the end of the segment is intact.
pub fn are_intact(segment: &[u8], written: u64) -> bool {
    let mut at = BEGIN;
    while at + LEAST_BYTES <= SEGMENT_BYTES as usize {
        match read_message(segment.get(at..).unwrap_or_default(), written / SEGMENT_BYTES) {
            Some(Message { kind: CAP, .. }) => return true,
            Some(message) => at += message.length,
            None => return false,
        }
    }
    true
}

/// The log position of the last message of the latest batch that begins in the segment.
pub fn last_batch_end(segment: &[u8]) -> Option<u64> {
    // Batches from before the segment was reused have smaller positions.
    let ends =
        memmem::find_iter(segment, &BATCH).filter_map(|at| segment.get(at + BATCH.len()..)?.first_chunk());
    ends.map(|end| u64::from_le_bytes(*end)).max()
}

struct Message {
    kind: u8,
    /// Including its head, bytes.
    length: usize,
}

/// The message at the start of `bytes`, if it is intact and belongs to this segment.
fn read_message(bytes: &[u8], segment: u64) -> Option<Message> {
    let (crc, mut rest) = bytes.split_first_chunk()?;
    let (kind, after) = rest.split_first()?;
    rest = after;
    let (length, of_segment, _page) = (varint(&mut rest)?, varint(&mut rest)?, varint(&mut rest)?);
    let head = bytes.len() - rest.len();
    let body = rest.get(..usize::try_from(length).ok()?)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(&bytes[crc.len()..head]);
    let is_intact =
        *kind != BROKEN && of_segment == segment && hasher.finalize() ^ u32::MAX == u32::from_le_bytes(*crc);
    is_intact.then_some(Message { kind: *kind, length: head + body.len() })
}

/// Reads a number of one to nine bytes, in the engine's own encoding.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    let more = match first {
        0..=240 => 0,
        241..=248 => 1,
        249 => 2,
        _ => usize::from(first - 247),
    };
    let (more, rest) = rest.split_at_checked(more)?;
    *bytes = rest;
    Some(match (first, more) {
        (_, []) => u64::from(*first),
        (_, [low]) => 240 + 256 * (u64::from(*first) - 241) + u64::from(*low),
        (249, [high, low]) => 2288 + 256 * u64::from(*high) + u64::from(*low),
        _ => more.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)),
    })
}
