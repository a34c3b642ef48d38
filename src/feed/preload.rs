//! A preload: the killmails in a time window below the head, cut into batches that can be counted before they are
//! read.
//!
//! Planning and reading cut by the same rule over the same sizes, so `total` is exact.
//!
//! Must not know: anything live.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::filter::{Filter, Interest};
use crate::domain::id::Seq;
use crate::feed::config::Config;
use crate::feed::error::FeedError;
use crate::feed::pace::pause;
use crate::feed::start::BatchForm;
use crate::store::Store;
use crate::store::query::{HistoryQuery, Hit, Order};

const PLAN_PAGE: usize = 8_192;

/// The progress of a preload.
#[derive(Debug, Clone)]
pub struct Preload {
    /// The subscription's filter, limited to the window.
    pub filter: Arc<Filter>,
    /// How the transport writes batches.
    pub form: BatchForm,
    /// The last log entry that belongs to the preload.
    pub head: Seq,
    /// The last killmail id taken.
    pub after: u32,
    pub taken: u64,
    /// Batches in all.
    pub total: u64,
    /// Killmails handed over.
    pub sent: u64,
    /// When the next batch is due.
    pub due: Instant,
    /// When all of it should be sent.
    pub end: Instant,
}

impl Preload {
    /// When the next batch is due: after the configured pause, shortened so that all are sent in time.
    #[must_use]
    pub fn next_due(&self, config: &Config, now: Instant) -> Instant {
        let left = self.total.saturating_sub(self.taken);
        now + pause(Duration::from_millis(config.batch_pause_ms), left, self.end, now)
    }
}

/// The size of a preload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Killmails, before any plugin judged them.
    pub killmails: u64,
    pub batches: u64,
}

/// The killmails of a preload.
pub struct Window<'a> {
    /// The filter, limited to the window.
    pub filter: &'a Filter,
    /// What the plugin needs to see.
    pub interest: Option<&'a Interest>,
    /// How the transport writes batches.
    pub form: BatchForm,
    /// The last log entry that belongs to the preload.
    pub head: Seq,
    /// Only killmails with a larger id.
    pub after: u32,
}

impl Window<'_> {
    const fn query(&self, after: u32, limit: usize) -> HistoryQuery<'_> {
        HistoryQuery {
            filter: self.filter,
            interest: self.interest,
            order: Order::Oldest,
            after: Some(after),
            below: None,
            head: self.head,
            limit,
        }
    }

    /// Counts killmails and batches.
    ///
    /// # Errors
    /// More than `preload_max_killmails`, or the store failed.
    pub fn plan(&self, store: &Store, config: &Config) -> Result<Plan, FeedError> {
        let mut plan = Plan { killmails: 0, batches: 0 };
        let mut cutter = BatchCutter::new(self.form, config);
        let mut after = self.after;
        loop {
            let hits = store.select(&self.query(after, PLAN_PAGE))?;
            for hit in &hits {
                if cutter.closes_before(store.weight_of(hit.seq)) {
                    plan.batches += 1;
                }
            }
            plan.killmails += hits.len() as u64;
            if plan.killmails > config.preload_max_killmails {
                let count = store.count_matching(&self.query(self.after, usize::MAX))?;
                return Err(FeedError::PreloadTooLarge { max: config.preload_max_killmails, count });
            }
            match hits.last() {
                Some(last) if hits.len() == PLAN_PAGE => after = last.killmail_id,
                _ => break,
            }
        }
        plan.batches += u64::from(plan.killmails > 0);
        Ok(plan)
    }

    /// The hits of the next batch.
    ///
    /// # Errors
    /// The store failed.
    pub fn next(&self, store: &Store, config: &Config) -> Result<Vec<Hit>, FeedError> {
        let mut hits = store.select(&self.query(self.after, config.batch_max))?;
        let mut cutter = BatchCutter::new(self.form, config);
        if let Some(end) = hits.iter().position(|hit| cutter.closes_before(store.weight_of(hit.seq))) {
            hits.truncate(end);
        }
        Ok(hits)
    }
}

/// Cuts a list of killmails into batches.
#[derive(Debug)]
struct BatchCutter {
    form: BatchForm,
    max_killmails: usize,
    max_bytes: u64,
    killmails: usize,
    bytes: u64,
}

impl BatchCutter {
    fn new(form: BatchForm, config: &Config) -> Self {
        let max_bytes = form.max_bytes.unwrap_or(config.batch_bytes);
        Self { form, max_killmails: config.batch_max, max_bytes, killmails: 0, bytes: form.frame_bytes }
    }

    /// Adds a killmail of `weight` bytes; true if the batch ends before it.
    fn closes_before(&mut self, weight: u32) -> bool {
        // One more for the comma.
        let bytes = (u64::from(weight) + 1) * self.form.copies;
        let closes = self.killmails > 0
            && (self.killmails >= self.max_killmails || self.bytes + bytes > self.max_bytes);
        if closes {
            (self.killmails, self.bytes) = (0, self.form.frame_bytes);
        }
        self.killmails += 1;
        self.bytes += bytes;
        closes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_end_at_killmails_or_bytes() {
        let config = Config { batch_max: 3, batch_bytes: 102, ..Config::default() };
        let mut cutter = BatchCutter::new(BatchForm::default(), &config);
        let ends: Vec<bool> =
            [10, 10, 10, 10, 90, 200, 1].into_iter().map(|w| cutter.closes_before(w)).collect();
        assert_eq!(ends, [false, false, false, true, false, true, true]);
    }

    #[test]
    fn what_is_written_twice_counts_twice() {
        let form = BatchForm { max_bytes: Some(100), copies: 2, frame_bytes: 12 };
        let mut cutter = BatchCutter::new(form, &Config::default());
        let ends: Vec<bool> = [21, 21, 21, 22, 500, 1].into_iter().map(|w| cutter.closes_before(w)).collect();
        assert_eq!(ends, [false, false, true, true, true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_shrink_so_that_all_ends_in_time() {
        let config = Config::default();
        let now = Instant::now();
        let mut preload = Preload {
            filter: Arc::default(),
            form: BatchForm::default(),
            head: Seq(1),
            after: 0,
            taken: 0,
            total: 2000,
            sent: 0,
            due: now,
            end: now + Duration::from_secs(30),
        };
        assert_eq!(preload.next_due(&config, now) - now, Duration::from_millis(15));
        preload.total = 10;
        assert_eq!(preload.next_due(&config, now) - now, Duration::from_millis(100));
        assert_eq!(
            preload.next_due(&config, preload.end + Duration::from_secs(1)),
            preload.end + Duration::from_secs(1)
        );
    }
}
