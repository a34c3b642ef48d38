//! A source at work: brings what arrives into the one writer, and waits where the writer cannot take more.
//!
//! A killmail in hand is never let go: while the disk is full or fails, the same one is tried again.
//!
//! Must not know: how a source asks and waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::entry::{Origin, is_implausible};
use crate::feed::Feed;
use crate::feed::error::FeedError;
use crate::ingest::bodies::fetcher::BodyRequests;
use crate::ingest::package::NO_BODY;
use crate::ingest::r2z2::feed_document::PLACEHOLDER;
use crate::store::error;
use crate::store::incoming::{Appended, Incoming};
use crate::store::refused::list::Refused;
use crate::telemetry::source_status::{Doing, SourceStatus};
use crate::{clock, tasks};

use crate::ingest::arrival::Arrival;
use crate::ingest::source::Source;

const RETRY_FIRST_MS: u64 = 1_000;
const RETRY_MAX_MS: u64 = 60_000;

/// Around a running source.
pub struct RunContext {
    /// Where killmails go.
    pub feed: Arc<Feed>,
    /// How the source is doing.
    pub status: Arc<SourceStatus>,
    /// Where bodies are ordered that the source did not bring.
    pub desk: Arc<BodyRequests>,
    /// The name its place is kept under, if not its own.
    pub place: Option<String>,
    /// While there is too little disk space, it is looked at this often, milliseconds.
    pub space_check_ms: u64,
}

/// Follows the source until it ends or `stop` says so; the killmail in hand is finished first.
pub async fn run(mut source: Source, runs: RunContext, mut stop: watch::Receiver<bool>) {
    let status = &runs.status;
    status.started_ms.store(clock::now_ms(), Ordering::Relaxed);
    status.running.store(true, Ordering::Relaxed);
    loop {
        let arrival = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            arrival = source.next() => arrival,
        };
        let Some(mut arrival) = arrival else {
            if !matches!(source, Source::None) {
                tracing::info!("source {} is used up: nothing more comes live", source.word());
                status.note(Doing::Finished, clock::now_ms());
            }
            break;
        };
        if let (Some(place), Some(checkpoint)) = (&runs.place, &mut arrival.checkpoint) {
            checkpoint.source.clone_from(place);
        }
        if !keep(&runs, arrival, stop.clone()).await {
            break;
        }
    }
    status.running.store(false, Ordering::Relaxed);
}

/// Keeps an arrival; `false` when the server stops before it could be kept.
async fn keep(runs: &RunContext, arrival: Arrival, mut stop: watch::Receiver<bool>) -> bool {
    let RunContext { feed, status, space_check_ms, .. } = runs;
    let Arrival { mut killmails, refused, span, checkpoint, lower_rank, .. } = arrival;
    for document in refused {
        if !refuse(runs, document, lower_rank, stop.clone()).await {
            return false;
        }
    }
    if killmails.is_empty() && checkpoint.is_none() {
        return true;
    }
    let mut wait_ms = RETRY_FIRST_MS;
    loop {
        let published = match span {
            Some(span) => feed.publish_span(span, checkpoint.clone()).await.map(|()| Vec::new()),
            None => feed.publish(killmails.clone(), checkpoint.clone()).await,
        };
        let pause_ms = match published {
            Ok(appended) => {
                tally(status, &killmails, &appended);
                if let Some(last) = killmails.last().filter(|_| !Arc::ptr_eq(status, feed.source_status())) {
                    // Whoever brings it: the log is not silent.
                    if !is_implausible(last.killmail.time, last.received_at_ms) {
                        feed.source_status().last_killmail_time.store(last.killmail.time, Ordering::Relaxed);
                    }
                    feed.source_status().last_killmail_ms.store(last.received_at_ms, Ordering::Relaxed);
                }
                return true;
            }
            Err(FeedError::Closing) => return false,
            Err(FeedError::Store(error::StoreError::TooLarge { killmail_id, bytes })) => {
                tracing::error!(
                    killmail.id = killmail_id,
                    "killmail {killmail_id} is too large to keep ({bytes} bytes) and is passed over"
                );
                status.skipped.fetch_add(1, Ordering::Relaxed);
                killmails.retain(|k| k.killmail.killmail_id != killmail_id);
                0
            }
            Err(FeedError::Store(error @ error::StoreError::NoSpace { .. })) => {
                no_space(status, &error);
                *space_check_ms
            }
            Err(error) => {
                tracing::error!(
                    "the store does not take what the source brings, next try in {wait_ms} ms: {error}"
                );
                status.note(Doing::BackingOff(error.to_string()), clock::now_ms());
                let pause_ms = wait_ms;
                wait_ms = (wait_ms * 2).min(RETRY_MAX_MS);
                pause_ms
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return false,
            () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
        }
    }
}

/// The log hears of it from whoever watches the disk, once for all sources.
fn no_space(status: &SourceStatus, error: &error::StoreError) {
    status.note(Doing::NoSpace(error.to_string()), clock::now_ms());
}

/// Orders the body a document lacks, once there is room: `false` when the server stops first. `None`: there
/// is nothing to order.
async fn order(
    runs: &RunContext,
    document: &Refused,
    lower_rank: Option<&str>,
    mut stop: watch::Receiver<bool>,
) -> Option<bool> {
    loop {
        match runs.desk.want(document, lower_rank).await {
            Ok(true) => {
                runs.status.take_in();
                runs.status.note(Doing::Following, clock::now_ms());
                return Some(true);
            }
            Ok(false) => return None,
            Err(FeedError::Store(error @ error::StoreError::NoSpace { .. })) => {
                no_space(&runs.status, &error)
            }
            Err(error) => {
                tracing::error!("a killmail to be fetched could not be kept in mind: {error}");
                return None;
            }
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Some(false),
            () = tokio::time::sleep(Duration::from_millis(runs.space_check_ms)) => {}
        }
    }
}

/// Orders the body a document lacks, else keeps it raw, once there is room; any other failure costs only the
/// evidence. `false` when the server stops first.
async fn refuse(
    runs: &RunContext,
    document: Refused,
    lower_rank: Option<&str>,
    mut stop: watch::Receiver<bool>,
) -> bool {
    let RunContext { feed, status, space_check_ms, .. } = runs;
    if document.reason == NO_BODY
        && let Some(ordered) = order(runs, &document, lower_rank, stop.clone()).await
    {
        return ordered;
    }
    if document.reason == PLACEHOLDER {
        // A missing number is not a document that was refused.
        status.refused.fetch_add(1, Ordering::Relaxed);
    } else {
        status.refuse(&document.reason);
    }
    tracing::warn!(
        killmail.id = document.killmail_id,
        "a document of {} was refused: {}",
        document.source,
        document.reason
    );
    loop {
        let (store, kept) = (Arc::clone(feed.store()), document.clone());
        match tasks::blocking("refuse", move || store.add_refused(&kept)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error @ error::StoreError::NoSpace { .. })) => no_space(status, &error),
            Ok(Err(error)) => {
                tracing::error!("a refused document could not be kept: {error}");
                return true;
            }
            Err(error) => {
                tracing::error!("a refused document could not be kept: {error}");
                return true;
            }
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return false,
            () = tokio::time::sleep(Duration::from_millis(*space_check_ms)) => {}
        }
    }
}

fn tally(status: &SourceStatus, killmails: &[Incoming], appended: &[Appended]) {
    status.note(Doing::Following, clock::now_ms());
    if !killmails.is_empty() {
        status.take_in();
    }
    for (incoming, outcome) in killmails.iter().zip(appended) {
        let id = incoming.killmail.killmail_id;
        match outcome {
            Appended::New(entry) => {
                let late = entry.is_late() && entry.origin == Origin::Live;
                status.late.fetch_add(u64::from(late), Ordering::Relaxed);
                status.kept.fetch_add(1, Ordering::Relaxed);
            }
            Appended::Revised(_) => {
                status.kept.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(killmail.id = id, "killmail {id} was revised");
            }
            // The store logs a conflict.
            Appended::Known(_) | Appended::Conflict(_) => {
                status.skipped.fetch_add(1, Ordering::Relaxed);
            }
        }
        if incoming.origin == Origin::Live {
            status.beat(incoming.killmail.time, incoming.received_at_ms);
        }
    }
}
