//! The configuration of one fallback source: a `[[sources]]` table.
//!
//! Must not know: where configuration is written down, how sources work.

use serde::{Deserialize, Serialize};

use crate::ingest::client::{host, host_and_port};
use crate::telemetry::source_kind::SourceKind;

/// When a source runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// While the sources before it are unavailable.
    #[default]
    Fallback,
    /// All the time, alongside the others.
    Always,
}

/// One `[[sources]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FallbackConfig {
    pub kind: SourceKind,
    /// The origin of an `r2z2` mirror, the `ws://` or `wss://` URL of a `websocket`, the URL of a `redisq`
    /// queue.
    pub url: String,
    /// The name in logs, metrics and health; if unset its kind, or its host if another source has that kind.
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub when: When,
    /// The topics a websocket subscribes to.
    #[serde(default = "all_topics")]
    pub topics: Vec<String>,
    /// How long a killstream mirror may hold the request for the next number until it has it (`?wait=`),
    /// seconds; 0 sends no `wait`.
    #[serde(default)]
    pub wait_secs: u64,
    /// The name a queue remembers this server by; if unset, one derived from this store.
    #[serde(default)]
    pub queue_id: Option<String>,
}

fn all_topics() -> Vec<String> {
    vec!["all".to_owned()]
}

impl FallbackConfig {
    /// The configured or default name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.kind.word())
    }

    /// Whether the name is the host of its URL, as it is by default where several sources are of one kind.
    #[must_use]
    pub fn is_named_by_host(&self) -> bool {
        [host(&self.url), host_and_port(&self.url)].contains(&self.name())
    }

    fn error(&self) -> Option<String> {
        let schemes = self.kind.url_schemes();
        if schemes.is_empty() {
            return Some(cannot_run_beside(self.kind));
        }
        if !schemes.iter().any(|scheme| self.url.starts_with(scheme)) {
            return Some(format!("`{}` does not begin with {}", self.url, schemes.join(" or ")));
        }
        let name = self.name();
        let is_valid =
            !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic());
        (!is_valid).then(|| "the name must be 1 to 64 printable ASCII characters without spaces".to_owned())
    }
}

/// Why a source of this kind cannot be a `[[sources]]` table.
#[must_use]
pub fn cannot_run_beside(kind: SourceKind) -> String {
    format!("a source of kind `{}` can only be [ingest] source", kind.word())
}

/// Names the sources that have no configured name: by their kind if no other source is of that kind (`first`
/// is the kind of the first source), otherwise by the host of their URL.
pub fn set_default_names(sources: &mut [FallbackConfig], first: SourceKind) {
    let kinds: Vec<SourceKind> = sources.iter().map(|source| source.kind).collect();
    let hosts: Vec<String> = sources.iter().map(|source| host(&source.url).to_owned()).collect();
    for source in sources.iter_mut().filter(|source| source.name.is_none()) {
        let is_only_one =
            kinds.iter().filter(|kind| **kind == source.kind).count() == 1 && source.kind != first;
        let own_host = host(&source.url);
        let is_host_shared = hosts.iter().filter(|host| *host == own_host).count() > 1;
        let name = match (is_only_one, is_host_shared) {
            (true, _) => source.kind.word(),
            (false, false) => own_host,
            (false, true) => host_and_port(&source.url),
        };
        source.name = Some(name.to_owned()).filter(|name| !name.is_empty());
    }
}

/// Everything that is wrong with these sources beside the first one.
#[must_use]
pub fn validate(sources: &[FallbackConfig], first: SourceKind) -> Vec<String> {
    let has_first = first != SourceKind::None;
    let mut errors = vec![];
    for (at, source) in sources.iter().enumerate() {
        let name = source.name();
        errors.extend(source.error().map(|error| format!("sources ({name}): {error}")));
        let is_taken =
            sources[..at].iter().any(|earlier| earlier.name() == name) || (has_first && first.word() == name);
        if is_taken {
            errors.push(format!("sources: two have the name {name}; rename one with `name = \"..\"`"));
        }
        if source.when == When::Fallback && !has_first {
            errors.push(format!(
                "sources ({name}): there is no first source it could stand in for; set `when = \"always\"` to run it"
            ));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(kind: SourceKind, url: &str) -> FallbackConfig {
        FallbackConfig {
            kind,
            url: url.to_owned(),
            name: None,
            when: When::Fallback,
            topics: all_topics(),
            wait_secs: 0,
            queue_id: None,
        }
    }

    #[test]
    fn every_error_names_its_source() {
        let sources = [
            source(SourceKind::R2z2, "http://a"),
            source(SourceKind::Websocket, "http://b"),
            source(SourceKind::R2z2, "https://c"),
        ];
        let found = validate(&sources, SourceKind::Replay);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("(websocket)") && found[0].contains("ws://"), "{found:?}");
        assert!(found[1].contains("two have the name r2z2"), "{found:?}");
        assert_eq!(validate(&sources[..1], SourceKind::Replay), [""; 0]);
        assert!(
            validate(&sources[..1], SourceKind::R2z2)[0].contains("two have the name r2z2"),
            "the first source has it"
        );
        assert!(validate(&sources[..1], SourceKind::None)[0].contains("always"));
        let replayed = validate(&[source(SourceKind::Replay, "x")], SourceKind::R2z2);
        assert!(replayed[0].contains("(replay)") && replayed[0].contains("[ingest] source"), "{replayed:?}");
    }

    #[test]
    fn sources_without_a_name_are_named_by_kind_or_host() {
        let named = |first: SourceKind, urls: &[(SourceKind, &str)]| {
            let mut sources: Vec<_> = urls.iter().map(|(kind, url)| source(*kind, url)).collect();
            set_default_names(&mut sources, first);
            assert_eq!(validate(&sources, first), [""; 0]);
            sources.into_iter().map(|source| source.name.unwrap()).collect::<Vec<_>>()
        };
        let one = [
            (SourceKind::R2z2, "http://a.example:4004/"),
            (SourceKind::Redisq, "https://q.example/listen.php"),
        ];
        assert_eq!(named(SourceKind::Replay, &one), ["r2z2", "redisq"], "by kind");
        assert_eq!(
            named(SourceKind::R2z2, &one),
            ["a.example", "redisq"],
            "the first source is of that kind"
        );
        let two = [
            (SourceKind::Redisq, "https://me:secret@q.example/x"),
            (SourceKind::Redisq, "http://[::1]:8080?a=b"),
            (SourceKind::Websocket, "ws://w"),
        ];
        assert_eq!(named(SourceKind::R2z2, &two), ["q.example", "[::1]", "websocket"]);
        let same = [(SourceKind::Redisq, "http://127.0.0.1:1"), (SourceKind::Redisq, "http://127.0.0.1:2")];
        assert_eq!(named(SourceKind::R2z2, &same), ["127.0.0.1:1", "127.0.0.1:2"]);
    }
}
