//! A WebSocket as one end of a conversation: it is written to while it is read, and nobody waits for a slow
//! client but its own frames.
//!
//! Must not know: what is said.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::time::{sleep, timeout};
use yawc::close::CloseCode;
use yawc::{Frame, HttpWebSocket, OpCode, WebSocketError};

/// Frames that wait for the client; beyond this it is not read either, so that answers cannot pile up.
const WAITING_MAX: usize = 64;
/// Bytes of a fragment.
const FRAGMENT_BYTES: usize = 16 << 10;
/// Pings in a row whose pongs wait, likewise.
const PONGS_MAX: usize = 16;

/// One end of a conversation.
pub struct Socket {
    socket: HttpWebSocket,
    waiting: VecDeque<Frame>,
    unflushed: bool,
    pongs: usize,
    /// Whether our close frame is on its way: there is one, and the last.
    closed: bool,
}

/// What happened on the line.
#[derive(Debug)]
pub enum Turn {
    /// A text came.
    Text(Bytes),
    /// Bytes came.
    Binary(Bytes),
    /// A sign of life.
    Alive,
    /// Everything is written.
    Drained,
    /// The other end says goodbye, or went without.
    Ended,
    /// The other end broke the rules, in the way this code says.
    Broken(CloseCode),
}

impl Socket {
    /// Of a socket just opened.
    #[must_use]
    pub const fn new(socket: HttpWebSocket) -> Self {
        Self { socket, waiting: VecDeque::new(), unflushed: false, pongs: 0, closed: false }
    }

    /// Sends a text, when its turn comes.
    pub fn text(&mut self, text: Bytes) {
        self.waiting.push_back(Frame::text(text));
    }

    /// Sends a text of several parts without putting them together: as fragments of one message, small enough
    /// that a client that does not read holds up little.
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

    /// Asks for a sign of life.
    pub fn ping(&mut self) {
        self.waiting.push_back(Frame::ping(Bytes::new()));
    }

    /// Whether everything is written.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.waiting.is_empty() && !self.unflushed
    }

    /// Writes what waits and reads what comes, until something happened. Dropping the future loses nothing.
    pub async fn turn(&mut self) -> Turn {
        poll_fn(|context| self.poll_turn(context)).await
    }

    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        let was_free = self.is_free();
        if self.poll_write(context).is_err() {
            return Poll::Ready(Turn::Ended);
        }
        if self.waiting.len() >= WAITING_MAX {
            return Poll::Pending;
        }
        if self.pongs >= PONGS_MAX {
            match self.socket.poll_ready_unpin(context) {
                Poll::Ready(Ok(())) => self.pongs = 0,
                Poll::Ready(Err(_)) => return Poll::Ready(Turn::Ended),
                Poll::Pending => return Poll::Pending,
            }
        }
        if let Poll::Ready(read) = self.socket.poll_next_frame(context) {
            return Poll::Ready(self.read(read));
        }
        if !was_free && self.is_free() { Poll::Ready(Turn::Drained) } else { Poll::Pending }
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

    fn read(&mut self, read: Result<Frame, WebSocketError>) -> Turn {
        let frame = match read {
            Ok(frame) => frame,
            Err(WebSocketError::ConnectionClosed | WebSocketError::IoError(_)) => return Turn::Ended,
            Err(WebSocketError::FrameTooLarge) => return Turn::Broken(CloseCode::Size),
            Err(WebSocketError::InvalidUTF8) => return Turn::Broken(CloseCode::Invalid),
            Err(error) => {
                tracing::debug!(%error, "a client breaks the rules of WebSockets");
                return Turn::Broken(CloseCode::Protocol);
            }
        };
        match frame.opcode() {
            OpCode::Text => Turn::Text(frame.into_payload()),
            OpCode::Binary => Turn::Binary(frame.into_payload()),
            OpCode::Ping => {
                self.pongs += 1;
                Turn::Alive
            }
            OpCode::Close => {
                // The answer is written already, and nothing may follow a close frame.
                self.waiting.clear();
                Turn::Ended
            }
            OpCode::Pong | OpCode::Continuation => Turn::Alive,
        }
    }

    /// Says goodbye and waits for the other end to do so, but not longer than this.
    pub async fn close(mut self, code: CloseCode, reason: &str, within: Duration) {
        self.waiting.push_back(Frame::close(code, reason));
        // Who does not answer is gone.
        let _ = timeout(within, async {
            match self.last_turns().await {
                _ if self.closed => {}
                Turn::Broken(_) => self.close_now(code, reason).await,
                // The other end was first, and is owed the answer.
                _ => drop(self.last_turns().await),
            }
        })
        .await;
    }

    /// Sends the reason for cutting the other end off, and waits: who is cut off while it writes may never
    /// read it.
    pub async fn cut(mut self, code: CloseCode, reason: &str, within: Duration) {
        let _ = timeout(within, async {
            self.close_now(code, reason).await;
            sleep(within).await;
        })
        .await;
    }

    /// Sends the answer to the other end's close frame, if it sent one.
    pub async fn finish(mut self, within: Duration) {
        let _ = timeout(within, self.last_turns()).await;
    }

    /// Sends a close frame behind what is written, and nothing else any more. The socket, which saw the rules
    /// broken too, may have a close frame of its own ready; it would write it when asked whether it is ready
    /// or when read from, so neither is done.
    async fn close_now(&mut self, code: CloseCode, reason: &str) {
        self.waiting.clear();
        self.closed = true;
        if self.socket.start_send_unpin(Frame::close(code, reason)).is_ok() {
            // Who went meanwhile does not read it.
            let _ = poll_fn(|context| self.socket.poll_flush_unpin(context)).await;
        }
    }

    /// Goes on until the other end said goodbye, or broke the rules: says which.
    async fn last_turns(&mut self) -> Turn {
        loop {
            let turn = self.turn().await;
            if matches!(turn, Turn::Ended | Turn::Broken(_)) {
                return turn;
            }
        }
    }
}
