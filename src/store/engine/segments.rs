//! What a raw file of the engine looks like, as far as mending needs it: segments of 512 KiB, each with the
//! place in time of its first byte.
//!
//! Segments are used again when nothing in them is needed any more, so their order in the file is not that in
//! which they were written.
//!
//! Must not know: what is written in them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::store::format::varint::Cursor;

/// Bytes of a segment: the engine's default, which the store never changed.
pub const SEGMENT_BYTES: u64 = 512 << 10;
const HEADER_BYTES: usize = 20;
const CRC_FLIP: u32 = u32::MAX;
const NUMBER_FLIP: u64 = i64::MAX as u64;

/// A segment with a whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file, bytes.
    pub at: u64,
    /// The place in time of its first byte: bytes ever written before it.
    pub written: u64,
    /// Everything up to this place in time was in the file when the segment was begun.
    pub stable: u64,
}

/// The engine's main file in a data folder.
pub fn db_path(data_dir: &Path) -> PathBuf {
    data_dir.join("store").join("db")
}

/// The folder of values the engine keeps in files of their own, named by their place in time.
pub fn blobs_path(data_dir: &Path) -> PathBuf {
    data_dir.join("store").join("blobs")
}

/// How far the engine had read when it last opened, a place in time; from there on it reads again. 0 if it
/// never did.
pub fn last_opened(data_dir: &Path) -> io::Result<u64> {
    let mut newest = 0;
    for entry in fs::read_dir(data_dir.join("store"))? {
        let name = entry?.file_name();
        let place = name
            .to_str()
            .and_then(|name| name.strip_prefix("snap."))
            .and_then(|place| u64::from_str_radix(place, 16).ok());
        newest = newest.max(place.unwrap_or(0));
    }
    Ok(newest)
}

/// Every segment with a whole header.
pub fn segments(file: &File) -> io::Result<Vec<Segment>> {
    Ok(headers(file)?.into_iter().filter_map(|(_, segment)| segment).collect())
}

/// Where each segment begins in the file, and what its header says if that is whole.
pub fn headers(file: &File) -> io::Result<Vec<(u64, Option<Segment>)>> {
    let mut found = Vec::new();
    let length = file.metadata()?.len();
    for at in (0..length.saturating_sub(HEADER_BYTES as u64)).step_by(SEGMENT_BYTES as usize) {
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, at)?;
        found.push((at, header(&bytes, at)));
    }
    Ok(found)
}

fn header(bytes: &[u8; HEADER_BYTES], at: u64) -> Option<Segment> {
    let mut cursor = Cursor::new(bytes);
    let crc = cursor.u32().ok()? ^ CRC_FLIP;
    let (written, stable) = (cursor.u64().ok()? ^ NUMBER_FLIP, cursor.u64().ok()? ^ NUMBER_FLIP);
    // Before anything was stable the engine writes a negative number.
    let stable = if stable > i64::MAX as u64 { 0 } else { stable };
    (crc == crc32fast::hash(&bytes[4..]) && written <= i64::MAX as u64).then_some(Segment {
        at,
        written,
        stable,
    })
}

/// Fills the buffer from a place in the file on, as far as the file goes; how far that was.
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
