//! The way in: what is new gets the next number, what adds to a known killmail revises it, and all of it is
//! on disk before it is seen.
//!
//! Encoding happens before the writer's turn and on every core; the turn itself is one transaction, a sync,
//! and the publication to memory.
//!
//! Must not know: where killmails come from; how they are found again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use hashbrown::HashMap;

use crate::domain::entry::{Entry, SharedEntry, is_implausible, plausible_upload_time};
use crate::domain::facts::Facts;
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
use crate::store::format::log_entry::{self, LogEntry, Revised};
use crate::store::format::record::{Packed, VERSION};
use crate::store::incoming::{Appended, Checkpoint, Incoming};
use crate::store::index::rows::Row;
use crate::store::keys::{Key, Tree};
use crate::store::mirror::file_numbers::Added;
use crate::store::mirror::revision_notices::AssignedNotices;
use crate::store::writer::Writer;
use crate::store::{Store, arrival};
use crate::tasks;

/// Killmails of one transaction at most: the engine lets nobody read while it commits one.
const TRANSACTION_MAX: usize = 1_000;
/// Entries published to memory while the lock is held.
const PUBLISH_STEP: usize = 16;
/// Below this, encoding is not worth another thread.
const SPREAD_MIN: usize = 32;

/// What can be made of a killmail before it has a number.
struct Prepared {
    facts: Facts,
    json: Bytes,
    packed: Packed,
}

/// An entry about to be written.
struct Draft {
    entry: SharedEntry,
    prepared: Prepared,
    /// What it replaces.
    old: Option<SharedEntry>,
}

/// What became of an incoming killmail, by its draft.
enum Outcome {
    New(usize),
    Revised(usize),
    Known(Seq),
    Conflict(Seq),
}

/// One transaction in the making.
struct Turn {
    numbers: Numbers,
    drafts: Vec<Draft>,
    by_id: HashMap<u32, usize>,
    outcomes: Vec<Outcome>,
}

impl Store {
    /// Takes killmails in, in this order, and with the last of them how far their source was read. On disk
    /// when this returns. More than 1,000 are written in several transactions.
    ///
    /// # Errors
    /// `NoSpace` before anything is written; else what the disk says. After a failed write the store only
    /// reads.
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

    /// Notes how far a source was read, where there was nothing to append.
    ///
    /// # Errors
    /// As `append`.
    pub fn set_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        self.append(Vec::new(), Some(checkpoint)).map(|_| ())
    }

    /// Why nothing more is written, once a write has failed.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.writer.lock().failed.clone()
    }

    /// Whether there is room to write.
    #[must_use]
    pub fn has_space(&self) -> bool {
        self.lack_of_space().is_none()
    }

    /// Why there is no room to write, with what is free and what must be.
    #[must_use]
    pub fn lack_of_space(&self) -> Option<String> {
        self.check_space().err().map(|error| error.to_string())
    }

    /// Makes sure that there is room to write.
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

    /// Prepares those that look new; whoever turns out not to be was prepared in vain.
    fn prepare_unknown(&self, part: &[Incoming]) -> Result<Vec<Option<Prepared>>, StoreError> {
        let unknown: Vec<bool> = {
            let memory = self.memory.read();
            part.iter()
                .map(|incoming| memory.index.ids.get(incoming.killmail.killmail_id).is_none())
                .collect()
        };
        let killmails: Vec<&Killmail> =
            part.iter().zip(&unknown).filter(|(_, unknown)| **unknown).map(|(i, _)| &i.killmail).collect();
        let mut prepared = if killmails.len() < SPREAD_MIN {
            self.prepare(&killmails)?
        } else {
            let parts = tasks::spread(&killmails, |killmails| self.prepare(killmails));
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
        let rest = killmails.iter().map(|killmail| (facts(killmail), (self.config.encode)(killmail)));
        Ok(rest.zip(packed).map(|((facts, json), packed)| Prepared { facts, json, packed }).collect())
    }

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
        let mut turn =
            Turn { numbers: writer.numbers, drafts: Vec::new(), by_id: HashMap::new(), outcomes: Vec::new() };
        for (incoming, prepared) in part.into_iter().zip(prepared) {
            self.draft(&mut turn, incoming, prepared)?;
        }
        self.conflicts.store(turn.numbers.conflicts, Ordering::Relaxed);
        if turn.drafts.is_empty() && checkpoint.is_none() {
            writer.numbers = turn.numbers;
            return Ok(appended(turn));
        }
        let mut writes = self.writes(&turn, checkpoint)?;
        let (added, given) = self.number_files(&writer, &turn);
        writes.extend(added.writes().chain(given.writes()));
        let frames = journal::frames(&writes);
        if let Err(error) = self.engine.commit(writes) {
            writer.failed = Some(error.to_string());
            return Err(error);
        }
        writer.numbers = turn.numbers;
        writer.ledger.record(&turn.numbers, turn.revisions());
        writer.journal.add(&frames);
        writer.notices.settle(given, added.head());
        self.revised.store(turn.numbers.rev, Ordering::Relaxed);
        self.publish(&turn.drafts);
        // Only then, so that no file is looked for whose entry cannot be read yet.
        self.files.write().settle(added);
        let mark = self.mark(&writer.numbers);
        self.snapshots.lock().start_if_due(self.config.snapshot_every, self.engine.dir(), &self.memory, mark);
        Ok(appended(turn))
    }

    /// Gives the next number to something that is no killmail: `write` puts it on disk, `publish` into memory
    /// before the head moves.
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
        if let Some(Checkpoint { source, bytes }) = checkpoint {
            writes.extend(chunked_values::writes(Key::Checkpoint(&source), &bytes));
        }
        let added = self.files.read().add(seq.0 - 1, seq.0, &[seq.0], &[]);
        writes.extend(added.writes());
        if let Err(error) = self.engine.commit(writes) {
            writer.failed = Some(error.to_string());
            return Err(error);
        }
        writer.numbers = numbers;
        writer.ledger.record(&numbers, std::iter::empty());
        publish(seq);
        self.memory.write().index.skip_to(seq);
        self.files.write().settle(added);
        Ok(seq)
    }

    /// The mirror's files of what a turn writes, and which of them tell of what it revises.
    fn number_files(&self, writer: &Writer, turn: &Turn) -> (Added, AssignedNotices) {
        let files = self.files.read();
        let (mut without, mut late, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for Draft { entry, old, .. } in &turn.drafts {
            match old {
                None if !is_known(&entry.killmail) => without.push(entry.seq.0),
                None => {}
                Some(old) => match files.file(entry.seq.0) {
                    Some(file) if !differs_by_provenance_only(&old.killmail, &entry.killmail) => {
                        told.push(file)
                    }
                    None if is_known(&entry.killmail) => late.push(entry.seq.0),
                    _ => {}
                },
            }
        }
        late.sort_unstable();
        (
            files.add(writer.numbers.head, turn.numbers.head, &without, &late),
            writer.notices.give(files.head(), told.into_iter()),
        )
    }

    /// Finds out what an incoming killmail is to what is stored and to what came before it in the same turn.
    fn draft(
        &self,
        turn: &mut Turn,
        incoming: Incoming,
        prepared: Option<Prepared>,
    ) -> Result<(), StoreError> {
        let id = incoming.killmail.killmail_id;
        let drafted = turn.by_id.get(&id).copied();
        let stored = match drafted {
            Some(at) => Some(Arc::clone(&turn.drafts[at].entry)),
            None => self.killmail(id)?,
        };
        let Some(stored) = stored else {
            let prepared = match prepared {
                Some(prepared) => prepared,
                None => self.prepare_one(&incoming.killmail)?,
            };
            turn.add_new(incoming, prepared);
            return Ok(());
        };
        let outcome = match merge(&stored.killmail, &incoming.killmail, arrival::is_newer(&stored, &incoming))
        {
            MergeOutcome::Unchanged => Outcome::Known(stored.seq),
            MergeOutcome::Conflict => {
                turn.numbers.conflicts += 1;
                tracing::warn!(
                    killmail.id = id,
                    "killmail {id} came again with another body; the stored one stays"
                );
                Outcome::Conflict(stored.seq)
            }
            MergeOutcome::Revised(mut killmail) => {
                killmail.time_implausible = is_implausible(killmail.time, stored.received_at_ms);
                let prepared = self.prepare_one(&killmail)?;
                let uploaded_at = arrival::uploaded_at(&stored, &incoming);
                Outcome::Revised(turn.revise(drafted, &stored, *killmail, uploaded_at, prepared))
            }
        };
        turn.outcomes.push(outcome);
        Ok(())
    }

    fn prepare_one(&self, killmail: &Killmail) -> Result<Prepared, StoreError> {
        let why = "nothing came back".to_owned();
        self.prepare(&[killmail])?.pop().ok_or(StoreError::Engine { what: "encode a killmail", why })
    }

    fn writes(&self, turn: &Turn, checkpoint: Option<Checkpoint>) -> Result<Vec<Write>, StoreError> {
        let mut writes = Vec::with_capacity(turn.drafts.len() * 2 + 2);
        for draft in &turn.drafts {
            put_record(&mut writes, draft)?;
            let seq = draft.entry.seq.0;
            writes.extend(chunked_values::writes(
                Key::LogEntry(seq),
                &log_entry::encode(&line(&draft.entry, &draft.prepared)),
            ));
            if let Some(old) = &draft.old {
                let mut value = seq.to_le_bytes().to_vec();
                value.extend(log_entry::encode(&line_of(old)));
                writes.extend(chunked_values::writes(Key::Revision(draft.entry.rev), &value));
            }
        }
        writes.push(Write::new(Key::Numbers, turn.numbers.to_bytes()));
        if let Some(Checkpoint { source, bytes }) = checkpoint {
            writes.extend(chunked_values::writes(Key::Checkpoint(&source), &bytes));
        }
        Ok(writes)
    }

    /// Makes drafts visible, a few at a time so that no reader waits long.
    fn publish(&self, drafts: &[Draft]) {
        let mut gone = Vec::new();
        for drafts in drafts.chunks(PUBLISH_STEP) {
            let mut memory = self.memory.write();
            for Draft { entry, prepared, old } in drafts {
                let row = Row::new(&line(entry, prepared));
                if let Some(old) = old {
                    memory.revs.insert(row.killmail_id, entry.rev);
                    memory.index.replace(entry.seq, row, &old.facts, &entry.facts);
                    gone.extend(memory.tail.replace(Arc::clone(entry)));
                } else {
                    memory.index.insert(entry.seq, row, &entry.facts);
                    memory.tail.push(Arc::clone(entry), row.weight, &mut gone);
                }
            }
            drop(memory);
            gone.clear();
        }
    }
}

impl Turn {
    fn add_new(&mut self, incoming: Incoming, prepared: Prepared) {
        self.numbers.head += 1;
        self.numbers.count += 1;
        let age_secs = arrival::age_of(&incoming);
        let entry = Entry {
            seq: Seq(self.numbers.head),
            rev: 0,
            origin: incoming.origin,
            received_at_ms: incoming.received_at_ms,
            uploaded_at: incoming.uploaded_at,
            age_secs,
            facts: prepared.facts.clone(),
            json: cell(&prepared.json),
            killmail: incoming.killmail,
        };
        let at = self.drafts.len();
        self.by_id.insert(entry.facts.killmail_id, at);
        self.drafts.push(Draft { entry: Arc::new(entry), prepared, old: None });
        self.outcomes.push(Outcome::New(at));
    }

    /// The revisions made, and of which killmails.
    fn revisions(&self) -> impl Iterator<Item = Revised> {
        self.drafts
            .iter()
            .filter(|draft| draft.old.is_some())
            .map(|draft| Revised { killmail_id: draft.entry.facts.killmail_id, rev: draft.entry.rev })
    }

    /// A draft of this turn is changed; a stored entry gets a draft that replaces it.
    fn revise(
        &mut self,
        drafted: Option<usize>,
        stored: &SharedEntry,
        killmail: Killmail,
        uploaded_at: Option<i64>,
        prepared: Prepared,
    ) -> usize {
        let rev = if drafted.is_some() { stored.rev } else { self.numbers.rev + 1 };
        let entry = Arc::new(Entry {
            seq: stored.seq,
            rev,
            origin: stored.origin,
            received_at_ms: stored.received_at_ms,
            uploaded_at,
            age_secs: stored.age_secs,
            facts: prepared.facts.clone(),
            json: cell(&prepared.json),
            killmail,
        });
        if let Some(at) = drafted {
            let draft = &mut self.drafts[at];
            (draft.entry, draft.prepared) = (entry, prepared);
            return at;
        }
        self.numbers.rev = rev;
        let at = self.drafts.len();
        self.by_id.insert(entry.facts.killmail_id, at);
        self.drafts.push(Draft { entry, prepared, old: Some(Arc::clone(stored)) });
        at
    }
}

fn appended(turn: Turn) -> Vec<Appended> {
    let entry = |at: usize| Arc::clone(&turn.drafts[at].entry);
    let one = |outcome| match outcome {
        Outcome::New(at) => Appended::New(entry(at)),
        Outcome::Revised(at) => Appended::Revised(entry(at)),
        Outcome::Known(seq) => Appended::Known(seq),
        Outcome::Conflict(seq) => Appended::Conflict(seq),
    };
    turn.outcomes.into_iter().map(one).collect()
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

fn line(entry: &Entry, prepared: &Prepared) -> LogEntry {
    LogEntry { weight: u32::try_from(prepared.json.len()).unwrap_or(u32::MAX), ..line_of(entry) }
}

fn line_of(entry: &Entry) -> LogEntry {
    LogEntry {
        facts: entry.facts.clone(),
        received_at_ms: entry.received_at_ms,
        origin: entry.origin,
        age_secs: entry.age_secs,
        weight: 0,
        rev: entry.rev,
    }
}

/// The cell with the JSON in it, if there is an encoder.
fn cell(json: &Bytes) -> OnceLock<Bytes> {
    if json.is_empty() { OnceLock::new() } else { OnceLock::from(json.clone()) }
}
