//! The application without sockets: store, plugin engine, feed and routes. The server listens on its behalf;
//! commands on a data folder send it requests directly.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::request::Parts;
use bytes::Bytes;
use tokio_stream::StreamExt;
use tower::ServiceExt;

use crate::body_requests::BodyRequests;
use crate::budget::Budget;
use crate::config::Config;
use crate::domain::entry::SharedEntry;
use crate::feed::Feed;
use crate::http::request::address;
use crate::http::request::connections::Connections;
use crate::ingest::config as ingest;
use crate::ingest::source::Source;
use crate::ingest::supervise::open;
use crate::plugin::engine::Engine;
use crate::plugins::Plugins;
use crate::plugins::plugin_history::StoreHistory;
use crate::server::{Error, token};
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::telemetry::source_status::{Doing, SourceStatus};
use crate::webhook::webhooks::Webhooks;
use crate::wire::query::limits::Limits;
use crate::wire::sample_entry;
use crate::{clock, http, phoenix, plugin, sample, tasks, wire};

/// Every how many killmails of the sample one is used to probe uploads. The resulting 127 take little time, and
/// even a plugin that uses up its CPU time on each is refused within seconds.
const PROBE_STEP: usize = 31;

/// The application without sockets.
pub struct App {
    feed: Arc<Feed>,
    store: Arc<Store>,
    telemetry: Telemetry,
    body_requests: Arc<BodyRequests>,
    webhooks: Arc<Webhooks>,
    router: Router,
    channels: Arc<phoenix::ChannelState>,
    token: String,
    in_flight: Arc<Budget>,
}

/// A response of the API.
#[derive(Debug)]
pub struct ApiResponse {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl App {
    /// Opens the store and everything above it. A server that listens counts its connections in `connections`. At
    /// most `bodies_max` bodies may wait to be fetched, 0 if nothing fetches them.
    ///
    /// # Errors
    /// The store is damaged or in use, the token cannot be created, or the plugin engine cannot run here.
    pub async fn open(
        config: Config,
        connections: Arc<Connections>,
        bodies_max: usize,
    ) -> Result<Self, Error> {
        // Every section, so that a new one is not forgotten here; the listener and the sources have theirs.
        let Config {
            server,
            connections: _,
            ingest: _,
            store,
            feed,
            plugin,
            http: http_config,
            channels,
            webhook,
            renamed: _,
        } = config;
        let open = move || Store::open(store, wire::killmail::encode);
        let store = tasks::blocking("open store", open).await??;
        let token = match server.api_token {
            Some(token) => token,
            None => read_or_create_token(&server.data_dir)?,
        };
        let plugins = open_plugins(plugin, Arc::clone(&store)).await?;
        let query_limits = Limits { plugin_config_bytes: plugins.engine().config().config_bytes };
        let body_requests = Arc::new(BodyRequests::new(Arc::clone(&store), bodies_max));
        let telemetry = Telemetry::default();
        let unreadable = Arc::clone(&telemetry.unreadable);
        let feed = Feed::start(Arc::clone(&store), Arc::clone(&plugins), unreadable, feed)?;
        let webhooks = {
            let (feed, store, config) = (Arc::clone(&feed), Arc::clone(&store), webhook);
            let open = move || Webhooks::open(feed, store, config, query_limits);
            tasks::blocking("open webhooks", open).await??
        };
        let proxies = http_config.trusted_proxies.clone();
        let caller_lookup = Box::new(move |parts: &Parts| phoenix::Caller {
            address: address::client_address(parts, &proxies),
            judged: address::plugin_caller(parts, &proxies),
        });
        let channels = phoenix::ChannelState::new(
            Arc::clone(&feed),
            Arc::clone(&store),
            Arc::clone(&telemetry.channel_counters),
            query_limits,
            channels,
            caller_lookup,
        );
        let in_flight = Arc::new(Budget::new(http_config.in_flight_max_bytes));
        let dependencies = http::state::HttpDependencies {
            config: http_config,
            query_limits,
            feed: Arc::clone(&feed),
            store: Arc::clone(&store),
            plugins,
            webhooks: Arc::clone(&webhooks),
            telemetry: telemetry.clone(),
            body_requests: Arc::clone(&body_requests),
            token: token.clone(),
            started: SystemTime::now(),
            connections,
            in_flight: Arc::clone(&in_flight),
            other_routes: channels.router(),
        };
        let router = http::router(dependencies);
        Ok(Self { router, feed, store, telemetry, body_requests, webhooks, channels, token, in_flight })
    }

    /// The feed.
    #[must_use]
    pub const fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// What the server reports about itself.
    #[must_use]
    pub const fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// The queue of bodies to fetch.
    #[must_use]
    pub const fn body_requests(&self) -> &Arc<BodyRequests> {
        &self.body_requests
    }

    /// The webhooks, which deliver nothing before they are started.
    #[must_use]
    pub const fn webhooks(&self) -> &Arc<Webhooks> {
        &self.webhooks
    }

    /// The Phoenix channels.
    #[must_use]
    pub const fn channels(&self) -> &Arc<phoenix::ChannelState> {
        &self.channels
    }

    /// The budget of bytes of requests in memory.
    #[must_use]
    pub const fn in_flight(&self) -> &Arc<Budget> {
        &self.in_flight
    }

    /// All routes.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The admin token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Sends a request to the API without a socket, with the admin token.
    ///
    /// # Errors
    /// The request is malformed, or the response body fails.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<ApiResponse, axum::Error> {
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let request = request.body(Body::from(body)).map_err(axum::Error::new)?;
        let response = self.router().oneshot(request).await.map_err(axum::Error::new)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let mut chunks = response.into_body().into_data_stream();
        // Each chunk is copied and dropped: a response produced on the fly waits for its chunks to be dropped.
        while let Some(chunk) = chunks.next().await {
            body.extend_from_slice(&chunk?);
        }
        Ok(ApiResponse { status, body: body.into() })
    }

    /// Closes everything. Returns when the data folder is free, or after the grace period.
    pub async fn release(self, grace: Duration) {
        let store = Arc::downgrade(&self.store);
        self.feed.close();
        drop(self);
        let released = async {
            while store.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(grace, released).await.is_err() {
            tracing::warn!("the store is still in use after {} ms", grace.as_millis());
        }
    }
}

/// The admin token of the data folder.
fn read_or_create_token(data_dir: &Path) -> Result<String, Error> {
    let error = |source| Error::Token { data_dir: data_dir.display().to_string(), source };
    let (token, is_new) = token::read_or_create(data_dir).map_err(error)?;
    if is_new {
        tracing::warn!("created the admin token in {}", token::path(data_dir).display());
    }
    Ok(token)
}

/// Starts the plugin engine and reads the plugins of the store; those without kept code are compiled in the
/// background.
async fn open_plugins(config: plugin::limits::Config, store: Arc<Store>) -> Result<Arc<Plugins>, Error> {
    let history = Arc::new(StoreHistory::new(&store));
    let engine = Engine::new(config, history, wire::killmail::json)?;
    let open = move || Plugins::open(store, engine, probe_killmails());
    let plugins = tasks::blocking("open plugins", open).await??;
    plugins.prepare();
    Ok(plugins)
}

/// The killmails that uploads are probed with: a cross-section of the bundled sample, small and large.
#[must_use]
pub fn probe_killmails() -> Vec<SharedEntry> {
    sample::lines().step_by(PROBE_STEP).filter_map(|line| sample_entry::parse(&line)).collect()
}

/// Opens the configured first source. A source that may not run or cannot start is reported in the log and in
/// `/health`; the server runs without it.
pub async fn open_source(config: &ingest::Config, store: &Arc<Store>, status: &Arc<SourceStatus>) -> Source {
    *status.kind.lock() = config.source;
    open::open_first(config, store, Arc::clone(status)).await.unwrap_or_else(|why| {
        tracing::error!("source {} stays off: {why}", config.source.word());
        status.note(Doing::Refused(why), clock::now_ms());
        Source::None
    })
}
