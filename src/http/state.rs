//! State shared by all handlers.
//!
//! Must not know: how a request is handled.

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
use crate::http::request::api_tokens::{ApiToken, ApiTokens};
use crate::http::request::connections::Connections;
use crate::http::routes::mirror_state::MirrorState;
use crate::http::stream::batch_cache::BatchCache;
use crate::http::stream::stream_limits::StreamLimits;
use crate::plugins::Plugins;
use crate::plugins::plugin_quota::{EvaluatorPermit, QuotaExceeded, RequestPermit};
use crate::plugins::uploads::Uploads;
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::webhook::webhooks::Webhooks;
use crate::wire::query::limits::Limits;

/// What [`HttpState`] is made from, and the routes the router adds.
pub struct HttpDependencies {
    /// Readers and history.
    pub feed: Arc<Feed>,
    /// The store.
    pub store: Arc<Store>,
    /// The plugins that subscriptions can use.
    pub plugins: Arc<Plugins>,
    /// The webhooks.
    pub webhooks: Arc<Webhooks>,
    /// What the server reports about itself.
    pub telemetry: Telemetry,
    /// The queue of bodies to fetch, for references that are added.
    pub body_requests: Arc<BodyRequests>,
    /// The settings of the HTTP API.
    pub config: Config,
    /// The limits of parameters that come from settings of others.
    pub query_limits: Limits,
    /// The token with every scope.
    pub token: String,
    /// When the server started.
    pub started: SystemTime,
    /// Open connections, counted by the listener.
    pub connections: Arc<Connections>,
    /// Memory for the bodies and long headers of all requests.
    pub in_flight: Arc<Budget>,
    /// Routes of other transports that begin as HTTP; the same layers are put around them.
    pub other_routes: Router,
}

/// State shared by all handlers.
pub struct HttpState {
    /// Readers and history.
    pub feed: Arc<Feed>,
    /// The store.
    pub store: Arc<Store>,
    /// The plugins that subscriptions can use.
    pub plugins: Arc<Plugins>,
    /// The webhooks.
    pub webhooks: Arc<Webhooks>,
    /// What the server reports about itself.
    pub telemetry: Telemetry,
    /// The queue of bodies to fetch, for references that are added.
    pub body_requests: Arc<BodyRequests>,
    /// The settings of the HTTP API.
    pub config: Config,
    /// The limits of parameters that come from settings of others.
    pub query_limits: Limits,
    /// Tokens and their scopes.
    pub tokens: ApiTokens,
    /// When the server started.
    pub started: SystemTime,
    /// Open connections, counted by the listener.
    pub connections: Arc<Connections>,
    /// Memory for the bodies and long headers of all requests.
    pub in_flight: Arc<Budget>,
    /// Limits on open streams.
    pub streams: Arc<StreamLimits>,
    /// Plugin uploads in progress.
    pub uploads: Uploads,
    /// Texts of batches that are being sent.
    pub batch_cache: Arc<BatchCache>,
    /// Events sent on streams since the start.
    pub stream_events: AtomicU64,
    /// Killmails by id that were found in memory.
    pub killmail_hits: AtomicU64,
    /// Killmails by id that were not in memory.
    pub killmail_misses: AtomicU64,
    /// Rates over the last minute.
    pub rates: Arc<Rates>,
    /// What the mirror keeps between requests.
    pub mirror: MirrorState,
}

impl HttpState {
    /// State of a server that has served nothing yet. `tokens`: those created over the API.
    #[must_use]
    pub fn new(dependencies: HttpDependencies, tokens: Vec<ApiToken>) -> Self {
        let HttpDependencies {
            feed,
            store,
            plugins,
            webhooks,
            telemetry,
            body_requests,
            config,
            query_limits,
            token,
            started,
            connections,
            in_flight,
            ..
        } = dependencies;
        Self {
            mirror: MirrorState::new(&config.mirror),
            rates: Arc::new(Rates::new(telemetry.clone())),
            uploads: Uploads::new(Arc::clone(&plugins)),
            feed,
            store,
            plugins,
            webhooks,
            telemetry,
            body_requests,
            config,
            query_limits,
            tokens: ApiTokens::new(&token, tokens),
            started,
            connections,
            in_flight,
            streams: Arc::default(),
            batch_cache: Arc::default(),
            stream_events: AtomicU64::new(0),
            killmail_hits: AtomicU64::new(0),
            killmail_misses: AtomicU64::new(0),
        }
    }

    /// Counts a subscription's plugin against the quota of the client's address; `None` without a plugin.
    ///
    /// # Errors
    /// The address has too many pairs of plugin and configuration in use.
    pub fn hold_plugin(
        &self,
        parts: &Parts,
        subscription: &Subscription,
    ) -> Result<Option<EvaluatorPermit>, QuotaExceeded> {
        let caller = address::plugin_caller(parts, &self.config.trusted_proxies);
        self.feed.plugin_quota().acquire_evaluator(caller, subscription.plugin.as_ref())
    }

    /// Counts a history request with a plugin against its quota; `None` without a plugin.
    ///
    /// # Errors
    /// Too many such requests are running.
    pub fn admit_judged_request(
        &self,
        parts: &Parts,
        subscription: &Subscription,
    ) -> Result<Option<RequestPermit>, QuotaExceeded> {
        let caller = address::plugin_caller(parts, &self.config.trusted_proxies)
            .filter(|_| subscription.plugin.is_some());
        self.feed.plugin_quota().acquire_request(caller)
    }

    /// Share of killmails by id that were found in memory, percent with two decimals; 0 before the first
    /// request.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn hit_rate(&self) -> f64 {
        let (hits, misses) =
            (self.killmail_hits.load(Ordering::Relaxed), self.killmail_misses.load(Ordering::Relaxed));
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
