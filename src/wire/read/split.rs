//! Splits a stream of bytes into documents: NDJSON, concatenated JSON, arrays, and raw day archives
//! (`{"<killmail id>": {..}, ..}`).
//!
//! It is a push parser, because neither serde nor `lenient` can read a document before all of it is there:
//! chunks end anywhere, and memory is bounded by one document whatever the stream. It checks structure and
//! builds nothing; the documents go to those parsers.
//!
//! A well-formed document may span lines. A malformed one is cut at line breaks: its first line is passed on
//! for the parser to refuse, and the lines after it are read again, so that a line truncated by a crash costs
//! only itself.
//!
//! Must not know: files, compression, what a document means.

use memchr::{memchr, memchr3};

/// Deeper nesting counts as malformed, so that an unclosed bracket does not swallow everything behind it.
const DEPTH_MAX: u32 = 256;
/// Levels stored in one word of the stack.
const WORD_LEVELS: u32 = 128;

/// Finds documents in pushed bytes.
#[derive(Debug)]
pub struct Splitter {
    document: Vec<u8>,
    state: State,
    grammar: Grammar,
    /// Whether the first key of the document is complete. Until then the object may be a raw day archive.
    key_known: bool,
    /// What contains the documents.
    surrounding: Surrounding,
    /// Bytes of this document were dropped because it exceeds the limit.
    is_oversized: bool,
    /// Lines behind the first line of a malformed document, to be read again before anything new.
    replay: Vec<u8>,
    document_max_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a document.
    Between,
    Object,
    /// In something that is not a document, up to the end of the line.
    Garbage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Surrounding {
    /// Nothing: they are concatenated.
    Top,
    /// An array of documents.
    Array,
    /// A raw day archive.
    Day,
}

/// What may follow in a well-formed document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// A key, or the end of an empty object.
    KeyOrEnd,
    Key,
    Colon,
    Value,
    /// A value, or the end of an empty array.
    ValueOrEnd,
    CommaOrEnd,
    /// More of a number, `true`, `false` or `null`. Whether it is valid is left to the parser.
    Word,
}

/// What a byte is within a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Part of the document.
    Inside,
    /// The last byte of the document.
    Last,
    Wrong,
}

/// Follows the structure of one document, byte by byte.
#[derive(Debug, Clone, Copy)]
struct Grammar {
    /// A stack with one bit for each open brace (1) or bracket (0).
    open: [u128; (DEPTH_MAX / WORD_LEVELS) as usize],
    depth: u32,
    expected: Expected,
    in_string: bool,
    escaped: bool,
}

impl Grammar {
    const fn new() -> Self {
        Self {
            open: [0; (DEPTH_MAX / WORD_LEVELS) as usize],
            depth: 0,
            expected: Expected::Value,
            in_string: false,
            escaped: false,
        }
    }

    fn enter(&mut self, is_object: bool) -> Step {
        if self.depth == DEPTH_MAX {
            return Step::Wrong;
        }
        let (word, bit) = ((self.depth / WORD_LEVELS) as usize, 1_u128 << (self.depth % WORD_LEVELS));
        self.open[word] = if is_object { self.open[word] | bit } else { self.open[word] & !bit };
        self.depth += 1;
        self.expected = if is_object { Expected::KeyOrEnd } else { Expected::ValueOrEnd };
        Step::Inside
    }

    /// Whether the innermost container is an object.
    const fn is_in_object(&self) -> bool {
        let depth = self.depth.saturating_sub(1);
        self.open[(depth / WORD_LEVELS) as usize] >> (depth % WORD_LEVELS) & 1 == 1
    }

    fn leave(&mut self, is_object: bool) -> Step {
        let fits = self.is_in_object() == is_object
            && matches!(
                (self.expected, is_object),
                (Expected::CommaOrEnd, _) | (Expected::KeyOrEnd, true) | (Expected::ValueOrEnd, false)
            );
        if !fits {
            return Step::Wrong;
        }
        self.depth -= 1;
        self.expected = Expected::CommaOrEnd;
        if self.depth == 0 { Step::Last } else { Step::Inside }
    }

    fn takes_value(&self) -> bool {
        matches!(self.expected, Expected::Value | Expected::ValueOrEnd)
    }

    fn takes_key(&self) -> bool {
        matches!(self.expected, Expected::Key | Expected::KeyOrEnd)
    }

    fn string_byte(&mut self, byte: u8) -> Step {
        match byte {
            // A JSON string cannot contain a raw newline.
            b'\n' => return Step::Wrong,
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.in_string = false;
                self.expected = if self.takes_key() { Expected::Colon } else { Expected::CommaOrEnd };
            }
            _ => {}
        }
        Step::Inside
    }

    fn step(&mut self, byte: u8) -> Step {
        if self.in_string {
            return self.string_byte(byte);
        }
        let is_word = byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if self.expected == Expected::Word {
            if is_word {
                return Step::Inside;
            }
            self.expected = Expected::CommaOrEnd;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => Step::Inside,
            b'"' if self.takes_value() || self.takes_key() => {
                self.in_string = true;
                Step::Inside
            }
            b'{' if self.takes_value() => self.enter(true),
            b'[' if self.takes_value() => self.enter(false),
            b'}' => self.leave(true),
            b']' => self.leave(false),
            b':' if self.expected == Expected::Colon => {
                self.expected = Expected::Value;
                Step::Inside
            }
            b',' if self.expected == Expected::CommaOrEnd => {
                self.expected = if self.is_in_object() { Expected::Key } else { Expected::Value };
                Step::Inside
            }
            _ if is_word && self.takes_value() => {
                self.expected = Expected::Word;
                Step::Inside
            }
            _ => Step::Wrong,
        }
    }
}

impl Splitter {
    /// Documents longer than `document_max_bytes` are truncated, so that no parser accepts them.
    #[must_use]
    pub const fn new(document_max_bytes: usize) -> Self {
        Self {
            document: Vec::new(),
            state: State::Between,
            grammar: Grammar::new(),
            key_known: false,
            surrounding: Surrounding::Top,
            is_oversized: false,
            replay: Vec::new(),
            document_max_bytes,
        }
    }

    /// Takes the next bytes and calls `found` with every document that ends in them.
    ///
    /// # Errors
    /// The first error of `found`. The remaining bytes are lost then.
    pub fn push<E>(
        &mut self,
        mut bytes: &[u8],
        found: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            let taken = self.consume(bytes, found)?;
            bytes = &bytes[taken..];
            self.replay_lines(found)?;
        }
        Ok(())
    }

    /// Ends the stream and passes on a truncated document.
    ///
    /// # Errors
    /// The first error of `found`.
    pub fn finish<E>(&mut self, found: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while self.state != State::Between {
            if self.state == State::Garbage {
                return self.emit(found);
            }
            self.emit_first_line(found)?;
            if self.state == State::Garbage {
                return self.emit(found);
            }
            self.replay_lines(found)?;
        }
        Ok(())
    }

    /// Whether the last document was complete, but the list or object around it has not ended.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.surrounding != Surrounding::Top && self.state == State::Between
    }

    fn replay_lines<E>(&mut self, found: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while !self.replay.is_empty() {
            let lines = std::mem::take(&mut self.replay);
            let mut rest = &lines[..];
            while !rest.is_empty() {
                let taken = self.consume(rest, found)?;
                rest = &rest[taken..];
                if !self.replay.is_empty() {
                    self.replay.extend_from_slice(rest);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Consumes at least one byte and returns how many. Stops when there are lines to read again.
    fn consume<E>(
        &mut self,
        bytes: &[u8],
        found: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        match self.state {
            State::Between => {
                self.begin(bytes[0]);
                Ok(1)
            }
            State::Garbage => {
                let line = memchr(b'\n', bytes);
                self.keep(&bytes[..line.unwrap_or(bytes.len())]);
                if line.is_some() {
                    self.emit(found)?;
                }
                Ok(line.map_or(bytes.len(), |at| at + 1))
            }
            State::Object => self.consume_object(bytes, found),
        }
    }

    fn begin(&mut self, byte: u8) {
        match byte {
            b'{' => {
                self.state = State::Object;
                self.key_known = self.surrounding == Surrounding::Day;
                self.grammar = Grammar::new();
                self.grammar.enter(true);
                self.keep(&[byte]);
            }
            b'[' if self.surrounding == Surrounding::Top => self.surrounding = Surrounding::Array,
            b']' if self.surrounding == Surrounding::Array => self.surrounding = Surrounding::Top,
            b'}' if self.surrounding == Surrounding::Day => self.surrounding = Surrounding::Top,
            // A file that was extended before it was written contains zeros.
            b',' | b' ' | b'\t' | b'\r' | b'\n' | b'\0' => {}
            // A byte order mark.
            0xEF | 0xBB | 0xBF if self.surrounding == Surrounding::Top => {}
            // The keys of a raw day archive are killmail ids, which the killmails repeat.
            b'"' | b':' | b'0'..=b'9' if self.surrounding == Surrounding::Day => {}
            _ => {
                self.state = State::Garbage;
                self.keep(&[byte]);
            }
        }
    }

    fn consume_object<E>(
        &mut self,
        bytes: &[u8],
        found: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut at = 0;
        while at < bytes.len() {
            if self.grammar.in_string && !self.grammar.escaped {
                // Most bytes are in strings, and few of them are special.
                at += memchr3(b'"', b'\\', b'\n', &bytes[at..]).unwrap_or(bytes.len() - at);
                if at == bytes.len() {
                    break;
                }
            }
            let byte = bytes[at];
            match self.grammar.step(byte) {
                Step::Inside => at += 1,
                Step::Last => {
                    self.keep(&bytes[..=at]);
                    self.emit(found)?;
                    return Ok(at + 1);
                }
                Step::Wrong => {
                    self.keep(&bytes[..at]);
                    self.emit_first_line(found)?;
                    return Ok(at);
                }
            }
            if byte == b':' && !self.key_known && !self.grammar.in_string {
                self.keep(&bytes[..at]);
                self.key_known = true;
                if self.surrounding == Surrounding::Top && is_id(&self.document) {
                    self.surrounding = Surrounding::Day;
                    self.clear();
                }
                return Ok(at);
            }
        }
        self.keep(bytes);
        Ok(bytes.len())
    }

    /// Passes on the first line of a malformed document and keeps the others to be read again. A document of
    /// a single line becomes garbage up to the end of that line.
    fn emit_first_line<E>(&mut self, found: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        // The lines of an oversized document have been dropped.
        let Some(line) = memchr(b'\n', &self.document).filter(|_| !self.is_oversized) else {
            self.state = State::Garbage;
            return Ok(());
        };
        self.replay = self.document.split_off(line + 1);
        self.document.truncate(line);
        self.emit(found)
    }

    fn keep(&mut self, bytes: &[u8]) {
        let space = self.document_max_bytes - self.document.len();
        self.is_oversized |= space < bytes.len();
        self.document.extend_from_slice(&bytes[..bytes.len().min(space)]);
    }

    fn emit<E>(&mut self, found: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        // A document truncated exactly behind a closing brace would still look complete.
        if self.is_oversized {
            self.document.pop();
        }
        let document = std::mem::take(&mut self.document);
        self.clear();
        let result = found(&document);
        self.document = document;
        self.document.clear();
        result
    }

    fn clear(&mut self) {
        self.document.clear();
        self.state = State::Between;
        self.is_oversized = false;
    }
}

/// Whether the first key is a number: the text so far is `{ "123"`.
fn is_id(start: &[u8]) -> bool {
    let mut parts = start.split(|b| *b == b'"');
    let (_, Some(key)) = (parts.next(), parts.next()) else { return false };
    !key.is_empty() && key.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
