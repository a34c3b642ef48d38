//! Networks of addresses, as settings name them: those of trusted proxies, those that webhooks may reach.
//!
//! Must not know: what the addresses in a network may do.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bits of an IPv4-mapped address (`::ffff:10.0.0.1`) before those of the IPv4 address.
const MAPPED_BITS: u32 = 96;

/// A network, written `10.0.0.0/8`, or a single address. A network of IPv4-mapped addresses is the IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

/// The text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is neither an address nor a network like 10.0.0.0/8")]
pub struct NotANetwork(String);

impl Network {
    /// Whether the address is in it. An IPv4-mapped address counts as the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                same_prefix(net.to_bits().into(), ip.to_bits().into(), 32 - self.bits)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => same_prefix(net.to_bits(), ip.to_bits(), 128 - self.bits),
            _ => false,
        }
    }
}

fn same_prefix(a: u128, b: u128, free_bits: u32) -> bool {
    (a ^ b).checked_shr(free_bits).unwrap_or(0) == 0
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let not_a_network = || NotANetwork(text.to_owned());
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.trim().parse().map_err(|_| not_a_network())?;
        let max_bits = if address.is_ipv4() { 32 } else { Ipv6Addr::BITS };
        let bits = bits.map_or(Ok(max_bits), |bits| bits.trim().parse()).map_err(|_| not_a_network())?;
        if bits > max_bits {
            return Err(not_a_network());
        }
        let canonical = address.to_canonical();
        match bits.checked_sub(MAPPED_BITS) {
            Some(bits) if address.is_ipv6() && canonical.is_ipv4() => Ok(Self { address: canonical, bits }),
            _ => Ok(Self { address, bits }),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = NotANetwork;

    fn try_from(text: String) -> Result<Self, NotANetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        format!("{}/{}", network.address, network.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_parsed() {
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("8.8.8.8".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
        for text in ["", "x", "10.0.0.0/33", "10.0.0.0/-1", "::/129"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        assert_eq!(String::from("10.0.0.0/8".parse::<Network>().unwrap()), "10.0.0.0/8");
    }

    #[test]
    fn mapped_addresses_count_as_those_they_contain() {
        let network: Network = "::ffff:10.0.0.0/104".parse().unwrap();
        assert_eq!(network, "10.0.0.0/8".parse().unwrap());
        assert!(network.contains("10.1.2.3".parse().unwrap()));
        assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!network.contains("11.1.2.3".parse().unwrap()));
        assert_eq!("::ffff:10.0.0.1".parse::<Network>().unwrap(), "10.0.0.1".parse().unwrap());
    }
}
