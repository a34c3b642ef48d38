//! Killmails by key: by id, by number; from memory where they are in the tail, else from the disk.
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
    /// A killmail of the tail. Never waits for the disk.
    #[must_use]
    pub fn recent(&self, killmail_id: u32) -> Option<SharedEntry> {
        self.memory.read().recent(killmail_id)
    }

    /// A killmail by its id.
    ///
    /// # Errors
    /// The disk.
    pub fn killmail(&self, killmail_id: u32) -> Result<Option<SharedEntry>, StoreError> {
        let seq = {
            let memory = self.memory.read();
            let Some(seq) = memory.index.ids.get(killmail_id) else { return Ok(None) };
            if let Some(entry) = memory.tail.get(seq) {
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
            let memory = self.memory.read();
            if let Some(entry) = memory.tail.get(seq) {
                return Ok(Some(Arc::clone(entry)));
            }
            let Some(row) = memory.index.rows.get(seq) else { return Ok(None) };
            row.killmail_id
        };
        self.read(Hit { seq, killmail_id }).map(Some)
    }

    /// The killmails of a selection, in its order.
    ///
    /// # Errors
    /// The disk.
    pub fn entries(&self, hits: &[Hit]) -> Result<Vec<SharedEntry>, StoreError> {
        let kept: Vec<Option<SharedEntry>> = {
            let memory = self.memory.read();
            hits.iter().map(|hit| memory.tail.get(hit.seq).cloned()).collect()
        };
        hits.iter().zip(kept).map(|(hit, kept)| kept.map_or_else(|| self.read(*hit), Ok)).collect()
    }

    /// The number of a killmail.
    #[must_use]
    pub fn seq_of(&self, killmail_id: u32) -> Option<Seq> {
        self.memory.read().index.ids.get(killmail_id)
    }

    /// Length of the canonical JSON of an entry, bytes; 0 if there is no such entry.
    #[must_use]
    pub fn weight_of(&self, seq: Seq) -> u32 {
        self.memory.read().index.rows.get(seq).map_or(0, |row| row.weight)
    }

    /// When the killmail of an entry happened, unix seconds.
    #[must_use]
    pub fn time_of(&self, seq: Seq) -> Option<i64> {
        self.memory.read().index.rows.get(seq).map(|row| row.time)
    }

    /// Looks at the facts of an entry; `None` if there is no such entry.
    pub(crate) fn with_facts<T>(
        &self,
        seq: Seq,
        look: impl FnOnce(&Facts) -> T,
    ) -> Result<Option<T>, StoreError> {
        let recent = self.memory.read().tail.get(seq).cloned();
        if let Some(entry) = recent {
            return Ok(Some(look(&entry.facts)));
        }
        Ok(self.line(seq)?.map(|line| look(&line.facts)))
    }

    /// The line of the log with this number.
    fn line(&self, seq: Seq) -> Result<Option<LogEntry>, StoreError> {
        let Some(bytes) = chunked_values::read(&self.engine, Key::LogEntry(seq.0))? else {
            return Ok(None);
        };
        records::decode_log_entry(&self.engine, &bytes, || format!("log entry {seq}")).map(Some)
    }

    /// The newest revision of a killmail. To be asked before its record is read: a revision in between only
    /// makes the record newer.
    fn rev_of(&self, killmail_id: u32) -> u64 {
        self.memory.read().revs.get(&killmail_id).copied().unwrap_or(0)
    }

    /// A record must be that of its number, and no older revision.
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

    /// A record that the index knows must be whole; it is not decoded.
    pub(crate) fn check_frames(&self, hit: Hit) -> Result<(), StoreError> {
        let rev = self.rev_of(hit.killmail_id);
        self.check(hit, rev, &records::header(&self.engine, hit.killmail_id)?)
    }

    /// The record of a killmail that the index knows.
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
