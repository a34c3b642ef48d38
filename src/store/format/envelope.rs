//! What is around everything that must be found in a damaged file and known to be whole.
//!
//! ```text
//! magic 4 | length u32 (all of it) | contents | crc32 u32
//! ```
//! Little endian; the checksum covers all before it.
//!
//! Must not know: what is inside.

use memchr::memmem;

use crate::store::format::varint::{Cursor, Malformed};

/// The first bytes, which tell one kind from another.
pub type Magic = [u8; 4];

const HEAD_BYTES: usize = 8;
const CRC_BYTES: usize = 4;
/// Bytes around the contents.
pub const BYTES: usize = HEAD_BYTES + CRC_BYTES;

/// Puts so many bytes of contents, as they are written, into an envelope.
pub fn seal(magic: Magic, bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let length = bytes + BYTES;
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(&magic);
    out.extend_from_slice(&(length as u32).to_le_bytes());
    write(&mut out);
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    debug_assert_eq!(out.len(), length, "it was said how many bytes are written");
    out
}

/// The contents of the envelope these bytes begin with; what follows it is left alone.
///
/// # Errors
/// There is none, or it is not whole.
pub fn open(magic: Magic, bytes: &[u8]) -> Result<&[u8], Malformed> {
    let mut cursor = Cursor::new(bytes);
    if cursor.take(magic.len())? != magic {
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

/// Whatever can be read from whole envelopes in raw bytes, with where each begins; what lies between is
/// passed over.
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
