//! What a reader reads: a filter, perhaps a plugin, and how old a live killmail may be.
//!
//! Must not know: who subscribes or over which door.

use crate::domain::filter::Filter;

/// The default of `max_age_secs`: upstream's live cutoff of one hour.
pub const MAX_AGE_SECS: u32 = 3600;

/// A plugin by name, with the configuration to judge by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PluginUse {
    /// The plugin's name.
    pub name: String,
    /// `sha256:<hex>` to insist on one version; the active one otherwise.
    pub version: Option<String>,
    /// Its configuration, JSON; `{}` if none was given.
    pub config: String,
}

/// What a reader reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// Which killmails.
    pub filter: Filter,
    /// Who judges them further.
    pub plugin: Option<PluginUse>,
    /// Live parts pass over what was older when it came; 0: no limit.
    pub max_age_secs: u32,
}

impl Default for Subscription {
    fn default() -> Self {
        Self { filter: Filter::default(), plugin: None, max_age_secs: MAX_AGE_SECS }
    }
}
