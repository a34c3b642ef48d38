//! Records and lines of the log on disk, decoded: what is damaged is told from what a later killstream wrote.
//!
//! Must not know: the index.

use crate::domain::killmail::Killmail;
use crate::store::engine::{Engine, chunked_values};
use crate::store::error::StoreError;
use crate::store::format::frame::{self, Header};
use crate::store::format::log_entry::{self, LogEntry, Unreadable};
use crate::store::format::record::{Codec, VERSION};
use crate::store::keys::{Key, Tree};

/// A record whose parts are being replaced is read again, so often at most.
const READ_TRIES: u32 = 5;

/// The record of a killmail that must be there.
pub fn read(engine: &Engine, codec: &Codec, killmail_id: u32) -> Result<(Header, Killmail), StoreError> {
    for _ in 0..READ_TRIES {
        let Some((header, payload)) = frames(engine, killmail_id)? else { continue };
        must_be_known(&header)?;
        let unpacked = codec.unpack(&header, &payload);
        return unpacked
            .map(|killmail| (header, killmail))
            .map_err(|why| engine.damaged(format!("killmail {killmail_id}: {why}")));
    }
    Err(engine.damaged(format!("the record of killmail {killmail_id}")))
}

/// Makes sure that no later killstream encoded a record.
///
/// # Errors
/// `TooNew`.
pub fn must_be_known(header: &Header) -> Result<(), StoreError> {
    if header.version > VERSION {
        return Err(StoreError::TooNew {
            what: "record version",
            found: header.version.into(),
            known: VERSION.into(),
        });
    }
    Ok(())
}

/// The line of the log that these bytes hold.
///
/// # Errors
/// `Damaged`, with what it is a line of; `TooNew`.
pub fn line(engine: &Engine, bytes: &[u8], what: impl FnOnce() -> String) -> Result<LogEntry, StoreError> {
    log_entry::decode(bytes).map_err(|why| match why {
        Unreadable::Malformed => engine.damaged(what()),
        Unreadable::Newer(version) => StoreError::TooNew {
            what: "log entry version",
            found: version.into(),
            known: log_entry::VERSION.into(),
        },
    })
}

/// What the frames of a record that must be there say, without decoding it.
pub fn header(engine: &Engine, killmail_id: u32) -> Result<Header, StoreError> {
    let whole = (0..READ_TRIES).find_map(|_| frames(engine, killmail_id).transpose());
    whole
        .unwrap_or(Err(engine.damaged(format!("the record of killmail {killmail_id}"))))
        .map(|(header, _)| header)
}

/// The parts of a record, put together; `None` if they are missing, not whole, or of different revisions.
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
