//! What all handlers share.
//!
//! Must not know: the routes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::http::request::Parts;

use crate::body_requests::BodyRequests;
use crate::budget::Budget;
use crate::domain::subscription::Subscription;
use crate::feed::Feed;
use crate::http::config::Config;
use crate::http::numbers::rates::Rates;
use crate::http::request::address;
use crate::http::request::api_tokens::{Given, Keys};
use crate::http::request::connections::Connections;
use crate::http::routes::mirror_state::Mirror;
use crate::http::stream::batch_cache::BatchCache;
use crate::http::stream::stream_limits::StreamLimits;
use crate::plugins::plugin_quota::{EvaluatorPermit, QuotaExceeded, RequestPermit};
use crate::plugins::uploads::Uploads;
use crate::wire::query::limits::Limits;

/// What the door needs to answer.
pub struct State {
    /// The log in motion.
    pub feed: Arc<Feed>,
    /// Where hand-ins ask for bodies they lack.
    pub body_requests: Arc<BodyRequests>,
    /// The door's configuration.
    pub config: Config,
    /// The token of those who may write.
    pub token: String,
    /// When the server started.
    pub started: SystemTime,
    /// Who is connected.
    pub connections: Arc<Connections>,
    /// The bytes of requests that are in memory.
    pub in_flight: Arc<Budget>,
    /// The routes of other doors that are entered by HTTP; answered with the same frame around them.
    pub others: Router,
}

/// What every handler shares.
pub struct HttpState {
    /// The log in motion.
    pub feed: Arc<Feed>,
    /// Where hand-ins ask for bodies they lack.
    pub body_requests: Arc<BodyRequests>,
    /// The door's configuration.
    pub config: Config,
    /// The tokens of those who may write.
    pub keys: Keys,
    /// When the server started.
    pub started: SystemTime,
    /// Who is connected.
    pub connections: Arc<Connections>,
    /// The bytes of requests that are in memory.
    pub in_flight: Arc<Budget>,
    /// Who streams.
    pub slots: Arc<StreamLimits>,
    /// Plugins that are being taken in.
    pub uploads: Uploads,
    /// Where batches wait for their clients.
    pub parking: Arc<BatchCache>,
    /// Events sent on streams.
    pub events: AtomicU64,
    /// Killmails by id answered from memory.
    pub hits: AtomicU64,
    /// Killmails by id that were not in memory.
    pub misses: AtomicU64,
    /// What happened in the last minute.
    pub rates: Arc<Rates>,
    /// What the mirror keeps between requests.
    pub mirror: Mirror,
}

impl HttpState {
    /// Nobody asked yet; these tokens were given out.
    #[must_use]
    pub fn new(state: State, given: Vec<Given>) -> Self {
        let State { feed, body_requests, config, token, started, connections, in_flight, .. } = state;
        let plugins = Arc::clone(feed.plugins());
        Self {
            mirror: Mirror::new(&config.mirror),
            feed,
            body_requests,
            config,
            keys: Keys::new(&token, given),
            started,
            connections,
            in_flight,
            uploads: Uploads::new(Arc::clone(&plugins)),
            slots: Arc::default(),
            parking: Arc::default(),
            events: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            rates: Arc::default(),
        }
    }

    /// The limits of parameters that follow settings.
    #[must_use]
    pub fn query_limits(&self) -> Limits {
        Limits { plugin_config_bytes: self.feed.plugins().engine().config().config_bytes }
    }

    /// The right to have a subscription's plugin judge for whoever asks.
    ///
    /// # Errors
    /// The address has as many different ones at work as it may.
    pub fn judge(
        &self,
        parts: &Parts,
        subscription: &Subscription,
    ) -> Result<Option<EvaluatorPermit>, QuotaExceeded> {
        let from = address::caller(parts, &self.config.trusted_proxies);
        self.feed.plugin_quota().acquire_evaluator(
            &self.feed.plugin_limits(),
            from,
            subscription.plugin.as_ref(),
        )
    }

    /// A place among those who ask for history judged by a plugin; none is needed without one.
    ///
    /// # Errors
    /// As many ask as may.
    pub fn judged_request(
        &self,
        parts: &Parts,
        subscription: &Subscription,
    ) -> Result<Option<RequestPermit>, QuotaExceeded> {
        let from =
            address::caller(parts, &self.config.trusted_proxies).filter(|_| subscription.plugin.is_some());
        self.feed.plugin_quota().acquire_request(&self.feed.plugin_limits(), from)
    }

    /// Share of killmails by id that were answered from memory, percent with two digits; 0 before the first.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn hit_rate(&self) -> f64 {
        let (hits, misses) = (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed));
        (hits as f64 * 10_000.0 / (hits + misses).max(1) as f64).round() / 100.0
    }

    /// Seconds since the server started.
    #[must_use]
    pub fn uptime_secs(&self) -> u64 {
        self.started.elapsed().map_or(0, |time| time.as_secs())
    }

    /// When the server started, unix seconds.
    #[must_use]
    pub fn started_at(&self) -> i64 {
        self.started
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| i64::try_from(since.as_secs()).ok())
            .unwrap_or(0)
    }
}
