//! Runs one source: passes what arrives to the one writer, and waits while the writer cannot take more.
//!
//! A killmail in hand is never dropped: while the disk is full or fails, the same one is retried.
//!
//! Must not know: how a source sends requests and waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tracing::Instrument;

use crate::body_requests::BodyRequests;
use crate::domain::entry::{Origin, is_implausible};
use crate::domain::skip::DELIVERY;
use crate::feed::Feed;
use crate::feed::error::FeedError;
use crate::ingest::arrival::Arrival;
use crate::ingest::bodies::fetcher::body_request;
use crate::ingest::r2z2::feed_document::PLACEHOLDER;
use crate::ingest::source::Source;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::incoming::{Appended, Incoming};
use crate::store::refused::list::Refused;
use crate::telemetry::Telemetry;
use crate::telemetry::source_kind::SourceKind;
use crate::telemetry::source_status::{Doing, SourceStatus};
use crate::wire::read::package::NO_BODY;
use crate::{clock, tasks};

const RETRY_FIRST_MS: u64 = 1_000;
const RETRY_MAX_MS: u64 = 60_000;

/// What a running source uses.
#[derive(Clone)]
pub struct RunContext {
    /// Where killmails go.
    pub feed: Arc<Feed>,
    /// Where refused documents are kept, and checkpoints are read from.
    pub store: Arc<Store>,
    /// What the server reports about itself.
    pub telemetry: Telemetry,
    /// The status of this source.
    pub status: Arc<SourceStatus>,
    /// Where bodies are requested that the source does not send.
    pub body_requests: Arc<BodyRequests>,
    /// The name its checkpoint is kept under; `None`: the one the source gives it.
    pub checkpoint_name: Option<String>,
    /// How often to retry while there is too little disk space, milliseconds.
    pub space_check_ms: u64,
}

/// Follows the source until it ends or `stop` is set; the killmail in hand is stored first.
pub async fn run(mut source: Source, context: RunContext, mut stop: watch::Receiver<bool>) {
    let status = &context.status;
    status.started_ms.store(clock::now_ms(), Ordering::Relaxed);
    status.running.store(true, Ordering::Relaxed);
    loop {
        let arrival = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            arrival = source.next() => arrival,
        };
        let Some(mut arrival) = arrival else {
            if source.kind() != SourceKind::None {
                tracing::info!("source {} has ended: nothing more arrives live", source.kind().word());
                status.note(Doing::Finished, clock::now_ms());
            }
            break;
        };
        if let (Some(name), Some(checkpoint)) = (&context.checkpoint_name, &mut arrival.checkpoint) {
            checkpoint.source.clone_from(name);
        }
        let round = tracing::debug_span!(target: DELIVERY, "ingest_round", source = source.kind().word());
        if !store_arrival(&context, arrival, stop.clone()).instrument(round).await {
            break;
        }
    }
    status.running.store(false, Ordering::Relaxed);
}

/// Stores an arrival; `false` if the server stops before it could be stored.
async fn store_arrival(context: &RunContext, arrival: Arrival, mut stop: watch::Receiver<bool>) -> bool {
    let RunContext { feed, telemetry, status, space_check_ms, .. } = context;
    let Arrival { mut killmails, refused, span, checkpoint, lower_rank, .. } = arrival;
    for document in refused {
        if !refuse(context, document, lower_rank, stop.clone()).await {
            return false;
        }
    }
    if killmails.is_empty() && checkpoint.is_none() {
        return true;
    }
    for incoming in &killmails {
        tracing::debug!(target: DELIVERY, { killmail.id = incoming.killmail.killmail_id }, "received");
    }
    let mut wait_ms = RETRY_FIRST_MS;
    loop {
        let published = match span {
            Some(span) => feed.publish_span(span, checkpoint.clone()).await.map(|()| Vec::new()),
            None => feed.publish(killmails.clone(), checkpoint.clone()).await,
        };
        let pause_ms = match published {
            Ok(appended) => {
                count(status, &killmails, &appended);
                if let Some(last) = killmails.last() {
                    note_for_silence(&telemetry.source_status, status, last);
                }
                return true;
            }
            Err(FeedError::Closing) => return false,
            Err(FeedError::Store(StoreError::TooLarge { killmail_id, bytes })) => {
                tracing::error!(
                    killmail.id = killmail_id,
                    "killmail {killmail_id} is too large to store ({bytes} bytes) and is skipped"
                );
                status.skipped.fetch_add(1, Ordering::Relaxed);
                killmails.retain(|k| k.killmail.killmail_id != killmail_id);
                0
            }
            Err(FeedError::Store(error @ StoreError::NoSpace { .. })) => {
                note_no_space(status, &error);
                *space_check_ms
            }
            Err(error) => {
                tracing::error!("the store failed to take an arrival, next try in {wait_ms} ms: {error}");
                status.note(Doing::BackingOff(error.to_string()), clock::now_ms());
                let pause_ms = wait_ms;
                wait_ms = (wait_ms * 2).min(RETRY_MAX_MS);
                pause_ms
            }
        };
        if !pause(pause_ms, &mut stop).await {
            return false;
        }
    }
}

/// Waits; `false` if the server stops.
async fn pause(ms: u64, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => false,
        () = tokio::time::sleep(Duration::from_millis(ms)) => true,
    }
}

/// Silence is judged by the status of the first source, whichever source a killmail came from.
fn note_for_silence(first: &Arc<SourceStatus>, status: &Arc<SourceStatus>, last: &Incoming) {
    if Arc::ptr_eq(status, first) {
        return;
    }
    if !is_implausible(last.killmail.time, last.received_at_ms) {
        first.last_killmail_time.store(last.killmail.time, Ordering::Relaxed);
    }
    first.last_killmail_ms.store(last.received_at_ms, Ordering::Relaxed);
}

/// Not logged here: the task that watches the disk does so, once for all sources.
fn note_no_space(status: &SourceStatus, error: &StoreError) {
    status.note(Doing::NoSpace(error.to_string()), clock::now_ms());
}

/// What became of a document that may lack only its body.
enum BodyRequest {
    Added,
    /// It names no killmail, or the queue did not take it.
    NotAdded,
    Stopping,
}

/// Requests the body a document lacks, waiting for disk space if necessary.
async fn request_body(
    context: &RunContext,
    document: &Refused,
    lower_rank: Option<SourceKind>,
    mut stop: watch::Receiver<bool>,
) -> BodyRequest {
    let Some(request) = body_request(document, lower_rank) else { return BodyRequest::NotAdded };
    loop {
        let (requests, request) = (Arc::clone(&context.body_requests), request.clone());
        match tasks::blocking("request body", move || requests.add(&[request])).await {
            Ok(Ok(added)) if added == [true] => {
                context.status.end_refused_run();
                context.status.note(Doing::Following, clock::now_ms());
                return BodyRequest::Added;
            }
            Ok(Ok(_)) => return BodyRequest::NotAdded,
            Ok(Err(error @ StoreError::NoSpace { .. })) => note_no_space(&context.status, &error),
            Ok(Err(error)) => {
                tracing::error!("a request for a body could not be stored: {error}");
                return BodyRequest::NotAdded;
            }
            Err(error) => {
                tracing::error!("a request for a body could not be stored: {error}");
                return BodyRequest::NotAdded;
            }
        }
        if !pause(context.space_check_ms, &mut stop).await {
            return BodyRequest::Stopping;
        }
    }
}

/// Requests the body a document lacks, or else stores it raw, waiting for disk space if necessary. On any
/// other failure only the raw document is lost. `false` if the server stops first.
async fn refuse(
    context: &RunContext,
    document: Refused,
    lower_rank: Option<SourceKind>,
    mut stop: watch::Receiver<bool>,
) -> bool {
    let RunContext { store, status, space_check_ms, .. } = context;
    if document.reason == NO_BODY {
        match request_body(context, &document, lower_rank, stop.clone()).await {
            BodyRequest::Added => return true,
            BodyRequest::Stopping => return false,
            BodyRequest::NotAdded => {}
        }
    }
    if document.reason == PLACEHOLDER {
        // A missing number, which is not a fault of the source.
        status.refused.fetch_add(1, Ordering::Relaxed);
    } else {
        status.count_refused(&document.reason);
    }
    tracing::warn!(
        killmail.id = document.killmail_id,
        "a document of {} was refused: {}",
        document.source,
        document.reason
    );
    loop {
        let (store, document) = (Arc::clone(store), document.clone());
        match tasks::blocking("refuse", move || store.add_refused(&document)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error @ StoreError::NoSpace { .. })) => note_no_space(status, &error),
            Ok(Err(error)) => {
                tracing::error!("a refused document could not be stored: {error}");
                return true;
            }
            Err(error) => {
                tracing::error!("a refused document could not be stored: {error}");
                return true;
            }
        }
        if !pause(*space_check_ms, &mut stop).await {
            return false;
        }
    }
}

fn count(status: &SourceStatus, killmails: &[Incoming], appended: &[Appended]) {
    status.note(Doing::Following, clock::now_ms());
    if !killmails.is_empty() {
        status.end_refused_run();
    }
    for (incoming, outcome) in killmails.iter().zip(appended) {
        let id = incoming.killmail.killmail_id;
        match outcome {
            Appended::New(entry) => {
                let late = entry.is_late() && entry.origin == Origin::Live;
                status.late.fetch_add(u64::from(late), Ordering::Relaxed);
                status.stored.fetch_add(1, Ordering::Relaxed);
            }
            Appended::Revised(_) => {
                status.stored.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(killmail.id = id, "killmail {id} was revised");
            }
            // The store logs a conflict.
            Appended::Known(_) | Appended::Conflict(_) => {
                status.skipped.fetch_add(1, Ordering::Relaxed);
            }
        }
        if incoming.origin == Origin::Live {
            status.count_received(incoming.killmail.time, incoming.received_at_ms);
        }
    }
}
