//! The messages in one segment of the engine's main file, as far as it matters which of them the engine will
//! take as it opens: those behind a broken one it passes over, and a batch whose end it does not find it
//! takes for torn from its first message on.
//!
//! ```text
//! crc32 u32, flipped (of the body, then of the rest of the head) | kind u8 | length varint | segment varint | page varint | body
//! ```
//!
//! Must not know: what bodies hold.

use memchr::memmem;

use crate::store::engine::segments::SEGMENT_BYTES;

/// Bytes before the first message.
const BEGIN: usize = 20;
/// What is left at the end of a segment when no message fits any more.
const LEAST_BYTES: usize = 32;
const BROKEN: u8 = 0;
/// Says that the rest of the segment is empty.
const CAP: u8 = 2;
/// The page named at the head of a batch, as a varint; its body is the place in time of the batch's last
/// message.
const BATCH: [u8; 9] = [0xFF, 0x65, 0xFD, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];

/// Whether every message up to the end of the segment is whole.
pub fn are_whole(segment: &[u8], written: u64) -> bool {
    let mut at = BEGIN;
    while at + LEAST_BYTES <= SEGMENT_BYTES as usize {
        match message(segment.get(at..).unwrap_or_default(), written / SEGMENT_BYTES) {
            Some((CAP, _)) => return true,
            Some((_, length)) => at += length,
            None => return false,
        }
    }
    true
}

/// Where the latest of the batches that begin in the segment ends: the place in time of its last message.
pub fn last_batch_end(segment: &[u8]) -> Option<u64> {
    // What the segment held before it was used again says less.
    let ends =
        memmem::find_iter(segment, &BATCH).filter_map(|at| segment.get(at + BATCH.len()..)?.first_chunk());
    ends.map(|end| u64::from_le_bytes(*end)).max()
}

/// Kind and length of the message these bytes begin with, if it is whole and of this segment.
fn message(bytes: &[u8], segment: u64) -> Option<(u8, usize)> {
    let (crc, mut rest) = bytes.split_first_chunk()?;
    let (kind, after) = rest.split_first()?;
    rest = after;
    let (length, of, _page) = (varint(&mut rest)?, varint(&mut rest)?, varint(&mut rest)?);
    let head = bytes.len() - rest.len();
    let body = rest.get(..usize::try_from(length).ok()?)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(&bytes[crc.len()..head]);
    let whole = *kind != BROKEN && of == segment && hasher.finalize() ^ u32::MAX == u32::from_le_bytes(*crc);
    whole.then_some((*kind, head + body.len()))
}

/// Takes a number of one to nine bytes.
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
