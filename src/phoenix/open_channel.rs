//! The reader of a channel, and its preloads one after another.
//!
//! Must not know: frames, sockets.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use crate::domain::subscription::Subscription;
use crate::feed;
use crate::feed::event::Event;
use crate::feed::newest::Newest;
use crate::feed::newest_preload::{self, NewestPreload};
use crate::feed::reader::Reader;
use crate::plugins::plugin_quota::EvaluatorPermit;
use crate::telemetry::channel_counters::ChannelCounters;

pub struct OpenChannel {
    pub key: u64,
    pub reader: Reader,
    /// The first one runs, the others wait.
    preloads: VecDeque<NewestPreload>,
    _counted: Counted,
    /// Its share of the plugin quota.
    _hold: Option<EvaluatorPermit>,
}

/// Counts a channel as left, however it ends.
struct Counted(Arc<ChannelCounters>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a channel hands to its connection.
pub enum ChannelEvent {
    /// An event of its reader; `None` when the reader is closed.
    Live(Option<Event>),
    /// An event of its preload.
    Preload(Result<newest_preload::PreloadEvent, feed::error::FeedError>),
}

impl OpenChannel {
    /// Creates a channel without preloads.
    #[must_use]
    pub fn new(
        counters: Arc<ChannelCounters>,
        key: u64,
        reader: Reader,
        hold: Option<EvaluatorPermit>,
    ) -> Self {
        counters.joined.fetch_add(1, Ordering::Relaxed);
        Self { key, reader, preloads: VecDeque::new(), _counted: Counted(counters), _hold: hold }
    }

    /// Adds a preload of killmails before the reader's place.
    ///
    /// # Errors
    /// `waiting_max` preloads wait already; returned is that limit.
    pub fn preload(&mut self, newest: Newest, waiting_max: usize) -> Result<(), usize> {
        if self.preloads.len() > waiting_max {
            return Err(waiting_max);
        }
        self.preloads.push_back(self.reader.preload_newest(newest));
        Ok(())
    }

    /// Replaces the subscription. Preloads stop for ids it no longer contains.
    pub fn change(&mut self, subscription: Arc<Subscription>) {
        self.preloads.iter_mut().for_each(|preload| preload.retain(&subscription.filter));
        self.reader.set_subscription(subscription);
    }

    /// Notes how many killmails of the last portion were sent.
    pub fn note_sent(&mut self, killmails: usize) {
        self.reader.count_delivered(killmails as u64);
        self.preloads.iter_mut().take(1).for_each(|preload| preload.note_sent(killmails));
    }

    /// Waits for its next event. Dropping the future loses nothing.
    async fn next(&mut self) -> ChannelEvent {
        let Self { reader, preloads, .. } = self;
        tokio::select! {
            event = reader.next() => ChannelEvent::Live(event),
            event = next_preload_event(preloads) => ChannelEvent::Preload(event),
        }
    }
}

async fn next_preload_event(
    preloads: &mut VecDeque<NewestPreload>,
) -> Result<newest_preload::PreloadEvent, feed::error::FeedError> {
    while let Some(first) = preloads.front_mut() {
        match first.next().await {
            Ok(Some(event)) => return Ok(event),
            Ok(None) => finish_first(preloads),
            Err(error) => {
                finish_first(preloads);
                return Err(error);
            }
        }
    }
    pending().await
}

/// Removes the first preload and frees its memory: most channels preload once.
fn finish_first(preloads: &mut VecDeque<NewestPreload>) {
    preloads.pop_front();
    preloads.shrink_to_fit();
}

/// Waits for the next event of any of these channels. Dropping the future loses nothing.
pub async fn next_event(channels: &mut [OpenChannel]) -> (u64, ChannelEvent) {
    let mut waits: Vec<_> =
        channels.iter_mut().map(|channel| (channel.key, Box::pin(channel.next()))).collect();
    poll_fn(|context| {
        for (key, wait) in &mut waits {
            if let Poll::Ready(event) = wait.as_mut().poll(context) {
                return Poll::Ready((*key, event));
            }
        }
        Poll::Pending
    })
    .await
}
