//! The rates that `/status` reports. Counters are sampled all the time, not only when `/status` is asked for.
//!
//! Must not know: how a rate is shown.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::feed::Feed;
use crate::http::numbers::rate::{Rate, SAMPLE_EVERY};

/// One rate for each counter.
#[derive(Debug, Default)]
pub struct Rates {
    requests: Rate,
    esi_requests: Rate,
    pushed: Rate,
    opened: Rate,
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Rates {
    /// Requests to the source in the last minute.
    pub fn requests_per_minute(&self, feed: &Feed) -> f64 {
        self.requests.per_minute(load(&feed.source_status().requests))
    }

    /// Requests to ESI in the last minute.
    pub fn esi_requests_per_minute(&self, feed: &Feed) -> f64 {
        self.esi_requests.per_minute(load(&feed.fallback_status().esi.sent))
    }

    /// Killmails pushed on channels in the last minute.
    pub fn pushed_per_minute(&self, feed: &Feed) -> f64 {
        self.pushed.per_minute(pushed(feed))
    }

    /// WebSockets opened in the last minute.
    pub fn opened_per_minute(&self, feed: &Feed) -> f64 {
        self.opened.per_minute(load(&feed.channel_counters().opened))
    }

    fn sample(&self, feed: &Feed) {
        self.requests.sample(load(&feed.source_status().requests));
        self.esi_requests.sample(load(&feed.fallback_status().esi.sent));
        self.pushed.sample(pushed(feed));
        self.opened.sample(load(&feed.channel_counters().opened));
    }
}

fn pushed(feed: &Feed) -> u64 {
    load(&feed.channel_counters().pushed) + load(&feed.channel_counters().preloaded)
}

/// Samples all counters until the rates are dropped or the server stops.
pub async fn sample_until_closed(rates: Weak<Rates>, feed: Weak<Feed>) {
    let Some(mut closing) = feed.upgrade().map(|feed| feed.closing()) else { return };
    while let Some((rates, feed)) = rates.upgrade().zip(feed.upgrade()) {
        rates.sample(&feed);
        // Keep nothing alive while waiting.
        drop((rates, feed));
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(SAMPLE_EVERY) => {}
        }
    }
}
