//! Cuts a stream of bytes into documents: NDJSON, JSON after JSON, arrays, and raw-day objects (`{"<killmail id>": {..}, ..}`).
//!
//! A machine that is pushed bytes, so memory is bounded by one document whatever the file. It finds where a document ends,
//! no more; what is broken is handed over as it stands for the parser to refuse, and the next line begins afresh.
//!
//! Must not know: files, compression, what a document means.

/// Cuts documents out of pushed bytes.
#[derive(Debug)]
pub struct Splitter {
    document: Vec<u8>,
    state: State,
    /// Open braces and brackets inside the document.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Where documents stand.
    nest: Nest,
    /// Bytes of this document let go because it is over the limit.
    over: bool,
    at_line_start: bool,
    document_max_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a document.
    Between,
    /// In `{..}`; until its first key is known it may be a raw day.
    Object { key_known: bool },
    /// In something that is no document; ends with the line.
    Garbage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nest {
    /// One after the other.
    Top,
    /// Elements of an array.
    Array,
    /// Values of a raw-day object.
    Day,
}

impl Splitter {
    /// Documents over `document_max_bytes` are cut off there, which no parser will take.
    #[must_use]
    pub fn new(document_max_bytes: usize) -> Self {
        Self {
            document: Vec::new(),
            state: State::Between,
            depth: 0,
            in_string: false,
            escaped: false,
            nest: Nest::Top,
            over: false,
            at_line_start: true,
            document_max_bytes,
        }
    }

    /// Takes the next bytes; calls `found` with every document that ends in them.
    ///
    /// # Errors
    /// The first error of `found`; the rest of the bytes is lost then.
    pub fn push<E>(&mut self, bytes: &[u8], found: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        for &byte in bytes {
            let line_start = std::mem::replace(&mut self.at_line_start, byte == b'\n');
            match self.state {
                State::Between => self.between(byte),
                State::Garbage if byte == b'\n' => self.hand_over(found)?,
                State::Garbage => self.keep(byte),
                State::Object { key_known } => {
                    if self.is_broken(byte, line_start) {
                        self.hand_over(found)?;
                        self.between(byte);
                    } else {
                        self.object(byte, key_known, found)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The stream is over: hands over what was cut short.
    ///
    /// # Errors
    /// That of `found`.
    pub fn finish<E>(&mut self, found: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.state == State::Between { Ok(()) } else { self.hand_over(found) }
    }

    fn between(&mut self, byte: u8) {
        match byte {
            b'{' => {
                self.state = State::Object { key_known: self.nest == Nest::Day };
                self.depth = 1;
                self.keep(byte);
            }
            b'[' if self.nest == Nest::Top => self.nest = Nest::Array,
            b']' if self.nest == Nest::Array => self.nest = Nest::Top,
            b'}' if self.nest == Nest::Day => self.nest = Nest::Top,
            b',' | b' ' | b'\t' | b'\r' | b'\n' => {}
            // A byte order mark.
            0xEF | 0xBB | 0xBF if self.nest == Nest::Top => {}
            // The keys of a raw day are the ids of its killmails, which the killmails repeat.
            b'"' | b':' | b'0'..=b'9' if self.nest == Nest::Day => {}
            _ => {
                self.state = State::Garbage;
                self.keep(byte);
            }
        }
    }

    /// A line cut short by a crash must not swallow the lines after it: no JSON string holds a raw newline, and no element of
    /// a document that is spread over lines begins at the margin.
    fn is_broken(&self, byte: u8, line_start: bool) -> bool {
        (self.in_string && byte == b'\n') || (self.nest == Nest::Top && line_start && byte == b'{' && !self.in_string)
    }

    fn object<E>(&mut self, byte: u8, key_known: bool, found: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.keep(byte);
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Ok(());
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    return self.hand_over(found);
                }
            }
            b':' if !key_known => {
                self.state = State::Object { key_known: true };
                if self.nest == Nest::Top && is_id(&self.document) {
                    self.nest = Nest::Day;
                    self.clear();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn keep(&mut self, byte: u8) {
        if self.document.len() < self.document_max_bytes {
            self.document.push(byte);
        } else {
            self.over = true;
        }
    }

    fn hand_over<E>(&mut self, found: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        // Cut off exactly at the limit it would still look whole if its last byte is the closing brace.
        if self.over {
            self.document.pop();
        }
        let document = std::mem::take(&mut self.document);
        self.clear();
        let answer = found(&document);
        self.document = document;
        self.document.clear();
        answer
    }

    fn clear(&mut self) {
        self.document.clear();
        self.state = State::Between;
        self.depth = 0;
        self.in_string = false;
        self.escaped = false;
        self.over = false;
    }
}

/// Whether `{ "123" :` has come: the first key is a number.
fn is_id(start: &[u8]) -> bool {
    let mut parts = start.split(|b| *b == b'"');
    let (_, Some(key)) = (parts.next(), parts.next()) else { return false };
    !key.is_empty() && key.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// The documents of a text, pushed in pieces of `piece` bytes.
    fn documents(text: &str, piece: usize) -> Vec<String> {
        let mut found = vec![];
        let mut splitter = Splitter::new(1000);
        let mut keep = |document: &[u8]| -> Result<(), Infallible> {
            found.push(String::from_utf8_lossy(document).into_owned());
            Ok(())
        };
        for bytes in text.as_bytes().chunks(piece) {
            splitter.push(bytes, &mut keep).unwrap();
        }
        splitter.finish(&mut keep).unwrap();
        found
    }

    fn check(text: &str, expected: &[&str]) {
        for piece in [1, 3, 7, 10_000] {
            assert_eq!(documents(text, piece), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn lines_are_documents() {
        check("{\"a\":1}\n{\"a\":{\"b\":\"}\\\"{\"}}\r\n\n{\"a\":[1,2]}", &["{\"a\":1}", "{\"a\":{\"b\":\"}\\\"{\"}}", "{\"a\":[1,2]}"]);
    }

    #[test]
    fn a_document_may_be_spread_over_lines() {
        check("\u{feff}{\n \"a\": [\n  {\n  }\n ]\n}\n{}", &["{\n \"a\": [\n  {\n  }\n ]\n}", "{}"]);
    }

    #[test]
    fn elements_of_an_array_are_documents() {
        check("[{\"a\":1},\n{\"b\":[]} , {}]\n{\"c\":2}", &["{\"a\":1}", "{\"b\":[]}", "{}", "{\"c\":2}"]);
    }

    #[test]
    fn values_of_a_raw_day_are_documents() {
        check(
            "{\"12\":{\"killmail_id\":12,\"x\":{\"1\":{}}},\n \"13\": {\"killmail_id\":13}}\n{\"a\":1}",
            &["{\"killmail_id\":12,\"x\":{\"1\":{}}}", "{\"killmail_id\":13}", "{\"a\":1}"],
        );
    }

    #[test]
    fn a_broken_line_costs_only_itself() {
        check(
            "{\"a\":1\n{\"b\":2}\nnonsense\n{\"c\":\"cut\n{\"d\":4}\n{\"e",
            &["{\"a\":1\n", "{\"b\":2}", "nonsense", "{\"c\":\"cut", "{\"d\":4}", "{\"e"],
        );
    }

    #[test]
    fn a_document_over_the_limit_is_cut_and_the_next_is_whole() {
        let long = format!("{{\"a\":\"{}\"}}\n{{}}", "x".repeat(5000));
        let found = documents(&long, 64);
        assert_eq!(found.len(), 2);
        assert!(found[0].len() < 1000);
        assert_eq!(found[1], "{}");
    }
}
