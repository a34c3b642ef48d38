//! What may be said of a source beside the first one.
//!
//! Must not know: where configuration is written down, how sources work.

use serde::{Deserialize, Serialize};

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Another killstream, or any mirror of R2Z2.
    R2z2,
    /// A websocket as EVE-KILL's.
    Websocket,
    /// A RedisQ-compatible queue.
    Redisq,
}

impl Kind {
    /// A word for reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::R2z2 => "r2z2",
            Self::Websocket => "websocket",
            Self::Redisq => "redisq",
        }
    }
}

/// When it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// While those before it are away.
    #[default]
    Fallback,
    /// Beside the others.
    Always,
}

/// One source beside the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secondary {
    /// What it is.
    pub kind: Kind,
    /// Where it is: an origin for `r2z2`, `ws://` or `wss://` for `websocket`, the queue for `redisq`.
    pub url: String,
    /// Its name in logs and metrics; unset: its kind.
    #[serde(default)]
    pub name: Option<String>,
    /// When it runs.
    #[serde(default)]
    pub when: When,
    /// What a websocket is asked for.
    #[serde(default = "everything")]
    pub topics: Vec<String>,
    /// How long a mirror that is a killstream is asked to wait for the next number, seconds; 0: it is not.
    #[serde(default)]
    pub wait_secs: u64,
    /// The name a queue remembers us by; unset: one that belongs to this store.
    #[serde(default)]
    pub queue_id: Option<String>,
}

fn everything() -> Vec<String> {
    vec!["all".to_owned()]
}

impl Secondary {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.kind.word())
    }

    fn mistake(&self) -> Option<String> {
        let schemes: &[&str] = match self.kind {
            Kind::R2z2 | Kind::Redisq => &["http://", "https://"],
            Kind::Websocket => &["ws://", "wss://"],
        };
        if !schemes.iter().any(|scheme| self.url.starts_with(scheme)) {
            return Some(format!("`{}` is no {} address", self.url, schemes.join(" or ")));
        }
        let plain = |name: &str| !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic());
        (!plain(self.name())).then(|| "the name may have 1 to 64 printable ASCII characters".to_owned())
    }
}

/// Everything that cannot be as it is. `first` says whether there is a first source that others can stand in for.
#[must_use]
pub fn mistakes(sources: &[Secondary], first: bool) -> Vec<String> {
    let mut mistakes = vec![];
    for (at, source) in sources.iter().enumerate() {
        let name = source.name();
        mistakes.extend(source.mistake().map(|mistake| format!("sources ({name}): {mistake}")));
        if sources[..at].iter().any(|earlier| earlier.name() == name) {
            mistakes.push(format!("sources: two have the name {name}; give one another"));
        }
        if source.when == When::Fallback && !first {
            mistakes.push(format!("sources ({name}): there is no first source it could stand in for; `when = \"always\"` runs it"));
        }
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(kind: Kind, url: &str) -> Secondary {
        Secondary { kind, url: url.to_owned(), name: None, when: When::Fallback, topics: everything(), wait_secs: 0, queue_id: None }
    }

    #[test]
    fn every_mistake_names_its_source() {
        let sources = [source(Kind::R2z2, "http://a"), source(Kind::Websocket, "http://b"), source(Kind::R2z2, "https://c")];
        let found = mistakes(&sources, true);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("(websocket)") && found[0].contains("ws://"), "{found:?}");
        assert!(found[1].contains("two have the name r2z2"), "{found:?}");
        assert_eq!(mistakes(&sources[..1], true), [""; 0]);
        assert!(mistakes(&sources[..1], false)[0].contains("always"));
    }
}
