//! The settings of webhooks (`[webhook]`).
//!
//! Must not know: how they are applied.

use serde::{Deserialize, Serialize};

use crate::network::Network;
use crate::webhook::target::port_range::PortRange;

/// Who may have webhooks, which URLs are called, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether creating and removing needs a token of the scope `subscriptions`.
    pub require_token: bool,
    /// Subscriptions in all.
    pub subscriptions_max: usize,
    /// Subscriptions one address may have that were created without a token.
    pub per_address_max: usize,
    /// Subscriptions without a token that may call one host.
    pub per_host_max: usize,
    /// Requests at a time.
    pub requests_max: usize,
    /// Requests at a time to endpoints whose last request failed: those that hang must not hold up others.
    pub retries_max: usize,
    /// Requests at a time to one host.
    pub requests_per_host_max: usize,
    /// Networks that may be called though they are not global unicast: those of containers, for example.
    pub allow_networks: Vec<Network>,
    /// Networks that are never called, even if allowed or global: machines behind the same firewall that have
    /// global addresses, as is usual with IPv6.
    pub deny_networks: Vec<Network>,
    /// Ports and ranges of ports that may be called. Below 1024 are services that no webhook uses (mail, SSH).
    pub ports: Vec<PortRange>,
    /// The longest URL, bytes.
    pub url_bytes_max: usize,
    /// Resolving the name, connecting and the TLS handshake may take this long together, milliseconds.
    pub connect_timeout_ms: u64,
    /// The whole request may take this long, milliseconds.
    pub timeout_ms: u64,
    /// Of the body of an answer this much is read, bytes.
    pub answer_bytes_max: usize,
    /// Names that are resolved at the same time; each takes a thread until the system answers.
    pub lookups_max: usize,
    /// The `User-Agent`.
    pub user_agent: String,
    /// Waits after the first, second, third failure and so on, seconds. The last one repeats.
    pub retry_secs: Vec<u32>,
    /// Each wait is prolonged by a random part of itself up to this, percent, so that endpoints that failed together
    /// are not called together again.
    pub retry_jitter_percent: u32,
    /// The longest wait an endpoint may ask for with `Retry-After`, seconds.
    pub retry_after_max_secs: u32,
    /// A subscription is shown as `failing` after this many failures in a row.
    pub failing_after: u32,
    /// A subscription is disabled when an attempt fails this long after the first failure in a row, seconds.
    pub disable_after_secs: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            require_token: false,
            subscriptions_max: 10_000,
            per_address_max: 20,
            per_host_max: 100,
            requests_max: 512,
            retries_max: 128,
            requests_per_host_max: 4,
            allow_networks: Vec::new(),
            deny_networks: Vec::new(),
            ports: vec![PortRange::new(80, 80), PortRange::new(443, 443), PortRange::new(1024, u16::MAX)],
            url_bytes_max: 2_048,
            connect_timeout_ms: 5_000,
            timeout_ms: 10_000,
            answer_bytes_max: 64 << 10,
            lookups_max: 64,
            // Receivers of WandererKills may look for its name.
            user_agent: "WandererKills/1.0".to_owned(),
            retry_secs: vec![60, 300, 900, 3_600],
            retry_jitter_percent: 10,
            retry_after_max_secs: 86_400,
            failing_after: 5,
            disable_after_secs: 5 * 86_400,
        }
    }
}
