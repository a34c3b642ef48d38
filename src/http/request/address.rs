//! The address of a client: that of the peer, or the one that a trusted proxy forwards.
//!
//! Must not know: what is done with the address.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::request::Parts;

use crate::network::Network;
use crate::plugins::plugin_quota::Caller;

/// The address of the client; `None` where the server did not provide the address of the peer.
///
/// `X-Forwarded-For` is read from the right, as long as the entry before was written by a trusted proxy.
#[must_use]
pub fn client_address(parts: &Parts, trusted_proxies: &[Network]) -> Option<IpAddr> {
    let mut at = parts.extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip().to_canonical();
    let trusted = |address: IpAddr| trusted_proxies.iter().any(|network| network.contains(address));
    let forwarded: Vec<&str> = parts
        .headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    for hop in forwarded.iter().rev() {
        if !trusted(at) {
            break;
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(next) => at = next.to_canonical(),
            Err(_) => break,
        }
    }
    Some(at)
}

/// The caller whose plugin quota a request counts against. While no proxy is trusted, a private address may
/// be that of a proxy, shared by many clients.
#[must_use]
pub fn plugin_caller(parts: &Parts, trusted_proxies: &[Network]) -> Option<Caller> {
    let address = client_address(parts, trusted_proxies)?;
    Some(Caller { address, is_shared: trusted_proxies.is_empty() && is_private(address) })
}

const fn is_private(at: IpAddr) -> bool {
    match at {
        IpAddr::V4(at) => at.is_private() || at.is_loopback() || at.is_link_local(),
        IpAddr::V6(at) => at.is_loopback() || at.is_unique_local() || at.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn from(peer: &str, forwarded: &str, trusted: &[&str]) -> String {
        let (mut parts, ()) =
            Request::get("/").header("x-forwarded-for", forwarded).body(()).unwrap().into_parts();
        parts.extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
        let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        client_address(&parts, &trusted).unwrap().to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(from("10.0.0.1", "1.1.1.1, 2.2.2.2", &[]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", "1.1.1.1, 2.2.2.2", &["10.0.0.0/8"]), "2.2.2.2");
        assert_eq!(from("10.0.0.1", "1.1.1.1, 2.2.2.2", &["10.0.0.1", "2.2.2.2/32"]), "1.1.1.1");
        assert_eq!(from("::ffff:10.0.0.1", "nonsense", &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(from("fd00::1", "9.9.9.9", &["fd00::/8"]), "9.9.9.9");
    }

    #[test]
    fn a_private_peer_is_shared_until_proxies_are_trusted() {
        let at = |peer: &str, trusted: &[&str]| {
            let (mut parts, ()) =
                Request::get("/").header("x-forwarded-for", "8.8.8.8").body(()).unwrap().into_parts();
            parts.extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
            let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().unwrap()).collect();
            plugin_caller(&parts, &trusted)
                .map(|caller| (caller.address.to_string(), caller.is_shared))
                .unwrap()
        };
        assert_eq!(at("10.0.0.1", &[]), ("10.0.0.1".to_owned(), true));
        assert_eq!(at("127.0.0.1", &[]), ("127.0.0.1".to_owned(), true));
        assert_eq!(at("9.9.9.9", &[]), ("9.9.9.9".to_owned(), false));
        assert_eq!(at("10.0.0.1", &["10.0.0.0/8"]), ("8.8.8.8".to_owned(), false));
    }
}
