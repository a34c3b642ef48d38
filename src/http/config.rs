//! The settings of the HTTP API (`[http]`).
//!
//! Must not know: what they are used for.

use serde::{Deserialize, Serialize};

use crate::http::request::address::Network;
use crate::http::routes::{health_config, mirror_state};
use crate::http::stream;

/// What this door may be told. A URL ends at 64 KiB: that is what the HTTP library reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bodies of callers with a token end at so many bytes (8,000,000, as the older service); plugins have
    /// their own limit.
    pub body_max_bytes: u64,
    /// Without a token they end at so many where a filter may be in the body: lists of ids are long.
    pub filter_max_bytes: u64,
    /// Without a token they end at so many elsewhere.
    pub anonymous_max_bytes: u64,
    /// Bodies and long headers of all requests together have so many bytes of memory; beyond it requests are
    /// refused with 503.
    pub in_flight_max_bytes: u64,
    /// The window of the least rate of bodies, milliseconds.
    pub body_window_ms: u64,
    /// While the server waits for a body, so many bytes must come in each window.
    pub body_window_min_bytes: u64,
    /// Origins whose pages may read our answers, spelled as those of channels; `["*"]` is everyone, `[]`
    /// nobody.
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
    pub sse: stream::config::Config,
    /// When the server calls itself unwell.
    pub health: health_config::Config,
    /// The mirror.
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
            sse: stream::config::Config::default(),
            health: health_config::Config::default(),
            mirror: mirror_state::Config::default(),
        }
    }
}
