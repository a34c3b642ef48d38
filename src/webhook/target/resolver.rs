//! Resolves names for connections, and leaves out the addresses that may not be called. The connection is made
//! to the addresses returned here and the name is not resolved again, so an answer that changes in between changes
//! nothing.
//!
//! Must not know: URLs and requests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::webhook::target::address_policy::AddressPolicy;
use crate::webhook::target::lookup::{Addresses, Lookup};
use crate::webhook::target::target_error::TargetError;

/// At most this many addresses of a name are tried.
const ADDRESSES_MAX: usize = 8;

/// The resolver of the client.
pub struct Resolver {
    lookup: Lookup,
    policy: Arc<AddressPolicy>,
}

impl Resolver {
    /// A resolver with a way to find addresses, and the rules for them.
    #[must_use]
    pub const fn new(lookup: Lookup, policy: Arc<AddressPolicy>) -> Self {
        Self { lookup, policy }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.lookup)(name.as_str().to_owned());
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            match dialable(found, &policy).await {
                Ok(addresses) => Ok(addresses),
                Err(error) => Err(error.into()),
            }
        })
    }
}

async fn dialable(found: Addresses, policy: &AddressPolicy) -> Result<Addrs, TargetError> {
    let found = found.await.map_err(|error| TargetError::Unresolved(error.to_string()))?;
    let allowed = allowed_addresses(policy, &found)?;
    // The client replaces port 0 by that of the URL.
    Ok(Box::new(allowed.into_iter().map(|address| SocketAddr::new(address, 0))))
}

/// The addresses that may be called.
///
/// # Errors
/// None may; why the first may not.
fn allowed_addresses(policy: &AddressPolicy, found: &[IpAddr]) -> Result<Vec<IpAddr>, TargetError> {
    let is_allowed = |address: &IpAddr| policy.check(*address).is_ok();
    let allowed: Vec<IpAddr> = found.iter().copied().filter(is_allowed).take(ADDRESSES_MAX).collect();
    if !allowed.is_empty() {
        return Ok(allowed);
    }
    let first = found.first().ok_or_else(|| TargetError::Unresolved("it has no address".to_owned()))?;
    policy.check(*first)?;
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(found: &[&str]) -> Result<Vec<String>, String> {
        let found: Vec<IpAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
        let allowed = allowed_addresses(&AddressPolicy::default(), &found);
        allowed.map(|all| all.iter().map(ToString::to_string).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn forbidden_addresses_are_left_out() {
        assert_eq!(
            allowed(&["127.0.0.1", "8.8.8.8", "::1", "2606:4700::1"]).unwrap(),
            ["8.8.8.8", "2606:4700::1"]
        );
        let error = allowed(&["::1", "10.0.0.1"]).unwrap_err();
        assert_eq!(error, "callback_url resolves to a loopback address; webhook.allow_networks can allow it");
        assert_eq!(allowed(&[]).unwrap_err(), "callback_url cannot be resolved: it has no address");
    }

    #[test]
    fn a_name_with_many_addresses_is_tried_at_few() {
        let many: Vec<String> = (0..=255).map(|n| format!("8.8.8.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(allowed(&many).unwrap().len(), ADDRESSES_MAX);
    }
}
