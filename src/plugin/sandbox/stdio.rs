//! What a guest writes to stdout and stderr: runtimes of languages tell their errors there. Its lines go to
//! its log when the call is over, and the end of what it said of errors is kept for the words of a fault.
//!
//! To the guest nothing shows: both take whatever is written, at once, as much as it likes.
//!
//! Must not know: where the log is, or what ends a call.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, empty};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

/// What a guest may write at once, bytes.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// For words.
    Out,
    /// For errors.
    Err,
}

/// What is kept of one call, at most.
#[derive(Debug, Clone, Copy)]
pub struct CaptureLimits {
    /// Lines.
    pub lines: usize,
    /// Bytes of a line.
    pub line_bytes: usize,
    /// Bytes of the end of what was said of errors.
    pub end_bytes: usize,
}

/// What was written in one call.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Whole lines, in the order in which they ended.
    pub lines: Vec<(Stream, Vec<u8>)>,
    /// Lines beyond those.
    pub left_out: u64,
}

/// A line that has not ended.
#[derive(Debug, Default)]
struct Open {
    bytes: Vec<u8>,
    /// Something is in it, kept or not.
    begun: bool,
}

#[derive(Debug)]
struct Inner {
    bounds: CaptureLimits,
    written: Written,
    out: Open,
    err: Open,
    end: Vec<u8>,
}

/// What a guest writes, shared with the streams it holds.
#[derive(Debug, Clone)]
pub struct Stdio(Arc<(AtomicBool, Mutex<Inner>)>);

impl Stdio {
    /// Nothing was written.
    #[must_use]
    pub fn new(bounds: CaptureLimits) -> Self {
        let inner = Inner {
            bounds,
            written: Written::default(),
            out: Open::default(),
            err: Open::default(),
            end: Vec::new(),
        };
        Self(Arc::new((AtomicBool::new(false), Mutex::new(inner))))
    }

    /// The stream as the guest gets it.
    #[must_use]
    pub fn stream(&self, stream: Stream) -> Sink {
        Sink { stdio: self.clone(), stream }
    }

    /// Takes what was written; a line that has not ended ends here.
    #[must_use]
    pub fn take(&self) -> Option<Written> {
        let (any, inner) = &*self.0;
        // Nearly no call writes anything.
        if !any.load(Ordering::Relaxed) {
            return None;
        }
        let mut inner = inner.lock();
        inner.end_line(Stream::Out);
        inner.end_line(Stream::Err);
        Some(mem::take(&mut inner.written))
    }

    /// The end of what was said of errors in the call.
    #[must_use]
    pub fn end(&self) -> String {
        String::from_utf8_lossy(&self.0.1.lock().end).into_owned()
    }

    /// Notes what was said of an error on another way.
    pub fn note(&self, line: &str) {
        let (any, inner) = &*self.0;
        any.store(true, Ordering::Relaxed);
        let mut inner = inner.lock();
        inner.keep_end(line.as_bytes());
        inner.keep_end(b"\n");
    }

    /// A new call begins.
    pub fn begin(&self) {
        let (any, inner) = &*self.0;
        if any.swap(false, Ordering::Relaxed) {
            let mut inner = inner.lock();
            inner.written = Written::default();
            (inner.out, inner.err, inner.end) = (Open::default(), Open::default(), Vec::new());
        }
    }
}

impl Inner {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        if let Some(first) = pieces.next() {
            self.open(stream).take(first);
        }
        for piece in pieces {
            self.end_whole_line(stream);
            self.open(stream).take(piece);
        }
        if stream == Stream::Err {
            self.keep_end(bytes);
        }
    }

    fn open(&mut self, stream: Stream) -> Filling<'_> {
        let room = if self.written.lines.len() < self.bounds.lines { self.bounds.line_bytes } else { 0 };
        let open = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        Filling { open, room }
    }

    /// Ends a line that may have nothing in it.
    fn end_line(&mut self, stream: Stream) {
        if self.open(stream).open.begun {
            self.end_whole_line(stream);
        }
    }

    fn end_whole_line(&mut self, stream: Stream) {
        let Open { bytes, begun } = mem::take(self.open(stream).open);
        if !begun {
            // Empty lines say nothing.
        } else if self.written.lines.len() < self.bounds.lines {
            self.written.lines.push((stream, bytes));
        } else {
            self.written.left_out += 1;
        }
    }

    fn keep_end(&mut self, bytes: &[u8]) {
        let max = self.bounds.end_bytes;
        let last = &bytes[bytes.len().saturating_sub(max)..];
        self.end.extend_from_slice(last);
        // Not at each write: taking away the beginning moves the rest.
        if self.end.len() > max.saturating_mul(2) {
            self.end.drain(..self.end.len() - max);
        }
    }
}

struct Filling<'a> {
    open: &'a mut Open,
    room: usize,
}

impl Filling<'_> {
    fn take(self, piece: &[u8]) {
        let Self { open, room } = self;
        open.begun |= !piece.is_empty();
        open.bytes.extend_from_slice(&piece[..piece.len().min(room.saturating_sub(open.bytes.len()))]);
    }
}

/// One of the two streams as a guest holds it.
#[derive(Debug, Clone)]
pub struct Sink {
    stdio: Stdio,
    stream: Stream,
}

impl IsTerminal for Sink {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Sink {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    // Of a later version of WASI, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(empty())
    }
}

impl OutputStream for Sink {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let (any, inner) = &*self.stdio.0;
        any.store(true, Ordering::Relaxed);
        inner.lock().write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[async_trait]
impl Pollable for Sink {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stdio(lines: usize) -> Stdio {
        Stdio::new(CaptureLimits { lines, line_bytes: 8, end_bytes: 10 })
    }

    fn write(stdio: &Stdio, stream: Stream, text: &str) {
        let mut sink = stdio.stream(stream);
        assert!(sink.check_write().is_ok_and(|most| most == WRITE_BYTES_MAX));
        assert!(sink.write(Bytes::copy_from_slice(text.as_bytes())).is_ok());
    }

    fn lines(written: &Written) -> Vec<(Stream, &str)> {
        written.lines.iter().map(|(stream, bytes)| (*stream, str::from_utf8(bytes).unwrap())).collect()
    }

    #[test]
    fn lines_are_put_together_and_cut() {
        let stdio = stdio(9);
        assert_eq!(stdio.take(), None, "nothing was written");
        write(&stdio, Stream::Out, "on");
        write(&stdio, Stream::Err, "\nbad\n\nwor");
        write(&stdio, Stream::Out, "e\n0123456789\nlast");
        let written = stdio.take().unwrap();
        let expected = [
            (Stream::Err, "bad"),
            (Stream::Out, "one"),
            (Stream::Out, "01234567"),
            (Stream::Out, "last"),
            (Stream::Err, "wor"),
        ];
        assert_eq!((lines(&written), written.left_out), (expected.to_vec(), 0));
        stdio.begin();
        assert_eq!((stdio.take(), stdio.end()), (None, String::new()));
    }

    #[test]
    fn a_flood_takes_no_room_and_is_counted() {
        let stdio = stdio(2);
        for _ in 0..1_000 {
            write(&stdio, Stream::Err, &format!("{}\n", "x".repeat(1_000)));
        }
        write(&stdio, Stream::Err, "the end");
        let inner = stdio.0.1.lock();
        assert!(inner.end.capacity() <= 64 && inner.err.bytes.capacity() <= 8, "{inner:?}");
        drop(inner);
        let written = stdio.take().unwrap();
        assert_eq!((written.lines.len(), written.left_out), (2, 999));
        assert!(stdio.end().ends_with("xx\nthe end"), "{}", stdio.end());
    }

    #[test]
    fn what_was_said_of_errors_last_is_kept() {
        let stdio = stdio(2);
        write(&stdio, Stream::Err, "one\n");
        write(&stdio, Stream::Out, "another matter\n");
        stdio.note("two");
        assert_eq!(stdio.end(), "one\ntwo\n");
    }
}
