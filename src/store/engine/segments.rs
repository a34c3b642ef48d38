//! The layout of the engine's log file, as far as repair needs it: segments of 512 KiB, each with the log position
//! of its first byte (the number of bytes ever written before it).
//!
//! Segments are reused once nothing in them is needed, so their order in the file is not the order in which they
//! were written.
//!
//! Must not know: what is written in them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::store::format::varint::Cursor;

/// The default of the engine, which the store has never changed.
pub const SEGMENT_BYTES: u64 = 512 << 10;
const HEADER_BYTES: usize = 20;
const CRC_FLIP: u32 = u32::MAX;
const NUMBER_FLIP: u64 = i64::MAX as u64;

/// A segment with an intact header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the file.
    pub at: u64,
    /// Log position of its first byte.
    pub written: u64,
    /// Everything before this log position was in the file when the segment was started.
    pub stable: u64,
}

/// The engine's log file in a data folder.
pub fn db_path(data_dir: &Path) -> PathBuf {
    data_dir.join("store").join("db")
}

/// The folder of values that are too large for a segment: one file each, named by their log position.
pub fn blobs_path(data_dir: &Path) -> PathBuf {
    data_dir.join("store").join("blobs")
}

/// The log position from which the engine reads its log when it opens: up to there it had read the log when it
/// last opened. 0 if it never did.
pub fn replay_start(data_dir: &Path) -> io::Result<u64> {
    let mut newest = 0;
    for entry in fs::read_dir(data_dir.join("store"))? {
        let name = entry?.file_name();
        let position = name
            .to_str()
            .and_then(|name| name.strip_prefix("snap."))
            .and_then(|position| u64::from_str_radix(position, 16).ok());
        newest = newest.max(position.unwrap_or(0));
    }
    Ok(newest)
}

/// Every segment with an intact header.
pub fn segments(file: &File) -> io::Result<Vec<Segment>> {
    Ok(read_headers(file)?.into_iter().filter_map(|(_, segment)| segment).collect())
}

/// The offset of each segment, and the segment if its header is intact.
pub fn read_headers(file: &File) -> io::Result<Vec<(u64, Option<Segment>)>> {
    let mut found = Vec::new();
    let length = file.metadata()?.len();
    for at in (0..length.saturating_sub(HEADER_BYTES as u64)).step_by(SEGMENT_BYTES as usize) {
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, at)?;
        found.push((at, decode_header(&bytes, at)));
    }
    Ok(found)
}

fn decode_header(bytes: &[u8; HEADER_BYTES], at: u64) -> Option<Segment> {
    let mut cursor = Cursor::new(bytes);
    let crc = cursor.u32().ok()? ^ CRC_FLIP;
    let (written, stable) = (cursor.u64().ok()? ^ NUMBER_FLIP, cursor.u64().ok()? ^ NUMBER_FLIP);
    // As long as nothing is stable, the engine writes a negative number.
    let stable = if stable > i64::MAX as u64 { 0 } else { stable };
    (crc == crc32fast::hash(&bytes[4..]) && written <= i64::MAX as u64).then_some(Segment {
        at,
        written,
        stable,
    })
}

/// Fills the buffer from an offset on, as far as the file goes. Returns the number of bytes read.
pub fn read_up_to(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], at + length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}
