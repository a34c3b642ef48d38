//! A subscription: a filter, an optional plugin, and how old a live killmail may be.
//!
//! Must not know: who subscribes, or over which transport.

use crate::domain::filter::Filter;

/// Default of `max_age_secs`: one hour, as in WandererKills.
pub const MAX_AGE_SECS: u32 = 3600;

/// A plugin by name, and the configuration it runs with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PluginUse {
    /// Name of the plugin.
    pub name: String,
    /// `sha256:<hex>` to require a version; otherwise the active one is used.
    pub version: Option<String>,
    /// Configuration as JSON; `{}` if none was given.
    pub config: String,
}

/// What a reader delivers.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// Which killmails match.
    pub filter: Filter,
    /// The plugin that decides about matching killmails.
    pub plugin: Option<PluginUse>,
    /// Live delivery skips killmails that were older than this when they arrived, seconds; 0: no limit.
    pub max_age_secs: u32,
}

impl Default for Subscription {
    fn default() -> Self {
        Self { filter: Filter::default(), plugin: None, max_age_secs: MAX_AGE_SECS }
    }
}
