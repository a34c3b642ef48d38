//! The HTTP door: one table of routes, history, streams, health.
//!
//! Must not know: which killmail goes to whom, how anything is stored.

pub mod accept;
pub mod add;
pub mod address;
pub mod answer;
pub mod auth;
pub mod backup;
pub mod batch;
pub mod connections;
pub mod error;
pub mod export;
pub mod exposition;
pub mod health;
pub mod intake;
pub mod killmails;
pub mod kills;
pub mod layers;
pub mod listing;
pub mod meter;
pub mod metrics;
pub mod mirror;
pub mod path;
pub mod plugins;
pub mod pour;
pub mod process;
pub mod rates;
pub mod refusal;
pub mod request;
pub mod slots;
pub mod sse;
pub mod status;
pub mod stream;
pub mod subscriptions;
pub mod tokens;
pub mod welcome;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};
use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::domain::subscription::Subscription;
use crate::feed::Feed;
use crate::feed::judges::{Asker, Hold, TooMany};
use crate::feed::plugins::uploads::Uploads;
use crate::http::address::Network;
use crate::http::auth::Keys;
use crate::http::batch::Parking;
use crate::http::connections::Connections;
use crate::http::error::Error;
use crate::http::mirror::Mirror;
use crate::http::rates::Rates;
use crate::http::slots::Slots;
use crate::tasks;

/// What this door may be told. A URL ends at 64 KiB: that is what the HTTP library reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bodies of callers with a token end at so many bytes (8,000,000, as the older service); plugins have their own limit.
    pub body_max_bytes: u64,
    /// Without a token they end at so many where a filter may be in the body: lists of ids are long.
    pub filter_max_bytes: u64,
    /// Without a token they end at so many elsewhere.
    pub anonymous_max_bytes: u64,
    /// Bodies and long headers of all requests together have so many bytes of memory; beyond it requests are refused with 503.
    pub in_flight_max_bytes: u64,
    /// The window of the least rate of bodies, milliseconds.
    pub body_window_ms: u64,
    /// While the server waits for a body, so many bytes must come in each window.
    pub body_window_min_bytes: u64,
    /// Origins whose pages may read our answers, spelled as those of channels; `["*"]` is everyone, `[]` nobody.
    pub cors_origins: Vec<String>,
    /// Whether answers are compressed for those who ask (streams never are).
    pub compression: bool,
    /// Addresses and networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Killmails `/kills/cached` answers with at most; more would be megabytes nobody asked for.
    pub cached_max: usize,
    /// Systems in one request for several: each is a search of its own.
    pub systems_max: usize,
    /// Streams.
    pub sse: slots::Config,
    /// When the server calls itself unwell.
    pub health: health::Config,
    /// The mirror.
    pub mirror: mirror::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_max_bytes: 8_000_000,
            filter_max_bytes: 5 << 20,
            anonymous_max_bytes: 1 << 20,
            in_flight_max_bytes: 256 << 20,
            body_window_ms: 10_000,
            body_window_min_bytes: 10_000,
            cors_origins: vec!["*".to_owned()],
            compression: true,
            trusted_proxies: Vec::new(),
            cached_max: 1000,
            systems_max: 1000,
            sse: slots::Config::default(),
            health: health::Config::default(),
            mirror: mirror::Config::default(),
        }
    }
}

/// What the door needs to answer.
pub struct State {
    /// The log in motion.
    pub feed: Arc<Feed>,
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
pub struct Door {
    /// The log in motion.
    pub feed: Arc<Feed>,
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
    pub slots: Arc<Slots>,
    /// Plugins that are being taken in.
    pub uploads: Uploads,
    /// Where batches wait for their clients.
    pub parking: Arc<Parking>,
    /// Events sent on streams.
    pub events: AtomicU64,
    /// Killmails by id answered from memory.
    pub hits: AtomicU64,
    /// Killmails by id that were not in memory.
    pub misses: AtomicU64,
    /// What happened in the last minute.
    pub rates: Rates,
    /// What the mirror keeps between requests.
    pub mirror: Mirror,
}

impl Door {
    fn new(state: State) -> Self {
        let State { feed, config, token, started, connections, in_flight, .. } = state;
        let given = tokens::load(feed.store());
        let plugins = Arc::clone(feed.plugins());
        Self {
            mirror: Mirror::new(&config.mirror),
            feed,
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
            rates: Rates::default(),
        }
    }

    /// The right to have a subscription's plugin judge for whoever asks.
    ///
    /// # Errors
    /// The address has as many different ones at work as it may.
    pub fn judge(&self, parts: &Parts, subscription: &Subscription) -> Result<Option<Hold>, TooMany> {
        let from = address::caller(parts, &self.config.trusted_proxies);
        self.feed.judges().take(&self.feed.judging(), from, subscription.plugin.as_ref())
    }

    /// A place among those who ask for history judged by a plugin; none is needed without one.
    ///
    /// # Errors
    /// As many ask as may.
    pub fn judged_request(&self, parts: &Parts, subscription: &Subscription) -> Result<Option<Asker>, TooMany> {
        let from = address::caller(parts, &self.config.trusted_proxies).filter(|_| subscription.plugin.is_some());
        self.feed.judges().ask(&self.feed.judging(), from)
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
        self.started.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
    }
}

/// All routes of the door, ready to be served. Addresses of callers are known where the server gives `ConnectInfo<SocketAddr>`.
pub fn router(state: State) -> Router {
    let others = state.others.clone();
    let door = Arc::new(Door::new(state));
    drop(tasks::spawn("rates", rates::watch(Arc::downgrade(&door))));
    let routes = table().layer(from_fn_with_state(Arc::clone(&door), intake::admit)).with_state(Arc::clone(&door));
    let routes = routes.merge(others.method_not_allowed_fallback(no_method));
    path::found(layers::around(routes, &door.config))
}

/// The one table. Each group has its own rule of what a caller must accept.
fn table() -> Router<Arc<Door>> {
    let api = Router::new()
        .route("/api/health", get(health::health))
        .route("/api/v1/killmails", get(killmails::list).post(add::add))
        .route("/api/v1/killmails/search", post(killmails::search))
        .route("/api/v1/killmails/count", get(killmails::count).post(killmails::count_search))
        .route("/api/v1/killmail/{id}", get(killmails::one))
        .route("/api/v1/kills/system/{id}", get(kills::system))
        .route("/api/v1/kills/systems", post(kills::systems))
        .route("/api/v1/kills/cached/{id}", get(kills::cached))
        .route("/api/v1/kills/count/{id}", get(kills::count))
        .route("/api/v1/systems/{id}/killmails", get(kills::of_system))
        .route("/api/v1/systems/bulk/killmails", post(kills::bulk))
        .route("/api/v1/characters/{id}/killmails", get(kills::of_character))
        .route("/api/systems/{id}/kills", get(kills::list_of_system))
        .route("/api/v1/subscriptions", get(subscriptions::list))
        .route("/api/v1/subscriptions/stats", get(subscriptions::stats))
        .route("/api/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/api/v1/tokens/{name}", delete(tokens::revoke))
        .route("/api/v1/plugins", get(plugins::list))
        .route("/api/v1/plugins/{name}", get(plugins::one).put(plugins::upload).delete(plugins::delete))
        .route("/api/v1/plugins/{name}/versions", get(plugins::versions))
        .route("/api/v1/plugins/uploads/{upload_id}", get(plugins::upload_state))
        .route("/api/v1/plugins/{name}/promote", post(plugins::promote))
        .route("/api/v1/plugins/{name}/rollback", post(plugins::rollback))
        .route_layer(from_fn(accept::json));
    let plain = Router::new()
        .route("/ping", get(health::ping))
        .route("/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/status", get(status::status))
        .route("/metrics", get(metrics::metrics))
        .route("/metrics/prometheus", get(metrics::prometheus))
        .route_layer(from_fn(accept::json_or_text));
    let pages = Router::new().route("/", get(welcome::page)).route_layer(from_fn(accept::html));
    let streams = Router::new()
        .route("/sse", get(stream::basic).post(stream::basic))
        .route("/api/v1/kills/stream", get(stream::basic).post(stream::basic))
        .route("/api/v1/kills/stream/enhanced", get(stream::enhanced).post(stream::enhanced))
        .route("/api/v1/kills/stream/cleanup", get(no_debugging))
        .route("/api/v1/kills/stream/stats", get(no_debugging))
        .route("/api/v1/kills/stream/test", get(no_debugging))
        .route("/api/v1/export", get(export::export))
        .route("/api/v1/backup", post(backup::backup));
    let mirror = Router::new()
        .route("/ephemeral/sequence.json", get(mirror::sequence))
        .route("/ephemeral/{file}", get(mirror::numbered))
        .route("/history/totals.json", get(mirror::totals))
        .route("/history/{file}", get(mirror::hashes))
        .route("/history/raw/{file}", get(mirror::bodies));
    api.merge(plain).merge(pages).merge(streams).merge(mirror).fallback(no_path).method_not_allowed_fallback(no_method)
}

async fn no_path(request: Request) -> Error {
    let path = request.uri().path();
    if path == "/api/v1" || path.starts_with("/api/v1/") { Error::ApiPath } else { Error::Path }
}

async fn no_debugging() -> Error {
    Error::Debug
}

async fn no_method() -> Error {
    Error::Method { allow: None }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::header::{ACCEPT, ALLOW};
    use axum::response::Response;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    /// The frame around a few routes that need nothing behind them.
    fn door() -> Router {
        let routes = Router::new()
            .route("/ping", get(health::ping))
            .route("/crash", get(|| async { panic!("on purpose") as &'static str }))
            .route_layer(from_fn(accept::json_or_text));
        layers::around(routes.fallback(no_path).method_not_allowed_fallback(no_method), &Config::default())
    }

    async fn ask(request: axum::http::request::Builder) -> Response {
        door().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn body(response: Response) -> Value {
        serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn unknown_paths_are_told_apart() {
        let plain = ask(Request::get("/nope")).await;
        assert_eq!(plain.status(), 404);
        assert_eq!(body(plain).await, json!({ "error": "Not Found", "status": "404" }));
        let api = body(ask(Request::delete("/api/v1/nope")).await).await;
        assert_eq!((&api["code"], &api["details"], &api["error"]), (&json!("NOT_FOUND"), &Value::Null, &json!("Not Found")));
    }

    #[tokio::test]
    async fn a_wrong_method_names_the_right_ones() {
        let response = ask(Request::post("/ping")).await;
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[ALLOW], "GET,HEAD");
        assert_eq!(body(response).await, json!({ "error": "Method Not Allowed", "status": "405" }));
    }

    #[tokio::test]
    async fn every_answer_is_stamped() {
        let id = "0123456789012345678901234567ab";
        let response = ask(Request::get("/ping").header("x-request-id", id)).await;
        assert_eq!(response.headers()["x-request-id"], id);
        assert_eq!(response.headers()["cache-control"], "max-age=0, private, must-revalidate");
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        for short in ["0123456789", ""] {
            let response = ask(Request::get("/nope").header("x-request-id", short)).await;
            assert_eq!(response.headers()["x-request-id"].len(), 32);
        }
    }

    #[tokio::test]
    async fn pages_of_others_may_read() {
        let response = ask(Request::options("/ping").header("origin", "http://x").header("access-control-request-method", "GET")).await;
        assert_eq!((response.status().as_u16(), &response.headers()["access-control-allow-origin"]), (200, &"*".parse().unwrap()));
    }

    #[tokio::test]
    async fn who_accepts_nothing_of_ours_gets_406() {
        let response = ask(Request::get("/ping").header(ACCEPT, "image/png")).await;
        assert_eq!(response.status(), 406);
        assert_eq!(body(response).await, json!({ "error": "Not Acceptable", "status": "406" }));
    }

    #[tokio::test]
    async fn a_crash_is_answered_and_stamped() {
        let response = ask(Request::get("/crash")).await;
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key("x-request-id"));
        assert_eq!(body(response).await, json!({ "error": "Internal Server Error", "status": "500" }));
    }
}
