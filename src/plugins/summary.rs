//! A plugin as it is listed: its versions, and where each stands.
//!
//! Must not know: components, or how they judge.

use crate::plugins::manifest::{Manifest, Standing, Version};

/// A plugin and its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// The version that judges, else the newest.
    pub version: Version,
    /// Where that version stands.
    pub standing: Standing,
    /// All versions, the newest last.
    pub versions: Vec<(Version, Standing)>,
}

/// Summarizes a manifest; `None` for one without versions.
#[must_use]
pub fn summary(name: &str, manifest: &Manifest) -> Option<Plugin> {
    let version = manifest.active_version().or_else(|| manifest.versions.last())?.clone();
    let standing = manifest.standing(&version.digest);
    let versions = manifest.versions.iter().map(|v| (v.clone(), manifest.standing(&v.digest))).collect();
    Some(Plugin { name: name.to_owned(), version, standing, versions })
}
