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
const READY_BYTES: usize = 4 * 1024;

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
    /// Bytes of the next one handed out.
    within: usize,
    id: EventId,
    tail: Bytes,
}

#[derive(Debug)]
struct Line {
    hit: Hit,
    /// The revision whose text was begun: it may have to be read again, and another may have come in between.
    rev: u64,
    annotations: Vec<(String, Arc<str>)>,
}

impl Sending {
    /// Takes over a batch. Up to `parked_bytes` of texts wait for all connections.
    pub fn new(kind: Kind, parking: &Arc<Parking>, parked_bytes: usize, batch: Batch) -> Self {
        let texts = batch.kept.iter().map(|kept| killmail::json(&kept.entry)).collect();
        let last = batch.judged.then_some(batch.last);
        let tail = event::batch_tail(batch.kept.len(), batch.number, batch.total, last);
        let line = |Kept { entry, annotations }: Kept| Line {
            hit: Hit { seq: entry.seq, killmail_id: entry.facts.killmail_id },
            rev: entry.rev,
            annotations,
        };
        Self {
            kind,
            parking: Arc::clone(parking),
            load: parking.park(texts, parked_bytes),
            lines: batch.kept.into_iter().map(line).collect(),
            at: 0,
            within: 0,
            id: batch.id,
            tail,
        }
    }

    /// Makes the next part ready, about `READY_BYTES`; false when that was the last.
    ///
    /// # Errors
    /// The killmails could not be read again, or one changed half way.
    pub async fn fill(&mut self, store: &Arc<Store>, out: &mut Out) -> Result<bool, Error> {
        let lap = self.lines.len();
        let laps = if self.kind == Kind::Basic { 1 } else { 2 };
        let begun = if lap == 0 { 0 } else { self.at % lap };
        let mut room = READY_BYTES;
        for (n, text) in (begun..).zip(self.texts(store, begun).await?) {
            if room == 0 {
                return Ok(true);
            }
            let part = text.slice(self.within..text.len().min(self.within + room));
            if self.within == 0 {
                self.open(n, out);
            }
            out.data_copied(&part);
            self.within += part.len();
            if self.within < text.len() {
                return Ok(true);
            }
            room -= part.len();
            (self.at, self.within) = (self.at + 1, 0);
            self.close(out);
        }
        if lap == 0 && self.kind == Kind::Enhanced {
            // An empty batch has both lists at once.
            self.head(out);
            out.piece(Bytes::from_static(event::BATCH_KILLMAILS));
            self.end(out);
        }
        Ok(self.at < lap * laps)
    }

    /// What stands before the text of a killmail.
    fn open(&self, n: usize, out: &mut Out) {
        match self.kind {
            Kind::Basic => {
                let place = Place::Preload { head: self.id.place.head(), after: self.lines[n].hit.killmail_id };
                out.open(None, Some(&EventId { epoch: self.id.epoch, place }));
            }
            Kind::Enhanced if self.at == 0 => self.head(out),
            Kind::Enhanced if n == 0 => out.piece(Bytes::from_static(event::BATCH_KILLMAILS)),
            Kind::Enhanced => out.piece(Bytes::from_static(b",")),
        }
    }

    /// What stands behind the text of a killmail.
    fn close(&self, out: &mut Out) {
        match self.kind {
            Kind::Basic => out.close(),
            Kind::Enhanced if self.at == 2 * self.lines.len() => self.end(out),
            Kind::Enhanced => {}
        }
    }

    fn head(&self, out: &mut Out) {
        out.open(Some("batch"), Some(&self.id));
        out.piece(Bytes::from_static(event::BATCH_KILLS));
    }

    fn end(&self, out: &mut Out) {
        out.piece(self.tail.clone());
        out.close();
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
        let begun = &self.lines[range.start];
        let hits: Vec<Hit> = self.lines[range].iter().map(|line| line.hit).collect();
        let store = Arc::clone(store);
        let entries = tasks::blocking("batch-again", move || {
            let entries = store.entries(&hits)?;
            if entries.len() == hits.len() { Ok(entries) } else { Err(Error::Gone) }
        });
        let entries = entries.await??;
        if self.within > 0 && entries[0].rev != begun.rev {
            return Err(Error::Changed);
        }
        Ok(entries.iter().map(|entry| killmail::json(entry)).collect())
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
    /// A killmail was revised while half of it was sent; who comes back with the last id gets it whole.
    #[error("a killmail of the batch was revised while it was being sent")]
    Changed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::entry::Origin;
    use crate::domain::id::Seq;
    use crate::sample::generate::Recipe;
    use crate::store::{AgeRule, Config, Incoming, ZkbRule};

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

    fn store(killmails: u32) -> (tempfile::TempDir, Arc<Store>) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { dir: dir.path().to_owned(), encode: killmail::encode, ..Config::default() };
        let store = Store::open(config).unwrap();
        let made = Recipe { killmails: killmails.into(), revised: 0.0, ..Recipe::default() }.generate();
        let incoming = made.map(|made| Incoming {
            killmail: made.killmail,
            origin: Origin::Backfill,
            received_at_ms: made.uploaded_at * 1000,
            uploaded_at: Some(made.uploaded_at),
            age: AgeRule::ByUpload,
            zkb: ZkbRule::Keep,
        });
        store.append(incoming.collect(), None).unwrap();
        (dir, store)
    }

    /// A batch in small parts is the same text, whether its killmails wait in the parking place or are read again for each part.
    #[tokio::test]
    async fn parts_make_up_the_batch() {
        let (_dir, store) = store(12);
        let entries: Vec<_> = (1..=12).map(|seq| store.entry(Seq(seq)).unwrap().unwrap()).collect();
        let list = entries.iter().map(|entry| String::from_utf8(killmail::json(entry).to_vec()).unwrap()).collect::<Vec<_>>();
        let id = EventId { epoch: store.epoch(), place: Place::Preload { head: Seq(12), after: 1 } };
        for kind in [Kind::Basic, Kind::Enhanced] {
            for parked_bytes in [0, 1 << 20] {
                let kept = entries.iter().map(|entry| Kept { entry: entry.clone(), annotations: Vec::new() }).collect();
                let batch = Batch { kept, number: 1, total: 1, last: true, judged: false, head: Seq(12), id };
                let mut sending = Sending::new(kind, &Arc::default(), parked_bytes, batch);
                let mut text = Vec::new();
                loop {
                    let mut out = Out::default();
                    let more = sending.fill(&store, &mut out).await.unwrap();
                    let mut bytes = 0;
                    while let Some(piece) = out.pop() {
                        bytes += piece.len();
                        text.extend_from_slice(&piece);
                    }
                    assert!(bytes < READY_BYTES + 1_024, "{bytes} bytes were ready at once");
                    if !more {
                        break;
                    }
                }
                let text = String::from_utf8(text).unwrap();
                let found: Vec<&str> = text.split("data: ").skip(1).map(|block| block.split_once("\n\n").unwrap().0).collect();
                match kind {
                    Kind::Basic => assert_eq!(found, list),
                    Kind::Enhanced => {
                        let all = list.join(",");
                        assert!(found[0].starts_with(&format!("{{\"kills\":[{all}],\"killmails\":[{all}],\"count\":12,")), "{text}");
                    }
                }
            }
        }
    }
}
