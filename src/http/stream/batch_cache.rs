//! Batches of a preload on their way to clients. A batch is half a megabyte; a client that does not read must
//! not hold one. So a connection keeps only the numbers of the killmails, their texts wait in a parking place
//! of limited size for all connections, and a slow client whose batch had to leave gets its texts from the
//! store again.
//!
//! Must not know: why these killmails are sent.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::domain::id::{EventId, Place};
use crate::feed::event::{Batch, Delivered};
use crate::http::stream::sse::{EVENT_BYTES, Out};
use crate::http::stream::stream_limits::StreamKind;
use crate::store::query::Hit;
use crate::store::{self, Store};
use crate::tasks;
use crate::wire::batch_key::BatchKey;
use crate::wire::event::{self, BATCH_FRAME_BYTES};
use crate::wire::killmail;

/// Bytes of killmails made ready at a time: what one connection holds beside the pieces the HTTP library
/// holds.
const READY_BYTES: usize = 4 * 1024;

/// Where the texts of batches wait.
#[derive(Debug, Default)]
pub struct BatchCache {
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

impl BatchCache {
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

/// How a batch is written: each killmail as an event of its own, or all in one line with one or both lists.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// The kind of stream.
    pub kind: StreamKind,
    /// Which lists a line has.
    pub key: BatchKey,
    /// A line of more than one killmail has at most so many bytes.
    pub line_max_bytes: u64,
}

impl Form {
    /// The bytes of a line of so many killmails that have these bytes together.
    const fn line_bytes(&self, killmails: usize, bytes: usize) -> u64 {
        BATCH_FRAME_BYTES + self.key.copies() * (bytes + killmails) as u64
    }

    /// How many killmails each line of this batch has. It was cut by what the store knows of them; what a
    /// plugin said is known only now.
    fn cut(&self, kept: &[Delivered]) -> Vec<usize> {
        if self.kind == StreamKind::Basic {
            return vec![kept.len()];
        }
        let mut lines = vec![0];
        let mut bytes = 0;
        for one in kept {
            let length = killmail::json(&one.entry).len() + killmail::annotations_bytes(&one.annotations);
            let killmails = lines.last().copied().unwrap_or(0);
            if killmails > 0 && self.line_bytes(killmails + 1, bytes + length) > self.line_max_bytes {
                lines.push(0);
                bytes = 0;
            }
            bytes += length;
            lines.last_mut().into_iter().for_each(|killmails| *killmails += 1);
        }
        lines
    }
}

/// Takes over a batch, in as many lines as it needs: nearly always one. `beyond` counts those of this preload
/// that were not planned. Up to `parked_bytes` of texts wait for all connections.
pub fn lines_of(
    batch: Batch,
    form: Form,
    beyond: &mut u64,
    parking: &Arc<BatchCache>,
    parked_bytes: usize,
) -> VecDeque<Sending> {
    let cut = form.cut(&batch.kept);
    let Batch { kept, number, total, last, judged, head, id } = batch;
    let mut kept = kept.into_iter();
    let mut sendings = VecDeque::with_capacity(cut.len());
    for (at, killmails) in cut.iter().enumerate() {
        let kept: Vec<Delivered> = kept.by_ref().take(*killmails).collect();
        let is_end = at + 1 == cut.len();
        let after = kept.last().map_or(0, |one| one.entry.facts.killmail_id);
        let id = if is_end { id } else { EventId { epoch: id.epoch, place: Place::Preload { head, after } } };
        let line = Batch {
            kept,
            number: number + *beyond,
            total: total + *beyond,
            last: last && is_end,
            judged,
            head,
            id,
        };
        sendings.push_back(Sending::new(form, parking, parked_bytes, line));
        *beyond += u64::from(!is_end);
    }
    sendings
}

/// One line of a batch on its way.
#[derive(Debug)]
pub struct Sending {
    form: Form,
    parking: Arc<BatchCache>,
    load: Weak<Load>,
    lines: Vec<Line>,
    /// Killmails handed out so far; a line with both lists has every killmail twice.
    at: usize,
    /// Bytes of the next one handed out.
    within: usize,
    id: EventId,
    tail: Bytes,
    /// The bytes of the whole line.
    bytes: u64,
}

#[derive(Debug)]
struct Line {
    hit: Hit,
    /// The revision whose text was begun: it may have to be read again, and another may have come in between.
    rev: u64,
    annotations: Vec<(String, Arc<str>)>,
}

impl Sending {
    fn new(form: Form, parking: &Arc<BatchCache>, parked_bytes: usize, batch: Batch) -> Self {
        let texts: Vec<Bytes> = batch.kept.iter().map(|kept| killmail::json(&kept.entry)).collect();
        let said: usize = batch.kept.iter().map(|kept| killmail::annotations_bytes(&kept.annotations)).sum();
        let tail = event::batch_tail(batch.kept.len(), batch.number, batch.total, batch.last);
        let line = |Delivered { entry, annotations }: Delivered| Line {
            hit: Hit { seq: entry.seq, killmail_id: entry.facts.killmail_id },
            rev: entry.rev,
            annotations,
        };
        Self {
            form,
            bytes: form.line_bytes(texts.len(), said + texts.iter().map(Bytes::len).sum::<usize>()),
            parking: Arc::clone(parking),
            load: parking.park(texts, parked_bytes),
            lines: batch.kept.into_iter().map(line).collect(),
            at: 0,
            within: 0,
            id: batch.id,
            tail,
        }
    }

    /// Makes the next part ready: the whole where it is not long, else about `READY_BYTES`; false when that
    /// was the last.
    ///
    /// # Errors
    /// The killmails could not be read again, or one changed half way.
    pub async fn fill(&mut self, store: &Arc<Store>, out: &mut Out) -> Result<bool, Error> {
        match self.form.kind {
            StreamKind::Basic => self.fill_events(store, out).await,
            StreamKind::Enhanced if self.lines.is_empty() || self.bytes <= EVENT_BYTES as u64 => {
                let texts = self.texts(store, 0..self.lines.len()).await?;
                out.event(Some("batch"), Some(&self.id), &self.line(&texts));
                Ok(false)
            }
            StreamKind::Enhanced => self.fill_line(store, out).await,
        }
    }

    /// A whole line.
    fn line(&self, texts: &[Bytes]) -> Bytes {
        let list = texts.join(&b","[..]);
        let mut line = Vec::with_capacity(usize::try_from(self.bytes).unwrap_or_default());
        line.extend_from_slice(self.form.key.head());
        line.extend_from_slice(&list);
        if self.form.key == BatchKey::Both {
            line.extend_from_slice(event::BATCH_KILLMAILS);
            line.extend_from_slice(&list);
        }
        line.extend_from_slice(&self.tail);
        Bytes::from(line)
    }

    /// The next events of one killmail each.
    async fn fill_events(&mut self, store: &Arc<Store>, out: &mut Out) -> Result<bool, Error> {
        if self.at == self.lines.len() {
            return Ok(false);
        }
        let range = self.ready(self.at, store);
        for (n, text) in (self.at..).zip(self.texts(store, range).await?) {
            let place = Place::Preload { head: self.id.place.head(), after: self.lines[n].hit.killmail_id };
            out.event(None, Some(&EventId { epoch: self.id.epoch, place }), &text);
            self.at = n + 1;
        }
        Ok(self.at < self.lines.len())
    }

    /// The next part of a long line.
    async fn fill_line(&mut self, store: &Arc<Store>, out: &mut Out) -> Result<bool, Error> {
        let lap = self.lines.len();
        let begun = self.at % lap;
        let mut room = READY_BYTES;
        for (n, text) in (begun..).zip(self.texts(store, self.ready(begun, store)).await?) {
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
        }
        let is_over = self.at as u64 == lap as u64 * self.form.key.copies();
        if is_over {
            out.piece(self.tail.clone());
            out.close();
        }
        Ok(!is_over)
    }

    /// What stands before the text of a killmail in a long line.
    fn open(&self, n: usize, out: &mut Out) {
        if self.at == 0 {
            out.open(Some("batch"), Some(&self.id));
            out.piece(Bytes::from_static(self.form.key.head()));
        } else {
            out.piece(Bytes::from_static(if n == 0 { event::BATCH_KILLMAILS } else { b"," }));
        }
    }

    async fn texts(&self, store: &Arc<Store>, range: Range<usize>) -> Result<Vec<Bytes>, Error> {
        let texts = match self.load.upgrade() {
            Some(load) => load.texts[range.clone()].to_vec(),
            None => self.again(store, range.clone()).await?,
        };
        let annotated = |(line, text): (&Line, Bytes)| {
            if line.annotations.is_empty() {
                text
            } else {
                killmail::with_annotations(&text, &line.annotations)
            }
        };
        Ok(self.lines[range].iter().zip(texts).map(annotated).collect())
    }

    /// The killmails from here on that are made ready together.
    fn ready(&self, begun: usize, store: &Store) -> Range<usize> {
        let mut bytes = 0;
        let fits = |line: &&Line| {
            bytes += store.weight_of(line.hit.seq) as usize;
            bytes <= READY_BYTES
        };
        let count = self.lines[begun..].iter().take_while(fits).count().max(1);
        begun..self.lines.len().min(begun + count)
    }

    async fn again(&self, store: &Arc<Store>, range: Range<usize>) -> Result<Vec<Bytes>, Error> {
        let Some(begun) = self.lines.get(range.start) else { return Ok(Vec::new()) };
        let rev = begun.rev;
        let hits: Vec<Hit> = self.lines[range].iter().map(|line| line.hit).collect();
        let store = Arc::clone(store);
        let entries = tasks::blocking("batch-again", move || {
            let entries = store.entries(&hits)?;
            if entries.len() == hits.len() { Ok(entries) } else { Err(Error::Gone) }
        });
        let entries = entries.await??;
        if self.within > 0 && entries[0].rev != rev {
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
    Store(#[from] store::error::StoreError),
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
#[path = "batch_cache_tests.rs"]
mod tests;
