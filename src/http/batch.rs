//! Batches of a preload on their way to clients. A batch is half a megabyte; a client that does not read must not hold one. So a
//! connection keeps only the numbers of the killmails, their texts wait in a parking place of limited size for all connections, and a
//! slow client whose batch had to leave gets its texts from the store again.
//!
//! Must not know: why these killmails are sent.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::domain::id::{EventId, Place};
use crate::feed::event::{Batch, Kept};
use crate::http::slots::Kind;
use crate::http::sse::Out;
use crate::store::{Hit, Store};
use crate::wire::{event, killmail};
use crate::{store, tasks};

/// Bytes of killmails made ready at a time: what one connection holds beside the pieces the HTTP library holds.
const READY_BYTES: usize = 8 * 1024;

/// Where the texts of batches wait.
#[derive(Debug, Default)]
pub struct Parking {
    parked: Mutex<Parked>,
}

#[derive(Debug, Default)]
struct Parked {
    loads: VecDeque<Arc<Load>>,
    bytes: usize,
}

/// The texts of one batch.
#[derive(Debug)]
struct Load {
    texts: Vec<Bytes>,
    bytes: usize,
}

impl Parking {
    /// Parks texts; the oldest leave where there is not enough room.
    fn park(&self, texts: Vec<Bytes>, max_bytes: usize) -> Weak<Load> {
        let bytes = texts.iter().map(Bytes::len).sum();
        let load = Arc::new(Load { texts, bytes });
        let weak = Arc::downgrade(&load);
        let mut parked = self.parked.lock();
        parked.bytes += bytes;
        parked.loads.push_back(load);
        while parked.bytes > max_bytes {
            let Some(oldest) = parked.loads.pop_front() else { break };
            parked.bytes -= oldest.bytes;
        }
        weak
    }

    fn leave(&self, load: &Weak<Load>) {
        let mut parked = self.parked.lock();
        if let Some(at) = parked.loads.iter().position(|one| std::ptr::eq(Arc::as_ptr(one), load.as_ptr()))
            && let Some(load) = parked.loads.remove(at)
        {
            parked.bytes -= load.bytes;
        }
    }
}

/// One batch on its way.
#[derive(Debug)]
pub struct Sending {
    kind: Kind,
    parking: Arc<Parking>,
    load: Weak<Load>,
    lines: Vec<Line>,
    /// Killmails handed out so far; an enhanced batch has every killmail twice.
    at: usize,
    id: EventId,
    tail: Bytes,
}

#[derive(Debug)]
struct Line {
    hit: Hit,
    annotations: Vec<(String, Arc<str>)>,
}

impl Sending {
    /// Takes over a batch. Up to `parked_bytes` of texts wait for all connections.
    pub fn new(kind: Kind, parking: &Arc<Parking>, parked_bytes: usize, batch: Batch) -> Self {
        let texts = batch.kept.iter().map(|kept| killmail::json(&kept.entry)).collect();
        let last = batch.judged.then_some(batch.last);
        let tail = event::batch_tail(batch.kept.len(), batch.number, batch.total, last);
        let line =
            |Kept { entry, annotations }: Kept| Line { hit: Hit { seq: entry.seq, killmail_id: entry.facts.killmail_id }, annotations };
        Self {
            kind,
            parking: Arc::clone(parking),
            load: parking.park(texts, parked_bytes),
            lines: batch.kept.into_iter().map(line).collect(),
            at: 0,
            id: batch.id,
            tail,
        }
    }

    /// Makes the next part ready; false when that was the last.
    ///
    /// # Errors
    /// The killmails could not be read again.
    pub async fn fill(&mut self, store: &Arc<Store>, out: &mut Out) -> Result<bool, Error> {
        let lap = self.lines.len();
        let begun = if lap == 0 { 0 } else { self.at % lap };
        let texts = self.texts(store, begun).await?;
        let count = texts.len();
        match self.kind {
            Kind::Basic => self.one_by_one(begun, texts, out),
            Kind::Enhanced => self.together(begun, texts, out),
        }
        self.at += count;
        let laps = if self.kind == Kind::Basic { 1 } else { 2 };
        Ok(self.at < lap * laps)
    }

    fn one_by_one(&self, begun: usize, texts: Vec<Bytes>, out: &mut Out) {
        for (line, text) in self.lines[begun..].iter().zip(texts) {
            let place = Place::Preload { head: self.id.place.head(), after: line.hit.killmail_id };
            out.open(None, Some(&EventId { epoch: self.id.epoch, place }));
            out.data_copied(&text);
            out.close();
        }
    }

    fn together(&self, begun: usize, texts: Vec<Bytes>, out: &mut Out) {
        let (lap, end) = (self.lines.len(), begun + texts.len());
        if self.at == 0 {
            out.open(Some("batch"), Some(&self.id));
            out.piece(Bytes::from_static(event::BATCH_KILLS));
        }
        for (n, text) in (begun..).zip(texts) {
            if n > 0 {
                out.piece(Bytes::from_static(b","));
            }
            out.data_copied(&text);
        }
        // An empty batch has both lists at once.
        if end == lap && (self.at < lap || lap == 0) {
            out.piece(Bytes::from_static(event::BATCH_KILLMAILS));
        }
        if end == lap && (self.at >= lap || lap == 0) {
            out.piece(self.tail.clone());
            out.close();
        }
    }

    async fn texts(&self, store: &Arc<Store>, begun: usize) -> Result<Vec<Bytes>, Error> {
        let range = begun..self.end_of(begun, store);
        let texts = match self.load.upgrade() {
            Some(load) => load.texts[range.clone()].to_vec(),
            None => self.again(store, range.clone()).await?,
        };
        let annotated = |(line, text): (&Line, Bytes)| {
            if line.annotations.is_empty() { text } else { killmail::with_annotations(&text, &line.annotations) }
        };
        Ok(self.lines[range].iter().zip(texts).map(annotated).collect())
    }

    fn end_of(&self, begun: usize, store: &Store) -> usize {
        let mut bytes = 0;
        let fits = |line: &&Line| {
            bytes += store.weight_of(line.hit.seq) as usize;
            bytes <= READY_BYTES
        };
        let count = self.lines[begun..].iter().take_while(fits).count().max(1);
        self.lines.len().min(begun + count)
    }

    async fn again(&self, store: &Arc<Store>, range: Range<usize>) -> Result<Vec<Bytes>, Error> {
        let hits: Vec<Hit> = self.lines[range].iter().map(|line| line.hit).collect();
        let store = Arc::clone(store);
        let entries = tasks::blocking("batch-again", move || {
            let entries = store.entries(&hits)?;
            if entries.len() == hits.len() { Ok(entries) } else { Err(Error::Gone) }
        });
        Ok(entries.await??.iter().map(|entry| killmail::json(entry)).collect())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.parking.leave(&self.load);
    }
}

/// Why a batch could not be sent to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::error::Error),
    /// Work was lost.
    #[error(transparent)]
    Lost(#[from] tasks::Lost),
    /// A killmail is no longer kept.
    #[error("a killmail of the batch is no longer kept")]
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_loads_leave_first() {
        let parking = Parking::default();
        let texts = || vec![Bytes::from_static(b"0123456789")];
        let first = parking.park(texts(), 25);
        let second = parking.park(texts(), 25);
        assert!(first.upgrade().is_some());
        let third = parking.park(texts(), 25);
        assert!(first.upgrade().is_none() && second.upgrade().is_some());
        parking.leave(&second);
        parking.leave(&first);
        assert!(second.upgrade().is_none() && third.upgrade().is_some());
        let parked = parking.parked.lock();
        assert_eq!((parked.bytes, parked.loads.len()), (10, 1));
    }

    #[test]
    fn a_load_larger_than_the_place_is_not_kept() {
        let parking = Parking::default();
        assert!(parking.park(vec![Bytes::from_static(b"0123456789")], 5).upgrade().is_none());
        assert_eq!(parking.parked.lock().bytes, 0);
    }
}
