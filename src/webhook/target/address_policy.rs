//! Which addresses webhooks may reach: global unicast, and the networks an operator allows.
//!
//! Must not know: URLs and names.

use std::net::IpAddr;

use crate::network::Network;
use crate::webhook::target::address_class::{Class, class, embedded_v4};

/// The networks an operator allows or denies.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    allow: Vec<Network>,
    deny: Vec<Network>,
}

/// Why an address is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// It is not global unicast.
    #[error("{0}; webhook.allow_networks can allow it")]
    Class(Class),
    /// The operator denies it.
    #[error("an address in webhook.deny_networks")]
    Denied,
}

impl AddressPolicy {
    /// A policy; `deny` overrides `allow`.
    #[must_use]
    pub const fn new(allow: Vec<Network>, deny: Vec<Network>) -> Self {
        Self { allow, deny }
    }

    /// Whether the address may be called.
    ///
    /// An IPv4-mapped address counts as the IPv4 address everywhere. A NAT64 address is allowed by its own
    /// network only, since another machine decides where it leads, but denied by either.
    ///
    /// # Errors
    /// It may not; the rule that forbids it.
    pub fn check(&self, address: IpAddr) -> Result<(), Forbidden> {
        let contains =
            |list: &[Network], address: IpAddr| list.iter().any(|network| network.contains(address));
        let embedded = embedded_v4(address).map(IpAddr::V4);
        if contains(&self.deny, address) || embedded.is_some_and(|embedded| contains(&self.deny, embedded)) {
            return Err(Forbidden::Denied);
        }
        if contains(&self.allow, address) {
            return Ok(());
        }
        class(address).map_or(Ok(()), |class| Err(Forbidden::Class(class)))
    }
}
