//! The archive of a day: which killmails it lists, and those of them we want, taken out of its bodies as they stream by.
//!
//! Must not know: why the archive is read.

use std::collections::HashMap;
use std::convert::Infallible;

use reqwest::Response;

use crate::clock;
use crate::domain::entry::Origin;
use crate::ingest::client;
use crate::ingest::package::{self, Rule};
use crate::store::refused::Refused;
use crate::store::{AgeRule, Incoming, ZkbRule};
use crate::wire::split::Splitter;

/// Killmails handed over at once.
const BATCH_MAX: usize = 500;
const DAY_SECS: i64 = 86_400;
const NAME: &str = "archive";

/// Killmails to be had, with their hashes.
pub type Wanted = HashMap<u32, String>;

/// A day of the archives as their paths name it: `20251127`.
#[must_use]
pub fn day_name(day: i64) -> String {
    let midnight = jiff::Timestamp::from_second(day.saturating_mul(DAY_SECS)).unwrap_or_default();
    midnight.strftime("%Y%m%d").to_string()
}

/// The killmails a list (`{"<killmail id>": "<hash>", ..}`) has and `is_known` does not know; `None` if it is no such list.
#[must_use]
pub fn wanted(list: &[u8], is_known: impl Fn(u32) -> bool) -> Option<Wanted> {
    let list: HashMap<String, Option<String>> = serde_json::from_slice(list).ok()?;
    let ids = list.into_iter().filter_map(|(id, hash)| Some((id.parse().ok()?, hash.unwrap_or_default())));
    Some(ids.filter(|(id, _)| !is_known(*id)).collect())
}

/// The bodies of a day on their way.
#[derive(Debug)]
pub struct Reading {
    /// The day, days since 1970.
    pub day: i64,
    response: Response,
    splitter: Splitter,
    wanted: Wanted,
    /// Nothing that happened before is taken, unix seconds.
    begun: i64,
    /// Taken, not yet handed over.
    part: Part,
    ended: bool,
}

/// A part of what was wanted.
#[derive(Debug, Default)]
pub struct Part {
    /// Killmails.
    pub killmails: Vec<Incoming>,
    /// Documents that were wanted and are none.
    pub refused: Vec<Refused>,
}

impl Reading {
    /// Begins to read. What happened before `begun` (unix seconds) is left out; a longer document is cut and refused.
    #[must_use]
    pub fn new(day: i64, response: Response, wanted: Wanted, begun: i64, document_max_bytes: usize) -> Self {
        Self { day, response, splitter: Splitter::new(document_max_bytes), wanted, begun, part: Part::default(), ended: false }
    }

    /// The next part, empty at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The answer breaks off.
    pub async fn next(&mut self) -> Result<Part, client::Error> {
        while !self.ended && self.part.killmails.len() + self.part.refused.len() < BATCH_MAX {
            let chunk = client::chunk(&mut self.response).await?;
            let Self { splitter, wanted, begun, part, .. } = self;
            let mut each = |document: &[u8]| -> Result<(), Infallible> {
                take(document, wanted, *begun, part);
                Ok(())
            };
            let Ok(()) = match &chunk {
                Some(bytes) => splitter.push(bytes, &mut each),
                None => splitter.finish(&mut each),
            };
            self.ended = chunk.is_none();
        }
        Ok(std::mem::take(&mut self.part))
    }

    /// Listed killmails whose bodies did not come by.
    #[must_use]
    pub fn left(&self) -> usize {
        self.wanted.len()
    }
}

fn take(document: &[u8], wanted: &mut Wanted, begun: i64, part: &mut Part) {
    let rule = Rule { origin: Origin::Backfill, age: AgeRule::ByUpload, zkb: ZkbRule::Keep };
    match package::take(document, rule, NAME, clock::now_ms()) {
        Ok(mut incoming) => {
            let Some(hash) = wanted.remove(&incoming.killmail.killmail_id) else { return };
            if incoming.killmail.time < begun {
                return;
            }
            incoming.killmail.hash = incoming.killmail.hash.take().or(Some(hash)).filter(|hash| !hash.is_empty());
            part.killmails.push(incoming);
        }
        Err(refused) => {
            let id = refused.killmail_id.and_then(|id| u32::try_from(id).ok());
            if id.is_some_and(|id| wanted.remove(&id).is_some()) {
                part.refused.push(*refused);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_named_as_the_archives_name_them() {
        assert_eq!(day_name(0), "19700101");
        assert_eq!(day_name(20_419), "20251127");
    }

    #[test]
    fn a_list_gives_what_is_not_known() {
        let list = br#"{"5":"aa","6":"bb","x":"cc","7":null}"#;
        let found = wanted(list, |id| id == 6).unwrap();
        assert_eq!(found, HashMap::from([(5, "aa".to_owned()), (7, String::new())]));
        assert_eq!(wanted(b"<html>", |_| false), None);
    }
}
