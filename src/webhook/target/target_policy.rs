//! Which URLs webhooks may call, as far as the URL alone says it.
//!
//! Must not know: what names resolve to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::webhook::config::Config;
use crate::webhook::target::address_policy::AddressPolicy;
use crate::webhook::target::callback_url::CallbackUrl;
use crate::webhook::target::port_range::PortRange;
use crate::webhook::target::target_error::TargetError;

/// The rules for URLs.
#[derive(Debug, Clone)]
pub struct TargetPolicy {
    addresses: Arc<AddressPolicy>,
    ports: Vec<PortRange>,
    url_bytes_max: usize,
}

impl TargetPolicy {
    /// The rules in the settings.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let addresses = AddressPolicy::new(config.allow_networks.clone(), config.deny_networks.clone());
        Self {
            addresses: Arc::new(addresses),
            ports: config.ports.clone(),
            url_bytes_max: config.url_bytes_max,
        }
    }

    /// The rules for addresses.
    #[must_use]
    pub const fn addresses(&self) -> &Arc<AddressPolicy> {
        &self.addresses
    }

    /// Reads a URL and checks it.
    ///
    /// # Errors
    /// It is not the URL of a web server, or it may not be called.
    pub fn parse(&self, text: &str) -> Result<CallbackUrl, TargetError> {
        let url = CallbackUrl::parse(text)?;
        self.check(&url)?;
        Ok(url)
    }

    /// Checks length, port and, if the host is an address or `localhost`, the address.
    ///
    /// # Errors
    /// The URL may not be called.
    pub fn check(&self, url: &CallbackUrl) -> Result<(), TargetError> {
        let bytes = url.text().len();
        if bytes > self.url_bytes_max {
            return Err(TargetError::TooLong { bytes, bytes_max: self.url_bytes_max });
        }
        let port = url.port();
        if !self.ports.iter().any(|range| range.contains(port)) {
            return Err(TargetError::Port(port));
        }
        if let Some(address) = url.address() {
            self.addresses.check(address)?;
        } else if url.is_localhost() {
            // Its own name for loopback addresses; the resolver may know only one of them.
            let [v4, v6] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            self.addresses.check(v4).or_else(|_| self.addresses.check(v6))?;
        }
        Ok(())
    }
}
