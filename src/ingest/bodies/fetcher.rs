//! Fetches the bodies of killmails that sources only name, and publishes them as if the source had sent them
//! whole.
//!
//! A request is on disk before the source continues, so a crash loses none. What cannot be fetched is retried
//! after growing waits and finally stored with the refused documents, where `import --refused` finds it.
//!
//! Must not know: who names killmails; ESI's rate limits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::body_requests::BodyRequests;
use crate::domain::entry::Origin;
use crate::domain::killmail::{Extra, Killmail};
use crate::domain::provenance::{HASH, ZKB};
use crate::feed::Feed;
use crate::feed::error::FeedError;
use crate::ingest::backoff::doubled_ms;
use crate::ingest::bodies::esi::{self, Esi};
use crate::ingest::bodies::unmatched;
use crate::ingest::r2z2::feed_document;
use crate::store::Store;
use crate::store::incoming::{AgeRule, Incoming, ZkbRule};
use crate::store::refused::list::Refused;
use crate::store::wanted::Wanted;
use crate::telemetry::fallback_status::FallbackStatus;
use crate::telemetry::source_kind::SourceKind;
use crate::wire::read::body;
use crate::wire::read::package::NO_BODY;
use crate::wire::read::package::{self, Reference};
use crate::{clock, tasks};

/// The queue is read this often even when not notified.
const POLL_EVERY: Duration = Duration::from_secs(5);
const RETRY_FIRST_MS: u64 = 2_000;
/// Waits between retries double up to this many times the first: ten minutes.
const RETRY_MAX_TIMES: u32 = 300;

/// The request for the body of the killmail a document names; `None` if it names none. `lower_rank` is the
/// kind of the source if its data ranks below that of others.
#[must_use]
pub fn body_request(document: &Refused, lower_rank: Option<SourceKind>) -> Option<Wanted> {
    let named = package::parse(&document.raw).ok()?.reference?;
    Some(Wanted {
        killmail_id: named.killmail_id,
        source: document.source.clone(),
        at_ms: document.at_ms,
        raw: String::from_utf8(document.raw.to_vec()).ok()?,
        lower_rank: lower_rank.map(|kind| kind.word().to_owned()),
        ..Wanted::default()
    })
}

/// The outcome of one attempt.
enum Outcome {
    /// The killmail is in the log.
    Stored,
    /// It can never be fetched.
    GaveUp(String),
    /// It could not be fetched now.
    Failed(String),
    /// ESI says that id and hash do not belong together.
    Unmatched(String),
    /// It was fetched, but the store did not take it.
    NotStored(String),
    /// The server is stopping.
    Closing,
}

/// The state of a request that is retried; gone after a restart.
struct Retry {
    failures: u32,
    at: Instant,
}

/// When a request is given up.
#[derive(Debug, Clone)]
pub struct FetchRetries {
    /// After this many failures.
    pub max: u32,
    /// The waits after each answer that id and hash do not belong together, milliseconds; one more such
    /// answer gives up.
    pub unmatched_ms: Vec<u64>,
}

/// Works through the requested bodies.
pub struct Fetcher {
    feed: Arc<Feed>,
    store: Arc<Store>,
    requests: Arc<BodyRequests>,
    esi: Arc<Esi>,
    limits: FetchRetries,
    counters: Arc<FallbackStatus>,
    retries: HashMap<u32, Retry>,
}

impl Fetcher {
    #[must_use]
    pub fn new(
        feed: Arc<Feed>,
        store: Arc<Store>,
        requests: Arc<BodyRequests>,
        esi: Arc<Esi>,
        limits: FetchRetries,
        counters: Arc<FallbackStatus>,
    ) -> Self {
        Self { feed, store, requests, esi, limits, counters, retries: HashMap::new() }
    }

    /// Fetches until `stop` is set.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.fetch_all() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn fetch_all(mut self) {
        loop {
            let ids = self.requested_ids().await;
            self.retries.retain(|id, _| ids.binary_search(id).is_ok());
            self.counters.fetch_waiting.store(ids.len() as u64, Ordering::Relaxed);
            let is_due = |id: &u32| self.retries.get(id).is_none_or(|retry| retry.at <= Instant::now());
            let due: Vec<u32> = ids.into_iter().filter(is_due).collect();
            if due.is_empty() {
                let poll_at = Instant::now() + POLL_EVERY;
                let next = self.retries.values().map(|retry| retry.at).min().unwrap_or(poll_at);
                tokio::select! {
                    () = self.requests.added() => {}
                    () = tokio::time::sleep_until(next.min(poll_at)) => {}
                }
            }
            for id in due {
                if !self.process(id).await {
                    return;
                }
            }
        }
    }

    async fn requested_ids(&self) -> Vec<u32> {
        let store = Arc::clone(&self.store);
        match tasks::blocking("read body requests", move || store.wanted_ids()).await {
            Ok(Ok(ids)) => ids,
            Ok(Err(error)) => {
                tracing::error!("cannot read which killmails are to be fetched: {error}");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    /// Attempts one request; `false` when the server is stopping.
    async fn process(&mut self, id: u32) -> bool {
        let store = Arc::clone(&self.store);
        let Ok(Ok(Some(request))) = tasks::blocking("read body request", move || store.wanted(id)).await
        else {
            return true;
        };
        if let Some(due_ms) = request.due_ms {
            let left = unmatched::time_left(&self.limits.unmatched_ms, due_ms, clock::now_ms());
            if !left.is_zero() {
                // This wait began before the server was restarted.
                self.postpone(id, left);
                return true;
            }
        }
        let outcome = self.attempt(&request).await;
        if matches!(outcome, Outcome::GaveUp(_) | Outcome::Unmatched(_) | Outcome::Failed(_)) {
            self.counters.fetch_failures.fetch_add(1, Ordering::Relaxed);
        }
        match outcome {
            Outcome::Closing => return false,
            Outcome::Stored => {
                self.counters.fetched.fetch_add(1, Ordering::Relaxed);
                self.remove(id).await;
            }
            Outcome::GaveUp(why) => self.give_up(request, &why).await,
            Outcome::Unmatched(why) => self.retry_unmatched(request, &why).await,
            Outcome::NotStored(why) => {
                tracing::warn!(killmail.id = id, "killmail {id} was fetched and could not be stored: {why}");
                self.postpone(id, POLL_EVERY);
            }
            Outcome::Failed(why) => self.retry_failed(request, &why).await,
        }
        true
    }

    async fn retry_failed(&mut self, request: Wanted, why: &str) {
        let id = request.killmail_id;
        let failures = self.retries.get(&id).map_or(0, |retry| retry.failures) + 1;
        if failures >= self.limits.max {
            return self.give_up(request, why).await;
        }
        tracing::warn!(
            killmail.id = id,
            "killmail {id} could not be fetched, try {failures} of {}: {why}",
            self.limits.max
        );
        let wait = Duration::from_millis(doubled_ms(RETRY_FIRST_MS, failures - 1, RETRY_MAX_TIMES));
        self.retries.insert(id, Retry { failures, at: Instant::now() + wait });
    }

    /// ESI says that id and hash do not belong together, which it also says of valid pairs.
    async fn retry_unmatched(&mut self, mut request: Wanted, why: &str) {
        let (id, now_ms) = (request.killmail_id, clock::now_ms());
        request.unmatched = request.unmatched.saturating_add(1);
        request.due_ms = unmatched::retry_at_ms(&self.limits.unmatched_ms, request.unmatched, now_ms);
        let Some(due_ms) = request.due_ms else { return self.give_up(request, why).await };
        let left = unmatched::time_left(&self.limits.unmatched_ms, due_ms, now_ms);
        tracing::warn!(
            killmail.id = id,
            "killmail {id} could not be fetched, next try in {} s: {why}",
            left.as_secs()
        );
        let store = Arc::clone(&self.store);
        let stored = tasks::blocking("update body request", move || store.update_wanted(&request)).await;
        if let Err(error) = flatten(stored) {
            tracing::error!(killmail.id = id, "cannot store when killmail {id} is retried: {error}");
        }
        self.postpone(id, left);
    }

    fn postpone(&mut self, id: u32, wait: Duration) {
        let failures = self.retries.get(&id).map_or(0, |retry| retry.failures);
        self.retries.insert(id, Retry { failures, at: Instant::now() + wait });
    }

    async fn attempt(&self, request: &Wanted) -> Outcome {
        let Ok(named) = package::parse(request.raw.as_bytes()) else {
            return Outcome::GaveUp("the document does not name a killmail".to_owned());
        };
        let (Some(reference), uploaded_at) = (named.reference, named.uploaded_at) else {
            return Outcome::GaveUp("the document does not name a killmail".to_owned());
        };
        let stored = self.stored(request.killmail_id).await;
        let is_fetched = stored.is_none();
        let killmail = match stored {
            // No need to ask ESI, but the rest of the document may still add something.
            Some(killmail) => killmail,
            None => match self.fetch(&reference).await {
                Ok(killmail) => killmail,
                Err(outcome) => return outcome,
            },
        };
        let incoming = Incoming {
            killmail: with_reference(killmail, reference, request.lower_rank.as_deref(), is_fetched),
            origin: if request.backfill { Origin::Backfill } else { Origin::Live },
            received_at_ms: request.at_ms,
            uploaded_at,
            age: AgeRule::ByUpload,
            zkb: ZkbRule::IfNewer,
        };
        match self.feed.publish(vec![incoming], None).await {
            Ok(_) => Outcome::Stored,
            Err(FeedError::Closing) => Outcome::Closing,
            Err(error) => Outcome::NotStored(error.to_string()),
        }
    }

    async fn fetch(&self, reference: &Reference) -> Result<Killmail, Outcome> {
        let Reference { killmail_id, hash, .. } = reference;
        let bytes = match self.esi.killmail(*killmail_id, hash, &self.counters.esi).await {
            Ok(bytes) => bytes,
            Err(error @ esi::Error::Unmatched) => return Err(Outcome::Unmatched(error.to_string())),
            Err(error) if error.is_final() => return Err(Outcome::GaveUp(error.to_string())),
            Err(error) => return Err(Outcome::Failed(error.to_string())),
        };
        if !feed_document::is_document(&bytes) {
            return Err(Outcome::Failed("ESI responded 200 with something other than a killmail".to_owned()));
        }
        match package::parse(&bytes).map(|package| package.killmail) {
            Ok(Some(killmail)) if killmail.killmail_id == *killmail_id => Ok(killmail),
            Ok(_) => Err(Outcome::GaveUp("ESI responded with another killmail".to_owned())),
            Err(refused) => Err(Outcome::GaveUp(format!("ESI responded without a killmail: {refused}"))),
        }
    }

    async fn stored(&self, killmail_id: u32) -> Option<Killmail> {
        let store = Arc::clone(&self.store);
        let entry =
            tasks::blocking("read killmail", move || store.killmail(killmail_id)).await.ok()?.ok()??;
        Some(entry.killmail.clone())
    }

    async fn remove(&mut self, id: u32) {
        self.retries.remove(&id);
        let store = Arc::clone(&self.store);
        if let Ok(Err(error)) = tasks::blocking("remove body request", move || store.remove_wanted(id)).await
        {
            tracing::error!(killmail.id = id, "cannot remove the request for killmail {id}: {error}");
        }
    }

    async fn give_up(&mut self, request: Wanted, why: &str) {
        let id = request.killmail_id;
        tracing::warn!(killmail.id = id, "killmail {id} of {} is given up: {why}", request.source);
        self.counters.fetch_given_up.fetch_add(1, Ordering::Relaxed);
        let Wanted { source, at_ms, raw, .. } = request;
        let refused = Refused {
            reason: NO_BODY.to_owned(),
            killmail_id: Some(u64::from(id)),
            source,
            raw: raw.into(),
            at_ms,
        };
        let store = Arc::clone(&self.store);
        match flatten(tasks::blocking("refuse", move || store.add_refused(&refused)).await) {
            Ok(()) => self.remove(id).await,
            Err(error) => {
                tracing::error!("a refused document could not be stored: {error}");
                self.postpone(id, Duration::from_millis(RETRY_FIRST_MS * u64::from(RETRY_MAX_TIMES)));
            }
        }
    }
}

/// The error of the work or of its thread.
fn flatten<E: ToString>(done: Result<Result<(), E>, tasks::Lost>) -> Result<(), String> {
    match done {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(lost) => Err(lost.to_string()),
    }
}

/// The killmail together with what the document that names it says, and with the provenance of each: the body
/// is ESI's, and so is a hash it was fetched by.
fn with_reference(
    mut killmail: Killmail,
    reference: Reference,
    lower_rank: Option<&str>,
    is_fetched: bool,
) -> Killmail {
    (killmail.hash, killmail.zkb) = (None, None);
    body::add_envelope(
        &mut killmail,
        Some(reference.hash),
        reference.zkb,
        Extra::new(),
        &reference.unreadable,
    );
    killmail.provenance.remove(HASH);
    killmail.provenance.set_members(Vec::new(), 0);
    if let Some(source) = lower_rank {
        if killmail.zkb.is_some() {
            killmail.provenance.set(ZKB, source);
        }
        if !is_fetched {
            killmail.provenance.set(HASH, source);
        }
    }
    killmail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::provenance::Provenance;
    use crate::domain::unreadable::UnreadableMembers;
    use crate::domain::zkb::Zkb;

    #[test]
    fn a_fetched_body_has_the_provenance_of_esi_and_its_zkb_that_of_the_source() {
        let zkb = Zkb { points: Some(1), ..Zkb::default() };
        let reference = || Reference {
            killmail_id: 7,
            hash: "aa".to_owned(),
            zkb: Some(zkb.clone()),
            unreadable: UnreadableMembers::default(),
        };
        let parts = |killmail: Killmail| {
            killmail.provenance.iter().map(|(part, _)| part.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(parts(with_reference(Killmail::default(), reference(), Some("redisq"), true)), ["zkb"]);
        assert_eq!(parts(with_reference(Killmail::default(), reference(), None, true)), Vec::<String>::new());
        let mut stored = Killmail { hash: Some("bb".to_owned()), ..Killmail::default() };
        stored.provenance = Provenance::all(&stored, "websocket");
        let known = with_reference(stored, reference(), Some("redisq"), false);
        assert_eq!(known.hash.as_deref(), Some("aa"));
        assert_eq!(known.provenance.by_source()["redisq"], ["killmail_hash", "zkb"]);
        assert_eq!(known.provenance.by_source()["websocket"], ["body"]);
    }
}
