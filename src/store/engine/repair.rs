//! Rebuilds log entries that are missing or damaged from their records, which contain everything that a log entry
//! does.
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

/// Writes of one transaction.
const TRANSACTION_MAX: usize = 500;

/// Rebuilds log entries as far as their records exist. Returns how many.
pub fn rebuild_log(
    engine: &Engine,
    codec: &Codec,
    encode: fn(&Killmail) -> Bytes,
    numbers: &Numbers,
) -> Result<u64, StoreError> {
    let intact = find_intact_entries(engine, numbers)?;
    let (mut writes, mut rebuilt) = (Vec::new(), 0);
    for pair in engine.scan(Tree::Records, &[]) {
        let (key, value) = pair?;
        // The keys of further parts are longer.
        if key.len() != 8 {
            continue;
        }
        let Ok(frame) = frame::open(&value) else { continue };
        let Ok(killmail_id) = u32::try_from(frame.header.killmail_id) else { continue };
        if intact.get(frame.header.seq.0 as usize).copied().unwrap_or(true) {
            continue;
        }
        let (header, killmail) = records::read(engine, codec, killmail_id)?;
        let entry = log_entry_of(&header, &killmail, encode);
        writes.extend(chunked_values::writes(Key::LogEntry(header.seq.0), &log_entry::encode(&entry)));
        rebuilt += 1;
        if writes.len() >= TRANSACTION_MAX {
            engine.commit(std::mem::take(&mut writes))?;
        }
    }
    engine.commit(writes)?;
    tracing::warn!("rebuilt {rebuilt} log entries from their records because they were missing or damaged");
    Ok(rebuilt)
}

/// For each number, whether its log entry exists and is intact. Fails with `TooNew` if a later release wrote one,
/// so that nothing is rebuilt then.
fn find_intact_entries(engine: &Engine, numbers: &Numbers) -> Result<Vec<bool>, StoreError> {
    let mut intact = vec![false; numbers.head as usize + 1];
    for seq in 1..=numbers.head {
        let bytes = chunked_values::read(engine, Key::LogEntry(seq))?;
        intact[seq as usize] = match bytes.map(|bytes| records::decode_log_entry(engine, &bytes, String::new))
        {
            Some(Err(error @ StoreError::TooNew { .. })) => return Err(error),
            found => found.is_some_and(|entry| entry.is_ok()),
        };
    }
    Ok(intact)
}

/// The log entry of a record.
pub fn log_entry_of(header: &Header, killmail: &Killmail, encode: fn(&Killmail) -> Bytes) -> LogEntry {
    LogEntry {
        facts: facts(killmail),
        received_at_ms: header.received_at_ms,
        origin: header.origin,
        age_secs: header.age_secs,
        weight: u32::try_from(encode(killmail).len()).unwrap_or(u32::MAX),
        rev: header.rev,
    }
}
