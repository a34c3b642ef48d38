//! A parser for documents that serde rejects, or that are too large to build whole. A value that is not valid
//! JSON (a number beyond floats, half of a surrogate pair, bytes that are not UTF-8, a bare word, endless
//! nesting) is kept as raw bytes, and everything around it is read normally. serde cannot do that: it stops
//! at the first error. All other documents are parsed by serde.
//!
//! The structure has to be intact: quoted names, colons, commas, closed brackets. A truncated document is
//! refused.
//!
//! Must not know: what the members mean, except for the names of a killmail's essential parts.

use std::borrow::Cow;

use serde_json::Number;

use crate::wire::read::json::{Shape, string_end};
use crate::wire::read::node::{Fields, Node};
use crate::wire::read::number::INTEGERS_MIN;
use crate::wire::read::reason::{ReadError, Reason};

/// Deepest nesting, the same as serde's. A list or object below it is kept as raw bytes.
const LEVELS_MAX: usize = 127;

/// The parts a killmail is made of. They have the whole budget; members of all other names share a smaller
/// one.
const ESSENTIAL_PARTS: [&str; 6] = ["package", "killmail", "esi", "zkb", "victim", "attackers"];

/// Lists and objects built from one document: ten times as many as in the largest killmail.
const CONTAINERS_MAX: usize = 50_000;
/// Values built from one document: ten times as many as in the largest killmail.
const VALUES_MAX: usize = 500_000;
/// How much of that members of other names may use together. What exceeds it is kept as raw bytes.
const OPTIONAL_MAX: Shape = Shape { levels: 0, containers: 20_000, values: 200_000 };

/// Whether a document of this shape must not be built whole, since that could take a hundred times its size.
#[must_use]
pub(crate) const fn is_large(shape: Shape) -> bool {
    shape.containers > CONTAINERS_MAX || shape.values > VALUES_MAX
}

/// What may still be built from a large document.
struct Budget {
    containers: usize,
    values: usize,
    optional: Shape,
}

/// Reads a document; a large one only as far as the budget allows.
///
/// # Errors
/// It is truncated or malformed, or its essential parts exceed the budget.
pub(crate) fn read(document: &[u8]) -> Result<Node<'_>, Box<ReadError>> {
    let budget = is_large(Shape::measure(document)).then_some(Budget {
        containers: CONTAINERS_MAX,
        values: VALUES_MAX,
        optional: OPTIONAL_MAX,
    });
    let mut reader = Reader { text: document, at: 0, budget };
    let node = reader.value(0, false)?;
    reader.skip_whitespace();
    match node {
        _ if reader.at < document.len() => Err(reader.error("more text after the document")),
        Node::Unread(_) => {
            Err(ReadError::new(Reason::MalformedJson, format!("not JSON: {}", node.describe())))
        }
        whole => Ok(whole),
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    budget: Option<Budget>,
}

impl<'a> Reader<'a> {
    fn error(&self, what: &str) -> Box<ReadError> {
        let what = if self.at < self.text.len() { what } else { "the document ends" };
        ReadError::new(Reason::MalformedJson, format!("{what} at byte {}", self.at))
    }

    fn skip_whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn slice_from(&self, begin: usize) -> &'a [u8] {
        &self.text[begin..self.at]
    }

    /// Consumes the next byte after whitespace if it is this one, and says whether it was.
    fn consume(&mut self, byte: u8) -> bool {
        self.skip_whitespace();
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    /// Reads the next value. It is `counted` if it is already charged to the budget of other names.
    fn value(&mut self, level: usize, counted: bool) -> Result<Node<'a>, Box<ReadError>> {
        self.skip_whitespace();
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{' | b'[') if level == LEVELS_MAX => self.skip_value().map(Node::Unread),
            Some(b'{') => self.object(level + 1, counted),
            Some(b'[') => self.list(level + 1, counted),
            _ => self.bare_word(),
        }
    }

    fn string(&mut self) -> Result<Node<'a>, Box<ReadError>> {
        let begin = self.at;
        self.at += 1;
        let inside = string_end(&self.text[self.at..]);
        self.at = inside.map_or(self.text.len(), |end| self.at + end);
        if inside.is_none() {
            return Err(self.error("a string without an end"));
        }
        Ok(parse_string(self.slice_from(begin)))
    }

    fn bare_word(&mut self) -> Result<Node<'a>, Box<ReadError>> {
        let begin = self.at;
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b",:\"{}[]".contains(byte);
        self.at += self.text[begin..].iter().position(ends).unwrap_or(self.text.len() - begin);
        let word = self.slice_from(begin);
        Ok(match word {
            b"" => return Err(self.error("expected a value")),
            b"null" => Node::Null,
            b"true" => Node::Flag(true),
            b"false" => Node::Flag(false),
            _ => parse_number(word).unwrap_or(Node::Unread(word)),
        })
    }

    fn list(&mut self, level: usize, counted: bool) -> Result<Node<'a>, Box<ReadError>> {
        self.consume(b'[');
        self.charge(1, 1)?;
        let mut list = Vec::new();
        if self.consume(b']') {
            return Ok(Node::List(list));
        }
        loop {
            self.charge(0, 1)?;
            list.push(self.value(level, counted)?);
            if self.consume(b']') {
                return Ok(Node::List(list));
            }
            if !self.consume(b',') {
                return Err(self.error("expected a comma or the end of the list"));
            }
        }
    }

    fn object(&mut self, level: usize, counted: bool) -> Result<Node<'a>, Box<ReadError>> {
        self.consume(b'{');
        self.charge(1, 1)?;
        let mut fields = Vec::new();
        if self.consume(b'}') {
            return Ok(Node::Object(Fields(fields)));
        }
        loop {
            self.charge(0, 1)?;
            fields.push(self.member(level, counted)?);
            if self.consume(b'}') {
                return Ok(Node::Object(Fields(fields)));
            }
            if !self.consume(b',') {
                return Err(self.error("expected a comma or the end of the object"));
            }
        }
    }

    /// Reads a name and the colon behind it. A name that is not valid JSON is an `Err` with its raw text:
    /// nobody knows a member of that name.
    fn name(&mut self) -> Result<Result<Cow<'a, str>, Cow<'a, str>>, Box<ReadError>> {
        self.skip_whitespace();
        if self.peek() != Some(b'"') {
            return Err(self.error("expected a name"));
        }
        let name = match self.string()? {
            Node::Text(name) => Ok(name),
            Node::Unread(quoted) => Err(String::from_utf8_lossy(&quoted[1..quoted.len() - 1])),
            _ => Err(Cow::Borrowed("")),
        };
        if self.consume(b':') { Ok(name) } else { Err(self.error("expected a colon")) }
    }

    fn member(&mut self, level: usize, counted: bool) -> Result<(Cow<'a, str>, Node<'a>), Box<ReadError>> {
        let name = match self.name()? {
            Ok(name) => name,
            Err(unread) => return Ok((unread, self.skip_value().map(Node::Unread)?)),
        };
        if counted || self.budget.is_none() || ESSENTIAL_PARTS.contains(&name.as_ref()) {
            return Ok((name, self.value(level, counted)?));
        }
        self.skip_whitespace();
        let begin = self.at;
        let value = self.skip_value()?;
        if !self.charge_optional(Shape::measure(value)) {
            return Ok((name, Node::Unread(value)));
        }
        self.at = begin;
        Ok((name, self.value(level, true)?))
    }

    /// Skips a value without building it.
    fn skip_value(&mut self) -> Result<&'a [u8], Box<ReadError>> {
        self.skip_whitespace();
        let begin = self.at;
        let mut open = Vec::new();
        loop {
            self.skip_whitespace();
            match self.peek() {
                Some(b'"') => drop(self.string()?),
                Some(mark @ (b'{' | b'[')) => {
                    open.push(if mark == b'{' { b'}' } else { b']' });
                    self.at += 1;
                }
                Some(mark) if open.last() == Some(&mark) => {
                    open.pop();
                    self.at += 1;
                }
                Some(b',' | b':') if !open.is_empty() => self.at += 1,
                _ => drop(self.bare_word()?),
            }
            if open.is_empty() {
                return Ok(self.slice_from(begin));
            }
        }
    }

    /// Charges what is built from a large document to its budget.
    fn charge(&mut self, containers: usize, values: usize) -> Result<(), Box<ReadError>> {
        let Some(budget) = &mut self.budget else { return Ok(()) };
        let over = |what: &str, most| ReadError::new(Reason::TooLarge, format!("more than {most} {what}"));
        budget.containers = budget
            .containers
            .checked_sub(containers)
            .ok_or_else(|| over("lists and objects", CONTAINERS_MAX))?;
        budget.values = budget.values.checked_sub(values).ok_or_else(|| over("values", VALUES_MAX))?;
        Ok(())
    }

    fn charge_optional(&mut self, shape: Shape) -> bool {
        let Some(Budget { optional, .. }) = &mut self.budget else { return true };
        let fits = shape.containers <= optional.containers && shape.values <= optional.values;
        if fits {
            optional.containers -= shape.containers;
            optional.values -= shape.values;
        }
        fits
    }
}

/// Parses a string in quotes.
fn parse_string(quoted: &[u8]) -> Node<'_> {
    let inside = &quoted[1..quoted.len() - 1];
    let is_plain = !inside.iter().any(|byte| *byte == b'\\' || *byte < b' ');
    match std::str::from_utf8(inside) {
        Ok(text) if is_plain => Node::Text(Cow::Borrowed(text)),
        _ => serde_json::from_slice(quoted)
            .map_or(Node::Unread(quoted), |text: String| Node::Text(Cow::Owned(text))),
    }
}

/// Parses a number. An integer of more digits than a float holds keeps its text.
fn parse_number(word: &[u8]) -> Option<Node<'_>> {
    let number: Number = serde_json::from_slice(word).ok()?;
    let is_integer = word.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
    let is_long =
        is_integer && number.is_f64() && number.as_f64().is_some_and(|float| float.abs() >= INTEGERS_MIN);
    Some(if is_long { Node::Long(number, std::str::from_utf8(word).ok()?) } else { Node::Number(number) })
}

#[cfg(test)]
#[path = "lenient_tests.rs"]
mod tests;
