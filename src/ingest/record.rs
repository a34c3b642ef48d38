//! Recordings: what a source sent, document by document, with the time of arrival. A replay keeps the timing.
//!
//! ```text
//! {"received_at_ms":1700000000000,"source":"r2z2","document":{..}}     one line per document, as received
//! {"received_at_ms":1700000000000,"source":"r2z2","text":".."}         if it is not JSON, or spans lines
//! ```
//!
//! Must not know: what is in a document.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How every line of a recording begins.
const LINE_START: &[u8] = b"{\"received_at_ms\":";

/// One line of a recording.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecordedDocument<'a> {
    /// When the document arrived, unix milliseconds.
    pub received_at_ms: i64,
    /// The name of the source.
    pub source: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    document: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
}

impl RecordedDocument<'_> {
    /// The document as received.
    #[must_use]
    pub fn document(&self) -> &[u8] {
        self.document
            .map(|document| document.get().as_bytes())
            .or_else(|| self.text.as_deref().map(str::as_bytes))
            .unwrap_or_default()
    }
}

/// Appends a document to a recording.
///
/// # Errors
/// Those of the writer.
pub fn write_line(
    out: &mut impl Write,
    received_at_ms: i64,
    source: &str,
    document: &[u8],
) -> io::Result<()> {
    let raw = serde_json::from_slice::<&RawValue>(document)
        .ok()
        .filter(|raw| raw.get() != "null" && !raw.get().contains('\n'));
    let text = if raw.is_none() { Some(String::from_utf8_lossy(document)) } else { None };
    let line = RecordedDocument { received_at_ms, source: source.into(), document: raw, text };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

/// Parses a line; `None` if it is not one of a recording.
#[must_use]
pub fn parse_line(line: &[u8]) -> Option<RecordedDocument<'_>> {
    if line.starts_with(LINE_START) { serde_json::from_slice(line).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_comes_back_byte_for_byte() {
        let documents: &[&str] = &[
            "{\"b\": 1.50,\"a\":[1e3]}",
            "{\"killmail_id\":1,\"received_at_ms\":2}",
            "<html>not today</html>",
            "{\n \"a\": 1\n}",
            "\"x\"",
            "",
            "null",
        ];
        for (at_ms, document) in (1_700_000_000_000..).zip(documents) {
            let mut out = Vec::new();
            write_line(&mut out, at_ms, "r2z2", document.as_bytes()).unwrap();
            assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
            let line = parse_line(out.trim_ascii_end()).unwrap();
            assert_eq!(
                (line.received_at_ms, line.source.as_ref(), line.document()),
                (at_ms, "r2z2", document.as_bytes())
            );
        }
    }

    #[test]
    fn other_documents_are_not_lines_of_a_recording() {
        for other in ["{}", "{\"killmail_id\":1}", "{\"received_at_ms\":\"x\"}", "", "{\"received_at_ms\":1"]
        {
            assert!(parse_line(other.as_bytes()).is_none(), "{other}");
        }
    }
}
