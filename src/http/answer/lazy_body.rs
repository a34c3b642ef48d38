//! A response body that is produced on demand: the next chunks are made only after the client has taken those
//! before.
//!
//! The HTTP library queues up to 16 chunks for a connection that does not drain, whatever their size. So each
//! chunk counts as unsent until the library drops it, which is when the socket has it, and the next chunk
//! waits while too many bytes are unsent. Code that collects such a body without a socket has to copy each
//! chunk and drop it, or it waits forever.
//!
//! Must not know: what the chunks hold.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_stream::Stream;
use tokio_util::sync::ReusableBoxFuture;

use crate::http::stream::sse::Chunks;

/// The result of a step: more chunks and the state for the next step, or `None` at the end. An error closes
/// the connection, so that the client does not mistake a part for the whole.
pub type StepResult<S> = io::Result<Option<(S, Chunks)>>;

/// The HTTP library gets no further chunk while this many bytes are unsent. It is small because there are
/// many streams, and most are quiet.
const UNSENT_BYTES: usize = 16 << 10;

/// Chunks that the HTTP library holds and the socket does not have yet.
#[derive(Debug)]
struct UnsentChunks {
    max_bytes: usize,
    bytes: AtomicUsize,
    chunks: AtomicUsize,
    /// Woken when a chunk is dropped.
    waiting: Mutex<Option<Waker>>,
}

impl UnsentChunks {
    fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max_bytes,
            bytes: AtomicUsize::new(0),
            chunks: AtomicUsize::new(0),
            waiting: Mutex::default(),
        })
    }

    /// Ready when the library may get another chunk; until then the task is woken when one is dropped.
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        *self.waiting.lock() = Some(context.waker().clone());
        // A chunk may have been dropped before the waker was stored.
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// A compressor keeps the chunk it has read until it gets the next one: a single chunk, however large,
    /// never delays another.
    fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Acquire) < self.max_bytes || self.chunks.load(Ordering::Acquire) < 2
    }

    fn track(self: &Arc<Self>, chunk: Bytes) -> Bytes {
        self.bytes.fetch_add(chunk.len(), Ordering::AcqRel);
        self.chunks.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Tracked { chunk, unsent: Arc::clone(self) })
    }
}

/// A chunk that reports when it is dropped.
struct Tracked {
    chunk: Bytes,
    unsent: Arc<UnsentChunks>,
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.unsent.bytes.fetch_sub(self.chunk.len(), Ordering::AcqRel);
        self.unsent.chunks.fetch_sub(1, Ordering::AcqRel);
        if let Some(waker) = self.unsent.waiting.lock().take() {
            waker.wake();
        }
    }
}

/// The body as a stream of chunks. Each step gets the state that the last one returned.
pub struct LazyBody<S, F> {
    chunks: Chunks,
    step: F,
    next_step: Option<ReusableBoxFuture<'static, StepResult<S>>>,
    unsent: Arc<UnsentChunks>,
}

impl<S, F, W> LazyBody<S, F>
where
    F: Fn(S) -> W,
    W: Future<Output = StepResult<S>> + Send + 'static,
{
    /// A body that begins with these chunks.
    pub fn new(first: Chunks, state: S, step: F) -> Self {
        let next_step = Some(ReusableBoxFuture::new(step(state)));
        Self { chunks: first, step, next_step, unsent: UnsentChunks::new(UNSENT_BYTES) }
    }

    /// Sets how many bytes may be unsent. More means fewer writes to the socket.
    pub fn with_unsent(self, max_bytes: usize) -> Self {
        Self { unsent: UnsentChunks::new(max_bytes), ..self }
    }
}

impl<S, F, W> Stream for LazyBody<S, F>
where
    S: Unpin,
    F: Fn(S) -> W + Unpin,
    W: Future<Output = StepResult<S>> + Send + 'static,
{
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if !this.chunks.is_empty() {
                ready!(this.unsent.poll_room(context));
            }
            if let Some(chunk) = this.chunks.pop() {
                return Poll::Ready(Some(Ok(this.unsent.track(chunk))));
            }
            let Some(next_step) = &mut this.next_step else { return Poll::Ready(None) };
            match ready!(next_step.poll(context)) {
                Ok(Some((state, chunks))) => {
                    this.chunks = chunks;
                    next_step.set((this.step)(state));
                }
                // Dropped now, and not when the connection ends: it may hold memory or a permit.
                Ok(None) => this.next_step = None,
                Err(error) => {
                    this.next_step = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn steps_run_one_after_another_to_the_end() {
        let mut first = Chunks::default();
        first.push(Bytes::from_static(b"a"));
        let body = LazyBody::new(first, 0_u8, |n| async move {
            let mut chunks = Chunks::default();
            chunks.push(Bytes::from(vec![b'0' + n]));
            Ok((n < 3).then_some((n + 1, chunks)))
        });
        let chunks: Vec<_> = body.map(|chunk| chunk.unwrap()).collect().await;
        assert_eq!(chunks, ["a", "0", "1", "2"]);
    }

    /// Chunks that are not dropped stop the body; the first that is dropped wakes it.
    #[tokio::test]
    async fn unsent_chunks_delay_what_follows() {
        let body = LazyBody::new(Chunks::default(), (), |()| async {
            let mut chunks = Chunks::default();
            chunks.push(Bytes::from(vec![b'x'; UNSENT_BYTES / 4]));
            Ok(Some(((), chunks)))
        });
        let mut body = std::pin::pin!(body);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut held = Vec::new();
        while let Poll::Ready(chunk) = body.as_mut().poll_next(&mut context) {
            held.push(chunk.unwrap().unwrap());
        }
        assert_eq!((held.len(), woken.0.load(Ordering::Acquire)), (4, 0));
        held.pop();
        assert_eq!(woken.0.load(Ordering::Acquire), 1);
        held.push(match body.as_mut().poll_next(&mut context) {
            Poll::Ready(Some(Ok(chunk))) => chunk,
            other => panic!("{other:?}"),
        });
        assert!(body.as_mut().poll_next(&mut context).is_pending());
    }

    /// Reads like a compressor: asks for the next chunk, and only then drops the one before.
    #[tokio::test]
    async fn a_reader_that_keeps_its_last_chunk_gets_the_next_one() {
        let body = LazyBody::new(Chunks::default(), 0_u8, |n| async move {
            let mut chunks = Chunks::default();
            chunks.push(Bytes::from(vec![b'x'; 2 * UNSENT_BYTES]));
            Ok((n < 5).then_some((n + 1, chunks)))
        });
        let mut body = std::pin::pin!(body);
        let mut context = Context::from_waker(Waker::noop());
        let (mut kept, mut chunks) = (Bytes::new(), 0);
        loop {
            match body.as_mut().poll_next(&mut context) {
                Poll::Ready(Some(chunk)) => kept = chunk.unwrap(),
                Poll::Ready(None) => break,
                Poll::Pending => panic!(
                    "chunk {chunks} never comes while the one before, of {} bytes, is kept",
                    kept.len()
                ),
            }
            chunks += 1;
        }
        assert_eq!(chunks, 5);
    }

    /// Counts wake-ups.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }
}
