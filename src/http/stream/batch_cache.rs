//! Batches of a preload while they are sent. A batch takes half a megabyte, and a client that does not read
//! must not keep one in memory. So a connection keeps only the numbers of the killmails. Their texts are in a
//! cache of limited size that all connections share; a slow client whose texts were evicted gets them from
//! the store again.
//!
//! Must not know: why these killmails are sent.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::domain::id::{EventId, Place};
use crate::feed::event::{Batch, Delivered};
use crate::http::stream::sse::{Chunks, EVENT_BYTES};
use crate::http::stream::stream_limits::StreamKind;
use crate::store::query::Hit;
use crate::store::{self, Store};
use crate::tasks;
use crate::wire::batch_key::BatchKey;
use crate::wire::event::{self, BATCH_FRAME_BYTES};
use crate::wire::killmail;

/// Bytes of killmails written at a time: what a connection holds beside the chunks in the HTTP library.
const STEP_BYTES: usize = 4 * 1024;

/// The texts of batches that are being sent, of all connections.
#[derive(Debug, Default)]
pub struct BatchCache {
    cached: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    /// The oldest first.
    batches: VecDeque<Arc<BatchTexts>>,
    bytes: usize,
}

#[derive(Debug)]
struct BatchTexts {
    texts: Vec<Bytes>,
    bytes: usize,
}

impl BatchCache {
    /// Adds texts; the oldest are evicted if there is not enough room.
    fn insert(&self, texts: Vec<Bytes>, max_bytes: usize) -> Weak<BatchTexts> {
        let bytes = texts.iter().map(Bytes::len).sum();
        let batch = Arc::new(BatchTexts { texts, bytes });
        let weak = Arc::downgrade(&batch);
        let mut cached = self.cached.lock();
        cached.bytes += bytes;
        cached.batches.push_back(batch);
        while cached.bytes > max_bytes {
            let Some(oldest) = cached.batches.pop_front() else { break };
            cached.bytes -= oldest.bytes;
        }
        weak
    }

    fn remove(&self, batch: &Weak<BatchTexts>) {
        let mut cached = self.cached.lock();
        if let Some(at) =
            cached.batches.iter().position(|other| std::ptr::eq(Arc::as_ptr(other), batch.as_ptr()))
            && let Some(batch) = cached.batches.remove(at)
        {
            cached.bytes -= batch.bytes;
        }
    }
}

/// How a batch is written: on a basic stream as one event per killmail, on an enhanced one as `batch` events
/// with one or both lists.
#[derive(Debug, Clone, Copy)]
pub struct BatchFormat {
    /// The kind of stream.
    pub kind: StreamKind,
    /// Which lists a `batch` event has.
    pub key: BatchKey,
    /// The longest `data:` line of more than one killmail, bytes.
    pub line_max_bytes: u64,
}

impl BatchFormat {
    /// The length of a line with this number of killmails, whose texts have `bytes` bytes together.
    const fn line_bytes(&self, killmails: usize, bytes: usize) -> u64 {
        BATCH_FRAME_BYTES + self.key.copies() * (bytes + killmails) as u64
    }

    /// The number of killmails in each line. The reader split batches by the stored sizes; the size of
    /// annotations is known only here.
    fn split(&self, kept: &[Delivered]) -> Vec<usize> {
        if self.kind == StreamKind::Basic {
            return vec![kept.len()];
        }
        let mut lines = vec![0];
        let mut bytes = 0;
        for delivered in kept {
            let length =
                killmail::json(&delivered.entry).len() + killmail::annotations_bytes(&delivered.annotations);
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

/// Splits a batch into as many lines as it needs, nearly always one. `extra_lines` counts the lines of this
/// preload beyond the planned ones. The cache holds up to `cache_bytes` for all connections.
pub fn split_batch(
    batch: Batch,
    format: BatchFormat,
    extra_lines: &mut u64,
    cache: &Arc<BatchCache>,
    cache_bytes: usize,
) -> VecDeque<OutgoingLine> {
    let sizes = format.split(&batch.kept);
    let Batch { kept, number, total, last, judged, head, id } = batch;
    let mut kept = kept.into_iter();
    let mut lines = VecDeque::with_capacity(sizes.len());
    for (at, killmails) in sizes.iter().enumerate() {
        let kept: Vec<Delivered> = kept.by_ref().take(*killmails).collect();
        let is_end = at + 1 == sizes.len();
        let after = kept.last().map_or(0, |delivered| delivered.entry.facts.killmail_id);
        let id = if is_end { id } else { EventId { epoch: id.epoch, place: Place::Preload { head, after } } };
        let line = Batch {
            kept,
            number: number + *extra_lines,
            total: total + *extra_lines,
            last: last && is_end,
            judged,
            head,
            id,
        };
        lines.push_back(OutgoingLine::new(format, cache, cache_bytes, line));
        *extra_lines += u64::from(!is_end);
    }
    lines
}

/// One line of a batch that is being sent.
#[derive(Debug)]
pub struct OutgoingLine {
    format: BatchFormat,
    cache: Arc<BatchCache>,
    /// Gone when the cache evicted them.
    texts: Weak<BatchTexts>,
    killmails: Vec<OutgoingKillmail>,
    /// Killmails written so far; a line with both lists has every killmail twice.
    written: usize,
    /// Bytes written of the next killmail.
    written_bytes: usize,
    id: EventId,
    tail: Bytes,
    /// The length of the whole line.
    bytes: u64,
}

#[derive(Debug)]
struct OutgoingKillmail {
    hit: Hit,
    /// The revision of the text that was begun. If it has to be read again, it may have been revised since.
    rev: u64,
    annotations: Vec<(String, Arc<str>)>,
}

impl OutgoingLine {
    fn new(format: BatchFormat, cache: &Arc<BatchCache>, cache_bytes: usize, batch: Batch) -> Self {
        let texts: Vec<Bytes> = batch.kept.iter().map(|kept| killmail::json(&kept.entry)).collect();
        let annotations: usize =
            batch.kept.iter().map(|kept| killmail::annotations_bytes(&kept.annotations)).sum();
        let tail = event::batch_tail(batch.kept.len(), batch.number, batch.total, batch.last);
        let outgoing = |Delivered { entry, annotations }: Delivered| OutgoingKillmail {
            hit: Hit { seq: entry.seq, killmail_id: entry.facts.killmail_id },
            rev: entry.rev,
            annotations,
        };
        Self {
            format,
            bytes: format.line_bytes(texts.len(), annotations + texts.iter().map(Bytes::len).sum::<usize>()),
            cache: Arc::clone(cache),
            texts: cache.insert(texts, cache_bytes),
            killmails: batch.kept.into_iter().map(outgoing).collect(),
            written: 0,
            written_bytes: 0,
            id: batch.id,
            tail,
        }
    }

    /// Writes the next part: all of it if the line is short, otherwise about `STEP_BYTES`. Returns whether
    /// there is more.
    ///
    /// # Errors
    /// The killmails could not be read again, or one was revised halfway.
    pub async fn write_next(&mut self, store: &Arc<Store>, chunks: &mut Chunks) -> Result<bool, Error> {
        match self.format.kind {
            StreamKind::Basic => self.write_events(store, chunks).await,
            StreamKind::Enhanced if self.killmails.is_empty() || self.bytes <= EVENT_BYTES as u64 => {
                let texts = self.read_texts(store, 0..self.killmails.len()).await?;
                chunks.event(Some("batch"), Some(&self.id), &self.whole_line(&texts));
                Ok(false)
            }
            StreamKind::Enhanced => self.write_line_part(store, chunks).await,
        }
    }

    fn whole_line(&self, texts: &[Bytes]) -> Bytes {
        let list = texts.join(&b","[..]);
        let mut line = Vec::with_capacity(usize::try_from(self.bytes).unwrap_or_default());
        line.extend_from_slice(self.format.key.head());
        line.extend_from_slice(&list);
        if self.format.key == BatchKey::Both {
            line.extend_from_slice(event::BATCH_KILLMAILS);
            line.extend_from_slice(&list);
        }
        line.extend_from_slice(&self.tail);
        Bytes::from(line)
    }

    /// Writes the next events of one killmail each.
    async fn write_events(&mut self, store: &Arc<Store>, chunks: &mut Chunks) -> Result<bool, Error> {
        if self.written == self.killmails.len() {
            return Ok(false);
        }
        let range = self.next_range(self.written, store);
        for (n, text) in (self.written..).zip(self.read_texts(store, range).await?) {
            let place =
                Place::Preload { head: self.id.place.head(), after: self.killmails[n].hit.killmail_id };
            chunks.event(None, Some(&EventId { epoch: self.id.epoch, place }), &text);
            self.written = n + 1;
        }
        Ok(self.written < self.killmails.len())
    }

    /// Writes the next part of a long line.
    async fn write_line_part(&mut self, store: &Arc<Store>, chunks: &mut Chunks) -> Result<bool, Error> {
        let in_list = self.killmails.len();
        let next = self.written % in_list;
        let mut room = STEP_BYTES;
        for (n, text) in (next..).zip(self.read_texts(store, self.next_range(next, store)).await?) {
            if room == 0 {
                return Ok(true);
            }
            let part = text.slice(self.written_bytes..text.len().min(self.written_bytes + room));
            if self.written_bytes == 0 {
                self.begin_killmail(n, chunks);
            }
            chunks.data_copied(&part);
            self.written_bytes += part.len();
            if self.written_bytes < text.len() {
                return Ok(true);
            }
            room -= part.len();
            (self.written, self.written_bytes) = (self.written + 1, 0);
        }
        let is_over = self.written as u64 == in_list as u64 * self.format.key.copies();
        if is_over {
            chunks.push(self.tail.clone());
            chunks.end_event();
        }
        Ok(!is_over)
    }

    /// Writes what precedes the text of a killmail in a long line.
    fn begin_killmail(&self, n: usize, chunks: &mut Chunks) {
        if self.written == 0 {
            chunks.begin_event(Some("batch"), Some(&self.id));
            chunks.push(Bytes::from_static(self.format.key.head()));
        } else {
            chunks.push(Bytes::from_static(if n == 0 { event::BATCH_KILLMAILS } else { b"," }));
        }
    }

    async fn read_texts(&self, store: &Arc<Store>, range: Range<usize>) -> Result<Vec<Bytes>, Error> {
        let texts = match self.texts.upgrade() {
            Some(batch) => batch.texts[range.clone()].to_vec(),
            None => self.read_again(store, range.clone()).await?,
        };
        let annotated = |(killmail, text): (&OutgoingKillmail, Bytes)| {
            if killmail.annotations.is_empty() {
                text
            } else {
                killmail::with_annotations(&text, &killmail.annotations)
            }
        };
        Ok(self.killmails[range].iter().zip(texts).map(annotated).collect())
    }

    /// The killmails from `next` on that are written together.
    fn next_range(&self, next: usize, store: &Store) -> Range<usize> {
        let mut bytes = 0;
        let fits = |killmail: &&OutgoingKillmail| {
            bytes += store.weight_of(killmail.hit.seq) as usize;
            bytes <= STEP_BYTES
        };
        let count = self.killmails[next..].iter().take_while(fits).count().max(1);
        next..self.killmails.len().min(next + count)
    }

    async fn read_again(&self, store: &Arc<Store>, range: Range<usize>) -> Result<Vec<Bytes>, Error> {
        let Some(first) = self.killmails.get(range.start) else { return Ok(Vec::new()) };
        let rev = first.rev;
        let hits: Vec<Hit> = self.killmails[range].iter().map(|killmail| killmail.hit).collect();
        let store = Arc::clone(store);
        let entries = tasks::blocking("batch-again", move || {
            let entries = store.entries(&hits)?;
            if entries.len() == hits.len() { Ok(entries) } else { Err(Error::Gone) }
        });
        let entries = entries.await??;
        if self.written_bytes > 0 && entries[0].rev != rev {
            return Err(Error::Changed);
        }
        Ok(entries.iter().map(|entry| killmail::json(entry)).collect())
    }
}

impl Drop for OutgoingLine {
    fn drop(&mut self) {
        self.cache.remove(&self.texts);
    }
}

/// Why a batch could not be sent to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::error::StoreError),
    /// The task was lost.
    #[error(transparent)]
    Lost(#[from] tasks::Lost),
    /// A killmail is not in the store any more.
    #[error("a killmail of the batch is no longer in the store")]
    Gone,
    /// A killmail was revised after a part of it was sent. A client that reconnects with its last event id
    /// gets all of it.
    #[error("a killmail of the batch was revised while it was being sent")]
    Changed,
}

#[cfg(test)]
#[path = "batch_cache_tests.rs"]
mod tests;
