//! A WebSocket that is read and written at the same time. A slow client delays only its own frames.
//!
//! Must not know: what messages mean.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::time::{sleep, timeout};
use yawc::close::CloseCode;
use yawc::{Frame, HttpWebSocket, OpCode, WebSocketError};

/// Frames that may wait for the client. Beyond this it is not read either, so that replies cannot pile up.
const WAITING_MAX: usize = 64;
const FRAGMENT_BYTES: usize = 16 << 10;
/// Pings in a row whose pongs may wait, for the same reason.
const PONGS_MAX: usize = 16;

pub struct Socket {
    socket: HttpWebSocket,
    waiting: VecDeque<Frame>,
    unflushed: bool,
    pongs: usize,
    /// Whether our close frame was sent; nothing may follow it.
    closed: bool,
}

/// What happened on the socket.
#[derive(Debug)]
pub enum SocketEvent {
    /// A text message.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// A ping or pong.
    Alive,
    /// Everything has been written.
    Drained,
    /// The client closed the connection, or it broke.
    Ended,
    /// The client violated the protocol.
    Violation(CloseCode),
}

impl Socket {
    /// Wraps an open WebSocket.
    #[must_use]
    pub const fn new(socket: HttpWebSocket) -> Self {
        Self { socket, waiting: VecDeque::new(), unflushed: false, pongs: 0, closed: false }
    }

    /// Queues a text.
    pub fn text(&mut self, text: Bytes) {
        self.waiting.push_back(Frame::text(text));
    }

    /// Queues a text of several parts without joining them, as fragments of one message. They are small, so that a
    /// client that does not read holds little memory.
    pub fn fragments(&mut self, parts: [Bytes; 3]) {
        let pieces = parts.iter().flat_map(|part| {
            (0..part.len())
                .step_by(FRAGMENT_BYTES)
                .map(|at| part.slice(at..part.len().min(at + FRAGMENT_BYTES)))
        });
        for (at, piece) in pieces.enumerate() {
            let frame = if at == 0 { Frame::text(piece) } else { Frame::continuation(piece) };
            self.waiting.push_back(frame.with_fin(false));
        }
        if let Some(last) = self.waiting.back_mut() {
            last.set_fin(true);
        }
    }

    /// Queues a ping.
    pub fn ping(&mut self) {
        self.waiting.push_back(Frame::ping(Bytes::new()));
    }

    /// Whether everything has been written.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.waiting.is_empty() && !self.unflushed
    }

    /// Writes and reads until something happens. Dropping the future loses nothing.
    pub async fn next(&mut self) -> SocketEvent {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<SocketEvent> {
        let was_free = self.is_free();
        if self.poll_write(context).is_err() {
            return Poll::Ready(SocketEvent::Ended);
        }
        if self.waiting.len() >= WAITING_MAX {
            return Poll::Pending;
        }
        if self.pongs >= PONGS_MAX {
            match self.socket.poll_ready_unpin(context) {
                Poll::Ready(Ok(())) => self.pongs = 0,
                Poll::Ready(Err(_)) => return Poll::Ready(SocketEvent::Ended),
                Poll::Pending => return Poll::Pending,
            }
        }
        if let Poll::Ready(read) = self.socket.poll_next_frame(context) {
            return Poll::Ready(self.read(read));
        }
        if !was_free && self.is_free() { Poll::Ready(SocketEvent::Drained) } else { Poll::Pending }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<(), WebSocketError> {
        while !self.waiting.is_empty() {
            match self.socket.poll_ready_unpin(context)? {
                Poll::Pending => return Ok(()),
                Poll::Ready(()) => {
                    if let Some(frame) = self.waiting.pop_front() {
                        self.closed |= frame.opcode() == OpCode::Close;
                        self.socket.start_send_unpin(frame)?;
                        self.unflushed = true;
                    }
                }
            }
        }
        if self.unflushed && self.socket.poll_flush_unpin(context)?.is_ready() {
            self.unflushed = false;
            self.waiting.shrink_to(1);
        }
        Ok(())
    }

    fn read(&mut self, read: Result<Frame, WebSocketError>) -> SocketEvent {
        let frame = match read {
            Ok(frame) => frame,
            Err(WebSocketError::ConnectionClosed | WebSocketError::IoError(_)) => return SocketEvent::Ended,
            Err(WebSocketError::FrameTooLarge) => return SocketEvent::Violation(CloseCode::Size),
            Err(WebSocketError::InvalidUTF8) => return SocketEvent::Violation(CloseCode::Invalid),
            Err(error) => {
                tracing::debug!(%error, "a client violated the WebSocket protocol");
                return SocketEvent::Violation(CloseCode::Protocol);
            }
        };
        match frame.opcode() {
            OpCode::Text => SocketEvent::Text(frame.into_payload()),
            OpCode::Binary => SocketEvent::Binary(frame.into_payload()),
            OpCode::Ping => {
                self.pongs += 1;
                SocketEvent::Alive
            }
            OpCode::Close => {
                // The library has sent the answer, and nothing may follow a close frame.
                self.waiting.clear();
                SocketEvent::Ended
            }
            OpCode::Pong | OpCode::Continuation => SocketEvent::Alive,
        }
    }

    /// Sends a close frame and waits `within` this time for the client's.
    pub async fn close(mut self, code: CloseCode, reason: &str, within: Duration) {
        self.waiting.push_back(Frame::close(code, reason));
        // A client that does not respond is gone.
        let _ = timeout(within, async {
            match self.run_to_end().await {
                _ if self.closed => {}
                SocketEvent::Violation(_) => self.close_now(code, reason).await,
                // The client closed first and still needs the answer.
                _ => drop(self.run_to_end().await),
            }
        })
        .await;
    }

    /// Sends a close frame after a violation, and waits: a client that is disconnected while it writes may never read
    /// it.
    pub async fn reject(mut self, code: CloseCode, reason: &str, within: Duration) {
        let _ = timeout(within, async {
            self.close_now(code, reason).await;
            sleep(within).await;
        })
        .await;
    }

    /// Sends the answer to the client's close frame, if there was one.
    pub async fn finish(mut self, within: Duration) {
        let _ = timeout(within, self.run_to_end()).await;
    }

    /// Sends a close frame after what was written, and nothing else. The library noticed the violation, too, and may
    /// have a close frame of its own ready. It would send it when polled for readiness or read from, so neither is
    /// done.
    async fn close_now(&mut self, code: CloseCode, reason: &str) {
        self.waiting.clear();
        self.closed = true;
        if self.socket.start_send_unpin(Frame::close(code, reason)).is_ok() {
            // A client that left meanwhile does not read it.
            let _ = poll_fn(|context| self.socket.poll_flush_unpin(context)).await;
        }
    }

    /// Runs until the client closes the connection or violates the protocol; returns which.
    async fn run_to_end(&mut self) -> SocketEvent {
        loop {
            let event = self.next().await;
            if matches!(event, SocketEvent::Ended | SocketEvent::Violation(_)) {
                return event;
            }
        }
    }
}
