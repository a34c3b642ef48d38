//! The framing of server-sent events. An event of normal size is one chunk, which the HTTP library sends in
//! one write: some clients take a chunk for an event.
//!
//! Must not know: what the events mean.

use std::collections::VecDeque;

use bytes::Bytes;
use memchr::{memchr2, memchr2_iter};

use crate::domain::id::EventId;

/// The largest event that is copied into one chunk, bytes. A larger one is sent in several chunks.
pub const EVENT_BYTES: usize = 64 << 10;

/// Bytes of a chunk of a larger event: a slice of the shared text, not a copy.
pub const CHUNK_BYTES: usize = 16 << 10;

/// The blank line that ends an event.
const END: &[u8] = b"\n\n";

/// Chunks of a body that its connection has not taken yet, in order.
#[derive(Debug, Default)]
pub struct Chunks(VecDeque<Bytes>);

impl Chunks {
    /// Takes the next chunk.
    pub fn pop(&mut self) -> Option<Bytes> {
        self.0.pop_front()
    }

    /// Whether all chunks are taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends a chunk as it is.
    pub fn push(&mut self, chunk: Bytes) {
        self.0.push_back(chunk);
    }

    /// Tells the client how long to wait before it reconnects, milliseconds.
    pub fn retry(&mut self, wait_ms: u64) {
        self.push_text(format!("retry: {wait_ms}\n\n"));
    }

    /// A comment with an id: an `EventSource` stores the id and fires no event.
    pub fn comment(&mut self, text: &str, id: &EventId) {
        self.push_text(format!(": {text}\nid: {id}\n\n"));
    }

    /// A comment of several lines, with an id.
    pub fn comments(&mut self, lines: &[String], id: &EventId) {
        self.comment(&lines.join("\n: "), id);
    }

    /// An event with a JSON text; one without a name reaches `onmessage`.
    pub fn event(&mut self, name: Option<&str>, id: Option<&EventId>, data: &Bytes) {
        let head = head(name, id);
        let bytes = head.len() + data.len() + END.len();
        if bytes > EVENT_BYTES || memchr2(b'\n', b'\r', data).is_some() {
            self.push_text(head);
            self.data(data);
            return self.end_event();
        }
        let mut whole = Vec::with_capacity(bytes);
        whole.extend_from_slice(head.as_bytes());
        whole.extend_from_slice(data);
        whole.extend_from_slice(END);
        self.push(Bytes::from(whole));
    }

    /// Begins an event whose JSON text is appended in parts.
    pub fn begin_event(&mut self, name: Option<&str>, id: Option<&EventId>) {
        self.push_text(head(name, id));
    }

    /// Ends an event begun with [`Chunks::begin_event`].
    pub fn end_event(&mut self) {
        self.push(Bytes::from_static(END));
    }

    fn push_text(&mut self, text: String) {
        self.push(Bytes::from(text));
    }

    /// Appends a part of an event's text in copies, so that a chunk that is not sent yet does not keep the
    /// whole text in memory.
    pub fn data_copied(&mut self, text: &Bytes) {
        if memchr2(b'\n', b'\r', text).is_some() {
            return self.data(text);
        }
        self.0.extend(text.chunks(CHUNK_BYTES).map(Bytes::copy_from_slice));
    }

    /// Appends a part of an event's text. Compact JSON has no line breaks; if there is one, the text
    /// continues in another `data:` line.
    pub fn data(&mut self, text: &Bytes) {
        let mut start = 0;
        for at in memchr2_iter(b'\n', b'\r', text) {
            self.push_slices(&text.slice(start..at));
            self.push(Bytes::from_static(b"\ndata: "));
            start = at + 1;
        }
        self.push_slices(&text.slice(start..));
    }

    fn push_slices(&mut self, text: &Bytes) {
        for start in (0..text.len()).step_by(CHUNK_BYTES) {
            self.push(text.slice(start..text.len().min(start + CHUNK_BYTES)));
        }
    }
}

/// The lines of an event before its text.
fn head(name: Option<&str>, id: Option<&EventId>) -> String {
    let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{name}{id}data: ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{Epoch, Place, Seq};

    fn text(mut chunks: Chunks) -> String {
        let mut all = Vec::new();
        while let Some(chunk) = chunks.pop() {
            assert!(!chunk.is_empty() && chunk.len() <= EVENT_BYTES);
            all.extend_from_slice(&chunk);
        }
        String::from_utf8(all).unwrap()
    }

    fn id() -> EventId {
        EventId { epoch: Epoch(10), place: Place::Live(Seq(3)) }
    }

    #[test]
    fn blocks_are_framed() {
        let mut chunks = Chunks::default();
        chunks.retry(2000);
        chunks.comment("ping", &id());
        chunks.event(None, Some(&id()), &Bytes::from_static(b"{}"));
        chunks.event(Some("heartbeat"), None, &Bytes::from_static(b"{\"a\":1}"));
        let id = "000000000000000a-3";
        let expected = format!(
            "retry: 2000\n\n: ping\nid: {id}\n\nid: {id}\ndata: {{}}\n\nevent: heartbeat\ndata: {{\"a\":1}}\n\n"
        );
        assert_eq!(text(chunks), expected);
    }

    #[test]
    fn an_event_is_one_chunk_up_to_the_limit() {
        let head = "event: killmail\ndata: ".len();
        for (length, count) in [(2, 1), (EVENT_BYTES - head - 2, 1), (EVENT_BYTES - head - 1, 6)] {
            let data = Bytes::from("x".repeat(length));
            let mut chunks = Chunks::default();
            chunks.event(Some("killmail"), None, &data);
            assert_eq!(chunks.0.len(), count, "{length}");
            assert!(count == 1 || chunks.0[1].as_ptr() == data.as_ptr(), "a large text is shared");
            assert_eq!(text(chunks), format!("event: killmail\ndata: {}\n\n", "x".repeat(length)));
        }
    }

    #[test]
    fn long_texts_are_sent_in_small_chunks() {
        let long: Bytes = std::iter::repeat_n(*b"0123456789", 10_000).flatten().collect();
        let mut chunks = Chunks::default();
        chunks.begin_event(None, None);
        chunks.data(&Bytes::from_static(b"["));
        chunks.data(&long);
        chunks.data_copied(&long);
        chunks.data(&Bytes::from_static(b"]"));
        chunks.end_event();
        assert_eq!(text(chunks), format!("data: [{0}{0}]\n\n", std::str::from_utf8(&long).unwrap()));
    }

    #[test]
    fn a_line_break_never_ends_an_event() {
        let mut chunks = Chunks::default();
        chunks.event(None, None, &Bytes::from_static(b"{\n\r\n}"));
        assert_eq!(text(chunks), "data: {\ndata: \ndata: \ndata: }\n\n");
    }
}
