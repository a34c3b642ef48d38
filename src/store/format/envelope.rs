//! The envelope around every value that must be found in a damaged file: magic, length and checksum show where
//! it begins and whether it is intact.
//!
//! ```text
//! magic 4 | length u32 (all of it) | contents | crc32 u32
//! ```
//! Little endian; the checksum covers everything before it.
//!
//! Must not know: what is inside.

use memchr::memmem;

use crate::store::format::varint::{Cursor, Malformed};

/// The first bytes of an envelope, different for each kind of contents.
pub type Magic = [u8; 4];

const HEAD_BYTES: usize = 8;
const CRC_BYTES: usize = 4;
/// Length of an envelope without its contents.
pub const BYTES: usize = HEAD_BYTES + CRC_BYTES;

/// Puts the contents that `write` appends into an envelope. Their length must be `content_bytes`.
pub fn seal(magic: Magic, content_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let length = content_bytes + BYTES;
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(&magic);
    out.extend_from_slice(&(length as u32).to_le_bytes());
    write(&mut out);
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    debug_assert_eq!(out.len(), length, "the contents have the given length");
    out
}

/// The contents of the envelope at the start of `bytes`; the bytes after it are ignored.
///
/// # Errors
/// There is no envelope, or it is damaged.
pub fn open(magic: Magic, bytes: &[u8]) -> Result<&[u8], Malformed> {
    let mut cursor = Cursor::new(bytes);
    if cursor.bytes(magic.len())? != magic {
        return Err(Malformed);
    }
    let length = cursor.u32()? as usize;
    let body = length.checked_sub(CRC_BYTES).filter(|body| *body >= HEAD_BYTES).ok_or(Malformed)?;
    let whole = bytes.get(..length).ok_or(Malformed)?;
    if crc32fast::hash(&whole[..body]).to_le_bytes() != whole[body..] {
        return Err(Malformed);
    }
    Ok(&whole[HEAD_BYTES..body])
}

/// Searches bytes for intact envelopes whose contents `read` accepts; yields where each begins and what was
/// read.
pub fn find<'a, T>(
    magic: Magic,
    bytes: &'a [u8],
    read: fn(&'a [u8]) -> Result<T, Malformed>,
) -> impl Iterator<Item = (usize, T)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(step) = memmem::find(bytes.get(at..)?, &magic) {
            let start = at + step;
            at = start + 1;
            let Ok(contents) = open(magic, &bytes[start..]) else { continue };
            if let Ok(found) = read(contents) {
                at = start + contents.len() + BYTES;
                return Some((start, found));
            }
        }
        None
    })
}
