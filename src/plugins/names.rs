//! What names a plugin, and one of its versions.
//!
//! Must not know: which plugins there are.

use crate::plugins::Error;
use crate::plugins::manifest::{Manifest, Unnamed, Version};

/// The longest name, letters.
const NAME_LEN_MAX: usize = 63;

/// The version of a plugin that a digest, or its beginning, names.
///
/// # Errors
/// None, several, or not a digest.
pub fn named(manifest: &Manifest, name: &str, digest: &str) -> Result<Version, Error> {
    let (name, asked) = (|| name.to_owned(), digest.to_owned());
    match manifest.named(digest) {
        Ok(version) => Ok(version.clone()),
        Err(Unnamed::Unknown) => Err(Error::UnknownVersion { name: name(), digest: asked }),
        Err(Unnamed::Malformed) => Err(Error::MalformedDigest { digest: asked }),
        Err(Unnamed::Ambiguous(count)) => Err(Error::AmbiguousDigest { name: name(), digest: asked, count }),
    }
}

/// Whether a plugin may have this name.
///
/// # Errors
/// It may not.
pub fn check_name(name: &str) -> Result<(), Error> {
    let good = name.len() <= NAME_LEN_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        // Its routes are those of uploads on their way.
        && name != "uploads";
    if good { Ok(()) } else { Err(Error::BadName { max: NAME_LEN_MAX }) }
}
