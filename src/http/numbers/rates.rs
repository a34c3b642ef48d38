//! The rates that `/status` reports. Counters are sampled all the time, not only when `/status` is asked for.
//!
//! Must not know: how a rate is shown.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::http::numbers::rate::{Rate, SAMPLE_EVERY};
use crate::telemetry::Telemetry;

/// One rate for each counter.
#[derive(Debug)]
pub struct Rates {
    telemetry: Telemetry,
    requests: Rate,
    esi_requests: Rate,
    pushed: Rate,
    opened: Rate,
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Rates {
    /// The rates of these counters.
    #[must_use]
    pub fn new(telemetry: Telemetry) -> Self {
        Self {
            telemetry,
            requests: Rate::default(),
            esi_requests: Rate::default(),
            pushed: Rate::default(),
            opened: Rate::default(),
        }
    }

    /// Requests to the source in the last minute.
    pub fn requests_per_minute(&self) -> f64 {
        self.requests.per_minute(load(&self.telemetry.source_status.requests))
    }

    /// Requests to ESI in the last minute.
    pub fn esi_requests_per_minute(&self) -> f64 {
        self.esi_requests.per_minute(load(&self.telemetry.fallback_status.esi.sent))
    }

    /// Killmails pushed on channels in the last minute.
    pub fn pushed_per_minute(&self) -> f64 {
        self.pushed.per_minute(self.pushed())
    }

    /// WebSockets opened in the last minute.
    pub fn opened_per_minute(&self) -> f64 {
        self.opened.per_minute(load(&self.telemetry.channel_counters.opened))
    }

    fn pushed(&self) -> u64 {
        let channels = &self.telemetry.channel_counters;
        load(&channels.pushed) + load(&channels.preloaded)
    }

    fn sample(&self) {
        self.requests.sample(load(&self.telemetry.source_status.requests));
        self.esi_requests.sample(load(&self.telemetry.fallback_status.esi.sent));
        self.pushed.sample(self.pushed());
        self.opened.sample(load(&self.telemetry.channel_counters.opened));
    }
}

/// Samples all counters until the rates are dropped or the server stops.
pub async fn sample_until_closed(rates: Weak<Rates>, mut closing: watch::Receiver<bool>) {
    while let Some(rates) = rates.upgrade() {
        rates.sample();
        // Keep nothing alive while waiting.
        drop(rates);
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(SAMPLE_EVERY) => {}
        }
    }
}
