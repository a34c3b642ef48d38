//! Adds killmails: one document, an array, or one per line, in any of the formats of upstream services. They
//! are backfill, so live readers do not get them. The body of a killmail that is only referenced is fetched,
//! if this server fetches bodies.
//!
//! Must not know: what the formats are, or when two killmails are the same.

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
use crate::http::request::auth::{Authorized, Killmails};
use crate::http::request::parameters::{Pairs, RawBody};
use crate::http::state::HttpState;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::incoming::{AgeRule, Appended, Incoming, ZkbRule};
use crate::store::refused::list::Refused;
use crate::store::wanted::Wanted;
use crate::wire::read::json::without_bom;
use crate::wire::read::package::{self, NO_BODY, Package};
use crate::wire::read::reference;
use crate::wire::read::split::Splitter;
use crate::{clock, feed, tasks};

/// The source recorded for killmails added over the API.
const SOURCE: &str = "rest";
/// The reason for a reference when this server fetches no bodies.
const NO_CONTACT: &str = "no_contact";
/// Refused documents listed in the response; more are only counted.
const LISTED_MAX: usize = 100;
/// Refused documents of one request that are stored raw: as many as the store keeps in all.
const RAW_MAX: usize = 10_000;
/// Killmails in one transaction.
const BATCH: usize = 1_000;
/// Content types in which each line is a document.
const NDJSON: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];

/// `POST /api/v1/killmails`. Responds with what became of the documents, in the format of `import`. Newer zkb
/// values replace stored ones, unless `?prefer_incoming=false`.
pub async fn add(
    _: Authorized<Killmails>,
    State(state): State<Arc<HttpState>>,
    query: Pairs,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Result<Json, Error> {
    let store = Arc::clone(&state.store);
    let zkb = if query.get("prefer_incoming") == Some("false") { ZkbRule::Keep } else { ZkbRule::IfNewer };
    let body_requests = Arc::clone(&state.body_requests);
    let are_lines = is_ndjson(&headers);
    let sorted = tasks::blocking("rest-add", move || -> Result<SortedDocuments, Error> {
        let mut sorted = sort_documents(&body, zkb, are_lines)?;
        sorted
            .request_bodies(&store, &body_requests)
            .map_err(|error| Error::history(feed::error::FeedError::Store(error)))?;
        Ok(sorted)
    });
    let sorted = sorted.await.map_err(Error::failed)??;
    let mut report = sorted.report;
    let mut incoming = sorted.incoming.into_iter();
    loop {
        let batch: Vec<Incoming> = incoming.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return Ok(Json::data(&report.to_json()));
        }
        let appended = state.feed.publish(batch, None).await.map_err(Error::history)?;
        appended.iter().for_each(|appended| report.count(appended));
    }
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    NDJSON.iter().any(|lines| kind.eq_ignore_ascii_case(lines))
}

/// A refused document as the response lists it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct RefusedDocument {
    /// Its index among the documents, from 0.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    killmail_id: Option<u64>,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
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
    refused_documents: Vec<RefusedDocument>,
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

    fn to_json(&self) -> Value {
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

/// A document that names a killmail without its body.
struct Reference {
    index: usize,
    hash: String,
    /// Whether it holds nothing but the id and the hash.
    is_bare: bool,
    wanted: Wanted,
}

/// The documents of a body, by what is to be done with them.
struct SortedDocuments {
    zkb: ZkbRule,
    at_ms: i64,
    /// Documents so far.
    count: usize,
    incoming: Vec<Incoming>,
    references: Vec<Reference>,
    raw: Vec<Refused>,
    report: Report,
}

impl SortedDocuments {
    fn new(zkb: ZkbRule, at_ms: i64) -> Self {
        let report = Report::default();
        Self { zkb, at_ms, count: 0, incoming: Vec::new(), references: Vec::new(), raw: Vec::new(), report }
    }

    fn add_document(&mut self, document: &[u8]) {
        let index = self.count;
        self.count += 1;
        match reference::read(document) {
            Some(Ok(named)) => {
                return self.add_reference(
                    index,
                    named.killmail_id,
                    named.hash.clone(),
                    named.to_document(),
                    true,
                );
            }
            Some(Err(refused)) => {
                let reference::Refused { reason, field, message, killmail_id } = refused;
                let refused = RefusedDocument {
                    index,
                    killmail_id,
                    reason: reason.word(),
                    field: Some(field),
                    message,
                };
                return self.refuse(refused, document);
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
                self.add_reference(index, named.killmail_id, named.hash, text, false);
            }
            Ok(_) => {
                let message = "the document holds no killmail".to_owned();
                self.refuse(
                    RefusedDocument { index, killmail_id: None, reason: NO_BODY, field: None, message },
                    document,
                );
            }
            Err(refused) => {
                let package::Refused { reason, message, field, killmail_id } = refused;
                let refused = RefusedDocument { index, killmail_id, reason: reason.word(), field, message };
                self.refuse(refused, document);
            }
        }
    }

    fn add_reference(&mut self, index: usize, killmail_id: u32, hash: String, raw: String, is_bare: bool) {
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

    fn refuse(&mut self, refused: RefusedDocument, document: &[u8]) {
        *self.report.refused.entry(refused.reason).or_default() += 1;
        if self.raw.len() < RAW_MAX {
            let raw = Bytes::copy_from_slice(document);
            let (reason, killmail_id) = (refused.reason.to_owned(), refused.killmail_id);
            self.raw.push(Refused { reason, killmail_id, source: SOURCE.to_owned(), raw, at_ms: self.at_ms });
        }
        // References are refused after all other documents, so the list is sorted here.
        let listed = &mut self.report.refused_documents;
        if listed.len() < LISTED_MAX || listed.last().is_some_and(|last| refused.index < last.index) {
            let at = listed.partition_point(|other| other.index < refused.index);
            listed.insert(at, refused);
            listed.truncate(LISTED_MAX);
        }
    }

    /// Requests the bodies of references, and stores the documents that are refused.
    fn request_bodies(&mut self, store: &Store, body_requests: &BodyRequests) -> Result<(), StoreError> {
        let mut references = std::mem::take(&mut self.references);
        let mut known = Vec::with_capacity(references.len());
        for reference in &references {
            known.push(reference.is_bare && is_known(store, reference)?);
        }
        let all = references.len();
        let mut known = known.into_iter();
        references.retain(|_| !known.next().unwrap_or(false));
        self.report.known = all - references.len();
        let wanted: Vec<Wanted> = references.iter().map(|reference| reference.wanted.clone()).collect();
        let accepted = body_requests.add(&wanted)?;
        let mut fetched = HashSet::new();
        for (reference, is_wanted) in references.into_iter().zip(accepted) {
            if is_wanted {
                // However many documents name it, it is fetched once.
                self.report.fetching += usize::from(fetched.insert(reference.wanted.killmail_id));
                continue;
            }
            let (reason, message) = if body_requests.max() == 0 {
                let why = "this server does not fetch bodies from ESI: USER_AGENT_CONTACT is not set, or ingest.esi_wanted_max is 0";
                (NO_CONTACT, why.to_owned())
            } else {
                let why = "its body cannot be fetched now";
                let max = body_requests.max();
                (
                    NO_BODY,
                    format!(
                        "{why}: {max} are waiting already (ingest.esi_wanted_max), or the document is over 2 KiB"
                    ),
                )
            };
            let refused = RefusedDocument {
                index: reference.index,
                killmail_id: Some(reference.wanted.killmail_id.into()),
                reason,
                field: None,
                message,
            };
            self.refuse(refused, reference.wanted.raw.as_bytes());
        }
        for refused in &self.raw {
            store.add_refused(refused)?;
        }
        Ok(())
    }
}

fn is_known(store: &Store, reference: &Reference) -> Result<bool, StoreError> {
    let entry = store.killmail(reference.wanted.killmail_id)?;
    Ok(entry.is_some_and(|entry| {
        entry.killmail.hash.as_deref().is_some_and(|hash| hash.eq_ignore_ascii_case(&reference.hash))
    }))
}

/// Splits a body into documents and sorts them. Concatenated JSON documents are accepted, with or without
/// line breaks between them. After a malformed document, reading goes on at the next line.
///
/// # Errors
/// 400: the body is a single, malformed document.
fn sort_documents(body: &[u8], zkb: ZkbRule, are_lines: bool) -> Result<SortedDocuments, Error> {
    let body = without_bom(body);
    let mut sorted = SortedDocuments::new(zkb, clock::now_ms());
    let whole: Result<Vec<&RawValue>, _> = Deserializer::from_slice(body).into_iter::<&RawValue>().collect();
    if let Ok(documents) = whole {
        documents.iter().for_each(|document| {
            for_each_document(document.get().as_bytes(), &mut |one| sorted.add_document(one))
        });
        return Ok(sorted);
    }
    let mut any_is_json = false;
    let mut splitter = Splitter::new(body.len());
    let mut take = |document: &[u8]| -> Result<(), Infallible> {
        any_is_json |= package::to_valid_json(document).is_some();
        for_each_document(document, &mut |one| sorted.add_document(one));
        Ok(())
    };
    let Ok(()) = splitter.push(body, &mut take);
    let Ok(()) = splitter.finish(&mut take);
    // Otherwise it is one pretty-printed document that is malformed, and its lines are not documents.
    if any_is_json || are_lines { Ok(sorted) } else { Err(Error::BadRequest) }
}

/// A document may be an array of documents.
fn for_each_document(document: &[u8], take: &mut dyn FnMut(&[u8])) {
    match serde_json::from_slice::<Vec<&RawValue>>(document) {
        Ok(many) => many.iter().for_each(|one| take(one.get().as_bytes())),
        Err(_) => take(document),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(body: &str) -> Result<SortedDocuments, Error> {
        sort_documents(body.as_bytes(), ZkbRule::Keep, false)
    }

    fn refused(body: &str) -> Result<BTreeMap<&'static str, u64>, Error> {
        sorted(body).map(|sorted| sorted.report.refused)
    }

    #[test]
    fn bodies_are_split_into_documents() {
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
    fn a_malformed_line_does_not_hide_the_others() {
        let kept = sorted("{\"killmail_id\":1}\n{\"broken\n{\"killmail_id\":\n2}")
            .ok()
            .map(|sorted| sorted.raw.len());
        assert_eq!(kept, Some(3));
        assert_eq!(refused("{\n \"a\": [\n").unwrap_err(), Error::BadRequest);
        assert_eq!(refused("nonsense").unwrap_err(), Error::BadRequest);
        let lines =
            sort_documents(b"nonsense\nand more", ZkbRule::Keep, true).ok().map(|sorted| sorted.count);
        assert_eq!(lines, Some(2), "with that content type, each line is a document");
    }

    #[test]
    fn all_refused_documents_are_counted_and_the_first_are_listed() {
        let sorted = sorted(&"{}\n".repeat(RAW_MAX + 5)).ok().unwrap();
        assert_eq!(
            (sorted.report.refused["missing_fields"], sorted.raw.len()),
            (RAW_MAX as u64 + 5, RAW_MAX)
        );
        let listed: Vec<usize> =
            sorted.report.refused_documents.iter().map(|refused| refused.index).collect();
        assert_eq!(listed, (0..LISTED_MAX).collect::<Vec<_>>());
    }

    #[test]
    fn refused_documents_are_listed_with_the_member_at_fault() {
        let body =
            r#"[{"killmail_id":7},5,{"url":"https://zkillboard.com/kill/9/"},{"killmail_id":8,"zkb":{}}]"#;
        let documents = sorted(body).ok().unwrap().report.refused_documents;
        let listed: Vec<_> = documents
            .iter()
            .map(|refused| (refused.index, refused.killmail_id, refused.reason, refused.field))
            .collect();
        assert_eq!(
            listed,
            [
                (0, Some(7), "missing_fields", Some("solar_system_id")),
                (1, None, "not_an_object", None),
                (2, Some(9), "missing_hash", Some("url")),
                (3, Some(8), "missing_hash", Some("hash")),
            ]
        );
        assert!(documents.iter().all(|refused| !refused.message.is_empty()));
    }
}
