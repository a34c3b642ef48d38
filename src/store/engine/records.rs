//! Reads and decodes records and log entries; distinguishes damaged ones from those of a later release.
//!
//! Must not know: the index.

use crate::domain::killmail::Killmail;
use crate::store::engine::{Engine, chunked_values};
use crate::store::error::StoreError;
use crate::store::format::frame::{self, Header};
use crate::store::format::log_entry::{self, LogEntry, Unreadable};
use crate::store::format::record::{Codec, VERSION};
use crate::store::keys::{Key, Tree};

/// How often to read a record whose parts are being replaced by a revision.
const READ_TRIES: u32 = 5;

/// The record of a killmail that the index contains.
pub fn read(engine: &Engine, codec: &Codec, killmail_id: u32) -> Result<(Header, Killmail), StoreError> {
    for _ in 0..READ_TRIES {
        let Some((header, payload)) = frames(engine, killmail_id)? else { continue };
        check_version(&header)?;
        let unpacked = codec.unpack(&header, &payload);
        return unpacked
            .map(|killmail| (header, killmail))
            .map_err(|why| engine.damaged(format!("killmail {killmail_id}: {why}")));
    }
    Err(engine.damaged(format!("the record of killmail {killmail_id}")))
}

/// Checks that this release can decode a record.
///
/// # Errors
/// `TooNew`.
pub fn check_version(header: &Header) -> Result<(), StoreError> {
    if header.version > VERSION {
        return Err(StoreError::TooNew {
            what: "record version",
            found: header.version.into(),
            known: VERSION.into(),
        });
    }
    Ok(())
}

/// Decodes a log entry.
///
/// # Errors
/// `Damaged`, with `what` as the name of the entry; `TooNew`.
pub fn decode_log_entry(
    engine: &Engine,
    bytes: &[u8],
    what: impl FnOnce() -> String,
) -> Result<LogEntry, StoreError> {
    log_entry::decode(bytes).map_err(|why| match why {
        Unreadable::Malformed => engine.damaged(what()),
        Unreadable::Newer(version) => StoreError::TooNew {
            what: "log entry version",
            found: version.into(),
            known: log_entry::VERSION.into(),
        },
    })
}

/// The header of a record that the index contains; checks its frames without decoding it.
pub fn header(engine: &Engine, killmail_id: u32) -> Result<Header, StoreError> {
    (0..READ_TRIES)
        .find_map(|_| frames(engine, killmail_id).transpose())
        .unwrap_or(Err(engine.damaged(format!("the record of killmail {killmail_id}"))))
        .map(|(header, _)| header)
}

/// The header and the joined payloads of a record; `None` if a part is missing, damaged, or of another revision.
fn frames(engine: &Engine, killmail_id: u32) -> Result<Option<(Header, Vec<u8>)>, StoreError> {
    let key = Key::Record(killmail_id).bytes();
    let Some(first) = engine.get(Tree::Records, &key)? else { return Ok(None) };
    let Ok(first) = frame::open(&first) else { return Ok(None) };
    if first.header.killmail_id != u64::from(killmail_id) || first.part != 0 {
        return Ok(None);
    }
    let mut payload = first.payload.to_vec();
    for part in 1..first.parts {
        let Some(next) = engine.get(Tree::Records, &chunked_values::chunk_key(&key, u16::from(part)))? else {
            return Ok(None);
        };
        let Ok(next) = frame::open(&next) else { return Ok(None) };
        if (next.header, next.part) != (first.header, part) {
            return Ok(None);
        }
        payload.extend_from_slice(next.payload);
    }
    Ok(Some((first.header, payload)))
}
