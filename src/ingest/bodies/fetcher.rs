//! Fetches the bodies of killmails that sources only name, and brings them into the writer as if the source
//! had sent them whole.
//!
//! What is to be fetched is on disk before the source goes on, so a crash forgets nothing. What cannot be
//! fetched is tried again, longer and longer apart, and at last put with the refused documents, where `import
//! --refused` finds it.
//!
//! Must not know: who names killmails; how ESI wants to be asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::entry::Origin;
use crate::domain::killmail::{Extra, Killmail};
use crate::domain::provenance::{HASH, ZKB};
use crate::feed::Feed;
use crate::feed::error::FeedError;
use crate::ingest::bodies::esi::{self, Esi};
use crate::ingest::bodies::unmatched;
use crate::ingest::package::NO_BODY;
use crate::ingest::r2z2::feed_document;
use crate::store::incoming::{AgeRule, Incoming, ZkbRule};
use crate::store::refused::list::Refused;
use crate::store::wanted::Wanted;
use crate::wire::read::body;
use crate::wire::read::package::{self, Reference};
use crate::{clock, tasks};

/// It is looked for news after this long even if nobody told of any.
const TICK: Duration = Duration::from_secs(5);
const AGAIN_FIRST: Duration = Duration::from_secs(2);
const AGAIN_MAX: Duration = Duration::from_secs(600);

/// The way to the fetcher.
pub struct BodyRequests {
    feed: Arc<Feed>,
}

impl BodyRequests {
    /// Nobody works at it yet; at most `wanted_max` bodies are wanted at a time, none with 0.
    #[must_use]
    pub fn new(feed: Arc<Feed>, wanted_max: usize) -> Self {
        feed.fallback_status().wanted_max.store(wanted_max, Ordering::Relaxed);
        Self { feed }
    }

    /// Keeps in mind to fetch what a document names, on disk when this returns. `false`: it names nothing, or
    /// too much is wanted already.
    ///
    /// # Errors
    /// The store does not take it.
    pub async fn want(&self, document: &Refused, lower_rank: Option<&str>) -> Result<bool, FeedError> {
        let named = package::parse(&document.raw).ok().and_then(|package| package.reference);
        let (Some(named), Ok(raw)) = (named, String::from_utf8(document.raw.to_vec())) else {
            return Ok(false);
        };
        let wanted = Wanted {
            killmail_id: named.killmail_id,
            source: document.source.clone(),
            at_ms: document.at_ms,
            raw,
            lower_rank: lower_rank.map(str::to_owned),
            ..Wanted::default()
        };
        let (store, max) =
            (Arc::clone(self.feed.store()), self.feed.fallback_status().wanted_max.load(Ordering::Relaxed));
        let kept = tasks::blocking("want", move || store.add_wanted(&wanted, max)).await??;
        self.feed.fallback_status().news.notify_one();
        Ok(kept)
    }
}

/// What became of one.
enum Outcome {
    /// It is in the log.
    Done,
    /// It never can be.
    Never(String),
    /// Not now.
    Later(String),
    /// ESI says that id and hash do not belong together.
    Unmatched(String),
    /// It is here, but the store does not take it now.
    Kept(String),
    /// The server stops.
    Closing,
}

/// When one is tried again.
struct Again {
    tries: u32,
    at: Instant,
}

/// When a body is given up.
#[derive(Debug, Clone)]
pub struct FetchRetries {
    /// After so many failures.
    pub max: u32,
    /// After one answer more than these that id and hash do not belong together; the waits after each,
    /// milliseconds.
    pub unmatched_ms: Vec<u64>,
}

/// Fetches until `stop` says so.
pub async fn run(
    desk: Arc<BodyRequests>,
    esi: Arc<Esi>,
    tries: FetchRetries,
    mut stop: watch::Receiver<bool>,
) {
    let work = Work { desk: Arc::clone(&desk), esi, tries, again: HashMap::new() };
    tokio::select! {
        () = work.forever() => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

struct Work {
    desk: Arc<BodyRequests>,
    esi: Arc<Esi>,
    tries: FetchRetries,
    again: HashMap<u32, Again>,
}

impl Work {
    async fn forever(mut self) {
        loop {
            let ids = self.ids().await;
            self.again.retain(|id, _| ids.binary_search(id).is_ok());
            self.count(ids.len());
            let due = |id: &u32| self.again.get(id).is_none_or(|again| again.at <= Instant::now());
            let due: Vec<u32> = ids.into_iter().filter(due).collect();
            if due.is_empty() {
                let next =
                    self.again.values().map(|again| again.at).min().unwrap_or_else(|| Instant::now() + TICK);
                tokio::select! {
                    () = self.desk.feed.fallback_status().news.notified() => {}
                    () = tokio::time::sleep_until(next.min(Instant::now() + TICK)) => {}
                }
            }
            for id in due {
                if !self.one(id).await {
                    return;
                }
            }
        }
    }

    async fn ids(&self) -> Vec<u32> {
        let store = Arc::clone(self.desk.feed.store());
        match tasks::blocking("wanted", move || store.wanted_ids()).await {
            Ok(Ok(ids)) => ids,
            Ok(Err(error)) => {
                tracing::error!("cannot read which killmails are to be fetched: {error}");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    fn count(&self, waiting: usize) {
        self.desk.feed.fallback_status().fetch_waiting.store(waiting as u64, Ordering::Relaxed);
    }

    /// Deals with one; false when the server stops.
    async fn one(&mut self, id: u32) -> bool {
        let others = self.desk.feed.fallback_status();
        let store = Arc::clone(self.desk.feed.store());
        let Ok(Ok(Some(wanted))) = tasks::blocking("wanted", move || store.wanted(id)).await else {
            return true;
        };
        if let Some(left) =
            wanted.due_ms.map(|due_ms| unmatched::left(&self.tries.unmatched_ms, due_ms, clock::now_ms()))
            && !left.is_zero()
        {
            // Its wait began before the server did.
            self.postpone(id, left);
            return true;
        }
        match self.fetch(&wanted).await {
            Outcome::Closing => return false,
            Outcome::Done => {
                others.fetched.fetch_add(1, Ordering::Relaxed);
                self.forget(id).await;
            }
            Outcome::Never(why) => {
                others.fetch_failures.fetch_add(1, Ordering::Relaxed);
                self.give_up(wanted, &why).await;
            }
            Outcome::Unmatched(why) => {
                others.fetch_failures.fetch_add(1, Ordering::Relaxed);
                self.unmatched(wanted, &why).await;
            }
            Outcome::Kept(why) => {
                tracing::warn!(killmail.id = id, "killmail {id} was fetched and could not be stored: {why}");
                self.postpone(id, TICK);
            }
            Outcome::Later(why) => {
                others.fetch_failures.fetch_add(1, Ordering::Relaxed);
                let tries = self.again.get(&id).map_or(0, |again| again.tries) + 1;
                if tries >= self.tries.max {
                    self.give_up(wanted, &why).await;
                    return true;
                }
                tracing::warn!(
                    killmail.id = id,
                    "killmail {id} could not be fetched, try {tries} of {}: {why}",
                    self.tries.max
                );
                let wait = AGAIN_FIRST.saturating_mul(1 << (tries - 1).min(16)).min(AGAIN_MAX);
                self.again.insert(id, Again { tries, at: Instant::now() + wait });
            }
        }
        true
    }

    /// ESI says that id and hash do not belong together, which it says of right ones, too.
    async fn unmatched(&mut self, mut wanted: Wanted, why: &str) {
        let (id, now_ms) = (wanted.killmail_id, clock::now_ms());
        wanted.unmatched = wanted.unmatched.saturating_add(1);
        wanted.due_ms = unmatched::again_ms(&self.tries.unmatched_ms, wanted.unmatched, now_ms);
        let Some(due_ms) = wanted.due_ms else { return self.give_up(wanted, why).await };
        let left = unmatched::left(&self.tries.unmatched_ms, due_ms, now_ms);
        tracing::warn!(
            killmail.id = id,
            "killmail {id} could not be fetched, next try in {} s: {why}",
            left.as_secs()
        );
        let store = Arc::clone(self.desk.feed.store());
        match tasks::blocking("want still", move || store.update_wanted(&wanted)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(
                killmail.id = id,
                "when killmail {id} is asked for again could not be kept: {error}"
            ),
            Err(error) => tracing::error!(
                killmail.id = id,
                "when killmail {id} is asked for again could not be kept: {error}"
            ),
        }
        self.postpone(id, left);
    }

    fn postpone(&mut self, id: u32, wait: Duration) {
        let tries = self.again.get(&id).map_or(0, |again| again.tries);
        self.again.insert(id, Again { tries, at: Instant::now() + wait });
    }

    async fn fetch(&self, wanted: &Wanted) -> Outcome {
        let Ok(named) = package::parse(wanted.raw.as_bytes()) else {
            return Outcome::Never("the document names nothing".to_owned());
        };
        let (Some(reference), uploaded_at) = (named.reference, named.uploaded_at) else {
            return Outcome::Never("the document names nothing".to_owned());
        };
        let known = self.known(wanted.killmail_id).await;
        let fetched = known.is_none();
        let killmail = match known {
            // What we have needs no fetching; it may still learn what the document says beside the name.
            Some(killmail) => killmail,
            None => match self
                .esi
                .killmail(reference.killmail_id, &reference.hash, &self.desk.feed.fallback_status().esi)
                .await
            {
                Ok(bytes) if !feed_document::is_document(&bytes) => {
                    return Outcome::Later("ESI answers 200 with what is not a killmail".to_owned());
                }
                Ok(bytes) => match package::parse(&bytes).map(|package| package.killmail) {
                    Ok(Some(killmail)) if killmail.killmail_id == reference.killmail_id => killmail,
                    Ok(_) => return Outcome::Never("ESI gave another killmail".to_owned()),
                    Err(refused) => return Outcome::Never(format!("ESI gave no killmail: {refused}")),
                },
                Err(error @ esi::Error::Unmatched) => return Outcome::Unmatched(error.to_string()),
                Err(error) if error.is_final() => return Outcome::Never(error.to_string()),
                Err(error) => return Outcome::Later(error.to_string()),
            },
        };
        let incoming = Incoming {
            killmail: named_by(killmail, reference, wanted.lower_rank.as_deref(), fetched),
            origin: if wanted.backfill { Origin::Backfill } else { Origin::Live },
            received_at_ms: wanted.at_ms,
            uploaded_at,
            age: AgeRule::ByUpload,
            zkb: ZkbRule::IfNewer,
        };
        match self.desk.feed.publish(vec![incoming], None).await {
            Ok(_) => Outcome::Done,
            Err(FeedError::Closing) => Outcome::Closing,
            Err(error) => Outcome::Kept(error.to_string()),
        }
    }

    async fn known(&self, killmail_id: u32) -> Option<Killmail> {
        let store = Arc::clone(self.desk.feed.store());
        let entry = tasks::blocking("known", move || store.killmail(killmail_id)).await.ok()?.ok()??;
        Some(entry.killmail.clone())
    }

    async fn forget(&mut self, id: u32) {
        self.again.remove(&id);
        let store = Arc::clone(self.desk.feed.store());
        if let Ok(Err(error)) = tasks::blocking("unwant", move || store.remove_wanted(id)).await {
            tracing::error!(killmail.id = id, "killmail {id} is fetched, which cannot be noted: {error}");
        }
    }

    async fn give_up(&mut self, wanted: Wanted, why: &str) {
        let id = wanted.killmail_id;
        tracing::warn!(killmail.id = id, "killmail {id} of {} is given up: {why}", wanted.source);
        self.desk.feed.fallback_status().fetch_given_up.fetch_add(1, Ordering::Relaxed);
        let Wanted { source, at_ms, raw, .. } = wanted;
        let refused = Refused {
            reason: NO_BODY.to_owned(),
            killmail_id: Some(u64::from(id)),
            source,
            raw: raw.into(),
            at_ms,
        };
        let store = Arc::clone(self.desk.feed.store());
        match tasks::blocking("refuse", move || store.add_refused(&refused)).await {
            Ok(Ok(())) => self.forget(id).await,
            Ok(Err(error)) => {
                tracing::error!("a refused document could not be kept: {error}");
                self.postpone(id, AGAIN_MAX);
            }
            Err(error) => {
                tracing::error!("a refused document could not be kept: {error}");
                self.postpone(id, AGAIN_MAX);
            }
        }
    }
}

/// The killmail with what the document that names it says, and whose word that is: the body is ESI's, and so
/// is a hash it was fetched by.
fn named_by(
    mut killmail: Killmail,
    reference: Reference,
    lower_rank: Option<&str>,
    fetched: bool,
) -> Killmail {
    (killmail.hash, killmail.zkb) = (None, None);
    body::take_up(&mut killmail, Some(reference.hash), reference.zkb, Extra::new(), &reference.unreadable);
    killmail.provenance.remove(HASH);
    killmail.provenance.set_members(Vec::new(), 0);
    if let Some(source) = lower_rank {
        if killmail.zkb.is_some() {
            killmail.provenance.set(ZKB, source);
        }
        if !fetched {
            killmail.provenance.set(HASH, source);
        }
    }
    killmail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::provenance::Provenance;
    use crate::domain::unreadable::Unreadable;
    use crate::domain::zkb::Zkb;

    #[test]
    fn a_fetched_body_is_esis_and_the_block_is_the_sources() {
        let zkb = Zkb { points: Some(1), ..Zkb::default() };
        let reference = || Reference {
            killmail_id: 7,
            hash: "aa".to_owned(),
            zkb: Some(zkb.clone()),
            unreadable: Unreadable::default(),
        };
        let parts = |killmail: Killmail| {
            killmail.provenance.iter().map(|(part, _)| part.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(parts(named_by(Killmail::default(), reference(), Some("redisq"), true)), ["zkb"]);
        assert_eq!(parts(named_by(Killmail::default(), reference(), None, true)), Vec::<String>::new());
        let mut stored = Killmail { hash: Some("bb".to_owned()), ..Killmail::default() };
        stored.provenance = Provenance::all(&stored, "websocket");
        let known = named_by(stored, reference(), Some("redisq"), false);
        assert_eq!(known.hash.as_deref(), Some("aa"));
        assert_eq!(known.provenance.by_source()["redisq"], ["killmail_hash", "zkb"]);
        assert_eq!(known.provenance.by_source()["websocket"], ["body"]);
    }
}
