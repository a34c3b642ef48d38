//! A body that is made while it is taken: when the client has everything, the next step is awaited, never sooner.
//!
//! Must not know: what is poured.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio_stream::Stream;
use tokio_util::sync::ReusableBoxFuture;

use crate::http::sse::Out;

/// What a step gives: more pieces and what the next step needs, or nothing at the end. An error cuts the connection, so that the client
/// does not take what it has for everything.
pub type Next<S> = io::Result<Option<(S, Out)>>;

/// A stream of pieces. `step` gets what the last step gave back.
pub struct Pour<S, F> {
    out: Out,
    step: F,
    coming: Option<ReusableBoxFuture<'static, Next<S>>>,
}

impl<S, F, W> Pour<S, F>
where
    F: Fn(S) -> W,
    W: Future<Output = Next<S>> + Send + 'static,
{
    /// Begins with these pieces.
    pub fn new(first: Out, state: S, step: F) -> Self {
        let coming = Some(ReusableBoxFuture::new(step(state)));
        Self { out: first, step, coming }
    }
}

impl<S, F, W> Stream for Pour<S, F>
where
    S: Unpin,
    F: Fn(S) -> W + Unpin,
    W: Future<Output = Next<S>> + Send + 'static,
{
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(piece) = this.out.pop() {
                return Poll::Ready(Some(Ok(piece)));
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
        let pour = Pour::new(first, 0_u8, |n| async move {
            let mut out = Out::default();
            out.piece(Bytes::from(vec![b'0' + n]));
            Ok((n < 3).then_some((n + 1, out)))
        });
        let pieces: Vec<_> = pour.map(|piece| piece.unwrap()).collect().await;
        assert_eq!(pieces, ["a", "0", "1", "2"]);
    }
}
