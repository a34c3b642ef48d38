//! Which addresses are refused: by a list written from the registries, apart from the one in the code.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use crate::network::Network;
use crate::webhook::target::address_policy::{AddressPolicy, Forbidden};

const CASES: u32 = 4_096;
/// How many of [`REFUSED`] are IPv4; they come first.
const V4_NETWORKS: usize = 18;

/// Networks that are not global unicast, and a word of the rule that refuses them.
const REFUSED: &[(&str, &str)] = &[
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/11", "carrier-grade"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "metadata"),
    ("169.254.0.0/17", "link-local"),
    ("169.254.169.254/32", "metadata"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/25", "IETF"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmark"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/5", "class E"),
    ("255.255.255.255/32", "broadcast"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::8000:0/97", "IPv4-compatible"),
    ("::ffff:0:0:0/96", "IPv4-translated"),
    ("64:ff9b:1::/48", "NAT64"),
    ("100::/64", "discard-only"),
    ("2001::/32", "Teredo"),
    ("2001:2::/48", "benchmark"),
    ("2001:10::/28", "ORCHID"),
    ("2001:20::/28", "ORCHID"),
    ("2001:100::/24", "IETF"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("4000::/3", "an address"),
    ("8000::/3", "global unicast"),
    ("fc00::/7", ""),
    ("fd12::/16", "private"),
    ("fd00:ec2::254/128", "metadata"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
];

/// The networks of [`REFUSED`] that leave a part out, whole.
const WHOLE: &[&str] =
    &["100.64.0.0/10", "169.254.0.0/16", "192.0.0.0/24", "240.0.0.0/4", "2001::/23", "::/8"];

fn network(text: &str) -> Network {
    text.parse().unwrap()
}

fn check(address: impl Into<IpAddr>) -> Result<(), Forbidden> {
    AddressPolicy::default().check(address.into())
}

fn is_listed(address: IpAddr) -> bool {
    let all = REFUSED.iter().map(|(text, _)| *text).chain(WHOLE.iter().copied());
    all.map(network).any(|network| network.contains(address))
}

/// The address of the network with the host bits of another.
fn address_in(text: &str, random: u128) -> IpAddr {
    let (address, bits) = text.split_once('/').unwrap();
    let bits: u32 = bits.parse().unwrap();
    let fill = |network: u128, size: u32| {
        let hosts = u128::MAX.checked_shr(128 - size + bits).unwrap_or(0);
        network | (random & hosts)
    };
    match address.parse().unwrap() {
        IpAddr::V4(v4) => {
            IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(fill(v4.to_bits().into(), 32)).unwrap()))
        }
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(fill(v6.to_bits(), 128))),
    }
}

/// Every IPv6 address that stands for an IPv4 address, as far as it can be known.
fn forms(v4: Ipv4Addr, prefix: u64) -> Vec<(&'static str, Ipv6Addr)> {
    let low = u128::from(v4.to_bits());
    let within = |prefix: &str| Ipv6Addr::from_bits(prefix.parse::<Ipv6Addr>().unwrap().to_bits() | low);
    let isatap = |id: u128| Ipv6Addr::from_bits(u128::from(prefix) << 64 | id << 32 | low);
    vec![
        ("mapped", v4.to_ipv6_mapped()),
        ("compatible", within("::")),
        ("translated", within("::ffff:0:0:0")),
        ("nat64", within("64:ff9b::")),
        ("local nat64", within("64:ff9b:1::")),
        ("6to4", Ipv6Addr::from_bits(0x2002 << 112 | low << 80 | u128::from(prefix))),
        ("teredo server", Ipv6Addr::from_bits(0x2001 << 112 | low << 64)),
        ("teredo client", Ipv6Addr::from_bits(0x2001 << 112 | !low & 0xffff_ffff)),
        ("isatap", isatap(0x5efe)),
        ("unique isatap", isatap(0x0200_5efe)),
    ]
}

#[test]
fn the_rule_is_named() {
    for (text, word) in REFUSED {
        for random in [0, 1, u128::MAX >> 1] {
            let error = check(address_in(text, random)).unwrap_err().to_string();
            assert!(error.ends_with("; webhook.allow_networks can allow it"), "{error}");
            let is_metadata = error.contains("metadata");
            assert!(error.contains(word) || is_metadata, "{text}: {error} does not name {word}");
        }
    }
    let text = |address: &str| check(address.parse::<IpAddr>().unwrap()).unwrap_err().to_string();
    assert_eq!(text("127.0.0.1"), "a loopback address; webhook.allow_networks can allow it");
    assert_eq!(text("::ffff:127.0.0.1"), "a loopback address; webhook.allow_networks can allow it");
    assert!(text("64:ff9b::127.0.0.1").starts_with("the NAT64 form of a loopback address"));
    assert!(text("::ffff:8.8.8.8").starts_with("an IPv4-mapped address"));
}

#[test]
fn the_first_and_last_address_of_each_network_are_refused() {
    for text in REFUSED.iter().map(|(text, _)| *text).chain(WHOLE.iter().copied()) {
        for random in [0, u128::MAX] {
            let address = address_in(text, random);
            assert!(check(address).is_err(), "{address}");
        }
    }
}

#[test]
fn neighbours_of_refused_networks_are_allowed() {
    for address in [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "2000::",
        "2001:200::",
        "2001:db7:ffff::1",
        "2001:db9::",
        "2003::",
        "2606:4700::1111",
        "3ffe:ffff::",
        "3fff:1000::",
        "64:ff9b::8.8.8.8",
    ] {
        assert_eq!(check(address.parse::<IpAddr>().unwrap()), Ok(()), "{address}");
    }
}

#[test]
fn an_allowed_network_is_reached_in_every_form_that_leads_only_there() {
    let policy = AddressPolicy::new(vec![network("10.1.0.0/16"), network("fd00:1::/32")], Vec::new());
    let is_allowed = |address: &str| policy.check(address.parse().unwrap()).is_ok();
    for address in ["10.1.2.3", "::ffff:10.1.2.3", "fd00:1::2", "8.8.8.8"] {
        assert!(is_allowed(address), "{address}");
    }
    for address in ["10.2.0.1", "::10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::", "fd00:2::2", "127.0.0.1"]
    {
        assert!(!is_allowed(address), "{address}");
    }
}

#[test]
fn a_denied_network_is_denied_in_every_form() {
    let all = vec![network("0.0.0.0/0"), network("::/0")];
    let policy = AddressPolicy::new(all, vec![network("8.8.0.0/16"), network("2606:4700::/32")]);
    for address in ["8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2606:4700::1111"] {
        let error = policy.check(address.parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "an address in webhook.deny_networks", "{address}");
    }
    for address in ["127.0.0.1", "::1", "8.9.0.1", "64:ff9b::8.9.0.1"] {
        assert_eq!(policy.check(address.parse().unwrap()), Ok(()), "{address}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn every_address_of_a_refused_network_is_refused(at in 0..REFUSED.len(), random: u128) {
        let (text, _) = REFUSED[at];
        let address = address_in(text, random);
        prop_assert!(check(address).is_err(), "{} of {}", address, text);
        let allowed = AddressPolicy::new(vec![network(text)], Vec::new());
        prop_assert_eq!(allowed.check(address), Ok(()), "{} of {}", address, text);
        let denied = AddressPolicy::new(vec![network(text)], vec![network(text)]);
        prop_assert_eq!(denied.check(address), Err(Forbidden::Denied), "{} of {}", address, text);
    }

    #[test]
    fn an_ipv4_address_is_allowed_unless_listed(bits: u32) {
        let address = IpAddr::V4(Ipv4Addr::from_bits(bits));
        prop_assert_eq!(check(address).is_ok(), !is_listed(address), "{}", address);
    }

    #[test]
    fn a_global_ipv6_address_is_allowed_unless_listed(bits: u128) {
        let address = IpAddr::V6(Ipv6Addr::from_bits(bits >> 3 | 0x2000 << 112));
        prop_assert_eq!(check(address).is_ok(), !is_listed(address), "{}", address);
    }

    #[test]
    fn other_ipv6_addresses_are_refused(bits: u128) {
        let address = Ipv6Addr::from_bits(bits);
        prop_assume!(address.segments()[0] & 0xe000 != 0x2000);
        prop_assert!(check(address).is_err(), "{}", address);
    }

    #[test]
    fn no_form_of_a_refused_ipv4_address_is_allowed(at in 0..V4_NETWORKS, random: u128, prefix: u64) {
        let IpAddr::V4(v4) = address_in(REFUSED[at].0, random) else { panic!("the first are IPv4") };
        for (form, v6) in forms(v4, prefix >> 3 | 0x2000 << 48) {
            prop_assert!(check(v6).is_err(), "{} form {} of {}", form, v6, v4);
        }
    }

    #[test]
    fn nat64_is_the_only_form_of_a_global_ipv4_address_that_is_allowed(bits: u32, prefix: u64) {
        let v4 = Ipv4Addr::from_bits(bits);
        prop_assume!(!is_listed(IpAddr::V4(v4)));
        for (form, v6) in forms(v4, prefix >> 3 | 0x2000 << 48) {
            prop_assert_eq!(check(v6).is_ok(), form == "nat64", "{} form {} of {}", form, v6, v4);
        }
    }
}
