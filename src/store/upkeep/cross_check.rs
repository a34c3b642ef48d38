//! The part of verification that compares records, log, revisions, ledger and counts with each other.
//!
//! Must not know: the files beside the engine, except for the ledger.

use bytes::Bytes;
use hashbrown::HashMap;

use crate::store::engine::ledger::Contents;
use crate::store::engine::meta::Numbers;
use crate::store::engine::repair::log_entry_of;
use crate::store::engine::{Engine, Value, chunked_values, records};
use crate::store::error::StoreError;
use crate::store::format::frame::{self, Header};
use crate::store::format::log_entry::{self, LogEntry};
use crate::store::format::record::Codec;
use crate::store::keys::Tree;
use crate::store::progress::{Phase, Progress};
use crate::store::upkeep::verify::{Report, report_error};

pub struct CrossCheck<'a> {
    pub engine: &'a Engine,
    pub numbers: Numbers,
    /// Ranges of numbers known to have no entry, first and last.
    pub holes: &'a [(u64, u64)],
    pub codec: &'a Codec,
    pub ledger: &'a Contents,
    pub progress: &'a Progress<'a>,
    pub report: &'a mut Report,
    /// Set when the engine could not read a tree to its end: what is missing then is not further damage.
    pub incomplete: bool,
    /// Set when something was written by a newer killstream.
    pub newer: Option<StoreError>,
}

/// What the log contains about a killmail.
struct Logged {
    seq: u64,
    rev: u64,
    /// Checksum of the log entry, without the length of the JSON.
    checksum: u32,
    has_record: bool,
}

impl CrossCheck<'_> {
    /// Adds every disagreement to the report.
    ///
    /// # Errors
    /// `TooNew`.
    pub fn run(mut self) -> Result<(), StoreError> {
        let mut logged = self.check_log();
        self.check_records(&mut logged);
        if !self.incomplete {
            let mut missing: Vec<(u64, u32)> = logged
                .iter()
                .filter(|(_, logged)| !logged.has_record)
                .map(|(id, logged)| (logged.seq, *id))
                .collect();
            missing.sort_unstable();
            for (seq, id) in missing {
                self.report_damage(format!("the record of killmail {id}, number {seq}, is missing"));
            }
        }
        self.check_revisions(&logged);
        self.check_ledger(&logged);
        self.newer.map_or(Ok(()), Err)
    }

    fn report_damage(&mut self, what: String) {
        report_error(self.engine, self.report, self.engine.damaged(what));
    }

    /// Decodes a log entry; an error goes into the report.
    fn decode(&mut self, bytes: &[u8], what: impl FnOnce() -> String) -> Option<LogEntry> {
        match records::decode_log_entry(self.engine, bytes, what) {
            Ok(entry) => return Some(entry),
            Err(error @ StoreError::TooNew { .. }) => self.newer = Some(error),
            Err(error) => report_error(self.engine, self.report, error),
        }
        None
    }

    /// Visits the pairs of a tree in order, and stops at the first one that the engine cannot read.
    fn visit_tree(
        &mut self,
        tree: Tree,
        phase: &'static str,
        total: u64,
        mut visit: impl FnMut(&mut Self, &[u8], &Value),
    ) {
        let mut phase = Phase::new(self.progress, phase, total);
        let mut last: Vec<u8> = Vec::new();
        for pair in self.engine.scan(tree, &[]) {
            match pair {
                Ok((key, value)) => {
                    if !last.is_empty() && *key <= last[..] {
                        return self.report_damage(format!("keys of {} are out of order", tree.name()));
                    }
                    last = key.to_vec();
                    visit(self, &key, &value);
                }
                Err(error) => {
                    self.incomplete = true;
                    return report_error(self.engine, self.report, error);
                }
            }
            phase.advance(1);
        }
    }

    fn is_hole(&self, first: u64, last: u64) -> bool {
        self.holes.iter().any(|(from, to)| *from <= first && last <= *to)
    }

    /// Every number up to the head has one log entry, except for known holes; every killmail has one number.
    fn check_log(&mut self) -> HashMap<u32, Logged> {
        let mut logged: HashMap<u32, Logged> = HashMap::new();
        let mut next = 1;
        self.visit_tree(Tree::Log, "log", self.numbers.count, |check, key, value| {
            // Further chunks of long entries have longer keys.
            let Some(seq) = key.as_array().copied().map(u64::from_be_bytes) else { return };
            check.check_gap(next, seq);
            next = seq + 1;
            let bytes = chunked_values::join(check.engine, Tree::Log, key, value).unwrap_or_default();
            let Some(entry) = check.decode(&bytes, || format!("log entry {seq}")) else { return };
            let (id, rev) = (entry.facts.killmail_id, entry.rev);
            let new = Logged { seq, rev, checksum: checksum(entry), has_record: false };
            if let Some(old) = logged.insert(id, new) {
                check.report_damage(format!("killmail {id} has two numbers, {} and {seq}", old.seq));
            }
        });
        if self.incomplete {
            return logged;
        }
        let Numbers { head, count, .. } = self.numbers;
        self.check_gap(next, head + 1);
        if next > head + 1 {
            self.report_damage(format!("the log ends at {}, {head} numbers were assigned", next - 1));
        }
        if logged.len() as u64 != count {
            self.report_damage(format!("{} killmails are in the log, {count} were counted", logged.len()));
        }
        logged
    }

    fn check_gap(&mut self, next: u64, seq: u64) {
        if next < seq && !self.is_hole(next, seq - 1) {
            self.report_damage(format!("log entries {next} to {} are missing", seq - 1));
        }
    }

    /// Every record is intact, can be decoded, and agrees with the log.
    fn check_records(&mut self, logged: &mut HashMap<u32, Logged>) {
        let mut current: Option<Parts> = None;
        self.visit_tree(Tree::Records, "records", self.numbers.count, |check, key, value| {
            let Some((id, part)) = key.split_first_chunk::<8>() else {
                return check.report_damage(format!("a record under the key {key:?}"));
            };
            let id = u64::from_be_bytes(*id);
            match frame::open(value) {
                Ok(frame) if part.is_empty() => {
                    if let Some(parts) = current.take() {
                        check.check_record(parts, logged);
                    }
                    current = Some(Parts {
                        id,
                        header: frame.header,
                        next: 1,
                        parts: frame.parts,
                        payload: frame.payload.to_vec(),
                        intact: frame.part == 0,
                    });
                }
                Ok(frame) => {
                    // Parts beyond those of the newest revision are left over from a longer revision.
                    let Some(parts) = current.as_mut().filter(|parts| parts.id == id) else { return };
                    if parts.next < parts.parts {
                        parts.intact &= frame.header == parts.header && frame.part == parts.next;
                        parts.next += 1;
                        parts.payload.extend_from_slice(frame.payload);
                    }
                }
                Err(_) if part.is_empty() => check.report_damage(format!("the record of killmail {id}")),
                Err(_) => current
                    .iter_mut()
                    .filter(|parts| parts.id == id && parts.next < parts.parts)
                    .for_each(|parts| parts.intact = false),
            }
        });
        if let Some(parts) = current {
            self.check_record(parts, logged);
        }
    }

    fn check_record(&mut self, parts: Parts, logged: &mut HashMap<u32, Logged>) {
        let Parts { id, header, .. } = parts;
        if !parts.intact || parts.next != parts.parts {
            return self.report_damage(format!("the record of killmail {id} lacks parts"));
        }
        if let Err(error) = records::check_version(&header) {
            self.newer = Some(error);
            return;
        }
        let killmail = match self.codec.unpack(&header, &parts.payload) {
            Ok(killmail) => killmail,
            Err(why) => return self.report_damage(format!("the record of killmail {id}: {why}")),
        };
        if header.killmail_id != id || u64::from(killmail.killmail_id) != id {
            return self.report_damage(format!(
                "the record of killmail {id} is of killmail {}",
                killmail.killmail_id
            ));
        }
        let Some(logged) = logged.get_mut(&killmail.killmail_id) else {
            if self.incomplete {
                return;
            }
            return self.report_damage(format!(
                "killmail {id} has a record, number {}, but no log entry",
                header.seq
            ));
        };
        logged.has_record = true;
        if logged.seq != header.seq.0 || logged.rev != header.rev {
            let what =
                format!("the record of killmail {id} is number {} revision {}", header.seq, header.rev);
            let log = format!("the log says number {} revision {}", logged.seq, logged.rev);
            return self.report_damage(format!("{what}, {log}"));
        }
        if logged.checksum != checksum(log_entry_of(&header, &killmail, |_| Bytes::new())) {
            return self
                .report_damage(format!("log entry {} differs from the record of killmail {id}", logged.seq));
        }
        self.report.killmails += 1;
    }

    /// Revisions have no gaps (the first ones may be missing), and the log has each killmail in that revision or a
    /// newer one.
    fn check_revisions(&mut self, logged: &HashMap<u32, Logged>) {
        let mut next = None;
        self.visit_tree(Tree::Revisions, "revisions", self.numbers.rev, |check, key, value| {
            let Some(rev) = key.as_array().copied().map(u64::from_be_bytes) else { return };
            if next.is_some_and(|next| next != rev) {
                check.report_damage(format!(
                    "revisions {} to {} are missing",
                    next.unwrap_or_default(),
                    rev - 1
                ));
            }
            next = Some(rev + 1);
            let bytes = chunked_values::join(check.engine, Tree::Revisions, key, value).unwrap_or_default();
            let (seq, old) = bytes.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
            let seq = u64::from_le_bytes(*seq);
            let Some(old) = check.decode(old, || format!("revision {rev}")) else { return };
            let newer = logged
                .get(&old.facts.killmail_id)
                .is_some_and(|logged| logged.seq == seq && logged.rev >= rev && rev > old.rev);
            if !newer && !check.incomplete && !check.is_hole(seq, seq) {
                check.report_damage(format!(
                    "revision {rev} of killmail {} is not in the log",
                    old.facts.killmail_id
                ));
            }
        });
        if self.incomplete {
            return;
        }
        let last = next.map_or(self.numbers.rev, |next| next - 1);
        if last != self.numbers.rev {
            self.report_damage(format!("the newest revision is {last}, {} were counted", self.numbers.rev));
        }
    }

    /// The store contains everything that the ledger recorded.
    fn check_ledger(&mut self, logged: &HashMap<u32, Logged>) {
        let (kept_head, kept_rev) = (self.ledger.mark.map_or(0, |mark| mark.head.0), self.ledger.rev());
        let Numbers { head, rev, .. } = self.numbers;
        if kept_head > head || kept_rev > rev {
            self.report_damage(format!(
                "number {kept_head} and revision {kept_rev} were kept, the store ends at {head} and {rev}"
            ));
        }
        let mut newest: Vec<(u32, u64)> = self.ledger.newest_revisions().into_iter().collect();
        newest.sort_unstable();
        for (id, rev) in newest {
            match logged.get(&id) {
                Some(logged) if logged.rev == rev => {}
                Some(logged) => {
                    let found = logged.rev;
                    self.report_damage(format!(
                        "killmail {id} was revised ({rev}), the store has revision {found} of it"
                    ));
                }
                None if self.incomplete => {}
                None => self
                    .report_damage(format!("killmail {id} was revised ({rev}), the store does not have it")),
            }
        }
    }
}

/// A record while its frames are joined.
struct Parts {
    id: u64,
    header: Header,
    next: u8,
    parts: u8,
    payload: Vec<u8>,
    intact: bool,
}

fn checksum(entry: LogEntry) -> u32 {
    crc32fast::hash(&log_entry::encode(&LogEntry { weight: 0, ..entry }))
}
