//! The configuration: file, environment and flags, each overriding the one before. All errors are reported at
//! once.
//!
//! Every module owns the struct of its section. `killstream.toml` beside this file documents every setting, and
//! a test compares it with the defaults.

mod locations;
pub(crate) mod renamed;
mod serde_message;
mod unknown;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::config::locations::Locations;
use crate::config::renamed::{RENAMED, Renamed};
use crate::config::serde_message::reword;
use crate::config::unknown::{describe_key, describe_section, known_keys, nested_key};
use crate::server::connection;
use crate::{feed, http, ingest, phoenix, plugin, store, webhook};

/// The default configuration file, which documents every setting.
pub const DEFAULTS: &str = include_str!("killstream.toml");

/// Environment variables and the settings they set.
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
    ("WEBHOOK_ALLOW_NETWORKS", "webhook.allow_networks"),
];

/// Settings of a section that are also accepted before the first section.
const TOP_LEVEL: &[(&str, &str)] = &[
    ("min_free_bytes", "store"),
    ("preload_max_killmails", "feed"),
    ("trusted_proxies", "http"),
    ("sources", "ingest"),
];

/// The settings at the top of the file, before the first section.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// The data folder; created if missing.
    pub data_dir: PathBuf,
    /// The address to listen on.
    pub bind_ip: IpAddr,
    /// The port to listen on; 0 picks a free one, which the ready line names.
    pub port: u16,
    /// The admin token. Unset: the one in the file `token` in the data folder, created at first start.
    pub api_token: Option<String>,
    /// How long shutdown waits for connections to close, milliseconds.
    pub grace_ms: u64,
    /// File descriptors reserved for the store and the sources, which connections cannot use; at most half of
    /// the process limit.
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

/// The whole configuration, by section.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The settings before the first section.
    pub server: Server,
    /// `[connections]`: limits of every connection, whatever it serves.
    pub connections: connection::Config,
    /// `[ingest]`: where killmails come from.
    pub ingest: ingest::config::Config,
    /// `[store]`: how killmails are kept on disk.
    pub store: store::config::Config,
    /// `[feed]`: how readers move through the log.
    pub feed: feed::config::Config,
    /// `[plugin]`: what plugins may use.
    pub plugin: plugin::limits::Config,
    /// `[http]`, and with it `[sse]`, `[health]` and `[mirror]`.
    pub http: http::config::Config,
    /// `[channels]`: the Phoenix channels.
    pub channels: phoenix::config::Config,
    /// `[webhook]`: killmails sent to URLs.
    pub webhook: webhook::config::Config,
    /// The renamed settings that were given under their old name.
    pub renamed: Vec<&'static Renamed>,
}

impl Config {
    /// The address and port to listen on.
    #[must_use]
    pub const fn listen_addr(&self) -> SocketAddr {
        SocketAddr::new(self.server.bind_ip, self.server.port)
    }
}

/// Everything that is wrong with the configuration, a line each, naming the setting and where it was set.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", .0.join("\n"))]
pub struct ConfigErrors(pub Vec<String>);

/// A configuration file.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Its content.
    pub text: &'a str,
}

/// Merges a file, the environment, and flags as settings (`ingest.source`) with their values.
///
/// # Errors
/// All that is wrong in any of them.
pub fn gather(
    file: Option<File<'_>>,
    environment: &dyn Fn(&str) -> Option<String>,
    flags: Vec<(&'static str, Value)>,
) -> Result<Config, ConfigErrors> {
    let mut layers = Layers::default();
    if let Some(file) = file {
        match file.text.parse::<Table>() {
            Ok(mut table) => {
                layers.locations = Locations::of(file);
                layers.renamed =
                    renamed::apply(RENAMED, &mut table, &mut layers.locations, &mut layers.errors);
                layers.add_file(table);
            }
            Err(error) => {
                let message = format!("{} is not valid TOML: {}", file.name, error.to_string().trim_end());
                return Err(ConfigErrors(vec![message]));
            }
        }
    }
    for (variable, setting) in ENVIRONMENT {
        // An empty variable is how compose files spell "not set".
        if let Some(text) = environment(variable).filter(|text| !text.is_empty()) {
            let origin = Some((*variable).to_owned());
            layers.set(setting, Setting { origin, value: Value::String(text) });
        }
    }
    for (setting, value) in flags {
        let flag = format!("--{}", setting.rsplit('.').next().unwrap_or(setting).replace('_', "-"));
        layers.set(setting, Setting { origin: Some(flag), value });
    }
    layers.into_config()
}

/// Every section (empty: before the first one) and its keys. A section is named like the module that owns its
/// struct; those of parts of `http` and of `phoenix` are named like what users know them by.
fn sections() -> Vec<(&'static str, Vec<String>)> {
    vec![
        ("", known_keys::<Server>()),
        ("connections", known_keys::<connection::Config>()),
        ("ingest", known_keys::<ingest::config::Config>()),
        ("store", known_keys::<store::config::Config>()),
        ("feed", known_keys::<feed::config::Config>()),
        ("plugin", known_keys::<plugin::limits::Config>()),
        ("http", known_keys::<http::config::Config>()),
        ("sse", known_keys::<http::stream::stream_config::Config>()),
        ("health", known_keys::<http::routes::health_config::Config>()),
        ("mirror", known_keys::<http::routes::mirror_state::Config>()),
        ("channels", known_keys::<phoenix::config::Config>()),
        ("webhook", known_keys::<webhook::config::Config>()),
    ]
}

/// A value, and the environment variable or flag that gave it, if it is not from the file. The text of one may
/// stand for a number or for a comma-separated list.
#[derive(Debug)]
struct Setting {
    origin: Option<String>,
    value: Value,
}

/// The layers merged so far.
#[derive(Debug, Default)]
struct Layers {
    /// Section (empty: before the first one) to key to value.
    sections: BTreeMap<String, BTreeMap<String, Setting>>,
    locations: Locations,
    renamed: Vec<&'static Renamed>,
    errors: Vec<String>,
}

impl Layers {
    fn add_file(&mut self, table: Table) {
        for (name, value) in table {
            match value {
                Value::Table(settings) => {
                    let section = self.sections.entry(name).or_default();
                    section.extend(
                        settings.into_iter().map(|(key, value)| (key, Setting { origin: None, value })),
                    );
                }
                value => {
                    let section = TOP_LEVEL.iter().find(|(key, _)| *key == name);
                    let section = section.map_or("", |(_, section)| section);
                    let settings = self.sections.entry(section.to_owned()).or_default();
                    settings.insert(name, Setting { origin: None, value });
                }
            }
        }
    }

    fn set(&mut self, name: &str, setting: Setting) {
        let (section, key) = name.split_once('.').unwrap_or(("", name));
        self.sections.entry(section.to_owned()).or_default().insert(key.to_owned(), setting);
    }

    fn into_config(mut self) -> Result<Config, ConfigErrors> {
        let mut config = Config {
            server: self.read_section(""),
            connections: self.read_section("connections"),
            ingest: self.read_section("ingest"),
            store: self.read_section("store"),
            feed: self.read_section("feed"),
            plugin: self.read_section("plugin"),
            http: self.read_section("http"),
            channels: self.read_section("channels"),
            webhook: self.read_section("webhook"),
            renamed: self.renamed.clone(),
        };
        config.http.sse = self.read_section("sse");
        config.http.health = self.read_section("health");
        config.http.mirror = self.read_section("mirror");
        config.store.dir.clone_from(&config.server.data_dir);
        config.ingest.normalize();
        for name in self.sections.keys() {
            let location = self.locations.describe(name, "");
            self.errors.push(format!("{name}: {}{location}", describe_section(name)));
        }
        self.errors.extend(config.ingest.validate());
        if self.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(self.errors)) }
    }

    /// Deserializes a section key by key, so that one error does not hide another.
    fn read_section<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        let mut good = Table::new();
        for (key, setting) in self.sections.remove(name).unwrap_or_default() {
            match accepted_value::<T>(&key, &setting) {
                Ok(value) => {
                    good.insert(key, value);
                }
                Err(message) => {
                    let nested = nested_key(&key, &message)
                        .map(|nested| self.locations.describe(&key, nested))
                        .filter(|location| !location.is_empty());
                    let location = nested.unwrap_or_else(|| self.locations.describe(name, &key));
                    let why = describe_key(name, &key, &message).unwrap_or_else(|| reword(&message));
                    let dot = if name.is_empty() { "" } else { "." };
                    self.errors.push(match setting.origin {
                        Some(origin) => format!("{origin}: {why}"),
                        None => format!("{name}{dot}{key}: {why}{location}"),
                    });
                }
            }
        }
        match good.try_into() {
            Ok(section) => section,
            Err(error) => {
                self.errors.push(format!("{name}: {}", error.message()));
                T::default()
            }
        }
    }
}

/// The value, if the section accepts it under this key, else serde's message.
fn accepted_value<T: DeserializeOwned>(key: &str, setting: &Setting) -> Result<Value, String> {
    let check = |value: &Value| {
        let table = Table::from_iter([(key.to_owned(), value.clone())]);
        table.try_into::<T>().map(drop).map_err(|error| error.message().to_owned())
    };
    let message = match check(&setting.value) {
        Ok(()) => return Ok(setting.value.clone()),
        Err(message) => message,
    };
    let text = match (&setting.origin, &setting.value) {
        (Some(_), Value::String(text)) => text,
        _ => return Err(message),
    };
    let list = || {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| Value::String(part.to_owned()))
            .collect()
    };
    let readings = [
        text.parse().ok().map(Value::Integer),
        text.parse().ok().map(Value::Float),
        text.parse().ok().map(Value::Boolean),
        Some(Value::Array(list())),
    ];
    readings.into_iter().flatten().find(|value| check(value).is_ok()).ok_or(message)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::telemetry::source_kind::SourceKind;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    const fn file<'a>(name: &'a str, text: &'a str) -> Option<File<'a>> {
        Some(File { name, text })
    }

    fn from_file(text: &str) -> Result<Config, ConfigErrors> {
        gather(file("killstream.toml", text), &nothing, vec![])
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
            gather(file("a.toml", "port = 1\ndata_dir = 'x'\n"), &look, vec![("port", Value::Integer(3))])
                .unwrap();
        assert_eq!(config.listen_addr(), "[::1]:3".parse().unwrap());
        assert_eq!(config.store.dir, PathBuf::from("x"));
        assert_eq!(config.ingest.user_agent_contact.as_deref(), Some("12"));
        assert_eq!(config.ingest.source, SourceKind::R2z2);
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let text = "port = 'x'\nnonsense = 1\n[ingest]\nsource = 'rediscue'\nr2z2_pace_ms = 1\nspeed = 2\n[storage]\na = 1\n";
        let look = |name: &str| (name == "BIND_IP").then(|| "here".to_owned());
        let ConfigErrors(errors) =
            gather(file("a.toml", text), &look, vec![("ingest.replay_speed", Value::Float(-1.0))])
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
            assert!(errors.iter().any(|error| error.starts_with(part)), "{part} is not in {errors:#?}");
        }
        assert_eq!(errors.len(), 8, "{errors:#?}");
    }

    #[test]
    fn origin_host_sets_pages_and_channels() {
        let look =
            |name: &str| (name == "ORIGIN_HOST").then(|| "https://yourdomain.com, *.example.org".to_owned());
        let config = gather(file("a.toml", "[http]\ncors_origins = []"), &look, vec![]).unwrap();
        assert_eq!(config.http.cors_origins, ["https://yourdomain.com", "*.example.org"]);
        assert_eq!(config.channels.origins, config.http.cors_origins);
        assert_eq!(gather(None, &nothing, vec![]).unwrap().channels.origins, ["*"]);
    }

    #[test]
    fn a_misspelt_setting_is_reported_with_its_line_and_the_one_that_was_meant() {
        let text = "prot = 5\ncached_max = 7\n[ingest]\n# a comment\nr2z2_idel_ms = 6000\nport = 4\n\n[htttp]\nx = 1\n\
                    [store]\nzzz = 1\n[[ingest.sources]]\nkind = 'r2z2'\nurll = 'x'\n";
        let ConfigErrors(errors) = from_file(text).unwrap_err();
        for expected in [
            "prot: unknown setting; did you mean port? (killstream.toml, line 1)",
            "cached_max: unknown setting; cached_max belongs in [http] (killstream.toml, line 2)",
            "ingest.r2z2_idel_ms: unknown setting in [ingest]; did you mean r2z2_idle_ms? (killstream.toml, line 5)",
            "ingest.port: unknown setting in [ingest]; port belongs before the first [section] (killstream.toml, line 6)",
            "htttp: unknown section; did you mean [http]? (killstream.toml, line 8)",
            "store.zzz: unknown setting in [store]; `killstream serve --print-config` lists all settings (killstream.toml, line 11)",
            "ingest.sources: unknown setting urll; did you mean url? (killstream.toml, line 14)",
        ] {
            assert!(errors.iter().any(|error| error == expected), "{expected} is not in {errors:#?}");
        }
        assert_eq!(errors.len(), 7, "{errors:#?}");
        let ConfigErrors(errors) = from_file("port = 'x'\n").unwrap_err();
        assert!(
            errors[0].starts_with("port: ") && errors[0].ends_with("(killstream.toml, line 1)"),
            "{errors:?}"
        );
    }

    #[test]
    fn an_old_name_still_works_and_is_reported() {
        let config = from_file("[ingest]\nr2z2_ghost_ms = 7\n").unwrap();
        let Renamed { old, new } = config.renamed[0];
        assert_eq!((config.ingest.r2z2_missing_ms, config.renamed.len()), (7, 1));
        assert_eq!((*old, *new), ("ingest.r2z2_ghost_ms", "ingest.r2z2_missing_ms"));
        let ConfigErrors(errors) = from_file("[ingest]\nr2z2_ghost_ms = 'x'\n").unwrap_err();
        let expected = "ingest.r2z2_missing_ms: expected a whole number of at least 0, got \"x\" \
                        (killstream.toml, line 2, as ingest.r2z2_ghost_ms)";
        assert_eq!(errors, [expected]);
    }

    #[test]
    fn a_broken_file_says_where() {
        let ConfigErrors(errors) = from_file("port = \n").unwrap_err();
        assert!(errors[0].contains("line 1") && errors[0].contains("killstream.toml"), "{errors:?}");
    }
}
