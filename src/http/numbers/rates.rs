//! The rates of `/status`: what happened in the last minute, looked at whether somebody asks or not.
//!
//! Must not know: how a rate is told.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::feed::Feed;
use crate::http::numbers::rate::{LOOK_EVERY, Rate};

/// A rate for each counter.
#[derive(Debug, Default)]
pub struct Rates {
    requests: Rate,
    esi_requests: Rate,
    pushed: Rate,
    opened: Rate,
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Rates {
    /// Requests to the source in the last minute.
    pub fn requests_per_minute(&self, feed: &Feed) -> f64 {
        self.requests.per_minute(get(&feed.source_status().requests))
    }

    /// Requests to ESI in the last minute.
    pub fn esi_requests_per_minute(&self, feed: &Feed) -> f64 {
        self.esi_requests.per_minute(get(&feed.fallback_status().esi.sent))
    }

    /// Killmails pushed on channels in the last minute.
    pub fn pushed_per_minute(&self, feed: &Feed) -> f64 {
        self.pushed.per_minute(pushed(feed))
    }

    /// WebSockets opened in the last minute.
    pub fn opened_per_minute(&self, feed: &Feed) -> f64 {
        self.opened.per_minute(get(&feed.channel_counters().opened))
    }

    fn look(&self, feed: &Feed) {
        self.requests.look(get(&feed.source_status().requests));
        self.esi_requests.look(get(&feed.fallback_status().esi.sent));
        self.pushed.look(pushed(feed));
        self.opened.look(get(&feed.channel_counters().opened));
    }
}

fn pushed(feed: &Feed) -> u64 {
    get(&feed.channel_counters().pushed) + get(&feed.channel_counters().preloaded)
}

/// Looks at all counters until nobody reads the rates any more or the server stops.
pub async fn watch(rates: Weak<Rates>, feed: Weak<Feed>) {
    let Some(mut closing) = feed.upgrade().map(|feed| feed.closing()) else { return };
    while let Some((rates, feed)) = rates.upgrade().zip(feed.upgrade()) {
        rates.look(&feed);
        // Nothing is kept alive while this waits.
        drop((rates, feed));
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
