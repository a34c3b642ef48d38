//! A client of a reader: what it got, and what it should have got.
//!
//! Must not know: other clients.

use std::sync::Arc;
use std::time::Duration;

use killstream::domain::entry::{Origin, SharedEntry};
use killstream::domain::filter::Filter;
use killstream::domain::id::{EventId, Place, Seq};
use killstream::domain::subscription::Subscription;
use killstream::feed::Feed;
use killstream::feed::event::{Delivered, Event, preload_id};
use killstream::feed::reader::Reader;
use killstream::feed::start::Start;
use tokio::time::timeout;

use crate::laws::once::STEPS;
use crate::support::PATIENCE;

pub struct Client {
    pub reader: Reader,
    subscription: Subscription,
    start: Start,
    /// Head of the log when it first opened.
    pub opened: Seq,
    /// The filters it had, and the position from which each applied, ascending.
    pub filters: Vec<(Seq, Filter)>,
    pub got: Vec<Delivered>,
    /// Sequence numbers of the spans it was notified of.
    pub spans: Vec<Seq>,
    /// Sequence number of the last live event.
    last: Seq,
    /// Id of the last event it saw.
    last_id: String,
    /// The last event, if it was a batch: its killmails, and the head of its preload.
    last_batch: Option<(Vec<Delivered>, Seq)>,
}

impl Client {
    pub async fn open(feed: &Arc<Feed>, subscription: Subscription, start: Start) -> Self {
        let reader = Reader::open(feed.clone(), subscription.clone(), start.clone()).await.unwrap();
        let opened = reader.id().place.head();
        let last_id = reader.id().to_string();
        let filters = vec![(opened, subscription.filter.clone())];
        Self {
            reader,
            subscription,
            start,
            opened,
            filters,
            got: Vec::new(),
            spans: Vec::new(),
            last: opened,
            last_id,
            last_batch: None,
        }
    }

    /// Takes the next event, if one comes soon.
    pub async fn take(&mut self) -> bool {
        let Ok(event) = timeout(Duration::from_millis(3), self.reader.next()).await else { return false };
        self.record(event.expect("the reader ended"));
        true
    }

    pub fn record(&mut self, event: Event) {
        self.last_batch = None;
        match event {
            Event::Opened { id } => self.last_id = id.to_string(),
            Event::Killmail { kept, id } => {
                self.moved_to(id);
                self.got.push(kept);
            }
            Event::Backfilled { id, .. } => {
                self.moved_to(id);
                self.spans.push(id.place.head());
            }
            Event::Batch(batch) => {
                self.got.extend(batch.kept.iter().cloned());
                self.last_id = batch.id.to_string();
                self.last_batch = Some((batch.kept, batch.head));
            }
            Event::Preloaded { id, .. } => self.last_id = id.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn moved_to(&mut self, id: EventId) {
        assert!(id.place.head() > self.last, "{id} after {}", self.last);
        self.last = id.place.head();
        self.last_id = id.to_string();
    }

    /// Takes events until the reader has caught up.
    pub async fn drain(&mut self, feed: &Feed) {
        let all = async {
            while self.reader.in_preload() || self.reader.id().place != Place::Live(feed.head()) {
                self.take().await;
            }
            while self.take().await {}
        };
        timeout(PATIENCE, all).await.expect("the reader never catches up");
    }

    /// Disconnects after `seen` killmails of the last batch, and reconnects.
    pub async fn resume(&mut self, feed: &Arc<Feed>, seen: usize, ping: bool) {
        let in_preload = self.reader.in_preload();
        if ping {
            self.last_id = self.reader.id().to_string();
        } else if let Some((batch, head)) = self.last_batch.take()
            && (1..batch.len()).contains(&seen)
        {
            // A transport that sends killmails one by one gives each of them an id.
            self.got.truncate(self.got.len() - (batch.len() - seen));
            self.last_id = preload_id(feed.epoch(), head, &batch[seen - 1]).to_string();
            STEPS.count("cut within a batch");
        }
        self.last_batch = None;
        STEPS.count("stop");
        STEPS.count(if in_preload { "resume in a preload" } else { "resume" });
        let start = Start { last_event_id: Some(self.last_id.clone()), ..self.start.clone() };
        self.reader = Reader::open(feed.clone(), self.subscription.clone(), start).await.unwrap();
        self.applies_from(self.reader.id().place.head());
    }

    /// Adds the ids of another filter, except during a preload, which ends as it was planned.
    pub fn grow(&mut self, more: &Filter) {
        if self.reader.in_preload() || matches!(self.reader.id().place, Place::Preload { .. }) {
            return;
        }
        let filter = &mut self.subscription.filter;
        for listed in &more.dimensions {
            let mut ids = filter.ids(listed.dimension).map(|ids| ids.as_slice().to_vec()).unwrap_or_default();
            ids.extend_from_slice(listed.ids.as_slice());
            filter.set_ids(listed.dimension, ids);
        }
        STEPS.count("growth");
        self.reader.set_filter(self.subscription.filter.clone());
        self.last_batch = None;
        self.applies_from(self.reader.id().place.head());
    }

    /// Records that the present filter applies behind this position.
    fn applies_from(&mut self, place: Seq) {
        self.filters.retain(|(from, _)| *from < place || *from == self.opened);
        self.filters.push((place, self.subscription.filter.clone()));
    }

    /// The killmails this client should have got, in this order, given the whole log.
    pub fn expected(&self, log: &[SharedEntry]) -> Vec<u32> {
        let first = &self.filters[0].1;
        let mut expected = Vec::new();
        if let Some(since) = self.start.preload_since.filter(|_| first.has_ids()) {
            let within =
                |e: &&SharedEntry| e.seq <= self.opened && e.facts.time >= since && first.accepts(&e.facts);
            expected.extend(log.iter().filter(within).map(|e| e.facts.killmail_id));
            expected.sort_unstable();
            STEPS.add("preloaded", expected.len() as u64);
        }
        let before = expected.len();
        for entry in log.iter().filter(|e| e.seq > self.opened) {
            let (_, filter) = self.filters.iter().rev().find(|(from, _)| *from < entry.seq).unwrap();
            let fresh =
                self.subscription.max_age_secs == 0 || entry.age_secs <= self.subscription.max_age_secs;
            if entry.origin == Origin::Live && fresh && filter.accepts(&entry.facts) {
                expected.push(entry.facts.killmail_id);
            }
        }
        STEPS.add("live", (expected.len() - before) as u64);
        expected
    }
}
