//! A plugin as it is listed: its versions and the state of each.
//!
//! Must not know: components, or how they evaluate.

use crate::plugins::manifest::{Manifest, Version, VersionState};

/// A plugin and its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginSummary {
    /// The plugin's name.
    pub name: String,
    /// The active version, else the newest.
    pub version: Version,
    /// The state of that version.
    pub state: VersionState,
    /// All versions, the newest last.
    pub versions: Vec<(Version, VersionState)>,
}

/// Summarizes a manifest; `None` if it has no versions.
#[must_use]
pub fn summarize(name: &str, manifest: &Manifest) -> Option<PluginSummary> {
    let version = manifest.active_version().or_else(|| manifest.versions.last())?.clone();
    let state = manifest.state_of(&version.digest);
    let versions = manifest.versions.iter().map(|v| (v.clone(), manifest.state_of(&v.digest))).collect();
    Some(PluginSummary { name: name.to_owned(), version, state, versions })
}
