//! The sections of the configuration, the keys of each, and the module that owns it.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::config::Server;
use crate::config::unknown::quoted;
use crate::server::connection;
use crate::{feed, http, ingest, phoenix, plugin, store};

/// Settings of a section that are also accepted before the first section.
pub const TOP_LEVEL: &[(&str, &str)] = &[
    ("min_free_bytes", "store"),
    ("preload_max_killmails", "feed"),
    ("trusted_proxies", "http"),
    ("sources", "ingest"),
];

/// Every section (empty: before the first one) and its keys. A section is named like the module that owns its
/// struct, or, for parts of `http` and for `phoenix`, like what users know it by.
#[must_use]
pub fn all() -> Vec<(&'static str, Vec<String>)> {
    vec![
        ("", keys::<Server>()),
        ("connections", keys::<connection::Config>()),
        ("ingest", keys::<ingest::config::Config>()),
        ("store", keys::<store::config::Config>()),
        ("feed", keys::<feed::config::Config>()),
        ("plugin", keys::<plugin::limits::Config>()),
        ("http", keys::<http::config::Config>()),
        ("sse", keys::<http::stream::stream_limits::Config>()),
        ("health", keys::<http::routes::health_config::Config>()),
        ("mirror", keys::<http::routes::mirror_state::Config>()),
        ("channels", keys::<phoenix::config::Config>()),
    ]
}

/// The keys a section knows, read from serde's message about a key it does not know.
fn keys<T: DeserializeOwned>() -> Vec<String> {
    let table = Table::from_iter([("?".to_owned(), Value::Integer(0))]);
    let message = table.try_into::<T>().err().map(|error| error.message().to_owned()).unwrap_or_default();
    quoted(&message).skip(1).map(str::to_owned).collect()
}
