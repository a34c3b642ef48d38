//! One open connection: what it shares with whoever watches over all of them, and its socket.
//!
//! The socket tells how far the request is; the watcher asks a connection to look at its time, to leave or to
//! come to an end.
//!
//! Must not know: what is served over it; how much time it may take.

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
use crate::server::head::{Head, Most};
use crate::server::progress::{Overdue, Phase, Progress, Times};
use crate::server::refusal::Refusal;
use crate::server::watcher::Watcher;

/// A head up to this size is not counted against the bytes in flight.
const HEAD_FREE_BYTES: usize = 16 << 10;

/// What connections may be told. Streams and channels have limits of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The header of a request must be whole within so long, milliseconds; on a new connection from the
    /// moment it is accepted.
    pub head_ms: u64,
    /// Header lines together may have so many bytes; the URL beside them has its own limit, 65,534.
    pub headers_max_bytes: usize,
    /// So many header lines may a request have.
    pub headers_max_lines: usize,
    /// A connection without a request is closed after so long, milliseconds.
    pub idle_ms: u64,
    /// A client that takes nothing of its answer for so long is cut off, milliseconds.
    pub write_ms: u64,
    /// Who is refused has so long to read why, milliseconds.
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
    /// The limits of header lines.
    #[must_use]
    pub const fn most(&self) -> Most {
        Most { bytes: self.headers_max_bytes, lines: self.headers_max_lines }
    }

    /// The limits of time.
    #[must_use]
    pub const fn times(&self) -> Times {
        Times { head_ms: self.head_ms, idle_ms: self.idle_ms, write_ms: self.write_ms }
    }
}

/// What a connection is asked to do, by bit.
const LOOK: u8 = 1;
const LEAVE: u8 = 2;
const END: u8 = 4;

/// What a connection finds when it looks what it was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A limit of time is broken.
    Over(Overdue),
    /// Others need its place.
    Leave,
    /// No further request shall be taken.
    End,
}

/// What a connection shares with its watcher.
#[derive(Debug)]
pub struct Connection {
    /// How far it is.
    pub progress: Progress,
    watch: Arc<Watcher>,
    number: u64,
    asked: AtomicU8,
    waker: AtomicWaker,
    /// Whether a body was not read to its end.
    unread: AtomicBool,
    /// What a large head takes of the bytes in flight.
    head: Mutex<Option<Share>>,
    _lease: ConnectionLease,
}

impl Connection {
    /// Under this number of the watcher.
    #[must_use]
    pub fn new(watch: Arc<Watcher>, number: u64, lease: ConnectionLease) -> Self {
        Self {
            progress: Progress::new(watch.now()),
            watch,
            number,
            asked: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            unread: AtomicBool::new(false),
            head: Mutex::new(None),
            _lease: lease,
        }
    }

    /// The watcher.
    #[must_use]
    pub const fn watch(&self) -> &Arc<Watcher> {
        &self.watch
    }

    fn ask(&self, what: u8) {
        self.asked.fetch_or(what, Ordering::Release);
        self.waker.wake();
    }

    /// Asks it to look at its time.
    pub fn look(&self) {
        self.ask(LOOK);
    }

    /// Asks it to leave, if it still has nothing to do.
    pub fn leave(&self) {
        self.ask(LEAVE);
    }

    /// Asks it to take no further request.
    pub fn end(&self) {
        self.ask(END);
    }

    /// What it was asked, if it still holds; whoever looks is woken when there is more.
    pub fn asked(&self, context: &Context<'_>) -> Option<Asked> {
        self.waker.register(context.waker());
        let asked = self.asked.swap(0, Ordering::Acquire);
        if asked & LEAVE != 0 && self.progress.idle_since().is_some() {
            return Some(Asked::Leave);
        }
        let overdue = || self.progress.overdue(self.watch.now(), &self.watch.config().times());
        if asked & LOOK != 0
            && let Some(overdue) = overdue()
        {
            return Some(Asked::Over(overdue));
        }
        (asked & END != 0).then_some(Asked::End)
    }

    /// A request begins.
    pub fn begin(&self) {
        self.progress.request(self.watch.now());
        self.unread.store(false, Ordering::Relaxed);
    }

    /// A body was left before its end.
    pub fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether the client may still be sending what nobody reads.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// The head of the request is not in memory any more.
    pub fn release_head(&self) {
        *self.head.lock() = None;
    }

    /// A head of so many bytes is in memory.
    fn hold_head(&self, bytes: usize) -> Result<(), Refusal> {
        let mut head = self.head.lock();
        if bytes <= HEAD_FREE_BYTES {
            // The one before is over.
            *head = None;
            return Ok(());
        }
        let share = head.get_or_insert_with(|| self.watch.budget().share());
        if share.reach(bytes as u64) {
            Ok(())
        } else {
            Err(Refusal::Memory { max_bytes: self.watch.budget().max() })
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.watch.gone(self.number);
    }
}

/// The socket of a connection.
#[derive(Debug)]
pub struct Guest {
    socket: TcpStream,
    connection: Arc<Connection>,
    head: Head,
    refusal: Option<Refusal>,
}

impl Guest {
    /// Of a socket just accepted.
    #[must_use]
    pub const fn new(socket: TcpStream, connection: Arc<Connection>) -> Self {
        Self { socket, connection, head: Head::NEW, refusal: None }
    }

    /// The socket, and why the connection was refused, if it was.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, Option<Refusal>) {
        (self.socket, self.refusal)
    }

    fn came(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let connection = &self.connection;
        if connection.progress.came(connection.watch.now()) {
            self.head = Head::NEW;
        }
        if connection.progress.phase() != Phase::Head {
            return Ok(());
        }
        self.head.take(bytes, connection.watch.config().most()).map_err(Refusal::TooLong)?;
        connection.hold_head(self.head.bytes())
    }

    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        let progress = &self.connection.progress;
        match written {
            Poll::Ready(_) => progress.wrote(self.connection.watch.now()),
            Poll::Pending => progress.blocked(self.connection.watch.now()),
        }
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, into);
        let came = into.filled().get(before..).unwrap_or_default();
        if let Poll::Ready(Ok(())) = read
            && !came.is_empty()
            && let Err(refusal) = self.came(came)
        {
            self.refusal = Some(refusal);
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the head of a request is refused",
            )));
        }
        read
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.wrote(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Who is refused is still to be told why; but not who was answered, and sends what nobody reads.
        if self.refusal.is_some() && !self.connection.is_unread() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, parts);
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
