//! Reading killmails by id or by number: the newest ones from memory, others from the disk.
//!
//! Must not know: how killmails are selected or written.

use std::sync::{Arc, OnceLock};

use crate::domain::entry::{Entry, SharedEntry, plausible_upload_time};
use crate::domain::facts::Facts;
use crate::domain::id::Seq;
use crate::store::Store;
use crate::store::engine::{chunked_values, records};
use crate::store::error::StoreError;
use crate::store::facts::facts;
use crate::store::format::frame::Header;
use crate::store::format::log_entry::LogEntry;
use crate::store::keys::Key;
use crate::store::query::Hit;

impl Store {
    /// A killmail that is in memory. Never waits for the disk.
    #[must_use]
    pub fn recent(&self, killmail_id: u32) -> Option<SharedEntry> {
        self.resident.read().recent(killmail_id)
    }

    /// A killmail by its id.
    ///
    /// # Errors
    /// The disk.
    pub fn killmail(&self, killmail_id: u32) -> Result<Option<SharedEntry>, StoreError> {
        let seq = {
            let resident = self.resident.read();
            let Some(seq) = resident.index.ids.get(killmail_id) else { return Ok(None) };
            if let Some(entry) = resident.tail.get(seq) {
                return Ok(Some(Arc::clone(entry)));
            }
            seq
        };
        self.read(Hit { seq, killmail_id }).map(Some)
    }

    /// A killmail by its number.
    ///
    /// # Errors
    /// The disk.
    pub fn entry(&self, seq: Seq) -> Result<Option<SharedEntry>, StoreError> {
        let killmail_id = {
            let resident = self.resident.read();
            if let Some(entry) = resident.tail.get(seq) {
                return Ok(Some(Arc::clone(entry)));
            }
            let Some(row) = resident.index.rows.get(seq) else { return Ok(None) };
            row.killmail_id
        };
        self.read(Hit { seq, killmail_id }).map(Some)
    }

    /// The killmails of these hits, in their order.
    ///
    /// # Errors
    /// The disk.
    pub fn entries(&self, hits: &[Hit]) -> Result<Vec<SharedEntry>, StoreError> {
        let in_memory: Vec<Option<SharedEntry>> = {
            let resident = self.resident.read();
            hits.iter().map(|hit| resident.tail.get(hit.seq).cloned()).collect()
        };
        hits.iter().zip(in_memory).map(|(hit, entry)| entry.map_or_else(|| self.read(*hit), Ok)).collect()
    }

    /// The number of a killmail, if it is stored.
    #[must_use]
    pub fn seq_of(&self, killmail_id: u32) -> Option<Seq> {
        self.resident.read().index.ids.get(killmail_id)
    }

    /// Length of the canonical JSON of an entry, bytes; 0 if there is no such entry.
    #[must_use]
    pub fn weight_of(&self, seq: Seq) -> u32 {
        self.resident.read().index.rows.get(seq).map_or(0, |row| row.weight)
    }

    /// When the killmail of an entry happened, unix seconds.
    #[must_use]
    pub fn time_of(&self, seq: Seq) -> Option<i64> {
        self.resident.read().index.rows.get(seq).map(|row| row.time)
    }

    /// Calls `look` with the facts of an entry; `None` if there is no such entry.
    pub(crate) fn with_facts<T>(
        &self,
        seq: Seq,
        look: impl FnOnce(&Facts) -> T,
    ) -> Result<Option<T>, StoreError> {
        let recent = self.resident.read().tail.get(seq).cloned();
        if let Some(entry) = recent {
            return Ok(Some(look(&entry.facts)));
        }
        Ok(self.log_entry(seq)?.map(|entry| look(&entry.facts)))
    }

    fn log_entry(&self, seq: Seq) -> Result<Option<LogEntry>, StoreError> {
        let Some(bytes) = chunked_values::read(&self.engine, Key::LogEntry(seq.0))? else {
            return Ok(None);
        };
        records::decode_log_entry(&self.engine, &bytes, || format!("log entry {seq}")).map(Some)
    }

    /// The newest revision of a killmail. Call it before reading the record: a revision made in between only
    /// makes the record newer.
    fn rev_of(&self, killmail_id: u32) -> u64 {
        self.resident.read().revs.get(&killmail_id).copied().unwrap_or(0)
    }

    /// Checks that a record belongs to its number and is not an older revision.
    fn check(&self, hit: Hit, rev: u64, header: &Header) -> Result<(), StoreError> {
        let id = hit.killmail_id;
        if header.rev < rev {
            return Err(self
                .engine
                .damaged(format!("revision {rev} of killmail {id} is gone, {} is there", header.rev)));
        }
        if header.seq != hit.seq {
            return Err(self
                .engine
                .damaged(format!("the record of killmail {id} is that of number {}", header.seq)));
        }
        Ok(())
    }

    /// Checks the frames of a record that the index knows, without decoding it.
    pub(crate) fn check_frames(&self, hit: Hit) -> Result<(), StoreError> {
        let rev = self.rev_of(hit.killmail_id);
        self.check(hit, rev, &records::header(&self.engine, hit.killmail_id)?)
    }

    /// Reads the record of a killmail that the index knows.
    pub(crate) fn read(&self, hit: Hit) -> Result<SharedEntry, StoreError> {
        let rev = self.rev_of(hit.killmail_id);
        let (header, killmail) = records::read(&self.engine, &self.codec, hit.killmail_id)?;
        self.check(hit, rev, &header)?;
        let facts = facts(&killmail);
        Ok(Arc::new(Entry {
            seq: header.seq,
            rev: header.rev,
            origin: header.origin,
            received_at_ms: header.received_at_ms,
            uploaded_at: plausible_upload_time(header.uploaded_at, killmail.time, header.received_at_ms),
            age_secs: header.age_secs,
            killmail,
            facts,
            json: OnceLock::new(),
        }))
    }
}
