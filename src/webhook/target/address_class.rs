//! Classes of addresses that are not global unicast, from the registries of special-purpose addresses, and what
//! clouds answer on for their machines.
//!
//! Must not know: which of them an operator allows.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr as V4, Ipv6Addr as V6};

const CLOUD_METADATA: &str = "a cloud metadata address";
const DOCUMENTATION: &str = "a documentation address";
const LINK_LOCAL: &str = "a link-local address";
const LOOPBACK: &str = "a loopback address";
const MULTICAST: &str = "a multicast address";
const PRIVATE: &str = "a private address";
const BENCHMARK: &str = "a benchmark address";
const IETF: &str = "an address for IETF protocols";
const UNSPECIFIED: &str = "an unspecified address";

/// The first line that contains the address counts.
const V4_CLASSES: &[(V4, u32, &str)] = &[
    // Azure's address for its agent is public, but each machine reaches its own host there.
    (V4::new(168, 63, 129, 16), 32, CLOUD_METADATA),
    (V4::new(100, 100, 100, 200), 32, CLOUD_METADATA),
    (V4::new(169, 254, 169, 254), 32, CLOUD_METADATA),
    // Credentials of containers on AWS, and of its pods.
    (V4::new(169, 254, 170, 2), 32, CLOUD_METADATA),
    (V4::new(169, 254, 170, 23), 32, CLOUD_METADATA),
    (V4::new(192, 0, 0, 192), 32, CLOUD_METADATA),
    (V4::new(0, 0, 0, 0), 8, UNSPECIFIED),
    (V4::new(10, 0, 0, 0), 8, PRIVATE),
    (V4::new(100, 64, 0, 0), 10, "a carrier-grade NAT address"),
    (V4::new(127, 0, 0, 0), 8, LOOPBACK),
    (V4::new(169, 254, 0, 0), 16, LINK_LOCAL),
    (V4::new(172, 16, 0, 0), 12, PRIVATE),
    (V4::new(192, 0, 0, 0), 24, IETF),
    (V4::new(192, 0, 2, 0), 24, DOCUMENTATION),
    (V4::new(192, 88, 99, 0), 24, "an address of 6to4 relays"),
    (V4::new(192, 168, 0, 0), 16, PRIVATE),
    (V4::new(198, 18, 0, 0), 15, BENCHMARK),
    (V4::new(198, 51, 100, 0), 24, DOCUMENTATION),
    (V4::new(203, 0, 113, 0), 24, DOCUMENTATION),
    (V4::new(224, 0, 0, 0), 4, MULTICAST),
    (V4::new(255, 255, 255, 255), 32, "the broadcast address"),
    (V4::new(240, 0, 0, 0), 4, "a reserved (class E) address"),
];

/// The same for IPv6. What lies outside global unicast (2000::/3) is refused without a line, too; a line only
/// names it.
const V6_CLASSES: &[(V6, u32, &str)] = &[
    (V6::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, CLOUD_METADATA),
    (V6::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, CLOUD_METADATA),
    (V6::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe), 128, CLOUD_METADATA),
    (V6::UNSPECIFIED, 128, UNSPECIFIED),
    (V6::LOCALHOST, 128, LOOPBACK),
    (V6::UNSPECIFIED, 96, "an IPv4-compatible address"),
    (V6::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96, "an IPv4-translated address"),
    (V6::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, "a local NAT64 address"),
    (V6::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64, "a discard-only address"),
    (V6::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, "a Teredo address"),
    (V6::new(0x2001, 2, 0, 0, 0, 0, 0, 0), 48, BENCHMARK),
    (V6::new(0x2001, 0x10, 0, 0, 0, 0, 0, 0), 28, "an ORCHID address"),
    (V6::new(0x2001, 0x20, 0, 0, 0, 0, 0, 0), 28, "an ORCHID address"),
    (V6::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, IETF),
    (V6::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, DOCUMENTATION),
    (V6::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "a 6to4 address"),
    (V6::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, DOCUMENTATION),
    (V6::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16, "a segment routing address"),
    (V6::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, PRIVATE),
    (V6::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, LINK_LOCAL),
    (V6::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, "a site-local address"),
    (V6::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, MULTICAST),
];

/// Where gateways of IPv6-only networks show the IPv4 Internet.
const NAT64: (V6, u32) = (V6::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
const GLOBAL_UNICAST: (V6, u32) = (V6::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// The last 64 bits of a tunnel address begin with it, then comes the IPv4 address of the end of the tunnel. The
/// bit 0x0200 of the first half only says whether that address is unique.
const ISATAP: (u16, u16) = (0, 0x5efe);

/// A class whose addresses are not global unicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// An address of the class itself: "a loopback address".
    Itself(&'static str),
    /// A NAT64 address that stands for an IPv4 address of the class.
    ThroughNat64(&'static str),
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Itself(name) => f.write_str(name),
            Self::ThroughNat64(name) => write!(f, "the NAT64 form of {name}"),
        }
    }
}

/// The class of an address; `None` for global unicast.
#[must_use]
pub fn class(address: IpAddr) -> Option<Class> {
    match address {
        IpAddr::V4(address) => v4_class(address).map(Class::Itself),
        IpAddr::V6(address) => v6_class(address),
    }
}

/// The IPv4 address that is reached through an IPv4-mapped or a NAT64 address.
#[must_use]
pub fn embedded_v4(address: IpAddr) -> Option<V4> {
    match address {
        IpAddr::V6(address) => address.to_ipv4_mapped().or_else(|| nat64_v4(address)),
        IpAddr::V4(_) => None,
    }
}

fn nat64_v4(address: V6) -> Option<V4> {
    let [.., a, b, c, d] = address.octets();
    is_within(address, NAT64).then(|| V4::new(a, b, c, d))
}

fn v4_class(address: V4) -> Option<&'static str> {
    let is_in = |net: V4, bits: u32| (net.to_bits() ^ address.to_bits()) >> (32 - bits) == 0;
    V4_CLASSES.iter().find(|(net, bits, _)| is_in(*net, *bits)).map(|(.., name)| *name)
}

fn v6_class(address: V6) -> Option<Class> {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Some(Class::Itself(v4_class(mapped).unwrap_or("an IPv4-mapped address")));
    }
    if let Some(v4) = nat64_v4(address) {
        return v4_class(v4).map(Class::ThroughNat64);
    }
    if let Some((.., name)) = V6_CLASSES.iter().find(|(net, bits, _)| is_within(address, (*net, *bits))) {
        return Some(Class::Itself(name));
    }
    let [.., first, second, _, _] = address.segments();
    if !is_within(address, GLOBAL_UNICAST) {
        Some(Class::Itself("an address outside global unicast"))
    } else if (first & !0x0200, second) == ISATAP {
        Some(Class::Itself("an ISATAP address"))
    } else {
        None
    }
}

fn is_within(address: V6, (net, bits): (V6, u32)) -> bool {
    (net.to_bits() ^ address.to_bits()) >> (128 - bits) == 0
}
