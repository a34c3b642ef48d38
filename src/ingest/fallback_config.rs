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
pub struct FallbackConfig {
    /// What it is.
    pub kind: Kind,
    /// Where it is: an origin for `r2z2`, `ws://` or `wss://` for `websocket`, the queue for `redisq`.
    pub url: String,
    /// Its name in logs, metrics and health; unset: its kind, where that is its alone, else its host.
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

impl FallbackConfig {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.kind.word())
    }

    /// Whether it was given no name and is told from another of its kind by its host.
    #[must_use]
    pub fn is_named_by_host(&self) -> bool {
        [false, true].iter().any(|with_port| host(&self.url, *with_port) == self.name())
    }

    fn mistake(&self) -> Option<String> {
        let schemes: &[&str] = match self.kind {
            Kind::R2z2 | Kind::Redisq => &["http://", "https://"],
            Kind::Websocket => &["ws://", "wss://"],
        };
        if !schemes.iter().any(|scheme| self.url.starts_with(scheme)) {
            return Some(format!("`{}` is no {} address", self.url, schemes.join(" or ")));
        }
        let plain = |name: &str| {
            !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        (!plain(self.name())).then(|| "the name may have 1 to 64 printable ASCII characters".to_owned())
    }
}

/// Gives a name to those that have none: the kind, where no other source is of it (`first` is that of the
/// first source), else the host.
pub fn name_all(sources: &mut [FallbackConfig], first: &str) {
    let kinds: Vec<Kind> = sources.iter().map(|source| source.kind).collect();
    let hosts: Vec<String> = sources.iter().map(|source| host(&source.url, false).to_owned()).collect();
    for source in sources.iter_mut().filter(|source| source.name.is_none()) {
        let alone =
            kinds.iter().filter(|kind| **kind == source.kind).count() == 1 && source.kind.word() != first;
        let name_of_host = host(&source.url, false);
        // Two on one host are told apart by their ports.
        let with_port = hosts.iter().filter(|other| *other == name_of_host).count() > 1;
        let name = if alone { source.kind.word() } else { host(&source.url, with_port) };
        source.name = Some(name.to_owned()).filter(|name| !name.is_empty());
    }
}

/// The host of an address.
fn host(url: &str, with_port: bool) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    match rest.rsplit_once(':') {
        Some((host, port)) if !with_port && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => rest,
    }
}

/// Everything that cannot be as it is. `first` is the first source, which others can stand in for, if there
/// is one.
#[must_use]
pub fn mistakes(sources: &[FallbackConfig], first: Option<&str>) -> Vec<String> {
    let mut mistakes = vec![];
    for (at, source) in sources.iter().enumerate() {
        let name = source.name();
        mistakes.extend(source.mistake().map(|mistake| format!("sources ({name}): {mistake}")));
        if sources[..at].iter().any(|earlier| earlier.name() == name) || first == Some(name) {
            mistakes
                .push(format!("sources: two have the name {name}; give one another with `name = \"..\"`"));
        }
        if source.when == When::Fallback && first.is_none() {
            mistakes.push(format!("sources ({name}): there is no first source it could stand in for; `when = \"always\"` runs it"));
        }
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(kind: Kind, url: &str) -> FallbackConfig {
        FallbackConfig {
            kind,
            url: url.to_owned(),
            name: None,
            when: When::Fallback,
            topics: everything(),
            wait_secs: 0,
            queue_id: None,
        }
    }

    #[test]
    fn every_mistake_names_its_source() {
        let sources = [
            source(Kind::R2z2, "http://a"),
            source(Kind::Websocket, "http://b"),
            source(Kind::R2z2, "https://c"),
        ];
        let found = mistakes(&sources, Some("replay"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("(websocket)") && found[0].contains("ws://"), "{found:?}");
        assert!(found[1].contains("two have the name r2z2"), "{found:?}");
        assert_eq!(mistakes(&sources[..1], Some("replay")), [""; 0]);
        assert!(
            mistakes(&sources[..1], Some("r2z2"))[0].contains("two have the name r2z2"),
            "the first source has it"
        );
        assert!(mistakes(&sources[..1], None)[0].contains("always"));
    }

    #[test]
    fn those_without_a_name_are_named_by_their_kind_or_their_host() {
        let named = |first: &str, urls: &[(Kind, &str)]| {
            let mut sources: Vec<_> = urls.iter().map(|(kind, url)| source(*kind, url)).collect();
            name_all(&mut sources, first);
            assert_eq!(mistakes(&sources, Some(first)), [""; 0]);
            sources.into_iter().map(|source| source.name.unwrap()).collect::<Vec<_>>()
        };
        let one = [(Kind::R2z2, "http://a.example:4004/"), (Kind::Redisq, "https://q.example/listen.php")];
        assert_eq!(named("replay", &one), ["r2z2", "redisq"], "as ever");
        assert_eq!(named("r2z2", &one), ["a.example", "redisq"], "the first source is of that kind");
        let two = [
            (Kind::Redisq, "https://me:secret@q.example/x"),
            (Kind::Redisq, "http://[::1]:8080?a=b"),
            (Kind::Websocket, "ws://w"),
        ];
        assert_eq!(named("r2z2", &two), ["q.example", "[::1]", "websocket"]);
        let same = [(Kind::Redisq, "http://127.0.0.1:1"), (Kind::Redisq, "http://127.0.0.1:2")];
        assert_eq!(named("r2z2", &same), ["127.0.0.1:1", "127.0.0.1:2"]);
    }
}
