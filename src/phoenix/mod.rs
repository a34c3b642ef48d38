//! The channel transport: Phoenix channels over WebSockets, compatible with the clients of WandererKills.
//!
//! Must not know: which killmail goes to whom, how anything is stored, the other transports.

pub(crate) mod channel;
pub mod config;
pub(crate) mod connection;
pub(crate) mod deflate;
pub(crate) mod delivered_ids;
pub mod effect;
pub mod frame;
pub(crate) mod ids;
pub(crate) mod info;
pub(crate) mod join;
pub(crate) mod open_channel;
pub(crate) mod payloads;
pub mod session;
pub(crate) mod socket;
pub(crate) mod upgrade;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::header::{
    CONNECTION, CONTENT_TYPE, ORIGIN, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use axum::routing::{any, get};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use serde_json::json;
use tokio::time::timeout;
use tracing::Instrument;
use yawc::{CompressionLevel, DeflatePool, IncomingUpgrade, Options, UpgradeFut};

use crate::clock::now_ms;
use crate::feed::Feed;
use crate::phoenix::config::Config;
use crate::phoenix::connection::Connection;
use crate::phoenix::session::Session;
use crate::phoenix::socket::Socket;
use crate::plugins::plugin_quota;
use crate::quota::{Lease, LimitReached, Quota, QuotaLimits};
use crate::store::Store;
use crate::tasks;
use crate::telemetry::channel_counters::ChannelCounters;
use crate::wire::query::limits::Limits;
use crate::wire::query::origin;
use crate::wire::text;

/// Buffers of an idle socket, bytes. The defaults are eight times as large.
const READ_BYTES: usize = 1024;
const WRITE_BYTES: usize = 512;
/// Bytes written ahead of a client that does not read.
const WRITTEN_AHEAD_BYTES: usize = 4096;
/// Smaller messages are not compressed: it would not help.
const COMPRESSED_BYTES_MIN: usize = 256;
/// Compressors shared by all connections.
const COMPRESSORS: usize = 8;

/// Who connects.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// Who its plugins are charged to.
    pub judged: Option<plugin_quota::Caller>,
}

/// Finds out who connects.
pub type CallerLookup = Box<dyn Fn(&Parts) -> Caller + Send + Sync>;

/// The state of the channel transport.
pub struct ChannelState {
    /// The feed.
    pub feed: Arc<Feed>,
    /// The store, for the number of killmails in a system.
    pub store: Arc<Store>,
    /// What connections and channels count.
    pub counters: Arc<ChannelCounters>,
    /// The settings.
    pub config: Arc<Config>,
    /// When the server started.
    pub started: SystemTime,
    query_limits: Limits,
    caller_lookup: CallerLookup,
    connections: Arc<Quota<IpAddr>>,
    options: Options,
}

impl ChannelState {
    /// Creates the transport. `query_limits` bound the parameters of joins; `caller_lookup` finds out who connects,
    /// for the limits per address.
    #[must_use]
    pub fn new(
        feed: Arc<Feed>,
        store: Arc<Store>,
        counters: Arc<ChannelCounters>,
        query_limits: Limits,
        config: Config,
        caller_lookup: CallerLookup,
    ) -> Arc<Self> {
        let options = options(&config);
        Arc::new(Self {
            feed,
            store,
            counters,
            query_limits,
            config: Arc::new(config),
            started: SystemTime::now(),
            caller_lookup,
            connections: Arc::default(),
            options,
        })
    }

    /// Its routes.
    pub fn router(self: &Arc<Self>) -> Router {
        let upgrade = || any(connect);
        let routes = Router::new()
            .route("/socket/websocket", upgrade())
            .route("/socket", upgrade())
            .route("/websocket", upgrade());
        routes.route("/websocket/status", get(info::status)).with_state(Arc::clone(self))
    }

    /// Number of open connections.
    #[must_use]
    pub fn open(&self) -> usize {
        self.connections.in_use()
    }

    /// Waits until every connection is closed.
    pub async fn closed(&self) {
        self.connections.wait_until_unused().await;
    }

    /// Admits a connection, or says why not.
    fn admit(&self, parts: &Parts, caller: Caller) -> Result<Lease<IpAddr>, (StatusCode, String)> {
        let origin = parts.headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
        let lease = if origin::is_allowed(origin, &self.config.origins) {
            let limits = QuotaLimits {
                total: self.config.max_connections,
                per_key: self.config.max_connections_per_address,
            };
            let lease = self.connections.acquire(limits, caller.address);
            lease.map_err(|limit| (StatusCode::SERVICE_UNAVAILABLE, limit_reached_message(limit)))
        } else {
            Err((StatusCode::FORBIDDEN, "this origin may not connect (channels.origins)".to_owned()))
        };
        if lease.is_err() {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        lease
    }
}

fn limit_reached_message(limit: LimitReached) -> String {
    match limit {
        LimitReached::Total { max } => {
            format!("{max} connections are open, the most there may be (channels.max_connections)")
        }
        LimitReached::PerKey { max } => format!(
            "{max} connections are open from this address, the most it may have (channels.max_connections_per_address)"
        ),
    }
}

fn options(config: &Config) -> Options {
    let options = Options::default()
        .with_limits(config.frame_max_bytes.saturating_add(1), config.frame_max_bytes.saturating_add(1))
        .with_read_buffer_capacity(READ_BYTES)
        .with_write_buffer_capacity(WRITE_BYTES)
        .with_backpressure_boundary(WRITTEN_AHEAD_BYTES)
        .with_utf8();
    if !config.compression {
        return options;
    }
    // Messages do not refer to each other, so an idle connection holds no compressor.
    options
        .with_compression_level(CompressionLevel::fast())
        .server_no_context_takeover()
        .client_no_context_takeover()
        .with_deflate_pool(DeflatePool::new(COMPRESSORS))
        .with_compression_threshold(COMPRESSED_BYTES_MIN)
}

/// Every path clients connect to. `/websocket` without an upgrade describes the transport.
async fn connect(State(state): State<Arc<ChannelState>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    if !wants_upgrade(&parts.headers) {
        return match (parts.uri.path(), &parts.method) {
            ("/websocket", &Method::GET | &Method::HEAD) => info::about(&state, &parts),
            (_, &Method::GET | &Method::HEAD) => {
                let mut response = refusal(StatusCode::UPGRADE_REQUIRED, "Upgrade Required");
                response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
                response
            }
            _ => refusal(StatusCode::BAD_REQUEST, "Bad Request"),
        };
    }
    if parts.method != Method::GET {
        return refusal(StatusCode::BAD_REQUEST, "Bad Request");
    }
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
        .map(|Query(pairs)| pairs)
        .unwrap_or_default();
    let version = pairs.iter().find(|(name, _)| name == "vsn").map(|(_, version)| version.as_str());
    let Some(form) = upgrade::form(version) else { return status_only(StatusCode::FORBIDDEN) };
    let protocol = match upgrade::protocol(&parts.headers) {
        Ok(protocol) => protocol,
        Err(why) => return refusal(StatusCode::BAD_REQUEST, &why),
    };
    let caller = (state.caller_lookup)(&parts);
    let lease = match state.admit(&parts, caller) {
        Ok(lease) => lease,
        Err((status, why)) => return refusal(status, &why),
    };
    keep_one_offer(&mut parts.headers);
    let upgrade = match IncomingUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.upgrade(state.options.clone()),
        Err(status) => return refusal(status, "Bad Request"),
    };
    match upgrade {
        Ok((response, socket)) => {
            let session = Session::new(
                Arc::clone(&state.config),
                state.query_limits,
                upgrade::user_id(&pairs).into(),
                form,
                now_ms(),
            )
            .counted(Arc::clone(state.feed.filters()));
            let conversation =
                Box::pin(start(state, socket, session, (lease, caller))).then(OptionFuture::from);
            // Log lines keep the connection's span, which names the client.
            tasks::spawn("channel", conversation.map(drop).in_current_span());
            let mut response = response.map(|_| Body::empty());
            protocol.map(|name| {
                response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name))
            });
            response
        }
        Err(error) => {
            tracing::debug!(%error, "a WebSocket upgrade failed");
            refusal(StatusCode::BAD_REQUEST, "Bad Request")
        }
    }
}

/// Reduces the client's compression offers to the accepted one: the library neither parses lists nor declines
/// offers it cannot keep.
fn keep_one_offer(headers: &mut HeaderMap) {
    let agreed = deflate::accept(headers).and_then(|offer| HeaderValue::try_from(offer).ok());
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    agreed.map(|offer| headers.insert(SEC_WEBSOCKET_EXTENSIONS, offer));
}

/// Waits until the upgrade is complete; returns the running connection. What only the upgrade needs is freed before
/// it runs.
async fn start(
    state: Arc<ChannelState>,
    socket: UpgradeFut,
    session: Session,
    held: (Lease<IpAddr>, Caller),
) -> Option<BoxFuture<'static, ()>> {
    // The client may never read the response that completes the upgrade.
    match timeout(state.config.handshake(), socket).await {
        Ok(Ok(socket)) => {
            state.counters.opened.fetch_add(1, Ordering::Relaxed);
            let counted = Counted(Arc::clone(&state));
            Some(
                Connection::new(state, Socket::new(socket), session, held)
                    .run()
                    .map(move |()| drop(counted))
                    .boxed(),
            )
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client left before its upgrade was complete");
            None
        }
        Err(_) => {
            tracing::debug!("an upgrade was not complete in time");
            None
        }
    }
}

/// Counts a connection as closed, however it ends.
struct Counted(Arc<ChannelState>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counters.closed.fetch_add(1, Ordering::Relaxed);
    }
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    let names = |header, word: &str| {
        let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    names(UPGRADE, "websocket") && names(CONNECTION, "upgrade")
}

fn refusal(status: StatusCode, why: &str) -> Response {
    let mut response = status_only(status);
    *response.body_mut() =
        Body::from(text::json(&json!({ "error": why, "status": status.as_u16().to_string() })));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

fn status_only(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
