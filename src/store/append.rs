//! Appending: a new killmail gets the next number, one that adds something to a known killmail revises it, and
//! readers see neither before it is on disk.
//!
//! Encoding happens before the writer lock is taken and is spread over all cores. Under the lock are one
//! transaction, one sync, and the publication to memory.
//!
//! Must not know: where killmails come from; how they are found again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::domain::entry::{Entry, is_implausible, plausible_upload_time};
use crate::domain::hash::is_known;
use crate::domain::id::Seq;
use crate::domain::killmail::Killmail;
use crate::domain::merge::compare::{MergeOutcome, differs_by_provenance_only};
use crate::domain::merge::killmails::merge;
use crate::store::disk_space::{free_bytes, growth_bytes};
use crate::store::engine::meta::Numbers;
use crate::store::engine::{Write, chunked_values, journal};
use crate::store::error::StoreError;
use crate::store::facts::facts;
use crate::store::format::frame::{self, Header};
use crate::store::format::log_entry::{self, LogEntry};
use crate::store::format::record::VERSION;
use crate::store::incoming::{Appended, Checkpoint, Incoming};
use crate::store::index::rows::Row;
use crate::store::keys::{Key, Tree};
use crate::store::mirror::file_numbers::{AssignedFiles, Entries};
use crate::store::mirror::revision_notices::AssignedNotices;
use crate::store::transaction::{Draft, Prepared, Revision, Transaction};
use crate::store::writer::Writer;
use crate::store::{Store, arrival};
use crate::tasks;

/// Killmails of one transaction at most: the engine blocks all reads while it commits.
const TRANSACTION_MAX: usize = 1_000;
/// Entries published to memory while the lock is held.
const PUBLISH_STEP: usize = 16;
/// Fewer killmails than this are encoded on the calling thread.
const SPREAD_MIN: usize = 32;

impl Store {
    /// Appends killmails in this order, and stores with the last of them how far their source was read. On
    /// disk when this returns. More than 1,000 are written in several transactions.
    ///
    /// # Errors
    /// `NoSpace` before anything is written; otherwise what the disk reports. After a failed write the store
    /// is read-only.
    pub fn append(
        &self,
        mut batch: Vec<Incoming>,
        mut checkpoint: Option<Checkpoint>,
    ) -> Result<Vec<Appended>, StoreError> {
        self.check_space()?;
        for incoming in &mut batch {
            let Incoming { killmail, received_at_ms, uploaded_at, .. } = incoming;
            *uploaded_at = plausible_upload_time(*uploaded_at, killmail.time, *received_at_ms);
            killmail.time_implausible = is_implausible(killmail.time, *received_at_ms);
        }
        let mut appended = Vec::with_capacity(batch.len());
        let mut rest = batch.into_iter();
        loop {
            let part: Vec<Incoming> = rest.by_ref().take(TRANSACTION_MAX).collect();
            let last = rest.len() == 0;
            let prepared = self.prepare_unknown(&part)?;
            appended.extend(self.write(part, prepared, if last { checkpoint.take() } else { None })?);
            if last {
                return Ok(appended);
            }
            self.check_space()?;
        }
    }

    /// How far a source was read.
    ///
    /// # Errors
    /// The disk.
    pub fn checkpoint(&self, source: &str) -> Result<Option<Vec<u8>>, StoreError> {
        chunked_values::read(&self.engine, Key::Checkpoint(source))
    }

    /// Why the store is read-only, once a write has failed.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.writer.lock().failed.clone()
    }

    /// Whether there is enough free space to write.
    #[must_use]
    pub fn has_space(&self) -> bool {
        self.lack_of_space().is_none()
    }

    /// Why there is not enough free space to write: how much is free, and how much must stay free.
    #[must_use]
    pub fn lack_of_space(&self) -> Option<String> {
        self.check_space().err().map(|error| error.to_string())
    }

    /// Checks that there is enough free space to write.
    ///
    /// # Errors
    /// `NoSpace`; the file system.
    pub fn check_space(&self) -> Result<(), StoreError> {
        let dir = self.engine.dir();
        let free = free_bytes(dir)
            .map_err(StoreError::io("ask for free space at", dir))?
            .min(growth_bytes(self.engine.file_bytes()?));
        let min = self.config.min_free_bytes;
        if free < min { Err(StoreError::NoSpace { free, min }) } else { Ok(()) }
    }

    /// Prepares the killmails whose ids are not stored yet. Another writer may store one of them before the
    /// lock is taken; that work is wasted.
    fn prepare_unknown(&self, part: &[Incoming]) -> Result<Vec<Option<Prepared>>, StoreError> {
        let unknown: Vec<bool> = {
            let resident = self.resident.read();
            part.iter()
                .map(|incoming| resident.index.ids.get(incoming.killmail.killmail_id).is_none())
                .collect()
        };
        let killmails: Vec<&Killmail> =
            part.iter().zip(&unknown).filter(|(_, unknown)| **unknown).map(|(i, _)| &i.killmail).collect();
        let mut prepared = if killmails.len() < SPREAD_MIN {
            self.prepare(&killmails)?
        } else {
            let parts = tasks::map_chunks(&killmails, |killmails| self.prepare(killmails));
            parts.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect()
        }
        .into_iter();
        Ok(unknown.into_iter().map(|unknown| if unknown { prepared.next() } else { None }).collect())
    }

    fn prepare(&self, killmails: &[&Killmail]) -> Result<Vec<Prepared>, StoreError> {
        let packed = self
            .codec
            .pack(killmails.iter().copied())
            .map_err(|why| StoreError::Engine { what: "encode a killmail", why })?;
        let rest = killmails.iter().map(|killmail| (facts(killmail), (self.encode)(killmail)));
        Ok(rest.zip(packed).map(|((facts, json), packed)| Prepared { facts, json, packed }).collect())
    }

    fn prepare_one(&self, killmail: &Killmail) -> Result<Prepared, StoreError> {
        let why = "nothing came back".to_owned();
        self.prepare(&[killmail])?.pop().ok_or(StoreError::Engine { what: "encode a killmail", why })
    }

    /// Writes and publishes one transaction.
    fn write(
        &self,
        part: Vec<Incoming>,
        prepared: Vec<Option<Prepared>>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Vec<Appended>, StoreError> {
        let mut writer = self.writer.lock();
        if let Some(what) = &writer.failed {
            return Err(StoreError::Failed { what: what.clone() });
        }
        let mut transaction = Transaction::new(writer.numbers);
        for (incoming, prepared) in part.into_iter().zip(prepared) {
            self.draft(&mut transaction, incoming, prepared)?;
        }
        for killmail_id in &transaction.conflicts {
            writer.conflicts.log(*killmail_id);
        }
        self.conflicts.store(transaction.numbers.conflicts, Ordering::Relaxed);
        if transaction.drafts.is_empty() && checkpoint.is_none() {
            writer.numbers = transaction.numbers;
            return Ok(transaction.into_appended());
        }
        let mut writes = self.writes(&transaction, checkpoint)?;
        let (files, notices) = self.assign_files(&writer, &transaction);
        writes.extend(files.writes().chain(notices.writes()));
        let frames = journal::frames(&writes);
        if let Err(error) = self.engine.commit(writes) {
            writer.failed = Some(error.to_string());
            return Err(error);
        }
        writer.numbers = transaction.numbers;
        writer.ledger.record(&transaction.numbers, transaction.revisions());
        writer.journal.add(&frames);
        writer.notices.apply(notices, files.newest());
        self.revised.store(transaction.numbers.rev, Ordering::Relaxed);
        self.publish(&transaction.drafts);
        // After the entries, so that nobody asks for a file whose entry cannot be read yet.
        self.files.write().apply(files);
        let mark = self.mark(&writer.numbers);
        self.snapshots.lock().start_if_due(
            self.config.snapshot_every,
            self.engine.dir(),
            &self.resident,
            mark,
        );
        Ok(transaction.into_appended())
    }

    /// Assigns the next number to an entry that is not a killmail: `write` makes the write for the
    /// transaction, `publish` makes it visible in memory before the head advances.
    pub(crate) fn write_span(
        &self,
        write: impl FnOnce(Seq) -> Write,
        checkpoint: Option<Checkpoint>,
        publish: impl FnOnce(Seq),
    ) -> Result<Seq, StoreError> {
        let mut writer = self.writer.lock();
        if let Some(what) = &writer.failed {
            return Err(StoreError::Failed { what: what.clone() });
        }
        let numbers = Numbers { head: writer.numbers.head + 1, ..writer.numbers };
        let seq = Seq(numbers.head);
        let mut writes = vec![write(seq), Write::new(Key::Numbers, numbers.to_bytes())];
        writes.extend(checkpoint_writes(checkpoint));
        let entries = Entries { head: seq.0 - 1, new_head: seq.0, without_hash: vec![seq.0], late: vec![] };
        let files = self.files.read().assign(&entries);
        writes.extend(files.writes());
        if let Err(error) = self.engine.commit(writes) {
            writer.failed = Some(error.to_string());
            return Err(error);
        }
        writer.numbers = numbers;
        writer.ledger.record(&numbers, std::iter::empty());
        publish(seq);
        self.resident.write().index.skip_to(seq);
        self.files.write().apply(files);
        Ok(seq)
    }

    /// Assigns mirror files to what a transaction writes, and notices of what it revises.
    fn assign_files(&self, writer: &Writer, transaction: &Transaction) -> (AssignedFiles, AssignedNotices) {
        let files = self.files.read();
        let mut entries = Entries {
            head: writer.numbers.head,
            new_head: transaction.numbers.head,
            without_hash: Vec::new(),
            late: Vec::new(),
        };
        let mut revised_files = Vec::new();
        for Draft { entry, old, .. } in &transaction.drafts {
            match old {
                None if !is_known(&entry.killmail) => entries.without_hash.push(entry.seq.0),
                None => {}
                Some(old) => match files.file_of(entry.seq.0) {
                    Some(file) if !differs_by_provenance_only(&old.killmail, &entry.killmail) => {
                        revised_files.push(file)
                    }
                    None if is_known(&entry.killmail) => entries.late.push(entry.seq.0),
                    _ => {}
                },
            }
        }
        entries.late.sort_unstable();
        (files.assign(&entries), writer.notices.assign(files.newest(), revised_files.into_iter()))
    }

    /// Compares an incoming killmail with what is stored and with what came before it in the same transaction,
    /// and adds the result to the transaction.
    fn draft(
        &self,
        transaction: &mut Transaction,
        incoming: Incoming,
        prepared: Option<Prepared>,
    ) -> Result<(), StoreError> {
        let id = incoming.killmail.killmail_id;
        let stored = match transaction.drafted(id) {
            Some(entry) => Some(Arc::clone(entry)),
            None => self.killmail(id)?,
        };
        let Some(stored) = stored else {
            let prepared = match prepared {
                Some(prepared) => prepared,
                None => self.prepare_one(&incoming.killmail)?,
            };
            transaction.add_new(incoming, prepared);
            return Ok(());
        };
        match merge(&stored.killmail, &incoming.killmail, arrival::is_newer(&stored, &incoming)) {
            MergeOutcome::Unchanged => transaction.add_known(stored.seq),
            MergeOutcome::Conflict => transaction.add_conflict(id, stored.seq),
            MergeOutcome::Revised(mut killmail) => {
                killmail.time_implausible = is_implausible(killmail.time, stored.received_at_ms);
                let prepared = self.prepare_one(&killmail)?;
                let uploaded_at = arrival::uploaded_at(&stored, &incoming);
                transaction.revise(&stored, Revision { killmail: *killmail, uploaded_at, prepared });
            }
        }
        Ok(())
    }

    fn writes(
        &self,
        transaction: &Transaction,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Vec<Write>, StoreError> {
        let mut writes = Vec::with_capacity(transaction.drafts.len() * 2 + 2);
        for draft in &transaction.drafts {
            put_record(&mut writes, draft)?;
            let seq = draft.entry.seq.0;
            let bytes = log_entry::encode(&log_entry_with_weight(draft));
            writes.extend(chunked_values::writes(Key::LogEntry(seq), &bytes));
            if let Some(old) = &draft.old {
                let mut value = seq.to_le_bytes().to_vec();
                value.extend(log_entry::encode(&log_entry_of(old)));
                writes.extend(chunked_values::writes(Key::Revision(draft.entry.rev), &value));
            }
        }
        writes.push(Write::new(Key::Numbers, transaction.numbers.to_bytes()));
        writes.extend(checkpoint_writes(checkpoint));
        Ok(writes)
    }

    /// Makes drafts visible, a few at a time so that readers never wait long for the lock.
    fn publish(&self, drafts: &[Draft]) {
        let mut evicted = Vec::new();
        for drafts in drafts.chunks(PUBLISH_STEP) {
            let mut resident = self.resident.write();
            for draft in drafts {
                let (entry, row) = (&draft.entry, Row::new(&log_entry_with_weight(draft)));
                if let Some(old) = &draft.old {
                    resident.revs.insert(row.killmail_id, entry.rev);
                    resident.index.replace(entry.seq, row, &old.facts, &entry.facts);
                    evicted.extend(resident.tail.replace(Arc::clone(entry)));
                } else {
                    resident.index.insert(entry.seq, row, &entry.facts);
                    resident.tail.push(Arc::clone(entry), row.weight, &mut evicted);
                }
            }
            // Entries are freed after the lock is released.
            drop(resident);
            evicted.clear();
        }
    }
}

fn checkpoint_writes(checkpoint: Option<Checkpoint>) -> Vec<Write> {
    checkpoint.map_or_else(Vec::new, |Checkpoint { source, bytes }| {
        chunked_values::writes(Key::Checkpoint(&source), &bytes)
    })
}

fn put_record(writes: &mut Vec<Write>, draft: &Draft) -> Result<(), StoreError> {
    let Draft { entry, prepared: Prepared { packed, .. }, .. } = draft;
    let header = Header {
        killmail_id: u64::from(entry.facts.killmail_id),
        version: VERSION,
        dictionary: packed.dictionary,
        seq: entry.seq,
        rev: entry.rev,
        received_at_ms: entry.received_at_ms,
        uploaded_at: entry.uploaded_at,
        origin: entry.origin,
        age_secs: entry.age_secs,
        raw_bytes: packed.raw_bytes,
    };
    let too_large =
        || StoreError::TooLarge { killmail_id: entry.facts.killmail_id, bytes: packed.payload.len() };
    let frames = frame::seal(&header, &packed.payload).ok_or_else(too_large)?;
    let key = Key::Record(entry.facts.killmail_id).bytes();
    let parts = (0..).zip(frames).map(|(part, frame)| Write {
        tree: Tree::Records,
        key: chunked_values::chunk_key(&key, part),
        value: Some(frame),
    });
    writes.extend(parts);
    Ok(())
}

fn log_entry_with_weight(draft: &Draft) -> LogEntry {
    let weight = u32::try_from(draft.prepared.json.len()).unwrap_or(u32::MAX);
    LogEntry { weight, ..log_entry_of(&draft.entry) }
}

fn log_entry_of(entry: &Entry) -> LogEntry {
    LogEntry {
        facts: entry.facts.clone(),
        received_at_ms: entry.received_at_ms,
        origin: entry.origin,
        age_secs: entry.age_secs,
        weight: 0,
        rev: entry.rev,
    }
}
