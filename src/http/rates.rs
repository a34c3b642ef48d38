//! The rates of `/status`: what happened in the last minute, looked at whether somebody asks or not.
//!
//! Must not know: how a rate is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::http::Door;
use crate::http::meter::{LOOK_EVERY, Meter};

/// A rate for each counter.
#[derive(Debug, Default)]
pub struct Rates {
    requests: Meter,
    esi_requests: Meter,
    pushed: Meter,
    opened: Meter,
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Door {
    /// Requests to the source in the last minute.
    pub fn requests_per_minute(&self) -> f64 {
        self.rates.requests.per_minute(self.requests())
    }

    /// Requests to ESI in the last minute.
    pub fn esi_requests_per_minute(&self) -> f64 {
        self.rates.esi_requests.per_minute(get(&self.feed.others().esi.sent))
    }

    /// Killmails pushed on channels in the last minute.
    pub fn pushed_per_minute(&self) -> f64 {
        self.rates.pushed.per_minute(self.pushed())
    }

    /// WebSockets opened in the last minute.
    pub fn opened_per_minute(&self) -> f64 {
        self.rates.opened.per_minute(get(&self.feed.traffic().opened))
    }

    fn requests(&self) -> u64 {
        get(&self.feed.pulse().requests)
    }

    fn pushed(&self) -> u64 {
        get(&self.feed.traffic().pushed) + get(&self.feed.traffic().preloaded)
    }

    fn look_at_rates(&self) {
        self.rates.requests.look(self.requests());
        self.rates.esi_requests.look(get(&self.feed.others().esi.sent));
        self.rates.pushed.look(self.pushed());
        self.rates.opened.look(get(&self.feed.traffic().opened));
    }
}

/// Looks at all counters until the door is gone or the server stops.
pub async fn watch(door: Weak<Door>) {
    let Some(mut closing) = door.upgrade().map(|door| door.feed.closing()) else { return };
    while let Some(open) = door.upgrade() {
        open.look_at_rates();
        drop::<Arc<Door>>(open);
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
