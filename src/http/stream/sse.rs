//! The framing of server-sent events: blocks of lines. An event that is not huge is one piece, so that the
//! HTTP library sends it as one chunk in one write: naive clients take a chunk for an event.
//!
//! Must not know: what the events mean.

use std::collections::VecDeque;

use bytes::Bytes;
use memchr::{memchr2, memchr2_iter};

use crate::domain::id::EventId;

/// An event of up to so many bytes is one piece: its text is copied there. A larger one goes out in several.
pub const EVENT_BYTES: usize = 64 << 10;

/// The pieces of a larger event: parts of the shared text, not copies of it.
pub const PIECE_BYTES: usize = 16 << 10;

/// Ends an event.
const END: &[u8] = b"\n\n";

/// Pieces waiting to be taken by one connection, first in first out.
#[derive(Debug, Default)]
pub struct Out(VecDeque<Bytes>);

impl Out {
    /// The next piece.
    pub fn pop(&mut self) -> Option<Bytes> {
        self.0.pop_front()
    }

    /// Whether everything was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A piece as it is.
    pub fn piece(&mut self, piece: Bytes) {
        self.0.push_back(piece);
    }

    /// How long a client shall wait before it connects again, milliseconds.
    pub fn retry(&mut self, wait_ms: u64) {
        self.line(format!("retry: {wait_ms}\n\n"));
    }

    /// A comment that carries an id: stored by the client, seen by nobody.
    pub fn comment(&mut self, text: &str, id: &EventId) {
        self.line(format!(": {text}\nid: {id}\n\n"));
    }

    /// The same of several lines.
    pub fn comments(&mut self, lines: &[String], id: &EventId) {
        self.comment(&lines.join("\n: "), id);
    }

    /// An event of one JSON text; unnamed ones reach `onmessage`.
    pub fn event(&mut self, name: Option<&str>, id: Option<&EventId>, data: &Bytes) {
        let head = head(name, id);
        let bytes = head.len() + data.len() + END.len();
        if bytes > EVENT_BYTES || memchr2(b'\n', b'\r', data).is_some() {
            self.line(head);
            self.data(data);
            return self.close();
        }
        let mut whole = Vec::with_capacity(bytes);
        whole.extend_from_slice(head.as_bytes());
        whole.extend_from_slice(data);
        whole.extend_from_slice(END);
        self.piece(Bytes::from(whole));
    }

    /// Begins an event whose JSON text comes in parts.
    pub fn open(&mut self, name: Option<&str>, id: Option<&EventId>) {
        self.line(head(name, id));
    }

    /// Ends it.
    pub fn close(&mut self) {
        self.piece(Bytes::from_static(END));
    }

    fn line(&mut self, text: String) {
        self.piece(Bytes::from(text));
    }

    /// A part of an event's text that nobody else keeps: its pieces are copies, so that one of them does not
    /// hold all of it.
    pub fn data_copied(&mut self, text: &Bytes) {
        if memchr2(b'\n', b'\r', text).is_some() {
            return self.data(text);
        }
        self.0.extend(text.chunks(PIECE_BYTES).map(Bytes::copy_from_slice));
    }

    /// A part of an event's text. Compact JSON has no line breaks. Should one come all the same, the text
    /// goes on in a further `data:` line.
    pub fn data(&mut self, text: &Bytes) {
        let mut begun = 0;
        for at in memchr2_iter(b'\n', b'\r', text) {
            self.pieces(&text.slice(begun..at));
            self.piece(Bytes::from_static(b"\ndata: "));
            begun = at + 1;
        }
        self.pieces(&text.slice(begun..));
    }

    fn pieces(&mut self, text: &Bytes) {
        for begun in (0..text.len()).step_by(PIECE_BYTES) {
            self.piece(text.slice(begun..text.len().min(begun + PIECE_BYTES)));
        }
    }
}

/// What stands before the text of an event.
fn head(name: Option<&str>, id: Option<&EventId>) -> String {
    let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{name}{id}data: ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{Epoch, Place, Seq};

    fn text(mut out: Out) -> String {
        let mut all = Vec::new();
        while let Some(piece) = out.pop() {
            assert!(!piece.is_empty() && piece.len() <= EVENT_BYTES);
            all.extend_from_slice(&piece);
        }
        String::from_utf8(all).unwrap()
    }

    fn id() -> EventId {
        EventId { epoch: Epoch(10), place: Place::Live(Seq(3)) }
    }

    #[test]
    fn blocks_are_framed() {
        let mut out = Out::default();
        out.retry(2000);
        out.comment("ping", &id());
        out.event(None, Some(&id()), &Bytes::from_static(b"{}"));
        out.event(Some("heartbeat"), None, &Bytes::from_static(b"{\"a\":1}"));
        let id = "000000000000000a-3";
        let expected = format!(
            "retry: 2000\n\n: ping\nid: {id}\n\nid: {id}\ndata: {{}}\n\nevent: heartbeat\ndata: {{\"a\":1}}\n\n"
        );
        assert_eq!(text(out), expected);
    }

    #[test]
    fn an_event_is_one_piece_up_to_its_limit() {
        let head = "event: killmail\ndata: ".len();
        for (length, pieces) in [(2, 1), (EVENT_BYTES - head - 2, 1), (EVENT_BYTES - head - 1, 6)] {
            let data = Bytes::from("x".repeat(length));
            let mut out = Out::default();
            out.event(Some("killmail"), None, &data);
            assert_eq!(out.0.len(), pieces, "{length}");
            assert!(pieces == 1 || out.0[1].as_ptr() == data.as_ptr(), "a large text is shared");
            assert_eq!(text(out), format!("event: killmail\ndata: {}\n\n", "x".repeat(length)));
        }
    }

    #[test]
    fn long_texts_come_whole_in_small_pieces() {
        let long: Bytes = std::iter::repeat_n(*b"0123456789", 10_000).flatten().collect();
        let mut out = Out::default();
        out.open(None, None);
        out.data(&Bytes::from_static(b"["));
        out.data(&long);
        out.data_copied(&long);
        out.data(&Bytes::from_static(b"]"));
        out.close();
        assert_eq!(text(out), format!("data: [{0}{0}]\n\n", std::str::from_utf8(&long).unwrap()));
    }

    #[test]
    fn a_line_break_never_ends_an_event() {
        let mut out = Out::default();
        out.event(None, None, &Bytes::from_static(b"{\n\r\n}"));
        assert_eq!(text(out), "data: {\ndata: \ndata: \ndata: }\n\n");
    }
}
