//! The settings of the HTTP API (`[http]`).
//!
//! Must not know: how they are applied.

use serde::{Deserialize, Serialize};

use crate::http::routes::{health_config, mirror_state};
use crate::http::stream::stream_config;
use crate::network::Network;

/// Limits of the HTTP API. The limit on URLs, 64 KiB, is not among them: it is that of the HTTP library.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The largest body with a token, bytes (8,000,000, as in the older service); plugin uploads have their
    /// own limit.
    pub body_max_bytes: u64,
    /// The largest body without a token where it may hold a filter, bytes: lists of ids are long.
    pub filter_max_bytes: u64,
    /// The largest other body without a token, bytes.
    pub anonymous_max_bytes: u64,
    /// Memory for bodies and long headers of all requests together, bytes; requests beyond it are refused
    /// with 503.
    pub in_flight_max_bytes: u64,
    /// The window in which the minimum rate of a body is measured, milliseconds.
    pub body_window_ms: u64,
    /// Bytes of a body that must arrive in each window in which the server waits for it.
    pub body_window_min_bytes: u64,
    /// Origins whose pages may read responses, spelled as those of channels; `["*"]` allows every origin,
    /// `[]` none.
    pub cors_origins: Vec<String>,
    /// Whether responses are compressed for clients that accept it (streams never are).
    pub compression: bool,
    /// Addresses and networks of proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<Network>,
    /// The most killmails in a response of `/kills/cached`, which has no `limit` parameter.
    pub cached_max: usize,
    /// Systems in one request; each takes a search.
    pub systems_max: usize,
    /// Limits and intervals of streams.
    pub sse: stream_config::Config,
    /// When the server reports itself as degraded or unhealthy.
    pub health: health_config::Config,
    /// Limits of the mirror.
    pub mirror: mirror_state::Config,
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
            sse: stream_config::Config::default(),
            health: health_config::Config::default(),
            mirror: mirror_state::Config::default(),
        }
    }
}
