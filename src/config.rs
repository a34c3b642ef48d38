//! One configuration out of file, environment and flags; later ones win. All mistakes are reported at once.
//!
//! Every module owns its part; `killstream.toml` beside this file says what there is, and is what the
//! defaults are tested against.

mod complaint;
mod text;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::config::complaint::plain;
use crate::config::text::{File, Places};
use crate::domain::spelling;
use crate::server::connection;
use crate::{feed, http, ingest, phoenix, plugin, store};

/// Every setting with its default, explained.
pub const DEFAULTS: &str = include_str!("killstream.toml");

/// Environment variables and the settings they stand for.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("DATA_DIR", "data_dir"),
    ("BIND_IP", "bind_ip"),
    ("PORT", "port"),
    ("API_TOKEN", "api_token"),
    ("ORIGIN_HOST", "http.cors_origins"),
    ("ORIGIN_HOST", "channels.origins"),
    ("SOURCE", "ingest.source"),
    ("R2Z2_BASE_URL", "ingest.r2z2_base_url"),
    ("ZKB_BASE_URL", "ingest.zkb_base_url"),
    ("ESI_BASE_URL", "ingest.esi_base_url"),
    ("USER_AGENT_CONTACT", "ingest.user_agent_contact"),
    ("R2Z2_IDLE_MS", "ingest.r2z2_idle_ms"),
    ("R2Z2_PACE_MS", "ingest.r2z2_pace_ms"),
];

/// Settings that may also stand outside of every section.
const SHORT: &[(&str, &str)] = &[
    ("min_free_bytes", "store"),
    ("preload_max_killmails", "feed"),
    ("trusted_proxies", "http"),
    ("sources", "ingest"),
];

/// What stands outside of every section.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// The data folder; made if missing.
    pub data_dir: PathBuf,
    /// The address listened on.
    pub bind_ip: IpAddr,
    /// The port listened on; 0: any free one, named in the ready line.
    pub port: u16,
    /// The token of those who may write; unset: the file `token` in the data folder, made at first start.
    pub api_token: Option<String>,
    /// Stopping waits this long for connections to end, milliseconds.
    pub grace_ms: u64,
    /// Files kept free for the store and the source: connections that would need them are refused; under a
    /// limit of less than twice as many, half of it.
    pub reserved_files: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./data"),
            bind_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 4004,
            api_token: None,
            grace_ms: 10_000,
            reserved_files: 256,
        }
    }
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// What stands outside of every section.
    pub server: Server,
    /// What connections may take, whatever they are for.
    pub connections: connection::Config,
    /// Where killmails come from.
    pub ingest: ingest::config::Config,
    /// How they are kept.
    pub store: store::config::Config,
    /// How readers move.
    pub feed: feed::config::Config,
    /// What plugins may use.
    pub plugin: plugin::limits::Config,
    /// The HTTP door.
    pub http: http::config::Config,
    /// The channel door.
    pub channels: phoenix::config::Config,
}

impl Config {
    /// The address listened on.
    #[must_use]
    pub const fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.server.bind_ip, self.server.port)
    }
}

/// Everything that is wrong, each with where it stands.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(pub Vec<String>);

/// Gathers the configuration: a file with its name, the environment, and settings from flags (`ingest.source`
/// and its value).
///
/// # Errors
/// All mistakes there are.
pub fn gather(
    file: Option<(&str, &str)>,
    environment: &dyn Fn(&str) -> Option<String>,
    flags: Vec<(&'static str, Value)>,
) -> Result<Config, Mistakes> {
    let mut gathering = Gathering::default();
    if let Some((name, text)) = file {
        match text.parse::<Table>() {
            Ok(table) => gathering.file(table),
            Err(error) => {
                return Err(Mistakes(vec![format!("{name} is not TOML: {}", error.to_string().trim_end())]));
            }
        }
        gathering.places = Places::of(File { name, text });
    }
    for (variable, setting) in ENVIRONMENT {
        // An empty variable is how compose files spell "not set".
        if let Some(text) = environment(variable).filter(|text| !text.is_empty()) {
            gathering
                .give(setting, Given { origin: Some((*variable).to_owned()), value: Value::String(text) });
        }
    }
    for (setting, value) in flags {
        let origin = format!("--{}", setting.rsplit('.').next().unwrap_or(setting).replace('_', "-"));
        gathering.give(setting, Given { origin: Some(origin), value });
    }
    gathering.finish()
}

/// A value and where it was given, if not in the file. Texts from outside of the file may mean numbers, or
/// lists with commas between.
#[derive(Debug)]
struct Given {
    origin: Option<String>,
    value: Value,
}

#[derive(Debug, Default)]
struct Gathering {
    /// Section (empty: none) to key to value.
    sections: BTreeMap<String, BTreeMap<String, Given>>,
    /// Where in the file they stand.
    places: Places,
    mistakes: Vec<String>,
}

impl Gathering {
    fn file(&mut self, table: Table) {
        for (name, value) in table {
            match value {
                Value::Table(inner) => {
                    let section = self.sections.entry(name).or_default();
                    section
                        .extend(inner.into_iter().map(|(key, value)| (key, Given { origin: None, value })));
                }
                value => {
                    let section =
                        SHORT.iter().find(|(short, _)| *short == name).map_or("", |(_, section)| section);
                    self.sections
                        .entry(section.to_owned())
                        .or_default()
                        .insert(name, Given { origin: None, value });
                }
            }
        }
    }

    fn give(&mut self, setting: &str, given: Given) {
        let (section, key) = setting.split_once('.').unwrap_or(("", setting));
        self.sections.entry(section.to_owned()).or_default().insert(key.to_owned(), given);
    }

    fn finish(mut self) -> Result<Config, Mistakes> {
        let mut config = Config {
            server: self.section(""),
            connections: self.section("connections"),
            ingest: self.section("ingest"),
            store: self.section("store"),
            feed: self.section("feed"),
            plugin: self.section("plugin"),
            http: self.section("http"),
            channels: self.section("channels"),
        };
        config.http.sse = self.section("sse");
        config.http.health = self.section("health");
        config.http.mirror = self.section("mirror");
        config.store.dir.clone_from(&config.server.data_dir);
        config.ingest.tidy();
        for name in self.sections.keys() {
            let known = sections();
            let meant =
                spelling::nearest(name, known.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()));
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean [{meant}]?"));
            self.mistakes
                .push(format!("{name}: there is no such section{meant}{}", self.places.told(name, "")));
        }
        self.mistakes.extend(config.ingest.mistakes());
        if self.mistakes.is_empty() { Ok(config) } else { Err(Mistakes(self.mistakes)) }
    }

    /// Takes a section key by key, so that one mistake does not hide another.
    fn section<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        let mut good = Table::new();
        for (key, given) in self.sections.remove(name).unwrap_or_default() {
            match accepted::<T>(&key, &given) {
                Ok(value) => {
                    good.insert(key, value);
                }
                Err(why) => {
                    let inner = inside(&key, &why)
                        .map(|inner| self.places.told(&key, inner))
                        .filter(|place| !place.is_empty());
                    let place = inner.unwrap_or_else(|| self.places.told(name, &key));
                    let why = unknown(name, &key, &why).unwrap_or_else(|| plain(&why));
                    let dot = if name.is_empty() { "" } else { "." };
                    self.mistakes.push(match given.origin {
                        Some(origin) => format!("{origin}: {why}"),
                        None => format!("{name}{dot}{key}: {why}{place}"),
                    });
                }
            }
        }
        match good.try_into() {
            Ok(section) => section,
            Err(error) => {
                self.mistakes.push(format!("{name}: {}", error.message()));
                T::default()
            }
        }
    }
}

/// The keys a section knows, from its complaint about one it does not.
fn keys<T: DeserializeOwned>() -> Vec<String> {
    let one = Table::from_iter([("?".to_owned(), Value::Integer(0))]);
    let complaint = one.try_into::<T>().err().map(|error| error.message().to_owned()).unwrap_or_default();
    quoted(&complaint).skip(1).map(str::to_owned).collect()
}

/// The names in backticks in a complaint.
fn quoted(complaint: &str) -> impl Iterator<Item = &str> {
    complaint.split('`').skip(1).step_by(2)
}

/// Every section (empty: none) and its keys.
fn sections() -> Vec<(&'static str, Vec<String>)> {
    vec![
        ("", keys::<Server>()),
        ("connections", keys::<connection::Config>()),
        ("ingest", keys::<ingest::config::Config>()),
        ("store", keys::<store::config::Config>()),
        ("feed", keys::<feed::config::Config>()),
        ("plugin", keys::<plugin::limits::Config>()),
        ("http", keys::<http::config::Config>()),
        ("sse", keys::<http::stream::stream_config::Config>()),
        ("health", keys::<http::routes::health_config::Config>()),
        ("mirror", keys::<http::routes::mirror_state::Config>()),
        ("channels", keys::<phoenix::config::Config>()),
    ]
}

/// The key that a table of its own under this one does not know, as of one source.
fn inside<'a>(key: &str, complaint: &'a str) -> Option<&'a str> {
    quoted(complaint.strip_prefix("unknown field ")?).next().filter(|wrong| *wrong != key)
}

/// Says of a key that does not exist which one was meant; `None` if the complaint is another.
fn unknown(section: &str, key: &str, complaint: &str) -> Option<String> {
    let mut names = quoted(complaint.strip_prefix("unknown field ").map(|_| complaint)?);
    let wrong = names.next()?;
    let meant = |name: &str| format!("; did you mean {name}?");
    if wrong != key {
        // In a table of its own, as of one source.
        return Some(format!(
            "there is no setting {wrong}{}",
            spelling::nearest(wrong, names).map_or_else(String::new, meant)
        ));
    }
    let known = sections();
    let other = known.iter().find(|(_, keys)| keys.iter().any(|known| known == key));
    let elsewhere = known.iter().flat_map(|(name, keys)| keys.iter().map(move |key| (*name, key)));
    let hint = match (other, spelling::nearest(wrong, names)) {
        (Some(("", _)), _) => format!("; {key} stands before the first [section]"),
        (Some((other, _)), _) => format!("; {key} stands in [{other}]"),
        (None, Some(near)) => meant(near),
        (None, None) => match spelling::nearest(wrong, elsewhere.clone().map(|(_, key)| key.as_str())) {
            Some(near) => {
                let stands = elsewhere.clone().find(|(_, key)| *key == near).map_or("", |(name, _)| name);
                if stands.is_empty() {
                    format!("; did you mean {near}, before the first [section]?")
                } else {
                    format!("; did you mean {near} in [{stands}]?")
                }
            }
            None => "; `killstream serve --print-config` prints all there are".to_owned(),
        },
    };
    let here = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
    Some(format!("there is no such setting{here}{hint}"))
}

/// The value if the section takes it under this key.
fn accepted<T: DeserializeOwned>(key: &str, given: &Given) -> Result<Value, String> {
    let try_one = |value: &Value| {
        let one = Table::from_iter([(key.to_owned(), value.clone())]);
        one.try_into::<T>().map(drop).map_err(|error| error.message().to_owned())
    };
    let why = match try_one(&given.value) {
        Ok(()) => return Ok(given.value.clone()),
        Err(why) => why,
    };
    let text = match (&given.origin, &given.value) {
        (Some(_), Value::String(text)) => text,
        _ => return Err(why),
    };
    let list = || {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| Value::String(part.to_owned()))
            .collect()
    };
    let others = [
        text.parse().ok().map(Value::Integer),
        text.parse().ok().map(Value::Float),
        text.parse().ok().map(Value::Boolean),
        Some(Value::Array(list())),
    ];
    others.into_iter().flatten().find(|value| try_one(value).is_ok()).ok_or(why)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn from_file(text: &str) -> Result<Config, Mistakes> {
        gather(Some(("killstream.toml", text)), &nothing, vec![])
    }

    #[test]
    fn the_default_file_is_the_defaults() {
        let config = from_file(DEFAULTS).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn the_default_file_names_every_setting() {
        for (name, keys) in sections() {
            assert!(!keys.is_empty(), "{name}");
            let start = if name.is_empty() { 0 } else { DEFAULTS.find(&format!("\n[{name}]")).unwrap() + 1 };
            let section = DEFAULTS[start..].split("\n[").next().unwrap();
            for key in keys
                .iter()
                .filter(|key| name != "http" || !["sse", "health", "mirror"].contains(&key.as_str()))
            {
                let named = section
                    .lines()
                    .any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} =")));
                assert!(named, "[{name}] does not name {key}");
            }
        }
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let environment: HashMap<_, _> =
            [("PORT", "2"), ("BIND_IP", "::1"), ("USER_AGENT_CONTACT", "12"), ("SOURCE", "")].into();
        let look = |name: &str| environment.get(name).map(|text| (*text).to_owned());
        let config =
            gather(Some(("a.toml", "port = 1\ndata_dir = 'x'\n")), &look, vec![("port", Value::Integer(3))])
                .unwrap();
        assert_eq!(config.listen(), "[::1]:3".parse().unwrap());
        assert_eq!(config.store.dir, PathBuf::from("x"));
        assert_eq!(config.ingest.user_agent_contact.as_deref(), Some("12"));
        assert_eq!(config.ingest.source, ingest::config::Kind::R2z2);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = "port = 'x'\nnonsense = 1\n[ingest]\nsource = 'redisq'\nr2z2_pace_ms = 1\nspeed = 2\n[storage]\na = 1\n";
        let look = |name: &str| (name == "BIND_IP").then(|| "here".to_owned());
        let Mistakes(mistakes) =
            gather(Some(("a.toml", text)), &look, vec![("ingest.replay_speed", Value::Float(-1.0))])
                .unwrap_err();
        for part in [
            "port: ",
            "nonsense: ",
            "ingest.source: ",
            "ingest.r2z2_pace_ms: 1 is under 100",
            "ingest.speed: ",
            "storage: ",
            "BIND_IP: ",
            "ingest.replay_speed: ",
        ] {
            assert!(
                mistakes.iter().any(|mistake| mistake.starts_with(part)),
                "{part} is not in {mistakes:#?}"
            );
        }
        assert_eq!(mistakes.len(), 8, "{mistakes:#?}");
    }

    #[test]
    fn one_origin_host_is_meant_for_pages_and_channels() {
        let look =
            |name: &str| (name == "ORIGIN_HOST").then(|| "https://yourdomain.com, *.example.org".to_owned());
        let config = gather(Some(("a.toml", "[http]\ncors_origins = []")), &look, vec![]).unwrap();
        assert_eq!(config.http.cors_origins, ["https://yourdomain.com", "*.example.org"]);
        assert_eq!(config.channels.origins, config.http.cors_origins);
        assert_eq!(gather(None, &nothing, vec![]).unwrap().channels.origins, ["*"]);
    }

    #[test]
    fn a_misspelt_setting_is_told_with_its_line_and_the_one_that_was_meant() {
        let text = "prot = 5\ncached_max = 7\n[ingest]\n# a comment\nr2z2_idel_ms = 6000\nport = 4\n\n[htttp]\nx = 1\n\
                    [store]\nzzz = 1\n[[ingest.sources]]\nkind = 'r2z2'\nurll = 'x'\n";
        let Mistakes(mistakes) = from_file(text).unwrap_err();
        for expected in [
            "prot: there is no such setting; did you mean port? (killstream.toml, line 1)",
            "cached_max: there is no such setting; cached_max stands in [http] (killstream.toml, line 2)",
            "ingest.r2z2_idel_ms: there is no such setting in [ingest]; did you mean r2z2_idle_ms? (killstream.toml, line 5)",
            "ingest.port: there is no such setting in [ingest]; port stands before the first [section] (killstream.toml, line 6)",
            "htttp: there is no such section; did you mean [http]? (killstream.toml, line 8)",
            "store.zzz: there is no such setting in [store]; `killstream serve --print-config` prints all there are (killstream.toml, line 11)",
            "ingest.sources: there is no setting urll; did you mean url? (killstream.toml, line 14)",
        ] {
            assert!(mistakes.iter().any(|mistake| mistake == expected), "{expected} is not in {mistakes:#?}");
        }
        assert_eq!(mistakes.len(), 7, "{mistakes:#?}");
        let Mistakes(mistakes) = from_file("port = 'x'\n").unwrap_err();
        assert!(
            mistakes[0].starts_with("port: ") && mistakes[0].ends_with("(killstream.toml, line 1)"),
            "{mistakes:?}"
        );
    }

    #[test]
    fn a_broken_file_says_where() {
        let Mistakes(mistakes) = from_file("port = \n").unwrap_err();
        assert!(mistakes[0].contains("line 1") && mistakes[0].contains("killstream.toml"), "{mistakes:?}");
    }
}
