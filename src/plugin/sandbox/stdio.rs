//! What a guest writes to stdout and stderr, where language runtimes report their errors. After the call its
//! lines go to the guest's log, and the tail of stderr is kept for the message of a fault.
//!
//! The guest notices nothing of this: both streams accept whatever is written, at once, in any amount.
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

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// What is kept of one call, at most.
#[derive(Debug, Clone, Copy)]
pub struct StdioLimits {
    /// Lines of both streams together.
    pub lines: usize,
    /// Bytes of one line; the rest of a longer line is dropped.
    pub line_bytes: usize,
    /// Bytes of the tail of stderr.
    pub tail_bytes: usize,
}

/// What was written in one call.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct GuestOutput {
    /// Complete lines, in the order in which they ended.
    pub lines: Vec<(Stream, Vec<u8>)>,
    /// Lines beyond the limit.
    pub dropped_lines: u64,
}

/// A line that has not ended yet.
#[derive(Debug, Default)]
struct PartialLine {
    bytes: Vec<u8>,
    /// Something was written to it, even if nothing of it was kept.
    begun: bool,
}

#[derive(Debug)]
struct Inner {
    limits: StdioLimits,
    output: GuestOutput,
    out: PartialLine,
    err: PartialLine,
    stderr_tail: Vec<u8>,
}

/// Collects what one guest writes. Clones share the same output.
#[derive(Debug, Clone)]
pub struct Stdio(Arc<(AtomicBool, Mutex<Inner>)>);

impl Stdio {
    /// Nothing was written yet.
    #[must_use]
    pub fn new(limits: StdioLimits) -> Self {
        let inner = Inner {
            limits,
            output: GuestOutput::default(),
            out: PartialLine::default(),
            err: PartialLine::default(),
            stderr_tail: Vec::new(),
        };
        Self(Arc::new((AtomicBool::new(false), Mutex::new(inner))))
    }

    /// The stream to give to the guest.
    #[must_use]
    pub fn stream(&self, stream: Stream) -> Sink {
        Sink { stdio: self.clone(), stream }
    }

    /// Takes what was written since the last reset and ends unfinished lines. `None` if nothing was written.
    #[must_use]
    pub fn take_output(&self) -> Option<GuestOutput> {
        let (wrote, inner) = &*self.0;
        // Checked without the lock, because almost no call writes anything.
        if !wrote.load(Ordering::Relaxed) {
            return None;
        }
        let mut inner = inner.lock();
        inner.end_line(Stream::Out);
        inner.end_line(Stream::Err);
        Some(mem::take(&mut inner.output))
    }

    /// The tail of what was written to stderr in this call.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        String::from_utf8_lossy(&self.0.1.lock().stderr_tail).into_owned()
    }

    /// Adds a line to the tail of stderr: an error that the guest logged in another way.
    pub fn add_to_stderr_tail(&self, line: &str) {
        let (wrote, inner) = &*self.0;
        wrote.store(true, Ordering::Relaxed);
        let mut inner = inner.lock();
        inner.extend_tail(line.as_bytes());
        inner.extend_tail(b"\n");
    }

    /// Forgets the output of the last call.
    pub fn reset(&self) {
        let (wrote, inner) = &*self.0;
        if wrote.swap(false, Ordering::Relaxed) {
            let mut inner = inner.lock();
            inner.output = GuestOutput::default();
            (inner.out, inner.err, inner.stderr_tail) =
                (PartialLine::default(), PartialLine::default(), Vec::new());
        }
    }
}

impl Inner {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        if let Some(first) = pieces.next() {
            self.partial_line(stream).push(first);
        }
        for piece in pieces {
            self.end_whole_line(stream);
            self.partial_line(stream).push(piece);
        }
        if stream == Stream::Err {
            self.extend_tail(bytes);
        }
    }

    fn partial_line(&mut self, stream: Stream) -> LineWriter<'_> {
        let room = if self.output.lines.len() < self.limits.lines { self.limits.line_bytes } else { 0 };
        let line = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        LineWriter { line, room }
    }

    /// Ends an unfinished line, if there is one.
    fn end_line(&mut self, stream: Stream) {
        if self.partial_line(stream).line.begun {
            self.end_whole_line(stream);
        }
    }

    fn end_whole_line(&mut self, stream: Stream) {
        let PartialLine { bytes, begun } = mem::take(self.partial_line(stream).line);
        if !begun {
            // Empty lines are not logged.
        } else if self.output.lines.len() < self.limits.lines {
            self.output.lines.push((stream, bytes));
        } else {
            self.output.dropped_lines += 1;
        }
    }

    fn extend_tail(&mut self, bytes: &[u8]) {
        let max = self.limits.tail_bytes;
        let last = &bytes[bytes.len().saturating_sub(max)..];
        self.stderr_tail.extend_from_slice(last);
        // Not at each write, because removing the beginning moves the rest.
        if self.stderr_tail.len() > max.saturating_mul(2) {
            self.stderr_tail.drain(..self.stderr_tail.len() - max);
        }
    }
}

struct LineWriter<'a> {
    line: &'a mut PartialLine,
    room: usize,
}

impl LineWriter<'_> {
    fn push(self, piece: &[u8]) {
        let Self { line, room } = self;
        line.begun |= !piece.is_empty();
        line.bytes.extend_from_slice(&piece[..piece.len().min(room.saturating_sub(line.bytes.len()))]);
    }
}

/// One of the two streams, as a guest holds it.
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

    // Belongs to WASI 0.3, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(empty())
    }
}

impl OutputStream for Sink {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let (wrote, inner) = &*self.stdio.0;
        wrote.store(true, Ordering::Relaxed);
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
        Stdio::new(StdioLimits { lines, line_bytes: 8, tail_bytes: 10 })
    }

    fn write(stdio: &Stdio, stream: Stream, text: &str) {
        let mut sink = stdio.stream(stream);
        assert!(sink.check_write().is_ok_and(|most| most == WRITE_BYTES_MAX));
        assert!(sink.write(Bytes::copy_from_slice(text.as_bytes())).is_ok());
    }

    fn lines(output: &GuestOutput) -> Vec<(Stream, &str)> {
        output.lines.iter().map(|(stream, bytes)| (*stream, str::from_utf8(bytes).unwrap())).collect()
    }

    #[test]
    fn lines_are_joined_and_cut() {
        let stdio = stdio(9);
        assert_eq!(stdio.take_output(), None, "nothing was written");
        write(&stdio, Stream::Out, "on");
        write(&stdio, Stream::Err, "\nbad\n\nwor");
        write(&stdio, Stream::Out, "e\n0123456789\nlast");
        let output = stdio.take_output().unwrap();
        let expected = [
            (Stream::Err, "bad"),
            (Stream::Out, "one"),
            (Stream::Out, "01234567"),
            (Stream::Out, "last"),
            (Stream::Err, "wor"),
        ];
        assert_eq!((lines(&output), output.dropped_lines), (expected.to_vec(), 0));
        stdio.reset();
        assert_eq!((stdio.take_output(), stdio.stderr_tail()), (None, String::new()));
    }

    #[test]
    fn a_flood_of_output_takes_bounded_memory_and_is_counted() {
        let stdio = stdio(2);
        for _ in 0..1_000 {
            write(&stdio, Stream::Err, &format!("{}\n", "x".repeat(1_000)));
        }
        write(&stdio, Stream::Err, "the end");
        let inner = stdio.0.1.lock();
        assert!(inner.stderr_tail.capacity() <= 64 && inner.err.bytes.capacity() <= 8, "{inner:?}");
        drop(inner);
        let output = stdio.take_output().unwrap();
        assert_eq!((output.lines.len(), output.dropped_lines), (2, 999));
        assert!(stdio.stderr_tail().ends_with("xx\nthe end"), "{}", stdio.stderr_tail());
    }

    #[test]
    fn the_tail_of_stderr_is_kept() {
        let stdio = stdio(2);
        write(&stdio, Stream::Err, "one\n");
        write(&stdio, Stream::Out, "another matter\n");
        stdio.add_to_stderr_tail("two");
        assert_eq!(stdio.stderr_tail(), "one\ntwo\n");
    }
}
