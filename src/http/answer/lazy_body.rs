//! A body that is made while it is taken: when the client has everything, the next step is awaited, never
//! sooner.
//!
//! The HTTP library would take up to 16 pieces for a connection that does not drain, whatever their size. So
//! a piece counts until the library lets go of it, which is when the socket has it, and the next one waits
//! while too much is on its way. Whoever collects such a body without a socket copies each piece and drops
//! it, or waits for ever.
//!
//! Must not know: what is poured.

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

use crate::http::stream::sse::Out;

/// What a step gives: more pieces and what the next step needs, or nothing at the end. An error cuts the
/// connection, so that the client does not take what it has for everything.
pub type Next<S> = io::Result<Option<(S, Out)>>;

/// While so many bytes are with the HTTP library, it gets no further piece: there are many streams, and most
/// are quiet.
const UNSENT_BYTES: usize = 16 << 10;

/// What the HTTP library has and the socket has not.
#[derive(Debug)]
struct Unsent {
    max_bytes: usize,
    bytes: AtomicUsize,
    pieces: AtomicUsize,
    /// Who waits for it to become less.
    waiting: Mutex<Option<Waker>>,
}

impl Unsent {
    fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max_bytes,
            bytes: AtomicUsize::new(0),
            pieces: AtomicUsize::new(0),
            waiting: Mutex::default(),
        })
    }

    /// Whether there is room for a further piece; if not, the caller is woken when there is.
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        *self.waiting.lock() = Some(context.waker().clone());
        // What was sent before the waker was there woke nobody.
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// A compressor keeps the piece it has read until it gets the next one: a single piece never holds up
    /// another, however large.
    fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Acquire) < self.max_bytes || self.pieces.load(Ordering::Acquire) < 2
    }

    fn counted(self: &Arc<Self>, piece: Bytes) -> Bytes {
        self.bytes.fetch_add(piece.len(), Ordering::AcqRel);
        self.pieces.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Counted { piece, unsent: Arc::clone(self) })
    }
}

/// A piece that says when it is gone.
struct Counted {
    piece: Bytes,
    unsent: Arc<Unsent>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.unsent.bytes.fetch_sub(self.piece.len(), Ordering::AcqRel);
        self.unsent.pieces.fetch_sub(1, Ordering::AcqRel);
        if let Some(waker) = self.unsent.waiting.lock().take() {
            waker.wake();
        }
    }
}

/// A stream of pieces. `step` gets what the last step gave back.
pub struct LazyBody<S, F> {
    out: Out,
    step: F,
    coming: Option<ReusableBoxFuture<'static, Next<S>>>,
    unsent: Arc<Unsent>,
}

impl<S, F, W> LazyBody<S, F>
where
    F: Fn(S) -> W,
    W: Future<Output = Next<S>> + Send + 'static,
{
    /// Begins with these pieces.
    pub fn new(first: Out, state: S, step: F) -> Self {
        let coming = Some(ReusableBoxFuture::new(step(state)));
        Self { out: first, step, coming, unsent: Unsent::new(UNSENT_BYTES) }
    }

    /// The same with more on its way at a time: each time the HTTP library has to come back for more costs a
    /// write to the socket.
    pub fn with_unsent(self, max_bytes: usize) -> Self {
        Self { unsent: Unsent::new(max_bytes), ..self }
    }
}

impl<S, F, W> Stream for LazyBody<S, F>
where
    S: Unpin,
    F: Fn(S) -> W + Unpin,
    W: Future<Output = Next<S>> + Send + 'static,
{
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if !this.out.is_empty() {
                ready!(this.unsent.poll_room(context));
            }
            if let Some(piece) = this.out.pop() {
                return Poll::Ready(Some(Ok(this.unsent.counted(piece))));
            }
            let Some(coming) = &mut this.coming else { return Poll::Ready(None) };
            match ready!(coming.poll(context)) {
                Ok(Some((state, out))) => {
                    this.out = out;
                    coming.set((this.step)(state));
                }
                // What the steps held is free at once, not when the connection ends.
                Ok(None) => this.coming = None,
                Err(error) => {
                    this.coming = None;
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
    async fn steps_follow_one_another_to_the_end() {
        let mut first = Out::default();
        first.piece(Bytes::from_static(b"a"));
        let pour = LazyBody::new(first, 0_u8, |n| async move {
            let mut out = Out::default();
            out.piece(Bytes::from(vec![b'0' + n]));
            Ok((n < 3).then_some((n + 1, out)))
        });
        let pieces: Vec<_> = pour.map(|piece| piece.unwrap()).collect().await;
        assert_eq!(pieces, ["a", "0", "1", "2"]);
    }

    /// Pieces nobody lets go of stop the pour; the first that is let go of wakes it.
    #[tokio::test]
    async fn what_is_not_sent_holds_up_what_follows() {
        let pour = LazyBody::new(Out::default(), (), |()| async {
            let mut out = Out::default();
            out.piece(Bytes::from(vec![b'x'; UNSENT_BYTES / 4]));
            Ok(Some(((), out)))
        });
        let mut pour = std::pin::pin!(pour);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut held = Vec::new();
        while let Poll::Ready(piece) = pour.as_mut().poll_next(&mut context) {
            held.push(piece.unwrap().unwrap());
        }
        assert_eq!((held.len(), woken.0.load(Ordering::Acquire)), (4, 0));
        held.pop();
        assert_eq!(woken.0.load(Ordering::Acquire), 1);
        held.push(match pour.as_mut().poll_next(&mut context) {
            Poll::Ready(Some(Ok(piece))) => piece,
            other => panic!("{other:?}"),
        });
        assert!(pour.as_mut().poll_next(&mut context).is_pending());
    }

    /// As a compressor does: it asks for the next piece and only then lets go of the one before.
    #[tokio::test]
    async fn a_reader_that_keeps_its_last_piece_gets_the_next_one() {
        let pour = LazyBody::new(Out::default(), 0_u8, |n| async move {
            let mut out = Out::default();
            out.piece(Bytes::from(vec![b'x'; 2 * UNSENT_BYTES]));
            Ok((n < 5).then_some((n + 1, out)))
        });
        let mut pour = std::pin::pin!(pour);
        let mut context = Context::from_waker(Waker::noop());
        let (mut kept, mut pieces) = (Bytes::new(), 0);
        loop {
            match pour.as_mut().poll_next(&mut context) {
                Poll::Ready(Some(piece)) => kept = piece.unwrap(),
                Poll::Ready(None) => break,
                Poll::Pending => panic!(
                    "piece {pieces} never comes while the one before, of {} bytes, is kept",
                    kept.len()
                ),
            }
            pieces += 1;
        }
        assert_eq!(pieces, 5);
    }

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }
}
