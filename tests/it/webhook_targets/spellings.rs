//! URLs that lead, or could be thought to lead, to loopback: by other ways to write numbers, letters, dots, hosts
//! and whole URLs.
//!
//! Must not know: how URLs are checked.

use std::collections::BTreeSet;

/// A URL and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spelling {
    pub url: String,
    pub leads: Leads,
}

/// Where a URL leads if everything is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leads {
    /// To the canary on 127.0.0.1.
    ToV4,
    /// To the canary on ::1.
    ToV6,
    /// Elsewhere in a refused network.
    Elsewhere,
    /// It is not a URL that a webhook may have.
    Nowhere,
}

/// Every spelling, once.
pub fn all(port: u16) -> Vec<Spelling> {
    let mut found = BTreeSet::new();
    let mut add = |leads: Leads, urls: Vec<String>| {
        found.extend(urls.into_iter().map(|url| Spelling { url, leads }));
    };
    let at = |hosts: Vec<String>| -> Vec<String> {
        hosts.iter().map(|host| format!("http://{host}:{port}/hook")).collect()
    };
    let fill = |texts: &[&str]| texts.iter().map(|text| text.replace("PORT", &port.to_string())).collect();
    add(Leads::ToV4, at(numeric(&[127, 0, 0, 1])));
    add(Leads::ToV4, at(numeric(&[0, 0, 0, 0])));
    add(Leads::ToV4, at(owned(V4_TEXTS)));
    add(Leads::ToV4, at(owned(V4_NAMES)));
    add(Leads::ToV4, at(owned(V4_AS_V6)));
    add(Leads::ToV4, fill(V4_URLS));
    add(Leads::ToV6, at(owned(V6_TEXTS)));
    add(Leads::Elsewhere, at(numeric(&[169, 254, 169, 254])));
    add(Leads::Elsewhere, at(numeric(&[10, 0, 0, 1])));
    add(Leads::Elsewhere, at(owned(ELSEWHERE)));
    add(Leads::Nowhere, at(owned(BAD_HOSTS)));
    add(Leads::Nowhere, fill(BAD_URLS));
    found.into_iter().collect()
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// An IPv4 address as one to four numbers, each decimal, octal or hexadecimal, with and without a dot at the end.
fn numeric(octets: &[u8; 4]) -> Vec<String> {
    type Form = fn(u32) -> String;
    let forms: [Form; 6] = [
        |n| format!("{n}"),
        |n| format!("0{n:o}"),
        |n| format!("000{n:o}"),
        |n| format!("0x{n:x}"),
        |n| format!("0X{n:X}"),
        |n| format!("0x0000{n:x}"),
    ];
    let [a, b, c, d] = octets.map(u32::from);
    let whole = u32::from_be_bytes(*octets);
    let parts: [&[u32]; 4] = [&[whole], &[a, whole & 0xff_ffff], &[a, b, whole & 0xffff], &[a, b, c, d]];
    let mut texts = Vec::new();
    for parts in parts {
        for first in forms {
            for others in forms {
                let numbers = parts.iter().enumerate();
                let numbers = numbers.map(|(at, n)| if at == 0 { first(*n) } else { others(*n) });
                let text = numbers.collect::<Vec<_>>().join(".");
                texts.push(format!("{text}."));
                texts.push(text);
            }
        }
    }
    texts
}

/// Digits, letters and dots of other alphabets, and escapes.
const V4_TEXTS: &[&str] = &[
    "127。0。0。1",
    "127．0．0．1",
    "127｡0｡0｡1",
    "１２７.０.０.１",
    "１２７。０。０。１",
    "①②⑦.⓪.⓪.①",
    "𝟏𝟐𝟕.𝟎.𝟎.𝟏",
    "𝟙𝟚𝟟.𝟘.𝟘.𝟙",
    "𝟣𝟤𝟩.𝟢.𝟢.𝟣",
    "𝟭𝟮𝟳.𝟬.𝟬.𝟭",
    "𝟷𝟸𝟽.𝟶.𝟶.𝟷",
    "¹²⁷.⁰.⁰.¹",
    "₁₂₇.₀.₀.₁",
    "1２7.0.0.①",
    "０ｘ７ｆ.1",
    "0ｘ7f000001",
    "２１３０７０６４３３",
    "127.0.0.1\u{ad}",
    "127\u{200b}.0.0.1",
    "127.0.0.\u{2060}1",
    "127.\u{fe0f}0.0.1",
    "%31%32%37.0.0.1",
    "%31%32%37%2E%30%2E%30%2E%31",
    "127%2e0%2e0%2e1",
    "127.0.0.%31",
    "0%78%37f.1",
    "127.1%2E",
    "%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1",
    "127%E3%80%820%E3%80%820%E3%80%821",
    "%32%31%33%30%37%30%36%34%33%33",
];

/// Names; the resolver of the test says 127.0.0.1 to all that it has no entry for.
const V4_NAMES: &[&str] = &[
    "localhost",
    "localhost.",
    "LOCALHOST",
    "LocalHost",
    "ｌｏｃａｌｈｏｓｔ",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "ℓocalhost",
    "localhoſt",
    "𝐥𝐨𝐜𝐚𝐥𝐡𝐨𝐬𝐭",
    "loc\u{ad}alhost",
    "local\u{200b}host",
    "%6cocalhost",
    "%6C%6F%63%61%6C%68%6F%73%74",
    "localhost%2e",
    "localhost。",
    "a.localhost",
    "a.b.localhost.",
    "foo.LOCALHOST",
    "localhost.localdomain",
    "localhost4",
    "ip6-localhost",
    "loopback",
    "127.0.0.1.nip.io",
    "127-0-0-1.nip.io",
    "7f000001.nip.io",
    "app.127.0.0.1.nip.io",
    "127.0.0.1.sslip.io",
    "127-0-0-1.sslip.io",
    "127.0.0.1.xip.io",
    "localtest.me",
    "lvh.me",
    "vcap.me",
    "lacolhost.com",
    "spoofed.burpcollaborator.net",
    "example.com",
    "example.com.",
    "EXAMPLE.com",
    "bücher.example",
    "xn--bcher-kva.example",
    "under_score.example",
    "-dash.example",
    "1.2.3.4.example",
    "0x7f.1.example",
    "a",
    "mixed.test",
    "mapped.test",
    "compatible.test",
];

/// 127.0.0.1 in IPv6: an IPv4-mapped address is called over IPv4.
const V4_AS_V6: &[&str] = &[
    "[::ffff:127.0.0.1]",
    "[::FFFF:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:7f00:0001]",
    "[::FfFf:7F00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "[0000:0000:0000:0000:0000:ffff:7f00:0001]",
    "[0::ffff:127.0.0.1]",
    "[::0:ffff:127.0.0.1]",
    "[0:0::ffff:7f00:1]",
    "[::ffff:0.0.0.0]",
    "[::ffff:0:0]",
];

const V6_TEXTS: &[&str] = &[
    "[::1]",
    "[::01]",
    "[::001]",
    "[::0001]",
    "[0::1]",
    "[0:0::1]",
    "[::0:1]",
    "[0:0:0:0:0:0:0:1]",
    "[00:00:00:00:00:00:00:01]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[0:0:0::0:0:1]",
    "[::0.0.0.1]",
    "[0::0.0.0.1]",
    "[0:0:0:0:0:0:0.0.0.1]",
    "[::]",
    "[0::]",
    "[::0]",
    "[0:0:0:0:0:0:0:0]",
    "[::0.0.0.0]",
    "v6.test",
    "v6-twice.test",
];

/// Whole URLs to 127.0.0.1.
const V4_URLS: &[&str] = &[
    "HTTP://127.0.0.1:PORT/",
    "hTtP://127.0.0.1:PORT/",
    "http://127.0.0.1:PORT",
    "http://127.0.0.1:PORT?",
    "http://127.0.0.1:PORT?a=b@example.com",
    "http://127.0.0.1:PORT#",
    "http://127.0.0.1:PORT#@example.com/",
    "http://127.0.0.1:PORT?@example.com/",
    "http://127.0.0.1:PORT/@example.com/",
    "http://127.0.0.1:PORT//example.com/",
    "http://127.0.0.1:PORT/../../",
    "http://127.0.0.1:PORT/%2e%2e/",
    "http://127.0.0.1:PORT/?url=http://example.com",
    "http://127.0.0.1:0PORT/",
    "http://127.0.0.1:00000PORT/",
    "http://example.com:PORT#@127.0.0.1/",
    "http://example.com:PORT?@127.0.0.1/",
    "http://example.com:PORT/@127.0.0.1/",
    "http://example.com:PORT/;@127.0.0.1/",
];

const ELSEWHERE: &[&str] = &[
    "0.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.254",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.1",
    "198.18.0.1",
    "198.19.255.254",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "4294967295",
    "0xffffffff",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::ffff:8.8.8.8]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b::10.0.0.1]",
    "[64:ff9b:1::1]",
    "[64:ff9b:1::127.0.0.1]",
    "[100::1]",
    "[2001::1]",
    "[2001:0:7f00:1::]",
    "[2001:2::1]",
    "[2001:10::1]",
    "[2001:20::1]",
    "[2001:db8::1]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[2606:4700::5efe:127.0.0.1]",
    "[2606:4700::200:5efe:10.0.0.1]",
    "[3fff::1]",
    "[4000::1]",
    "[5f00::1]",
    "[fc00::1]",
    "[fd00::1]",
    "[fd00:ec2::254]",
    "[FD00:EC2:0:0:0:0:0:254]",
    "[fd20:ce::254]",
    "[fe80::1]",
    "[fe80::a9fe:a9fe]",
    "[fec0::1]",
    "[ff02::1]",
    "[ff0e::1]",
    "metadata.google.internal",
    "metadata.test",
    "private.test",
    "private6.test",
    "nat64.test",
    "none.test",
    "missing.test",
    "127.0.0.1..",
];

/// Hosts that no URL can have.
const BAD_HOSTS: &[&str] = &[
    "",
    ".",
    "..",
    "256.0.0.1",
    "127.0.0.256",
    "127.0.0.0.1",
    "1.2.3.4.5",
    "127..1",
    "127.0.0.1.1",
    "08.0.0.1",
    "127.0.0.09",
    "0x7g.0.0.1.1",
    "4294967296",
    "0x100000000",
    "040000000000",
    "127.16777216",
    "127.0.65536",
    "[::1",
    "::1",
    "[::1]]",
    "[[::1]]",
    "[]",
    "[:]",
    "[:::1]",
    "[::1%25lo]",
    "[::1%lo]",
    "[::1%251]",
    "[fe80::1%25eth0]",
    "[fe80::1%eth0]",
    "[fe80::1%252]",
    "[::ffff:127.0.0.256]",
    "[::ffff:127.1]",
    "[::ffff:0x7f.0.0.1]",
    "[::ffff:0177.0.0.1]",
    "[::ffff:127.0.0.1.]",
    "[127.0.0.1]",
    "[1:2:3:4:5:6:7:8:9]",
    "[::12345]",
    "[v1.::1]",
    "[：：１]",
    "127.0.0.1 ",
    " 127.0.0.1",
    "127.0.0.1\t",
    "127.0\t.0.1",
    "127.0.0.1\n",
    "127.0\r\n.0.1",
    "127.0.0.1\0",
    "127.0.0.1%00",
    "127.0.0.1%20",
    "127.0.0.1%09",
    "127.0.0.1%0d%0a",
    "%",
    "%zz",
    "127.0.0.1%2f",
    "127.0.0.1%5c",
    "127.0.0.1%40example.com",
    "127.0.0.1%3a80",
    "local host",
    "local|host",
    "local^host",
    "<localhost>",
    "example.com\\@127.0.0.1",
    "127.0.0.1\\",
    "\\127.0.0.1",
    "127.0.0.1\u{3000}",
    "127.0.0.1\u{2028}",
    "user@127.0.0.1",
    "user:password@127.0.0.1",
    "@127.0.0.1",
    ":@127.0.0.1",
    "example.com@127.0.0.1",
    "example.com:80@127.0.0.1",
    "example.com%40127.0.0.1",
    "a@b@127.0.0.1",
    "%75ser@127.0.0.1",
    "xn--",
    "xn--a",
];

/// URLs that webhooks cannot have.
const BAD_URLS: &[&str] = &[
    "",
    "127.0.0.1",
    "127.0.0.1:PORT",
    "//127.0.0.1:PORT/",
    "/hook",
    "http:",
    "http:/",
    "http://",
    "http:///",
    "http://:PORT/",
    "http://?",
    "http://#",
    "http:127.0.0.1:PORT/",
    "http:/127.0.0.1:PORT/",
    "http:///127.0.0.1:PORT/",
    "http:////127.0.0.1:PORT/",
    "http:\\\\127.0.0.1:PORT\\",
    "http:/\\127.0.0.1:PORT/",
    "http:\\/127.0.0.1:PORT/",
    "http://127.0.0.1:PORT\\@example.com/",
    "http://example.com\\@127.0.0.1:PORT/",
    "http://example.com:PORT\\127.0.0.1/",
    " http://127.0.0.1:PORT/",
    "http://127.0.0.1:PORT/ ",
    "\thttp://127.0.0.1:PORT/",
    "\nhttp://127.0.0.1:PORT/",
    "ht\ntp://127.0.0.1:PORT/",
    "ht\ttp://127.0.0.1:PORT/",
    "http://127.0.0.1:PORT/\n",
    "http://127.0.0.1:PORT/a\r\nx-header: b",
    "http://127.0.0.1:PORT/\0",
    "http://127.0.0.1:PO\tRT/",
    "\u{feff}http://127.0.0.1:PORT/",
    "ｈｔｔｐ://127.0.0.1:PORT/",
    "http：//127.0.0.1:PORT/",
    "http:／／127.0.0.1:PORT/",
    "http://127.0.0.1：PORT/",
    "http://127.0.0.1:PORT@example.com/",
    "http://example.com@127.0.0.1:PORT/",
    "http://a:b@127.0.0.1:PORT/",
    "http://127.0.0.1:-PORT/",
    "http://127.0.0.1:+PORT/",
    "http://127.0.0.1: PORT/",
    "http://127.0.0.1:PORT:PORT/",
    "http://127.0.0.1:0xPORT/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:22/",
    "http://example.com:25/",
    "http://example.com:1023/",
    "https://example.com:0/",
    "ftp://127.0.0.1:PORT/",
    "ws://127.0.0.1:PORT/",
    "wss://127.0.0.1:PORT/",
    "gopher://127.0.0.1:PORT/_",
    "dict://127.0.0.1:PORT/",
    "ldap://127.0.0.1:PORT/",
    "tftp://127.0.0.1:PORT/",
    "file:///etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
    "httpx://127.0.0.1:PORT/",
    "https+http://127.0.0.1:PORT/",
    "jar:http://127.0.0.1:PORT/!/",
    "view-source:http://127.0.0.1:PORT/",
    "blob:http://127.0.0.1:PORT/",
    "url:http://127.0.0.1:PORT/",
    "data:text/plain,http://127.0.0.1:PORT/",
    "javascript:fetch('http://127.0.0.1:PORT/')",
    "about:blank",
];
