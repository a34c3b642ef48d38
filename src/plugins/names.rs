//! Checks names of plugins, and finds versions by digest.
//!
//! Must not know: which plugins there are.

use crate::plugins::error::PluginsError;
use crate::plugins::manifest::{DigestError, Manifest, Version};

/// The longest name, letters.
const NAME_LEN_MAX: usize = 63;

/// The version of a plugin that a digest or a prefix of it names.
///
/// # Errors
/// It names no version, or several, or it is not a digest.
pub fn find_version(manifest: &Manifest, name: &str, digest: &str) -> Result<Version, PluginsError> {
    let (name, asked) = (|| name.to_owned(), digest.to_owned());
    match manifest.find(digest) {
        Ok(version) => Ok(version.clone()),
        Err(DigestError::Unknown) => Err(PluginsError::UnknownVersion { name: name(), digest: asked }),
        Err(DigestError::Malformed) => Err(PluginsError::MalformedDigest { digest: asked }),
        Err(DigestError::Ambiguous(count)) => {
            Err(PluginsError::AmbiguousDigest { name: name(), digest: asked, count })
        }
    }
}

/// Checks whether a plugin may have this name.
///
/// # Errors
/// It may not.
pub fn check_name(name: &str) -> Result<(), PluginsError> {
    let good = name.len() <= NAME_LEN_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        // This is the route for the state of uploads.
        && name != "uploads";
    if good { Ok(()) } else { Err(PluginsError::BadName { max: NAME_LEN_MAX }) }
}
