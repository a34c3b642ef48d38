//! One open connection: the state it shares with the watcher, and its socket.
//!
//! The socket records the progress of the request. The watcher signals the connection to check its time limits, to
//! close, or to shut down.
//!
//! Must not know: what is served over it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::budget::Share;
use crate::http::request::connections::ConnectionLease;
use crate::server::connection_error::ConnectionError;
use crate::server::progress::{Phase, Progress, TimeLimits, Timeout};
use crate::server::request_head::{HeadLimits, RequestHead};
use crate::server::watcher::Watcher;

/// Heads up to this size are not charged to the budget of bytes in memory.
const HEAD_FREE_BYTES: usize = 16 << 10;

/// Settings of the section `[connections]`. Streams and channels have limits of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time to receive the headers of a request, milliseconds. On a new connection it starts when the
    /// connection is accepted.
    pub head_ms: u64,
    /// Size of all headers of a request together, bytes. The URL has its own limit of 65,534 bytes.
    pub headers_max_bytes: usize,
    /// Number of headers of a request.
    pub headers_max_lines: usize,
    /// Time between a response and the next request, milliseconds; then the connection is closed.
    pub idle_ms: u64,
    /// Time that a client may leave its response unread, milliseconds; then the connection is reset.
    pub write_ms: u64,
    /// Time that a client has to read an error response before its connection is closed, milliseconds.
    pub refused_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            head_ms: 10_000,
            headers_max_bytes: 64 << 10,
            headers_max_lines: 100,
            idle_ms: 75_000,
            write_ms: 30_000,
            refused_ms: 2_000,
        }
    }
}

impl Config {
    /// The limits of headers.
    #[must_use]
    pub const fn head_limits(&self) -> HeadLimits {
        HeadLimits { bytes: self.headers_max_bytes, lines: self.headers_max_lines }
    }

    /// The time limits.
    #[must_use]
    pub const fn time_limits(&self) -> TimeLimits {
        TimeLimits { head_ms: self.head_ms, idle_ms: self.idle_ms, write_ms: self.write_ms }
    }
}

/// Bits of the signals sent to a connection.
const CHECK_TIMEOUT: u8 = 1;
const EVICT: u8 = 2;
const SHUT_DOWN: u8 = 4;

/// What a connection has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Close: a time limit is exceeded.
    TimedOut(Timeout),
    /// Close: it is idle, and a new connection needs its place.
    Evict,
    /// Accept no further request.
    ShutDown,
}

/// The state a connection shares with the watcher.
#[derive(Debug)]
pub struct Connection {
    /// Its phase, for the time limits.
    pub progress: Progress,
    watcher: Arc<Watcher>,
    id: u64,
    signals: AtomicU8,
    waker: AtomicWaker,
    /// Whether a request body was dropped before its end.
    has_unread_body: AtomicBool,
    /// The budget's share of a large head.
    head_share: Mutex<Option<Share>>,
    _lease: ConnectionLease,
}

impl Connection {
    /// A connection just accepted, with the id the watcher gave it.
    #[must_use]
    pub fn new(watcher: Arc<Watcher>, id: u64, lease: ConnectionLease) -> Self {
        Self {
            progress: Progress::new(watcher.now()),
            watcher,
            id,
            signals: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            has_unread_body: AtomicBool::new(false),
            head_share: Mutex::new(None),
            _lease: lease,
        }
    }

    /// The watcher of all connections.
    #[must_use]
    pub const fn watcher(&self) -> &Arc<Watcher> {
        &self.watcher
    }

    fn send(&self, signal: u8) {
        self.signals.fetch_or(signal, Ordering::Release);
        self.waker.wake();
    }

    /// Signals it to check its time limits.
    pub fn check_timeout(&self) {
        self.send(CHECK_TIMEOUT);
    }

    /// Signals it to close if it is still idle.
    pub fn evict(&self) {
        self.send(EVICT);
    }

    /// Signals it to accept no further request.
    pub fn shut_down(&self) {
        self.send(SHUT_DOWN);
    }

    /// Takes the pending signal, if it still applies. The task of `context` is woken by the next one.
    pub fn take_signal(&self, context: &Context<'_>) -> Option<Signal> {
        self.waker.register(context.waker());
        let signals = self.signals.swap(0, Ordering::Acquire);
        if signals & EVICT != 0 && self.progress.idle_since().is_some() {
            return Some(Signal::Evict);
        }
        let timeout = || self.progress.timeout(self.watcher.now(), &self.watcher.config().time_limits());
        if signals & CHECK_TIMEOUT != 0
            && let Some(timeout) = timeout()
        {
            return Some(Signal::TimedOut(timeout));
        }
        (signals & SHUT_DOWN != 0).then_some(Signal::ShutDown)
    }

    /// Records that the head of a request was read and its handling starts.
    pub fn start_request(&self) {
        self.progress.request_started(self.watcher.now());
        self.has_unread_body.store(false, Ordering::Relaxed);
    }

    /// Records that a request body was dropped before its end.
    pub fn set_unread_body(&self) {
        self.has_unread_body.store(true, Ordering::Relaxed);
    }

    /// Whether the client may still be sending a body that nobody reads.
    #[must_use]
    pub fn has_unread_body(&self) -> bool {
        self.has_unread_body.load(Ordering::Relaxed)
    }

    /// Returns the budget's share of the head, which is not in memory any more.
    pub fn release_head(&self) {
        *self.head_share.lock() = None;
    }

    /// Charges a head of this size to the budget.
    fn charge_head(&self, bytes: usize) -> Result<(), ConnectionError> {
        let mut head = self.head_share.lock();
        if bytes <= HEAD_FREE_BYTES {
            // Any share is that of the previous request.
            *head = None;
            return Ok(());
        }
        let share = head.get_or_insert_with(|| self.watcher.budget().share());
        if share.reach(bytes as u64) {
            Ok(())
        } else {
            Err(ConnectionError::Memory { max_bytes: self.watcher.budget().max() })
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.watcher.unregister(self.id);
    }
}

/// The socket of a connection, which records its progress and limits the heads of requests.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
    head: RequestHead,
    error: Option<ConnectionError>,
}

impl Socket {
    /// Wraps a socket just accepted.
    #[must_use]
    pub const fn new(stream: TcpStream, connection: Arc<Connection>) -> Self {
        Self { stream, connection, head: RequestHead::NEW, error: None }
    }

    /// The TCP stream, and the error to answer with, if there is one.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, Option<ConnectionError>) {
        (self.stream, self.error)
    }

    fn received(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        let connection = &self.connection;
        if connection.progress.received(connection.watcher.now()) {
            self.head = RequestHead::NEW;
        }
        if connection.progress.phase() != Phase::Head {
            return Ok(());
        }
        let limits = connection.watcher.config().head_limits();
        self.head.count(bytes, limits).map_err(ConnectionError::TooLong)?;
        connection.charge_head(self.head.bytes())
    }

    fn record_write(&self, written: &Poll<io::Result<usize>>) {
        let (progress, now) = (&self.connection.progress, self.connection.watcher.now());
        match written {
            Poll::Ready(_) => progress.wrote(now),
            Poll::Pending => progress.write_blocked(now),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        let received = into.filled().get(before..).unwrap_or_default();
        if let Poll::Ready(Ok(())) = read
            && !received.is_empty()
            && let Err(error) = self.received(received)
        {
            self.error = Some(error);
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the head of the request exceeds a limit",
            )));
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.record_write(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The error response is still to be sent, unless the client has its response and is sending a body that
        // nobody reads.
        if self.error.is_some() && !self.connection.has_unread_body() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.record_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
