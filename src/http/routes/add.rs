//! Killmails handed in: one document, an array, or one to a line, in any upstream form. They are backfill,
//! never announced. Of one that is only named the body is fetched, where this server fetches any.
//!
//! Must not know: what the forms are, when two killmails are the same.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Deserializer, Value, json};

use crate::body_requests::BodyRequests;
use crate::domain::entry::Origin;
use crate::http::answer::error::Error;
use crate::http::answer::success::Json;
use crate::http::request::auth::{Killmails, May};
use crate::http::request::parameters::{Pairs, Raw};
use crate::http::state::HttpState;
use crate::store::Store;
use crate::store::error::StoreError as Failure;
use crate::store::incoming::{AgeRule, Appended, Incoming, ZkbRule};
use crate::store::refused::list::Refused;
use crate::store::wanted::Wanted;
use crate::wire::read::json::without_bom;
use crate::wire::read::package::{self, Package};
use crate::wire::read::reason::Reason;
use crate::wire::read::reference;
use crate::wire::read::split::Splitter;
use crate::{clock, feed, tasks};

/// What was handed in by REST is noted under this name.
const SOURCE: &str = "rest";
/// The word for a document that names a killmail whose body cannot be fetched now.
const NO_BODY: &str = "no_body";
/// The word for one that names a killmail where no bodies are fetched at all.
const NO_CONTACT: &str = "no_contact";
/// Refused documents named one by one; more are only counted.
const NAMED_MAX: usize = 100;
/// Refused documents of one request that are kept raw: as many as the list of all refused documents holds.
const RAW_MAX: usize = 10_000;
/// Killmails of one transaction.
const BATCH: usize = 1_000;
/// Lines of documents: each stands for itself.
const NDJSON: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];

/// `POST /api/v1/killmails`. Answers what became of the documents, as `import` reports it. Newer zkb values
/// replace stored ones, but not with `?prefer_incoming=false`.
pub async fn add(
    _: May<Killmails>,
    State(door): State<Arc<HttpState>>,
    asked: Pairs,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Result<Json, Error> {
    let store = Arc::clone(door.feed.store());
    let zkb = if asked.get("prefer_incoming") == Some("false") { ZkbRule::Keep } else { ZkbRule::IfNewer };
    let body_requests = Arc::clone(&door.body_requests);
    let are_lines = says_ndjson(&headers);
    let sorted = tasks::blocking("rest-add", move || -> Result<Sorted, Error> {
        let mut sorted = sort(&body, zkb, are_lines)?;
        sorted
            .order(&store, &body_requests)
            .map_err(|error| Error::history(feed::error::FeedError::Store(error)))?;
        Ok(sorted)
    });
    let sorted = sorted.await.map_err(Error::failed)??;
    let mut report = sorted.report;
    let mut incoming = sorted.incoming.into_iter();
    loop {
        let batch: Vec<Incoming> = incoming.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return Ok(Json::data(&report.told()));
        }
        let appended = door.feed.publish(batch, None).await.map_err(Error::history)?;
        appended.iter().for_each(|one| report.count(one));
    }
}

fn says_ndjson(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    NDJSON.iter().any(|lines| kind.eq_ignore_ascii_case(lines))
}

/// A refused document as the answer names it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Told {
    /// Its place among the documents, from 0.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    killmail_id: Option<u64>,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    message: String,
}

/// What became of the documents.
#[derive(Debug, PartialEq, Eq, Default)]
struct Report {
    new: usize,
    revised: usize,
    known: usize,
    conflict: usize,
    fetching: usize,
    refused: BTreeMap<&'static str, u64>,
    refused_documents: Vec<Told>,
}

impl Report {
    const fn count(&mut self, appended: &Appended) {
        let counter = match appended {
            Appended::New(_) => &mut self.new,
            Appended::Revised(_) => &mut self.revised,
            Appended::Known(_) => &mut self.known,
            Appended::Conflict(_) => &mut self.conflict,
        };
        *counter += 1;
    }

    fn told(&self) -> Value {
        json!({
            "new": self.new,
            "revised": self.revised,
            "known": self.known,
            "conflict": self.conflict,
            "refused": self.refused,
            "fetching": self.fetching,
            "refused_documents": self.refused_documents,
        })
    }
}

/// A document that names a killmail without carrying it.
struct Reference {
    index: usize,
    hash: String,
    /// Whether it says nothing that the killmail itself does not.
    is_bare: bool,
    wanted: Wanted,
}

struct Sorted {
    zkb: ZkbRule,
    at_ms: i64,
    /// Documents so far.
    count: usize,
    incoming: Vec<Incoming>,
    references: Vec<Reference>,
    raw: Vec<Refused>,
    report: Report,
}

impl Sorted {
    fn new(zkb: ZkbRule, at_ms: i64) -> Self {
        let report = Report::default();
        Self { zkb, at_ms, count: 0, incoming: Vec::new(), references: Vec::new(), raw: Vec::new(), report }
    }

    fn take(&mut self, document: &[u8]) {
        let index = self.count;
        self.count += 1;
        match reference::read(document) {
            Some(Ok(named)) => {
                return self.refer(index, named.killmail_id, named.hash.clone(), named.to_document(), true);
            }
            Some(Err(refused)) => {
                let reference::Refused { reason, field, message, killmail_id } = refused;
                let told = Told {
                    index,
                    killmail_id,
                    reason: reason.word(),
                    field: Some(field.to_owned()),
                    message,
                };
                return self.refuse(told, document);
            }
            None => {}
        }
        match package::parse(document) {
            Ok(Package { killmail: Some(killmail), uploaded_at, .. }) => self.incoming.push(Incoming {
                killmail,
                origin: Origin::Backfill,
                received_at_ms: self.at_ms,
                uploaded_at,
                age: AgeRule::ByUpload,
                zkb: self.zkb,
            }),
            Ok(Package { reference: Some(named), .. }) => {
                let text = String::from_utf8_lossy(document).into_owned();
                self.refer(index, named.killmail_id, named.hash, text, false);
            }
            Ok(_) => {
                let message = "the document holds no killmail".to_owned();
                self.refuse(
                    Told { index, killmail_id: None, reason: NO_BODY, field: None, message },
                    document,
                );
            }
            Err(refused) => {
                let package::Refused { reason, message, killmail_id, .. } = refused;
                let told = Told {
                    index,
                    killmail_id,
                    reason: reason.word(),
                    field: field(reason, &message),
                    message,
                };
                self.refuse(told, document);
            }
        }
    }

    fn refer(&mut self, index: usize, killmail_id: u32, hash: String, raw: String, is_bare: bool) {
        let wanted = Wanted {
            killmail_id,
            source: SOURCE.to_owned(),
            at_ms: self.at_ms,
            raw,
            backfill: true,
            ..Wanted::default()
        };
        self.references.push(Reference { index, hash, is_bare, wanted });
    }

    fn refuse(&mut self, told: Told, document: &[u8]) {
        *self.report.refused.entry(told.reason).or_default() += 1;
        if self.raw.len() < RAW_MAX {
            let raw = Bytes::copy_from_slice(document);
            let (reason, killmail_id) = (told.reason.to_owned(), told.killmail_id);
            self.raw.push(Refused { reason, killmail_id, source: SOURCE.to_owned(), raw, at_ms: self.at_ms });
        }
        // References are refused after all others, so the first by number are only known in the end.
        let named = self.report.refused_documents.len();
        if named < NAMED_MAX
            || self.report.refused_documents.last().is_some_and(|last| told.index < last.index)
        {
            let at = self.report.refused_documents.partition_point(|one| one.index < told.index);
            self.report.refused_documents.insert(at, told);
            self.report.refused_documents.truncate(NAMED_MAX);
        }
    }

    /// Has the bodies fetched that documents lack, and keeps what is refused.
    fn order(&mut self, store: &Store, body_requests: &BodyRequests) -> Result<(), Failure> {
        let mut references = std::mem::take(&mut self.references);
        let mut known = Vec::with_capacity(references.len());
        for one in &references {
            known.push(one.is_bare && is_known(store, one)?);
        }
        let all = references.len();
        let mut known = known.into_iter();
        references.retain(|_| !known.next().unwrap_or(false));
        self.report.known = all - references.len();
        let wanted: Vec<Wanted> = references.iter().map(|one| one.wanted.clone()).collect();
        let answers = body_requests.add(&wanted)?;
        let mut fetched = HashSet::new();
        for (one, is_wanted) in references.into_iter().zip(answers) {
            if is_wanted {
                // However often it is named, it is fetched once.
                self.report.fetching += usize::from(fetched.insert(one.wanted.killmail_id));
                continue;
            }
            let (reason, message) = if body_requests.max() == 0 {
                let why = "this server fetches no bodies from ESI: USER_AGENT_CONTACT is not set, or ingest.esi_wanted_max is 0";
                (NO_CONTACT, why.to_owned())
            } else {
                let why = "its body cannot be ordered now: as many wait as may (ingest.esi_wanted_max), or its document is over 2 KiB";
                (NO_BODY, format!("{why}; {} may wait at a time", body_requests.max()))
            };
            let told = Told {
                index: one.index,
                killmail_id: Some(one.wanted.killmail_id.into()),
                reason,
                field: None,
                message,
            };
            self.refuse(told, one.wanted.raw.as_bytes());
        }
        for refused in &self.raw {
            store.refuse(refused)?;
        }
        Ok(())
    }
}

fn is_known(store: &Store, named: &Reference) -> Result<bool, Failure> {
    let entry = store.killmail(named.wanted.killmail_id)?;
    Ok(entry.is_some_and(|entry| {
        entry.killmail.hash.as_deref().is_some_and(|hash| hash.eq_ignore_ascii_case(&named.hash))
    }))
}

/// The member at fault, where the reason tells.
fn field(reason: Reason, message: &str) -> Option<String> {
    Some(match reason {
        Reason::MissingFields => {
            message.strip_prefix("Missing required fields: ")?.split(',').next()?.to_owned()
        }
        Reason::InvalidKillmailId | Reason::IdMismatch => "killmail_id".to_owned(),
        Reason::InvalidSystemId => "solar_system_id".to_owned(),
        Reason::MissingHash => "hash".to_owned(),
        Reason::InvalidVictim => "victim".to_owned(),
        Reason::InvalidAttackers => "attackers".to_owned(),
        Reason::MissingTime | Reason::InvalidTimeType | Reason::InvalidTimeFormat => {
            "killmail_time".to_owned()
        }
        // The message begins with the member.
        Reason::IdOutOfRange => message.split(' ').next().filter(|name| name.contains('_'))?.to_owned(),
        _ => return None,
    })
}

/// Cuts the body into documents. JSON that stands one after another, on lines or not, is taken one by one;
/// what follows a broken document on a line of its own is not lost.
///
/// # Errors
/// 400: the body is one document, and broken.
fn sort(body: &[u8], zkb: ZkbRule, are_lines: bool) -> Result<Sorted, Error> {
    let body = without_bom(body);
    let mut sorted = Sorted::new(zkb, clock::now_ms());
    let whole: Result<Vec<&RawValue>, _> = Deserializer::from_slice(body).into_iter::<&RawValue>().collect();
    if let Ok(documents) = whole {
        documents.iter().for_each(|document| each(document.get().as_bytes(), &mut |one| sorted.take(one)));
        return Ok(sorted);
    }
    let mut any_is_json = false;
    let mut splitter = Splitter::new(body.len());
    let mut take = |document: &[u8]| -> Result<(), Infallible> {
        any_is_json |= package::to_valid_json(document).is_some();
        each(document, &mut |one| sorted.take(one));
        Ok(())
    };
    let Ok(()) = splitter.push(body, &mut take);
    let Ok(()) = splitter.finish(&mut take);
    // Lines of a broken document that was printed prettily are no documents.
    if any_is_json || are_lines { Ok(sorted) } else { Err(Error::BadRequest) }
}

fn each(document: &[u8], take: &mut dyn FnMut(&[u8])) {
    match serde_json::from_slice::<Vec<&RawValue>>(document) {
        Ok(many) => many.iter().for_each(|one| take(one.get().as_bytes())),
        Err(_) => take(document),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(body: &str) -> Result<Sorted, Error> {
        sort(body.as_bytes(), ZkbRule::Keep, false)
    }

    fn refused(body: &str) -> Result<BTreeMap<&'static str, u64>, Error> {
        sorted(body).map(|sorted| sorted.report.refused)
    }

    #[test]
    fn bodies_are_cut_into_documents() {
        let counts = |n| Ok(BTreeMap::from([("missing_fields", n)]));
        assert_eq!(refused(""), Ok(BTreeMap::new()));
        assert_eq!(refused("[]"), Ok(BTreeMap::new()));
        assert_eq!(refused(r#"{"killmail_id":1}"#), counts(1));
        assert_eq!(refused("\u{feff}{\"killmail_id\":1}"), counts(1));
        assert_eq!(refused("{\n  \"killmail_id\": 1\n}\n"), counts(1));
        assert_eq!(refused("[{\"killmail_id\":1},{\"killmail_id\":2}]"), counts(2));
        assert_eq!(refused("{\"killmail_id\":1}\n\n{\"killmail_id\":2}\r\n[{\"killmail_id\":3}]"), counts(3));
    }

    #[test]
    fn a_broken_line_does_not_hide_the_others() {
        let kept = sorted("{\"killmail_id\":1}\n{\"broken\n{\"killmail_id\":\n2}")
            .ok()
            .map(|sorted| sorted.raw.len());
        assert_eq!(kept, Some(3));
        assert_eq!(refused("{\n \"a\": [\n").unwrap_err(), Error::BadRequest);
        assert_eq!(refused("nonsense").unwrap_err(), Error::BadRequest);
        let lines = sort(b"nonsense\nand more", ZkbRule::Keep, true).ok().map(|sorted| sorted.count);
        assert_eq!(lines, Some(2), "lines are documents, whatever they hold");
    }

    #[test]
    fn countless_refused_documents_are_counted_and_the_first_named() {
        let sorted = sorted(&"{}\n".repeat(RAW_MAX + 5)).ok().unwrap();
        assert_eq!(
            (sorted.report.refused["missing_fields"], sorted.raw.len()),
            (RAW_MAX as u64 + 5, RAW_MAX)
        );
        let named: Vec<usize> = sorted.report.refused_documents.iter().map(|told| told.index).collect();
        assert_eq!(named, (0..NAMED_MAX).collect::<Vec<_>>());
    }

    #[test]
    fn refused_documents_are_named_with_the_member_at_fault() {
        let body =
            r#"[{"killmail_id":7},5,{"url":"https://zkillboard.com/kill/9/"},{"killmail_id":8,"zkb":{}}]"#;
        let documents = sorted(body).ok().unwrap().report.refused_documents;
        let told: Vec<_> = documents
            .iter()
            .map(|told| (told.index, told.killmail_id, told.reason, told.field.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                (0, Some(7), "missing_fields", Some("solar_system_id")),
                (1, None, "not_an_object", None),
                (2, Some(9), "missing_hash", Some("url")),
                (3, Some(8), "missing_hash", Some("hash")),
            ]
        );
        assert!(documents.iter().all(|told| !told.message.is_empty()));
    }
}
