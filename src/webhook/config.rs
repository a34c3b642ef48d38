//! The settings of webhooks (`[webhook]`).
//!
//! Must not know: how they are applied.

use serde::{Deserialize, Serialize};

use crate::network::Network;
use crate::webhook::schedule::Schedule;
use crate::webhook::target::config as target;
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
    /// Networks that are never called, even if allowed or global.
    pub deny_networks: Vec<Network>,
    /// Ports and ranges of ports that may be called.
    pub ports: Vec<PortRange>,
    /// The longest URL, bytes.
    pub url_bytes_max: usize,
    /// Resolving the name, connecting and the TLS handshake may take this long together, milliseconds.
    pub connect_timeout_ms: u64,
    /// The whole request may take this long, milliseconds.
    pub timeout_ms: u64,
    /// Of the body of an answer this much is read, bytes.
    pub answer_bytes_max: usize,
    /// Names that are resolved at the same time.
    pub lookups_max: usize,
    /// The `User-Agent`.
    pub user_agent: String,
    /// Waits after the first, second, third failure and so on, seconds. The last one repeats.
    pub retry_secs: Vec<u32>,
    /// Each wait is prolonged by a random part of itself up to this, percent.
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
        let (target, schedule) = (target::Config::default(), Schedule::default());
        Self {
            require_token: false,
            subscriptions_max: 10_000,
            per_address_max: 20,
            per_host_max: 100,
            requests_max: 512,
            retries_max: 128,
            requests_per_host_max: 4,
            allow_networks: target.allow_networks,
            deny_networks: target.deny_networks,
            ports: target.ports,
            url_bytes_max: target.url_bytes_max,
            connect_timeout_ms: target.connect_timeout_ms,
            timeout_ms: target.timeout_ms,
            answer_bytes_max: target.answer_bytes_max,
            lookups_max: target.lookups_max,
            user_agent: target.user_agent,
            retry_secs: schedule.retry_secs,
            retry_jitter_percent: schedule.retry_jitter_percent,
            retry_after_max_secs: schedule.retry_after_max_secs,
            failing_after: schedule.failing_after,
            disable_after_secs: schedule.disable_after_secs,
        }
    }
}

impl Config {
    /// Which URLs are called, and how.
    #[must_use]
    pub fn target(&self) -> target::Config {
        target::Config {
            allow_networks: self.allow_networks.clone(),
            deny_networks: self.deny_networks.clone(),
            ports: self.ports.clone(),
            url_bytes_max: self.url_bytes_max,
            connect_timeout_ms: self.connect_timeout_ms,
            timeout_ms: self.timeout_ms,
            answer_bytes_max: self.answer_bytes_max,
            lookups_max: self.lookups_max,
            user_agent: self.user_agent.clone(),
        }
    }

    /// When requests are repeated.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule {
            retry_secs: self.retry_secs.clone(),
            retry_jitter_percent: self.retry_jitter_percent,
            retry_after_max_secs: self.retry_after_max_secs,
            failing_after: self.failing_after,
            disable_after_secs: self.disable_after_secs,
        }
    }
}
