//! The archive of a day: the ids it lists, and the wanted killmails, picked out of its bodies as they stream
//! in.
//!
//! Must not know: why the archive is read.

use std::collections::HashMap;
use std::convert::Infallible;

use reqwest::Response;

use crate::clock::{self, DAY_SECS};
use crate::domain::entry::Origin;
use crate::ingest::client;
use crate::ingest::package::{self, Rule};
use crate::store::incoming::{AgeRule, Incoming, ZkbRule};
use crate::store::refused::list::Refused;
use crate::wire::read::split::Splitter;

/// Killmails returned at once.
const BATCH_MAX: usize = 500;
const NAME: &str = "archive";

/// The ids of killmails to pick out, with their hashes.
pub type Wanted = HashMap<u32, String>;

/// A day (days since 1970) as the paths of archives name it: `20251127`.
#[must_use]
pub fn day_name(day: i64) -> String {
    let midnight = jiff::Timestamp::from_second(day.saturating_mul(DAY_SECS)).unwrap_or_default();
    midnight.strftime("%Y%m%d").to_string()
}

/// The parsed list of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum List {
    /// These killmails are not stored yet.
    Wanted(Wanted),
    /// It lists nothing. No day is without killmails, so the archive does not exist yet.
    Empty,
    /// It is not a list of killmails.
    Unreadable,
}

/// Parses a list (`{"<killmail id>": "<hash>", ..}`) and leaves out the killmails that are stored.
#[must_use]
pub fn parse_list(text: &[u8], is_stored: impl Fn(u32) -> bool) -> List {
    let Ok(list) = serde_json::from_slice::<HashMap<String, Option<String>>>(text) else {
        return List::Unreadable;
    };
    if list.is_empty() {
        return List::Empty;
    }
    let ids: Wanted = list
        .into_iter()
        .filter_map(|(id, hash)| Some((id.parse().ok()?, hash.unwrap_or_default())))
        .collect();
    if ids.is_empty() {
        return List::Unreadable;
    }
    List::Wanted(ids.into_iter().filter(|(id, _)| !is_stored(*id)).collect())
}

/// Why the bodies of a day could not be read to the end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The response broke off.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// It was truncated, or was an HTML page.
    #[error("the response is not the JSON of a day")]
    Unreadable,
}

/// Checks whether a text that arrives in parts is one complete JSON object or array.
#[derive(Debug, Default)]
struct Shape {
    depth: u64,
    in_string: bool,
    escaped: bool,
    closed: bool,
    broken: bool,
}

impl Shape {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                _ if self.in_string && self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' if self.depth > 0 => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' if !self.closed => self.depth += 1,
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    self.closed = self.depth == 0;
                }
                // A byte order mark is allowed.
                b' ' | b'\t' | b'\r' | b'\n' | 0xEF | 0xBB | 0xBF => {}
                _ => self.broken |= self.depth == 0,
            }
        }
    }

    const fn is_complete(&self) -> bool {
        self.closed && !self.broken
    }
}

/// Reads the bodies of a day.
#[derive(Debug)]
pub struct ArchiveReader {
    pub day: i64,
    response: Response,
    splitter: Splitter,
    wanted: Wanted,
    /// Killmails from before this time are left out, unix seconds.
    begun: i64,
    /// Picked out, not yet returned.
    part: Part,
    shape: Shape,
    /// Documents that name a killmail; an archive without any is not one.
    named: u64,
    ended: bool,
}

/// Some of the wanted killmails.
#[derive(Debug, Default)]
pub struct Part {
    pub killmails: Vec<Incoming>,
    /// Wanted documents that are not killmails.
    pub refused: Vec<Refused>,
}

impl ArchiveReader {
    /// Leaves out killmails from before `begun` (unix seconds). A document longer than the limit is truncated
    /// and refused.
    #[must_use]
    pub fn new(day: i64, response: Response, wanted: Wanted, begun: i64, document_max_bytes: usize) -> Self {
        let (splitter, part, shape) = (Splitter::new(document_max_bytes), Part::default(), Shape::default());
        Self { day, response, splitter, wanted, begun, part, shape, named: 0, ended: false }
    }

    /// The next part, empty at the end. Cancel safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// The response breaks off, or was not the bodies of a day.
    pub async fn next(&mut self) -> Result<Part, Error> {
        while !self.ended && self.part.killmails.len() + self.part.refused.len() < BATCH_MAX {
            let chunk = client::chunk(&mut self.response).await?;
            let Self { splitter, wanted, begun, part, shape, named, .. } = self;
            let mut each = |document: &[u8]| -> Result<(), Infallible> {
                *named += u64::from(pick_out(document, wanted, *begun, part));
                Ok(())
            };
            let Ok(()) = match &chunk {
                Some(bytes) => {
                    shape.push(bytes);
                    splitter.push(bytes, &mut each)
                }
                None => splitter.finish(&mut each),
            };
            self.ended = chunk.is_none();
        }
        let part = std::mem::take(&mut self.part);
        let is_empty = part.killmails.is_empty() && part.refused.is_empty();
        // What was read before the fault is returned first.
        if is_empty && (!self.shape.is_complete() || self.named == 0) {
            Err(Error::Unreadable)
        } else {
            Ok(part)
        }
    }

    /// How many listed killmails were not among the bodies so far.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.wanted.len()
    }
}

/// Picks out a document if it is wanted; returns whether it names a killmail.
fn pick_out(document: &[u8], wanted: &mut Wanted, begun: i64, part: &mut Part) -> bool {
    let rule = Rule { origin: Origin::Backfill, age: AgeRule::ByUpload, zkb: ZkbRule::Keep };
    match package::parse_document(document, rule, NAME, clock::now_ms()) {
        Ok(mut incoming) => {
            let Some(hash) = wanted.remove(&incoming.killmail.killmail_id) else { return true };
            if incoming.killmail.time >= begun {
                incoming.killmail.hash =
                    incoming.killmail.hash.take().or(Some(hash)).filter(|hash| !hash.is_empty());
                part.killmails.push(incoming);
            }
            true
        }
        Err(refused) => {
            let id = refused.killmail_id.and_then(|id| u32::try_from(id).ok());
            if id.is_some_and(|id| wanted.remove(&id).is_some()) {
                part.refused.push(*refused);
            }
            id.is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_named_like_the_paths_of_archives() {
        assert_eq!(day_name(0), "19700101");
        assert_eq!(day_name(20_419), "20251127");
    }

    #[test]
    fn a_list_returns_what_is_not_stored() {
        let found = parse_list(br#"{"5":"aa","6":"bb","x":"cc","7":null}"#, |id| id == 6);
        assert_eq!(found, List::Wanted(HashMap::from([(5, "aa".to_owned()), (7, String::new())])));
        assert_eq!(parse_list(br#"{"5":"aa"}"#, |_| true), List::Wanted(HashMap::new()));
    }

    #[test]
    fn anything_but_a_list_is_unreadable() {
        for text in ["<html>", "", "[]", "{\"error\":\"busy\"}", "{\"5\":\"aa\"", "{\"5\":7}", "null"] {
            assert_eq!(parse_list(text.as_bytes(), |_| false), List::Unreadable, "{text}");
        }
        assert_eq!(parse_list(b"{}", |_| false), List::Empty);
    }

    #[test]
    fn a_text_is_complete_from_its_first_brace_to_its_last() {
        let is_complete = |text: &str| {
            let mut shape = Shape::default();
            text.as_bytes().chunks(3).for_each(|bytes| shape.push(bytes));
            shape.is_complete()
        };
        for text in ["{}", " [1,{\"a\":\"}\"}]\n", "\u{feff}{\"a\":\"\\\"{\"}"] {
            assert!(is_complete(text), "{text}");
        }
        for text in ["", "<html>{}</html>", "{\"a\":{}", "{\"a\":\"}", "{} {}", "{}x", "7", "\"a\"", "}{"] {
            assert!(!is_complete(text), "{text}");
        }
    }
}
