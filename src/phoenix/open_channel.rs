//! A channel's reader, and its preloads one after the other.
//!
//! Must not know: frames, sockets.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use crate::domain::subscription::Subscription;
use crate::feed::event::Event;
use crate::feed::newest::Newest;
use crate::feed::newest_preload::{self, NewestPreload};
use crate::feed::reader::Reader;
use crate::feed::{self, Feed};
use crate::plugins::plugin_quota::Hold;

/// A channel at work.
pub struct OpenChannel {
    /// The channel.
    pub key: u64,
    /// What it gets.
    pub reader: Reader,
    /// The first is under way, the others wait.
    preloads: VecDeque<NewestPreload>,
    _counted: Counted,
    /// The right to its plugin.
    _hold: Option<Hold>,
}

/// A channel that is counted as left however it ends.
struct Counted(Arc<Feed>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.channel_counters().left.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a channel has to tell.
pub enum ChannelEvent {
    /// What its reader handed over; `None` when it is closed.
    Live(Option<Event>),
    /// What its preload handed over.
    Recent(Result<newest_preload::PreloadEvent, feed::error::FeedError>),
}

impl OpenChannel {
    /// A reader without preloads.
    #[must_use]
    pub fn new(feed: Arc<Feed>, key: u64, reader: Reader, hold: Option<Hold>) -> Self {
        feed.channel_counters().joined.fetch_add(1, Ordering::Relaxed);
        Self { key, reader, preloads: VecDeque::new(), _counted: Counted(feed), _hold: hold }
    }

    /// A preload, of what lies before the reader now.
    ///
    /// # Errors
    /// So many wait already, and that is the most.
    pub fn preload(&mut self, newest: Newest, waiting_max: usize) -> Result<(), usize> {
        if self.preloads.len() > waiting_max {
            return Err(waiting_max);
        }
        self.preloads.push_back(self.reader.preload_newest(newest));
        Ok(())
    }

    /// Another subscription; preloads end for what it does not name any more.
    pub fn change(&mut self, subscription: Arc<Subscription>) {
        self.preloads.iter_mut().for_each(|preload| preload.retain(&subscription.filter));
        self.reader.set_subscription(subscription);
    }

    /// So many killmails of what the preload handed over last went out.
    pub fn delivered(&mut self, killmails: usize) {
        self.reader.count_delivered(killmails as u64);
        self.preloads.iter_mut().take(1).for_each(|preload| preload.note_sent(killmails));
    }

    /// Waits for what comes first. Dropping the future loses nothing.
    async fn next(&mut self) -> ChannelEvent {
        let Self { reader, preloads, .. } = self;
        tokio::select! {
            event = reader.next() => ChannelEvent::Live(event),
            told = next_recent(preloads) => ChannelEvent::Recent(told),
        }
    }
}

async fn next_recent(
    preloads: &mut VecDeque<NewestPreload>,
) -> Result<newest_preload::PreloadEvent, feed::error::FeedError> {
    while let Some(first) = preloads.front_mut() {
        match first.next().await {
            Ok(Some(told)) => return Ok(told),
            Ok(None) => over(preloads),
            Err(error) => {
                over(preloads);
                return Err(error);
            }
        }
    }
    pending().await
}

/// Ends the first, and gives back its room: most channels preload once.
fn over(preloads: &mut VecDeque<NewestPreload>) {
    preloads.pop_front();
    preloads.shrink_to_fit();
}

/// Waits for what the first of several channels has to tell. Dropping the future loses nothing.
pub async fn told(running: &mut [OpenChannel]) -> (u64, ChannelEvent) {
    let mut waits: Vec<_> =
        running.iter_mut().map(|running| (running.key, Box::pin(running.next()))).collect();
    poll_fn(|context| {
        for (key, wait) in &mut waits {
            if let Poll::Ready(told) = wait.as_mut().poll(context) {
                return Poll::Ready((*key, told));
            }
        }
        Poll::Pending
    })
    .await
}
