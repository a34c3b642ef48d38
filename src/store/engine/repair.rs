//! The log from the records: entries that are missing or bent are made again, since a record holds all that
//! its entry does.
//!
//! Must not know: the index.

use bytes::Bytes;

use crate::domain::killmail::Killmail;
use crate::store::engine::meta::Numbers;
use crate::store::engine::{Engine, chunked_values, records};
use crate::store::error::StoreError;
use crate::store::facts::facts;
use crate::store::format::frame::{self, Header};
use crate::store::format::log_entry::{self, LogEntry};
use crate::store::format::record::Codec;
use crate::store::keys::{Key, Tree};

/// Entries of one transaction.
const TRANSACTION_MAX: usize = 500;

/// Makes entries of the log again, as far as their records are there; says how many.
pub fn log_from_records(
    engine: &Engine,
    codec: &Codec,
    encode: fn(&Killmail) -> Bytes,
    numbers: &Numbers,
) -> Result<u64, StoreError> {
    let whole = whole_entries(engine, numbers)?;
    let (mut writes, mut made) = (Vec::new(), 0);
    for pair in engine.scan(Tree::Records, &[]) {
        let (key, value) = pair?;
        // Keys of further parts are longer.
        if key.len() != 8 {
            continue;
        }
        let Ok(frame) = frame::open(&value) else { continue };
        let Ok(killmail_id) = u32::try_from(frame.header.killmail_id) else { continue };
        if whole.get(frame.header.seq.0 as usize).copied().unwrap_or(true) {
            continue;
        }
        let (header, killmail) = records::read(engine, codec, killmail_id)?;
        let line = line_of(&header, &killmail, encode);
        writes.extend(chunked_values::writes(Key::LogEntry(header.seq.0), &log_entry::encode(&line)));
        made += 1;
        if writes.len() >= TRANSACTION_MAX {
            engine.commit(std::mem::take(&mut writes))?;
        }
    }
    engine.commit(writes)?;
    tracing::warn!(
        "{made} entries of the log were missing or bent and have been made again from their records"
    );
    Ok(made)
}

/// By number: whether the log's entry is there and whole. `TooNew` if a later killstream wrote one: nothing
/// is made again then.
fn whole_entries(engine: &Engine, numbers: &Numbers) -> Result<Vec<bool>, StoreError> {
    let mut whole = vec![false; numbers.head as usize + 1];
    for seq in 1..=numbers.head {
        let bytes = chunked_values::read(engine, Key::LogEntry(seq))?;
        whole[seq as usize] = match bytes.map(|bytes| records::line(engine, &bytes, String::new)) {
            Some(Err(error @ StoreError::TooNew { .. })) => return Err(error),
            found => found.is_some_and(|line| line.is_ok()),
        };
    }
    Ok(whole)
}

/// The entry that belongs to a record.
pub fn line_of(header: &Header, killmail: &Killmail, encode: fn(&Killmail) -> Bytes) -> LogEntry {
    LogEntry {
        facts: facts(killmail),
        received_at_ms: header.received_at_ms,
        origin: header.origin,
        age_secs: header.age_secs,
        weight: u32::try_from(encode(killmail).len()).unwrap_or(u32::MAX),
        rev: header.rev,
    }
}
