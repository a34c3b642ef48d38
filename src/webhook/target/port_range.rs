//! Ranges of ports, as a setting names them.
//!
//! Must not know: what is called there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A port, written `443`, or a range, written `1024-65535`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Spelling", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// The text is not a range of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is neither a port like 443 nor a range of ports like 1024-65535")]
pub struct NotAPortRange(String);

/// A single port may be a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Spelling {
    Number(i64),
    Text(String),
}

impl PortRange {
    /// A range with both ends.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Self {
        Self { first, last }
    }

    /// Whether the port is in it.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl FromStr for PortRange {
    type Err = NotAPortRange;

    fn from_str(text: &str) -> Result<Self, NotAPortRange> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(NotAPortRange(text.to_owned())),
        }
    }
}

impl TryFrom<Spelling> for PortRange {
    type Error = NotAPortRange;

    fn try_from(spelling: Spelling) -> Result<Self, NotAPortRange> {
        match spelling {
            Spelling::Number(port) => port.to_string().parse(),
            Spelling::Text(text) => text.parse(),
        }
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Setting {
        ports: Vec<PortRange>,
    }

    #[test]
    fn ports_are_numbers_or_ranges() {
        let setting: Setting = toml::from_str("ports = [80, '443', '1024-65535']").unwrap();
        let texts: Vec<String> = setting.ports.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["80", "443", "1024-65535"]);
        let range = setting.ports[2];
        assert_eq!([1023, 1024, 65535].map(|port| range.contains(port)), [false, true, true]);
        for text in ["'http'", "-1", "65536", "'9-8'", "''", "'1-2-3'"] {
            let error = toml::from_str::<Setting>(&format!("ports = [{text}]")).err().unwrap().to_string();
            assert!(error.contains("neither a port"), "{text}: {error}");
        }
    }
}
