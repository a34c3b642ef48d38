//! Cuts a stream of bytes into documents: NDJSON, JSON after JSON, arrays, and raw-day objects (`{"<killmail
//! id>": {..}, ..}`).
//!
//! A machine that is pushed bytes, so memory is bounded by one document whatever the stream. What is
//! well-formed is one document, wherever its lines break. What is not is cut at lines: its first line is
//! handed over as it stands, for the parser to refuse, and the lines after it are read afresh, so that a line
//! cut short by a crash costs only itself.
//!
//! Must not know: files, compression, what a document means.

use memchr::{memchr, memchr3};

/// Deeper documents are not well-formed here: a line too many must not swallow all that follow.
const DEPTH_MAX: u32 = 256;
/// Levels remembered in one word.
const WORD_LEVELS: u32 = 128;

/// Cuts documents out of pushed bytes.
#[derive(Debug)]
pub struct Splitter {
    document: Vec<u8>,
    state: State,
    grammar: Grammar,
    /// Until the first key of a document is known it may be a raw day.
    key_known: bool,
    /// Where documents stand.
    nest: Nest,
    /// Bytes of this document were let go because it is over the limit.
    over: bool,
    /// Lines behind one that was cut off, to be read again before anything new.
    again: Vec<u8>,
    document_max_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a document.
    Between,
    /// In `{..}`.
    Object,
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

/// What may come next in a well-formed document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A key, or the end of an object just begun.
    KeyOrEnd,
    Key,
    Colon,
    Value,
    /// A value, or the end of an array just begun.
    ValueOrEnd,
    CommaOrEnd,
    /// More of a number, `true`, `false` or `null`; whether it is one is for the parser to say.
    Word,
}

/// What a byte is in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    /// Part of it.
    Inside,
    /// Its last byte.
    Last,
    /// Not well-formed.
    Wrong,
}

/// Follows the structure of one document, byte by byte.
#[derive(Debug, Clone, Copy)]
struct Grammar {
    /// One bit for each open brace (1) or bracket (0), by depth.
    open: [u128; (DEPTH_MAX / WORD_LEVELS) as usize],
    depth: u32,
    next: Next,
    in_string: bool,
    escaped: bool,
}

impl Grammar {
    const fn new() -> Self {
        Self {
            open: [0; (DEPTH_MAX / WORD_LEVELS) as usize],
            depth: 0,
            next: Next::Value,
            in_string: false,
            escaped: false,
        }
    }

    fn enter(&mut self, is_object: bool) -> Is {
        if self.depth == DEPTH_MAX {
            return Is::Wrong;
        }
        let (word, bit) = ((self.depth / WORD_LEVELS) as usize, 1_u128 << (self.depth % WORD_LEVELS));
        self.open[word] = if is_object { self.open[word] | bit } else { self.open[word] & !bit };
        self.depth += 1;
        self.next = if is_object { Next::KeyOrEnd } else { Next::ValueOrEnd };
        Is::Inside
    }

    /// Whether the innermost is an object.
    const fn is_in_object(&self) -> bool {
        let depth = self.depth.saturating_sub(1);
        self.open[(depth / WORD_LEVELS) as usize] >> (depth % WORD_LEVELS) & 1 == 1
    }

    fn leave(&mut self, is_object: bool) -> Is {
        let fits = self.is_in_object() == is_object
            && matches!(
                (self.next, is_object),
                (Next::CommaOrEnd, _) | (Next::KeyOrEnd, true) | (Next::ValueOrEnd, false)
            );
        if !fits {
            return Is::Wrong;
        }
        self.depth -= 1;
        self.next = Next::CommaOrEnd;
        if self.depth == 0 { Is::Last } else { Is::Inside }
    }

    fn takes_value(&self) -> bool {
        matches!(self.next, Next::Value | Next::ValueOrEnd)
    }

    fn takes_key(&self) -> bool {
        matches!(self.next, Next::Key | Next::KeyOrEnd)
    }

    fn string_byte(&mut self, byte: u8) -> Is {
        match byte {
            // No JSON string holds a raw newline.
            b'\n' => return Is::Wrong,
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.in_string = false;
                self.next = if self.takes_key() { Next::Colon } else { Next::CommaOrEnd };
            }
            _ => {}
        }
        Is::Inside
    }

    fn step(&mut self, byte: u8) -> Is {
        if self.in_string {
            return self.string_byte(byte);
        }
        let is_word = byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if self.next == Next::Word {
            if is_word {
                return Is::Inside;
            }
            self.next = Next::CommaOrEnd;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => Is::Inside,
            b'"' if self.takes_value() || self.takes_key() => {
                self.in_string = true;
                Is::Inside
            }
            b'{' if self.takes_value() => self.enter(true),
            b'[' if self.takes_value() => self.enter(false),
            b'}' => self.leave(true),
            b']' => self.leave(false),
            b':' if self.next == Next::Colon => {
                self.next = Next::Value;
                Is::Inside
            }
            b',' if self.next == Next::CommaOrEnd => {
                self.next = if self.is_in_object() { Next::Key } else { Next::Value };
                Is::Inside
            }
            _ if is_word && self.takes_value() => {
                self.next = Next::Word;
                Is::Inside
            }
            _ => Is::Wrong,
        }
    }
}

impl Splitter {
    /// Documents over `document_max_bytes` are cut off there, which no parser will take.
    #[must_use]
    pub const fn new(document_max_bytes: usize) -> Self {
        Self {
            document: Vec::new(),
            state: State::Between,
            grammar: Grammar::new(),
            key_known: false,
            nest: Nest::Top,
            over: false,
            again: Vec::new(),
            document_max_bytes,
        }
    }

    /// Takes the next bytes; calls `found` with every document that ends in them.
    ///
    /// # Errors
    /// The first error of `found`; the rest of the bytes is lost then.
    pub fn push<E>(
        &mut self,
        mut bytes: &[u8],
        found: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            let taken = self.take(bytes, found)?;
            bytes = &bytes[taken..];
            self.read_again(found)?;
        }
        Ok(())
    }

    /// The stream is over: hands over what was cut short.
    ///
    /// # Errors
    /// That of `found`.
    pub fn finish<E>(&mut self, found: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while self.state != State::Between {
            if self.state == State::Garbage {
                return self.hand_over(found);
            }
            self.cut(found)?;
            if self.state == State::Garbage {
                return self.hand_over(found);
            }
            self.read_again(found)?;
        }
        Ok(())
    }

    /// Whether what came last was whole, and a list or an object around it has not ended.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.nest != Nest::Top && self.state == State::Between
    }

    fn read_again<E>(&mut self, found: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while !self.again.is_empty() {
            let lines = std::mem::take(&mut self.again);
            let mut rest = &lines[..];
            while !rest.is_empty() {
                let taken = self.take(rest, found)?;
                rest = &rest[taken..];
                if !self.again.is_empty() {
                    self.again.extend_from_slice(rest);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Takes some of the bytes, at least one; how many. Stops where lines are to be read again.
    fn take<E>(&mut self, bytes: &[u8], found: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<usize, E> {
        match self.state {
            State::Between => {
                self.between(bytes[0]);
                Ok(1)
            }
            State::Garbage => {
                let line = memchr(b'\n', bytes);
                self.keep(&bytes[..line.unwrap_or(bytes.len())]);
                if line.is_some() {
                    self.hand_over(found)?;
                }
                Ok(line.map_or(bytes.len(), |at| at + 1))
            }
            State::Object => self.object(bytes, found),
        }
    }

    fn between(&mut self, byte: u8) {
        match byte {
            b'{' => {
                self.state = State::Object;
                self.key_known = self.nest == Nest::Day;
                self.grammar = Grammar::new();
                self.grammar.enter(true);
                self.keep(&[byte]);
            }
            b'[' if self.nest == Nest::Top => self.nest = Nest::Array,
            b']' if self.nest == Nest::Array => self.nest = Nest::Top,
            b'}' if self.nest == Nest::Day => self.nest = Nest::Top,
            // Zeros stand where a file was made longer before it was written.
            b',' | b' ' | b'\t' | b'\r' | b'\n' | b'\0' => {}
            // A byte order mark.
            0xEF | 0xBB | 0xBF if self.nest == Nest::Top => {}
            // The keys of a raw day are the ids of its killmails, which the killmails repeat.
            b'"' | b':' | b'0'..=b'9' if self.nest == Nest::Day => {}
            _ => {
                self.state = State::Garbage;
                self.keep(&[byte]);
            }
        }
    }

    fn object<E>(&mut self, bytes: &[u8], found: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<usize, E> {
        let mut at = 0;
        while at < bytes.len() {
            if self.grammar.in_string && !self.grammar.escaped {
                // Most bytes stand in texts, and most of those end none.
                at += memchr3(b'"', b'\\', b'\n', &bytes[at..]).unwrap_or(bytes.len() - at);
                if at == bytes.len() {
                    break;
                }
            }
            let byte = bytes[at];
            match self.grammar.step(byte) {
                Is::Inside => at += 1,
                Is::Last => {
                    self.keep(&bytes[..=at]);
                    self.hand_over(found)?;
                    return Ok(at + 1);
                }
                Is::Wrong => {
                    self.keep(&bytes[..at]);
                    self.cut(found)?;
                    return Ok(at);
                }
            }
            if byte == b':' && !self.key_known && !self.grammar.in_string {
                self.keep(&bytes[..at]);
                self.key_known = true;
                if self.nest == Nest::Top && is_id(&self.document) {
                    self.nest = Nest::Day;
                    self.clear();
                }
                return Ok(at);
            }
        }
        self.keep(bytes);
        Ok(bytes.len())
    }

    /// The document is not well-formed: its first line goes, what follows is read again. What has only one
    /// line ends with it.
    fn cut<E>(&mut self, found: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        // Of one over the limit the lines are not there any more.
        let Some(line) = memchr(b'\n', &self.document).filter(|_| !self.over) else {
            self.state = State::Garbage;
            return Ok(());
        };
        self.again = self.document.split_off(line + 1);
        self.document.truncate(line);
        self.hand_over(found)
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.document_max_bytes - self.document.len();
        self.over |= room < bytes.len();
        self.document.extend_from_slice(&bytes[..bytes.len().min(room)]);
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
#[path = "split_tests.rs"]
mod tests;
