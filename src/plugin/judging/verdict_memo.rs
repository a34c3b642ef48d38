//! The latest verdicts of one pair of plugin and configuration: equal pairs judge a live killmail once.
//!
//! Must not know: who asks, or what a verdict means.

use std::collections::{HashMap, VecDeque};

use crate::domain::entry::Entry;
use crate::domain::verdict::Verdict;
use crate::plugin::judging::run::Judgment;

type MemoKey = (u64, u64);

/// Verdicts by killmail and revision; the oldest are evicted first.
#[derive(Debug)]
pub struct VerdictMemo {
    verdicts: HashMap<MemoKey, Judgment>,
    order: VecDeque<MemoKey>,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
}

impl VerdictMemo {
    /// Empty, for at most this many verdicts and bytes of annotations and messages.
    #[must_use]
    pub fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { verdicts: HashMap::new(), order: VecDeque::new(), bytes: 0, entries_max, bytes_max }
    }

    /// The verdict on this revision of the killmail.
    #[must_use]
    pub fn get(&self, entry: &Entry) -> Option<Judgment> {
        self.verdicts.get(&key(entry)).cloned()
    }

    /// Remembers a verdict.
    pub fn put(&mut self, entry: &Entry, answer: &Judgment) {
        let key = key(entry);
        self.bytes += weight(answer);
        match self.verdicts.insert(key, answer.clone()) {
            Some(old) => self.bytes -= weight(&old),
            None => self.order.push_back(key),
        }
        while self.order.len() > self.entries_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(old) = self.verdicts.remove(&oldest) {
                self.bytes -= weight(&old);
            }
        }
    }
}

const fn key(entry: &Entry) -> MemoKey {
    (entry.seq.0, entry.rev)
}

fn weight(answer: &Judgment) -> usize {
    match answer {
        Ok(Verdict::KeepWith(json)) => json.len(),
        Ok(_) => 0,
        Err(failure) => failure.message.len(),
    }
}
