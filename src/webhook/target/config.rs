//! The settings of `[webhook]` that say which URLs are called, and how.
//!
//! Must not know: how they are applied.

use serde::{Deserialize, Serialize};

use crate::network::Network;
use crate::webhook::target::port_range::PortRange;

/// Which URLs are called, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allow_networks: Vec::new(),
            deny_networks: Vec::new(),
            ports: vec![PortRange::new(80, 80), PortRange::new(443, 443), PortRange::new(1024, u16::MAX)],
            url_bytes_max: 2_048,
            connect_timeout_ms: 5_000,
            timeout_ms: 10_000,
            answer_bytes_max: 64 << 10,
            lookups_max: 64,
            // Receivers of the older service may look for its name.
            user_agent: "WandererKills/1.0".to_owned(),
        }
    }
}
