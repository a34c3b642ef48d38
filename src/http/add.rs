//! Killmails handed in: one document, an array, or one to a line, in any upstream form. They are backfill, never announced. Of one that
//! is only named the body is ordered.
//!
//! Must not know: what the forms are, when two killmails are the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Deserializer, Value, json};

use crate::clock;
use crate::domain::entry::Origin;
use crate::feed;
use crate::http::Door;
use crate::http::answer::Json;
use crate::http::auth::{Killmails, May};
use crate::http::error::Error;
use crate::http::request::{Pairs, Raw};
use crate::store::refused::Refused;
use crate::store::wanted::Wanted;
use crate::store::{AgeRule, Appended, Incoming, Store, ZkbRule};
use crate::tasks;
use crate::wire::package::{self, Package};

/// What was handed in by REST is noted under this name.
const SOURCE: &str = "rest";
/// The word for a document that names a killmail without carrying it.
const NO_BODY: &str = "no_body";

/// `POST /api/v1/killmails`. Answers what became of the documents, as `import` reports it. Newer zkb values replace stored ones, but
/// not with `?prefer_incoming=false`.
pub async fn add(_: May<Killmails>, State(door): State<Arc<Door>>, asked: Pairs, Raw(body): Raw) -> Result<Json, Error> {
    let store = Arc::clone(door.feed.store());
    let zkb = if asked.get("prefer_incoming") == Some("false") { ZkbRule::Keep } else { ZkbRule::IfNewer };
    let wanted_max = door.feed.others().wanted_max.load(Ordering::Relaxed);
    let sorted = tasks::blocking("rest-add", move || -> Result<Sorted, Error> {
        let sorted = sort(&body, zkb)?;
        for refused in &sorted.raw {
            let kept = if order(&store, refused, wanted_max)? { Ok(()) } else { store.refuse(refused) };
            kept.map_err(|error| Error::history(feed::Error::Store(error)))?;
        }
        Ok(sorted)
    });
    let sorted = sorted.await.map_err(Error::failed)??;
    door.feed.others().news.notify_one();
    let appended = door.feed.publish(sorted.incoming, None).await.map_err(Error::history)?;
    Ok(Json::bare(&report(&appended, &sorted.refused)))
}

/// Has the body fetched that a document lacks. `false`: there is nothing to fetch, or nobody who would.
fn order(store: &Store, document: &Refused, wanted_max: usize) -> Result<bool, Error> {
    let id = document.killmail_id.filter(|_| document.reason == NO_BODY).and_then(|id| u32::try_from(id).ok());
    let (Some(killmail_id), Ok(raw)) = (id, String::from_utf8(document.raw.to_vec())) else { return Ok(false) };
    let wanted = Wanted { killmail_id, source: SOURCE.to_owned(), at_ms: document.at_ms, raw, backfill: true, lower_rank: None };
    store.want(&wanted, wanted_max).map_err(|error| Error::history(feed::Error::Store(error)))
}

fn report(appended: &[Appended], refused: &BTreeMap<&'static str, u64>) -> Value {
    let count = |is: fn(&Appended) -> bool| appended.iter().filter(|one| is(one)).count();
    json!({
        "new": count(|one| matches!(one, Appended::New(_))),
        "revised": count(|one| matches!(one, Appended::Revised(_))),
        "known": count(|one| matches!(one, Appended::Known(_))),
        "conflict": count(|one| matches!(one, Appended::Conflict(_))),
        "refused": refused,
    })
}

struct Sorted {
    zkb: ZkbRule,
    incoming: Vec<Incoming>,
    refused: BTreeMap<&'static str, u64>,
    raw: Vec<Refused>,
}

impl Sorted {
    fn take(&mut self, document: &[u8], at_ms: i64) {
        match package::parse(document) {
            Ok(Package { killmail: Some(killmail), uploaded_at, .. }) => self.incoming.push(Incoming {
                killmail,
                origin: Origin::Backfill,
                received_at_ms: at_ms,
                uploaded_at,
                age: AgeRule::ByUpload,
                zkb: self.zkb,
            }),
            // A reference without a body: there is nothing to keep yet.
            Ok(Package { reference, .. }) => self.refuse(NO_BODY, reference.map(|known| known.killmail_id.into()), document, at_ms),
            Err(refused) => self.refuse(refused.reason.word(), refused.killmail_id, document, at_ms),
        }
    }

    fn refuse(&mut self, reason: &'static str, killmail_id: Option<u64>, document: &[u8], at_ms: i64) {
        *self.refused.entry(reason).or_default() += 1;
        let raw = Bytes::copy_from_slice(document);
        self.raw.push(Refused { reason: reason.to_owned(), killmail_id, source: SOURCE.to_owned(), raw, at_ms });
    }
}

/// Cuts the body into documents. JSON that stands one after another, on lines or not, is taken one by one; what follows a broken
/// document on a line of its own is not lost.
///
/// # Errors
/// 400: the body is one document, and broken.
fn sort(body: &[u8], zkb: ZkbRule) -> Result<Sorted, Error> {
    let at_ms = clock::now_ms();
    let mut sorted = Sorted { zkb, incoming: Vec::new(), refused: BTreeMap::new(), raw: Vec::new() };
    let whole: Result<Vec<&RawValue>, _> = Deserializer::from_slice(body).into_iter::<&RawValue>().collect();
    match whole {
        Ok(documents) => documents.iter().for_each(|document| each(document.get().as_bytes(), &mut |one| sorted.take(one, at_ms))),
        Err(_) => {
            let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect();
            // Lines of a broken document that was printed prettily are no documents.
            if !lines.iter().any(|line| serde_json::from_slice::<&RawValue>(line).is_ok_and(|one| one.get().starts_with('{'))) {
                return Err(Error::BadRequest);
            }
            lines.into_iter().for_each(|line| each(line, &mut |one| sorted.take(one, at_ms)));
        }
    }
    Ok(sorted)
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

    fn refused(body: &str) -> Result<BTreeMap<&'static str, u64>, Error> {
        sort(body.as_bytes(), ZkbRule::Keep).map(|sorted| sorted.refused)
    }

    #[test]
    fn bodies_are_cut_into_documents() {
        let counts = |n| Ok(BTreeMap::from([("missing_fields", n)]));
        assert_eq!(refused(""), Ok(BTreeMap::new()));
        assert_eq!(refused("[]"), Ok(BTreeMap::new()));
        assert_eq!(refused(r#"{"killmail_id":1}"#), counts(1));
        assert_eq!(refused("{\n  \"killmail_id\": 1\n}\n"), counts(1));
        assert_eq!(refused("[{\"killmail_id\":1},{\"killmail_id\":2}]"), counts(2));
        assert_eq!(refused("{\"killmail_id\":1}\n\n{\"killmail_id\":2}\r\n[{\"killmail_id\":3}]"), counts(3));
    }

    #[test]
    fn a_broken_line_does_not_hide_the_others() {
        let kept = sort(b"{\"killmail_id\":1}\n{\"broken\n{\"killmail_id\":2}", ZkbRule::Keep).ok().map(|sorted| sorted.raw.len());
        assert_eq!(kept, Some(3));
        assert_eq!(refused("{\n \"a\": [\n").unwrap_err(), Error::BadRequest);
        assert_eq!(refused("nonsense").unwrap_err(), Error::BadRequest);
    }
}
