//! A document the JSON parser gives back, read part by part: a value it cannot take (a number no float holds,
//! half of a surrogate pair, bytes that are not UTF-8, a bare word, nesting without end) is kept as the text
//! it is, and all beside it is read as ever.
//!
//! Its structure has to be whole: names in quotes, colons, commas, every bracket closed. A document that
//! broke off is not read.
//!
//! Must not know: what the members mean, but for the names of those a killmail is made of.

use std::borrow::Cow;
use std::ops::ControlFlow;

use serde_json::Number;

use crate::wire::read::json::{Shape, text_end};
use crate::wire::read::node::{Fields, Node};
use crate::wire::read::number::INTEGERS_MIN;
use crate::wire::read::reason::{Flaw, Reason};

/// The parser of usual documents takes so many levels; a list or object below them is kept as a text.
const LEVELS_MAX: usize = 127;

/// What a killmail is made of: these are read whatever their size. The lists and objects under all other
/// names count together.
const PARTS: [&str; 6] = ["package", "killmail", "esi", "zkb", "victim", "attackers"];

/// Lists and objects of one document: ten times those of the largest killmail.
const CONTAINERS_MAX: usize = 50_000;
/// Values of one document, likewise.
const VALUES_MAX: usize = 500_000;
/// How much of these may stand under names a killmail can do without; what goes over it is kept as a text.
const BESIDE: Shape = Shape { levels: 0, containers: 20_000, values: 200_000 };

/// Whether a document of this shape must not be built whole: it would take a hundred times its size.
#[must_use]
pub const fn is_large(shape: Shape) -> bool {
    shape.containers > CONTAINERS_MAX || shape.values > VALUES_MAX
}

/// What may still be built of a large document.
struct Room {
    containers: usize,
    values: usize,
    beside: Shape,
}

/// Reads a document; of a large one so much as there is room for.
///
/// # Errors
/// It is not whole, or what a killmail needs of it is too large.
pub fn read(document: &[u8]) -> Result<Node<'_>, Box<Flaw>> {
    let room = is_large(Shape::of(document)).then_some(Room {
        containers: CONTAINERS_MAX,
        values: VALUES_MAX,
        beside: BESIDE,
    });
    let mut reader = Reader { text: document, at: 0, room };
    let node = reader.value(0, false)?;
    reader.blanks();
    match node {
        _ if reader.at < document.len() => Err(reader.broken("more text after the document")),
        Node::Unread(_) => Err(Flaw::new(Reason::MalformedJson, format!("it is no JSON: {}", node.shown()))),
        whole => Ok(whole),
    }
}

/// Goes through the members of an object in their order, each the text it is, until `each` breaks.
///
/// # Errors
/// It is no object, or not whole; members before the flaw were handed over.
pub fn members<'a>(
    object: &'a [u8],
    mut each: impl FnMut(&str, &'a [u8]) -> ControlFlow<()>,
) -> Result<(), Box<Flaw>> {
    let mut reader = Reader { text: object, at: 0, room: None };
    if !reader.takes(b'{') {
        return Err(reader.broken("no object begins"));
    }
    if reader.takes(b'}') {
        return Ok(());
    }
    loop {
        let name = reader.name()?;
        let value = reader.skipped()?;
        if each(&name.unwrap_or_else(|unread| unread), value).is_break() || reader.takes(b'}') {
            return Ok(());
        }
        if !reader.takes(b',') {
            return Err(reader.broken("neither a comma nor the end of the object"));
        }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    room: Option<Room>,
}

impl<'a> Reader<'a> {
    fn broken(&self, what: &str) -> Box<Flaw> {
        let what = if self.at < self.text.len() { what } else { "the document breaks off" };
        Flaw::new(Reason::MalformedJson, format!("{what} at byte {}", self.at))
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn since(&self, begin: usize) -> &'a [u8] {
        &self.text[begin..self.at]
    }

    /// Whether the next byte is this one, which then is behind.
    fn takes(&mut self, byte: u8) -> bool {
        self.blanks();
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    /// The next value; one that is `counted` stands under a name whose share of the room is taken.
    fn value(&mut self, level: usize, counted: bool) -> Result<Node<'a>, Box<Flaw>> {
        self.blanks();
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{' | b'[') if level == LEVELS_MAX => self.skipped().map(Node::Unread),
            Some(b'{') => self.object(level + 1, counted),
            Some(b'[') => self.list(level + 1, counted),
            _ => self.word(),
        }
    }

    fn quoted(&mut self) -> Result<Node<'a>, Box<Flaw>> {
        let begin = self.at;
        self.at += 1;
        let inside = text_end(&self.text[self.at..]);
        self.at = inside.map_or(self.text.len(), |end| self.at + end);
        if inside.is_none() {
            return Err(self.broken("a text without an end"));
        }
        Ok(text_of(self.since(begin)))
    }

    fn word(&mut self) -> Result<Node<'a>, Box<Flaw>> {
        let begin = self.at;
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b",:\"{}[]".contains(byte);
        self.at += self.text[begin..].iter().position(ends).unwrap_or(self.text.len() - begin);
        let word = self.since(begin);
        Ok(match word {
            b"" => return Err(self.broken("a value is missing")),
            b"null" => Node::Null,
            b"true" => Node::Flag(true),
            b"false" => Node::Flag(false),
            _ => number_of(word).unwrap_or(Node::Unread(word)),
        })
    }

    fn list(&mut self, level: usize, counted: bool) -> Result<Node<'a>, Box<Flaw>> {
        self.takes(b'[');
        self.build(1, 1)?;
        let mut list = Vec::new();
        if self.takes(b']') {
            return Ok(Node::List(list));
        }
        loop {
            self.build(0, 1)?;
            list.push(self.value(level, counted)?);
            if self.takes(b']') {
                return Ok(Node::List(list));
            }
            if !self.takes(b',') {
                return Err(self.broken("neither a comma nor the end of the list"));
            }
        }
    }

    fn object(&mut self, level: usize, counted: bool) -> Result<Node<'a>, Box<Flaw>> {
        self.takes(b'{');
        self.build(1, 1)?;
        let mut fields = Vec::new();
        if self.takes(b'}') {
            return Ok(Node::Object(Fields(fields)));
        }
        loop {
            self.build(0, 1)?;
            fields.push(self.member(level, counted)?);
            if self.takes(b'}') {
                return Ok(Node::Object(Fields(fields)));
            }
            if !self.takes(b',') {
                return Err(self.broken("neither a comma nor the end of the object"));
            }
        }
    }

    /// The name before a value, and the colon behind it. One no parser takes is known to nobody, and is the
    /// text it is.
    fn name(&mut self) -> Result<Result<Cow<'a, str>, Cow<'a, str>>, Box<Flaw>> {
        self.blanks();
        if self.peek() != Some(b'"') {
            return Err(self.broken("a name is missing"));
        }
        let name = match self.quoted()? {
            Node::Text(name) => Ok(name),
            Node::Unread(quoted) => Err(String::from_utf8_lossy(&quoted[1..quoted.len() - 1])),
            _ => Err(Cow::Borrowed("")),
        };
        if self.takes(b':') { Ok(name) } else { Err(self.broken("a colon is missing")) }
    }

    fn member(&mut self, level: usize, counted: bool) -> Result<(Cow<'a, str>, Node<'a>), Box<Flaw>> {
        let name = match self.name()? {
            Ok(name) => name,
            Err(unread) => return Ok((unread, self.skipped().map(Node::Unread)?)),
        };
        if counted || self.room.is_none() || PARTS.contains(&name.as_ref()) {
            return Ok((name, self.value(level, counted)?));
        }
        self.blanks();
        let begin = self.at;
        let value = self.skipped()?;
        if !self.has_room_beside(Shape::of(value)) {
            return Ok((name, Node::Unread(value)));
        }
        self.at = begin;
        Ok((name, self.value(level, true)?))
    }

    /// Goes over a value without building it.
    fn skipped(&mut self) -> Result<&'a [u8], Box<Flaw>> {
        self.blanks();
        let begin = self.at;
        let mut open = Vec::new();
        loop {
            self.blanks();
            match self.peek() {
                Some(b'"') => drop(self.quoted()?),
                Some(mark @ (b'{' | b'[')) => {
                    open.push(if mark == b'{' { b'}' } else { b']' });
                    self.at += 1;
                }
                Some(mark) if open.last() == Some(&mark) => {
                    open.pop();
                    self.at += 1;
                }
                Some(b',' | b':') if !open.is_empty() => self.at += 1,
                _ => drop(self.word()?),
            }
            if open.is_empty() {
                return Ok(self.since(begin));
            }
        }
    }

    /// Counts what is built of a large document.
    fn build(&mut self, containers: usize, values: usize) -> Result<(), Box<Flaw>> {
        let Some(room) = &mut self.room else { return Ok(()) };
        let over =
            |what: &str, most| Flaw::new(Reason::TooLarge, format!("it is made of more than {most} {what}"));
        room.containers = room
            .containers
            .checked_sub(containers)
            .ok_or_else(|| over("lists and objects", CONTAINERS_MAX))?;
        room.values = room.values.checked_sub(values).ok_or_else(|| over("values", VALUES_MAX))?;
        Ok(())
    }

    fn has_room_beside(&mut self, shape: Shape) -> bool {
        let Some(Room { beside, .. }) = &mut self.room else { return true };
        let fits = shape.containers <= beside.containers && shape.values <= beside.values;
        if fits {
            beside.containers -= shape.containers;
            beside.values -= shape.values;
        }
        fits
    }
}

/// The text in these quotes.
fn text_of(quoted: &[u8]) -> Node<'_> {
    let inside = &quoted[1..quoted.len() - 1];
    let is_plain = !inside.iter().any(|byte| *byte == b'\\' || *byte < b' ');
    match std::str::from_utf8(inside) {
        Ok(text) if is_plain => Node::Text(Cow::Borrowed(text)),
        _ => serde_json::from_slice(quoted)
            .map_or(Node::Unread(quoted), |text: String| Node::Text(Cow::Owned(text))),
    }
}

/// The number a word is. A float that stands for an integer of more digits than it has keeps them.
fn number_of(word: &[u8]) -> Option<Node<'_>> {
    let number: Number = serde_json::from_slice(word).ok()?;
    let is_integer = word.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
    let is_long =
        is_integer && number.is_f64() && number.as_f64().is_some_and(|float| float.abs() >= INTEGERS_MIN);
    Some(if is_long { Node::Long(number, std::str::from_utf8(word).ok()?) } else { Node::Number(number) })
}

#[cfg(test)]
#[path = "lenient_tests.rs"]
mod tests;
