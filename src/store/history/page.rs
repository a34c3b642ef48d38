//! The next page of the log for a reader: its cursor in, a page in log order out. Law 1 (selection agrees with
//! the filter) guards this file.
//!
//! There are two ways to find a page, and they agree. Near the head, where all entries are in memory,
//! `read_page_from_memory` tests the facts of each. Further behind, `select_page` asks the index, one block of
//! 4,096 numbers at a time.
//!
//! Must not know: who reads.

use crate::domain::entry::{Entry, SharedEntry};
use crate::domain::id::Seq;
use crate::domain::skip::{DELIVERY, Skip, skip_live};
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::index::Index;
use crate::store::index::plan::{Plan, accepts, needs_facts};
use crate::store::index::rows::{BLOCK, Row};
use crate::store::query::{Hit, Page, PageQuery};

/// Entries copied from memory under one read lock.
const STEP: u64 = 256;
/// Cost of looking up one killmail in one list, relative to reading one id from a list. The ids of a block are
/// read as a range of the lists unless looking up each killmail of the block costs less.
const LOOKUP_COST: u64 = 4;

impl Store {
    /// The next page, from memory if possible.
    ///
    /// # Errors
    /// The disk.
    pub fn read_page(&self, query: &PageQuery<'_>) -> Result<Page, StoreError> {
        self.read_page_from_memory(query).map_or_else(|| self.select_page(query), Ok)
    }

    /// The next page; `None` unless everything after the cursor is in memory. Never reads the disk.
    #[must_use]
    pub fn read_page_from_memory(&self, query: &PageQuery<'_>) -> Option<Page> {
        let mut page = PageBuilder::new(query);
        let mut cursor = query.after;
        let mut step = Vec::new();
        loop {
            let end = {
                let memory = self.resident.read();
                let end = last_seq(query, memory.index.head());
                if cursor >= end {
                    break;
                }
                memory.tail.first_seq().filter(|first| *first <= cursor.next())?;
                let to = Seq(end.0.min(cursor.0 + STEP));
                let entries = (cursor.0 + 1..=to.0).filter_map(|seq| memory.tail.get(Seq(seq)));
                step.extend(entries.map(|entry| {
                    let weight = memory.index.rows.get(entry.seq).map_or(0, |row| row.weight);
                    Candidate { seq: entry.seq, weight, item: SharedEntry::clone(entry) }
                }));
                to
            };
            for candidate in step.drain(..) {
                let entry = &candidate.item;
                if let Some(why) = skipped(query, entry) {
                    let id = entry.facts.killmail_id;
                    tracing::debug!(target: DELIVERY, { killmail.id = id, %why }, "not delivered");
                } else if !page.push(candidate) {
                    return Some(page.into_page());
                }
            }
            cursor = end;
        }
        page.passed = cursor;
        Some(page.into_page())
    }

    /// The next page, found through the index.
    ///
    /// # Errors
    /// The disk.
    pub fn select_page(&self, query: &PageQuery<'_>) -> Result<Page, StoreError> {
        let needs_facts = needs_facts(query.filter, query.interest);
        let mut page = PageBuilder::new(query);
        let mut cursor = query.after;
        loop {
            let block = {
                let memory = self.resident.read();
                let end = last_seq(query, memory.index.head());
                if cursor >= end {
                    break;
                }
                let plan = Plan::new(&memory.index, query.filter, query.interest)
                    .restricted_to_live(query.max_age_secs);
                candidates(&memory.index, &plan, cursor.next(), end)
            };
            for candidate in block.candidates {
                let is_accepted = !needs_facts
                    || self
                        .with_facts(candidate.seq, |facts| accepts(query.filter, query.interest, facts))?
                        .unwrap_or(false);
                if is_accepted && !page.push(candidate) {
                    return self.load_page(page);
                }
            }
            cursor = block.end;
        }
        page.passed = cursor;
        self.load_page(page)
    }

    fn load_page(&self, page: PageBuilder<Hit>) -> Result<Page, StoreError> {
        Ok(Page { entries: self.entries(&page.items)?, passed: page.passed })
    }

    /// The oracle of law 1: the next page, found by testing the row and the facts of every entry after the
    /// cursor, without plans and postings.
    #[cfg(test)]
    pub fn scan_page_as_oracle(&self, query: &PageQuery<'_>) -> Result<Page, StoreError> {
        let end = last_seq(query, self.head());
        let mut page = PageBuilder::new(query);
        for seq in (query.after.0 + 1..=end.0).map(Seq) {
            let is_live = |row: &Row| skip_live(row.origin(), row.age_secs, query.max_age_secs).is_none();
            let row = self.resident.read().index.rows.get(seq).copied().filter(is_live);
            let Some(row) = row else { continue };
            let is_accepted =
                self.with_facts(seq, |facts| accepts(query.filter, query.interest, facts))?.unwrap_or(false);
            if is_accepted && !page.push(Candidate::hit(seq, &row)) {
                return self.load_page(page);
            }
        }
        page.passed = end.max(query.after);
        self.load_page(page)
    }
}

/// Why an entry is not on the page; `None`: it is.
fn skipped(query: &PageQuery<'_>, entry: &Entry) -> Option<Skip> {
    let skip = skip_live(entry.origin, entry.age_secs, query.max_age_secs);
    if skip.is_some() {
        return skip;
    }
    if !query.filter.accepts(&entry.facts) {
        return Some(Skip::Filter);
    }
    query.interest.is_some_and(|interest| !interest.accepts(&entry.facts)).then_some(Skip::Interest)
}

/// The last number that a page may look at.
fn last_seq(query: &PageQuery<'_>, head: Seq) -> Seq {
    Seq(query.head.0.min(head.0).min(query.after.0.saturating_add(query.scan as u64)))
}

/// An entry that may belong on the page.
struct Candidate<T> {
    seq: Seq,
    /// Length of its JSON, bytes.
    weight: u32,
    item: T,
}

impl Candidate<Hit> {
    const fn hit(seq: Seq, row: &Row) -> Self {
        Self { seq, weight: row.weight, item: Hit { seq, killmail_id: row.killmail_id } }
    }
}

/// The candidates of one block, up to the number `end`.
struct BlockCandidates {
    candidates: Vec<Candidate<Hit>>,
    end: Seq,
}

/// The entries from `from` to the end of its block, but not beyond `end`, that match in everything but roles.
fn candidates(index: &Index, plan: &Plan<'_>, from: Seq, end: Seq) -> BlockCandidates {
    let Some((start, block)) = index.rows.block(from) else {
        return BlockCandidates { candidates: Vec::new(), end };
    };
    let to = Seq(end.0.min(start.0 + BLOCK - 1));
    let rows = &block.rows[(from.0 - start.0) as usize..=(to.0 - start.0) as usize];
    let passes = |row: &Row| row.killmail_id != 0 && plan.test.passes(row);
    let numbered = || (from.0..).map(Seq).zip(rows);
    let range = block.span.map(|span| span.intersect(plan.bounds)).filter(|range| !range.is_empty());
    let candidates = match range {
        None => Vec::new(),
        Some(_) if plan.groups().is_empty() => {
            numbered().filter(|(_, row)| passes(row)).map(|(seq, row)| Candidate::hit(seq, row)).collect()
        }
        Some(range)
            if (rows.len() as u64).saturating_mul(plan.list_count()).saturating_mul(LOOKUP_COST)
                < plan.count(index, range) =>
        {
            numbered()
                .filter(|(_, row)| passes(row) && plan.is_in_every_group(row.killmail_id))
                .map(|(seq, row)| Candidate::hit(seq, row))
                .collect()
        }
        Some(range) => {
            let ids = plan.collect(index, range).into_iter();
            let mut found: Vec<_> = ids
                .filter_map(|id| index.row_of(id))
                .filter(|(seq, row)| (from..=to).contains(seq) && passes(row))
                .map(|(seq, row)| Candidate::hit(seq, row))
                .collect();
            found.sort_unstable_by_key(|candidate| candidate.seq);
            found
        }
    };
    BlockCandidates { candidates, end: to }
}

/// A page that is being filled, within the limits of the query.
struct PageBuilder<T> {
    items: Vec<T>,
    /// Every entry up to this number is on the page or does not match.
    passed: Seq,
    bytes: usize,
    limit: usize,
    limit_bytes: usize,
}

impl<T> PageBuilder<T> {
    fn new(query: &PageQuery<'_>) -> Self {
        Self {
            items: Vec::new(),
            passed: query.after,
            bytes: 0,
            limit: query.limit.max(1),
            limit_bytes: query.limit_bytes,
        }
    }

    /// Adds a matching entry. Returns false if the page is complete, either with this entry or, when the entry
    /// would exceed the byte limit, without it.
    fn push(&mut self, candidate: Candidate<T>) -> bool {
        let bytes = self.bytes.saturating_add(candidate.weight as usize);
        if !self.items.is_empty() && bytes > self.limit_bytes {
            self.passed = Seq(candidate.seq.0 - 1);
            return false;
        }
        self.bytes = bytes;
        self.items.push(candidate.item);
        self.passed = candidate.seq;
        self.items.len() < self.limit
    }
}

impl PageBuilder<SharedEntry> {
    fn into_page(self) -> Page {
        Page { entries: self.items, passed: self.passed }
    }
}
