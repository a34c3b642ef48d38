//! The single writer: appends batches one after another, waits until each is durable, then announces it and wakes
//! readers.
//!
//! Law 2 (once, in order) needs a single place that assigns and announces numbers. This is it.
//!
//! Must not know: where killmails come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot, watch};

use crate::domain::entry::Origin;
use crate::domain::id::Seq;
use crate::domain::skip::{DELIVERY, Skip};
use crate::domain::span::Span;
use crate::feed::counters::Counters;
use crate::feed::error::FeedError;
use crate::feed::wakeups::Wakeups;
use crate::store::Store;
use crate::store::incoming::{Appended, Checkpoint, Incoming};
use crate::tasks;

/// What the writer works on.
pub struct Parts {
    /// Where batches go.
    pub store: Arc<Store>,
    /// Readers waiting for news of the log.
    pub wakeups: Arc<Wakeups>,
    /// The newest number readers may see.
    pub announced: Arc<AtomicU64>,
    /// Tells those who wait for any change, new or revised.
    pub moved: watch::Sender<Seq>,
    pub counters: Arc<Counters>,
}

enum Job {
    Killmails {
        batch: Vec<Incoming>,
        checkpoint: Option<Checkpoint>,
        answer: oneshot::Sender<Result<Vec<Appended>, FeedError>>,
    },
    Span {
        span: Span,
        checkpoint: Option<Checkpoint>,
        answer: oneshot::Sender<Result<(), FeedError>>,
    },
}

/// The way to the writer's thread, which ends when this is dropped.
pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the writer's thread.
    ///
    /// # Errors
    /// The system refused to make a thread.
    pub fn start(parts: Parts, queue: usize) -> std::io::Result<Self> {
        let (jobs, mut waiting) = mpsc::channel::<Job>(queue.max(1));
        tasks::thread("feed-writer", move || {
            let mut found = Vec::new();
            while let Some(job) = waiting.blocking_recv() {
                // The caller may be gone. Its killmails are stored all the same.
                match job {
                    Job::Killmails { batch, checkpoint, answer } => {
                        let done = parts.store.append(batch, checkpoint);
                        if let Ok(appended) = &done {
                            parts.announce(appended, &mut found);
                        }
                        drop(answer.send(done.map_err(FeedError::from)));
                    }
                    Job::Span { span, checkpoint, answer } => {
                        let done = parts.store.append_span(span, checkpoint);
                        if let Ok(seq) = &done {
                            parts.announced.store(seq.0, Ordering::Release);
                            parts.wakeups.wake_all();
                            parts.moved.send_replace(*seq);
                        }
                        drop(answer.send(done.map(|_| ()).map_err(FeedError::from)));
                    }
                }
            }
        })?;
        Ok(Self { jobs })
    }

    /// Appends a batch; returns when it is durable and announced.
    ///
    /// # Errors
    /// The store failed, or the writer has ended.
    pub async fn publish(
        &self,
        batch: Vec<Incoming>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Vec<Appended>, FeedError> {
        let (answer, done) = oneshot::channel();
        self.jobs.send(Job::Killmails { batch, checkpoint, answer }).await.map_err(|_| FeedError::Closing)?;
        done.await.map_err(|_| FeedError::Closing)?
    }

    /// Appends a span; returns when it is durable and every reader was woken.
    ///
    /// # Errors
    /// The store failed, or the writer has ended.
    pub async fn publish_span(&self, span: Span, checkpoint: Option<Checkpoint>) -> Result<(), FeedError> {
        let (answer, done) = oneshot::channel();
        self.jobs.send(Job::Span { span, checkpoint, answer }).await.map_err(|_| FeedError::Closing)?;
        done.await.map_err(|_| FeedError::Closing)?
    }
}

impl Parts {
    fn announce(&self, appended: &[Appended], found: &mut Vec<u32>) {
        self.announced.store(self.store.head().0, Ordering::Release);
        for done in appended {
            let Appended::New(entry) = done else { continue };
            self.counters.announced.fetch_add(1, Ordering::Relaxed);
            // Backfill is never delivered live, so it wakes nobody.
            let id = entry.facts.killmail_id;
            if entry.origin == Origin::Live {
                let woken = self.wakeups.wake(&entry.facts, found);
                self.counters.woken.fetch_add(woken as u64, Ordering::Relaxed);
                tracing::debug!(target: DELIVERY, { killmail.id = id, seq = %entry.seq.0, woken }, "announced");
            } else {
                tracing::debug!(target: DELIVERY, { killmail.id = id, why = %Skip::Backfill }, "not announced");
            }
        }
        if appended.iter().any(|done| matches!(done, Appended::New(_) | Appended::Revised(_))) {
            self.moved.send_replace(self.store.head());
        }
    }
}
