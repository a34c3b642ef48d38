//! What comes next for a reader, in log order: its place in, a page out. Law 1 (select is accept) guards this
//! file.
//!
//! Two gears that agree: `walk` tests the facts of each entry after the place (near the head they are in
//! memory), `select_pages` asks the bitmaps a block of 4,096 numbers at a time (far behind).
//!
//! Must not know: who reads.

use crate::domain::entry::SharedEntry;
use crate::domain::id::Seq;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::index::Index;
use crate::store::index::plan::{Plan, accepts, needs_facts};
use crate::store::index::rows::{BLOCK, Row};
use crate::store::query::{Hit, Page, PageQuery};

/// Entries of the tail looked at while the lock is held.
const STEP: u64 = 256;
/// A block whose ids lie so much wider than it is long is not gathered by its span, if looking up each is
/// cheaper.
const LOOKUP_COST: u64 = 4;

impl Store {
    /// The next page, by whichever gear is cheaper.
    ///
    /// # Errors
    /// The disk.
    pub fn page(&self, ask: &PageQuery<'_>) -> Result<Page, StoreError> {
        self.page_in_memory(ask).map_or_else(|| self.select_pages(ask), Ok)
    }

    /// The next page, if all after the place is in memory. Never waits for the disk.
    #[must_use]
    pub fn page_in_memory(&self, ask: &PageQuery<'_>) -> Option<Page> {
        let mut taking = Taking::new(ask);
        let mut place = ask.after;
        let mut step = Vec::new();
        loop {
            let end = {
                let memory = self.resident.read();
                let end = end_of(ask, memory.index.head());
                if place >= end {
                    break;
                }
                memory.tail.first().filter(|first| *first <= place.next())?;
                let to = Seq(end.0.min(place.0 + STEP));
                let entries = (place.0 + 1..=to.0).filter_map(|seq| memory.tail.get(Seq(seq)));
                step.extend(entries.map(|e| {
                    (SharedEntry::clone(e), memory.index.rows.get(e.seq).map_or(0, |row| row.weight))
                }));
                to
            };
            for (entry, weight) in step.drain(..) {
                if entry.origin.is_delivered_live(entry.age_secs, ask.max_age_secs)
                    && accepts(ask.filter, ask.interest, &entry.facts)
                    && !taking.take(entry.seq, weight, entry)
                {
                    return Some(taking.page());
                }
            }
            place = end;
        }
        Some(taking.page_up_to(place))
    }

    /// The next page by looking at every entry.
    ///
    /// # Errors
    /// The disk.
    pub fn walk(&self, ask: &PageQuery<'_>) -> Result<Page, StoreError> {
        let end = end_of(ask, self.head());
        let mut taking = Taking::new(ask);
        for seq in (ask.after.0 + 1..=end.0).map(Seq) {
            let live = |row: &Row| row.origin().is_delivered_live(row.age_secs, ask.max_age_secs);
            let row = self.resident.read().index.rows.get(seq).copied().filter(live);
            let Some(row) = row else { continue };
            let wanted =
                self.with_facts(seq, |facts| accepts(ask.filter, ask.interest, facts))?.unwrap_or(false);
            if wanted && !taking.take(seq, row.weight, Hit { seq, killmail_id: row.killmail_id }) {
                return self.read_page(taking.page_of_hits());
            }
        }
        self.read_page(taking.hits_up_to(end.max(ask.after)))
    }

    /// The next page through the bitmaps.
    ///
    /// # Errors
    /// The disk.
    pub fn select_pages(&self, ask: &PageQuery<'_>) -> Result<Page, StoreError> {
        let facts = needs_facts(ask.filter, ask.interest);
        let mut taking = Taking::new(ask);
        let mut place = ask.after;
        loop {
            let (candidates, to) = {
                let memory = self.resident.read();
                let end = end_of(ask, memory.index.head());
                if place >= end {
                    break;
                }
                let plan = Plan::new(&memory.index, ask.filter, ask.interest).live(ask.max_age_secs);
                candidates(&memory.index, &plan, place.next(), end)
            };
            for (hit, weight) in candidates {
                let wanted = !facts
                    || self.with_facts(hit.seq, |f| accepts(ask.filter, ask.interest, f))?.unwrap_or(false);
                if wanted && !taking.take(hit.seq, weight, hit) {
                    return self.read_page(taking.page_of_hits());
                }
            }
            place = to;
        }
        self.read_page(taking.hits_up_to(place))
    }

    fn read_page(&self, (hits, passed): (Vec<Hit>, Seq)) -> Result<Page, StoreError> {
        Ok(Page { entries: self.entries(&hits)?, passed })
    }
}

/// The last number an answer may look at.
fn end_of(ask: &PageQuery<'_>, head: Seq) -> Seq {
    Seq(ask.head.0.min(head.0).min(ask.after.0.saturating_add(ask.scan as u64)))
}

/// The entries from one number on that pass everything but roles, up to the end of their block or of the
/// range; and where that is.
fn candidates(index: &Index, plan: &Plan<'_>, from: Seq, end: Seq) -> (Vec<(Hit, u32)>, Seq) {
    let Some((start, block)) = index.rows.block(from) else { return (Vec::new(), end) };
    let to = Seq(end.0.min(start.0 + BLOCK - 1));
    let rows = &block.rows[(from.0 - start.0) as usize..=(to.0 - start.0) as usize];
    let hit = |seq: Seq, row: &Row| (Hit { seq, killmail_id: row.killmail_id }, row.weight);
    let passes = |row: &Row| row.killmail_id != 0 && plan.test.passes(row);
    let numbered = || (from.0..).map(Seq).zip(rows);
    let (low, high) = plan.bounds;
    let span =
        block.span.map(|(first, last)| (first.max(low), last.min(high))).filter(|(low, high)| low <= high);
    let Some((low, high)) = span else { return (Vec::new(), to) };
    if plan.groups().is_empty() {
        return (numbered().filter(|(_, row)| passes(row)).map(|(seq, row)| hit(seq, row)).collect(), to);
    }
    let gathered = plan.count(index, low, high);
    if (rows.len() as u64).saturating_mul(plan.lookups()).saturating_mul(LOOKUP_COST) < gathered {
        let found = numbered().filter(|(_, row)| passes(row) && plan.named(row.killmail_id));
        return (found.map(|(seq, row)| hit(seq, row)).collect(), to);
    }
    let ids = plan.gather(index, low, high).into_iter();
    let rows =
        ids.filter_map(|id| index.row_of(id)).filter(|(seq, row)| (from..=to).contains(seq) && passes(row));
    let mut found: Vec<_> = rows.map(|(seq, row)| hit(seq, row)).collect();
    found.sort_unstable_by_key(|(hit, _)| hit.seq);
    (found, to)
}

/// A page being filled, within its limits.
struct Taking<T> {
    taken: Vec<T>,
    passed: Seq,
    bytes: usize,
    limit: usize,
    limit_bytes: usize,
}

impl<T> Taking<T> {
    fn new(ask: &PageQuery<'_>) -> Self {
        Self {
            taken: Vec::new(),
            passed: ask.after,
            bytes: 0,
            limit: ask.limit.max(1),
            limit_bytes: ask.limit_bytes,
        }
    }

    /// Takes one more; false when the page ends with it, or before it for want of room.
    fn take(&mut self, seq: Seq, weight: u32, one: T) -> bool {
        let bytes = self.bytes.saturating_add(weight as usize);
        if !self.taken.is_empty() && bytes > self.limit_bytes {
            self.passed = Seq(seq.0 - 1);
            return false;
        }
        self.bytes = bytes;
        self.taken.push(one);
        self.passed = seq;
        self.taken.len() < self.limit
    }

    fn page_of_hits(self) -> (Vec<T>, Seq) {
        (self.taken, self.passed)
    }

    fn hits_up_to(self, place: Seq) -> (Vec<T>, Seq) {
        (self.taken, place)
    }
}

impl Taking<SharedEntry> {
    fn page(self) -> Page {
        Page { entries: self.taken, passed: self.passed }
    }

    fn page_up_to(self, place: Seq) -> Page {
        Page { entries: self.taken, passed: place }
    }
}
