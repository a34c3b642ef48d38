//! The stored record of a plugin: its versions, the active one, and those that were active before. Version 1
//! of the record is this struct as JSON.
//!
//! Law 4 (old bytes stay readable): fields may be added with a default, but never renamed or removed.
//!
//! Must not know: components, how they run, or the disk.

use serde::{Deserialize, Serialize};

use crate::plugin::class::Class;
use crate::plugin::judging::run::Instance;

/// Versions kept of one plugin. Beyond this, retired versions are dropped first, then waiting ones, the
/// oldest first.
pub const VERSIONS_MAX: usize = 20;

/// The shortest prefix of a digest that may name a version, hex digits.
pub const PREFIX_DIGITS_MIN: usize = 8;

/// Why a digest does not name a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestError {
    /// No version's digest begins with it.
    Unknown,
    /// It is not hex, or too short.
    Malformed,
    /// This many versions' digests begin with it.
    Ambiguous(usize),
}

/// A plugin's record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// Its versions, the newest last.
    pub versions: Vec<Version>,
    /// Digest of the active version.
    pub active: Option<String>,
    /// Digests that were active before, the latest last.
    #[serde(default)]
    pub before: Vec<String>,
}

/// One uploaded version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// SHA-256 of the upload, 64 hex digits.
    pub digest: String,
    pub size_bytes: usize,
    /// When it was uploaded, unix seconds.
    pub uploaded_at: i64,
    /// Whether every call gets a new instance.
    #[serde(default)]
    pub fresh: bool,
    /// Whether it was tried for repeatability at its upload; if not, the first accepted configuration is
    /// tried.
    #[serde(default)]
    pub probed: bool,
    /// Its class; `None` for versions uploaded before there were classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// Findings of its trial that did not lead to a refusal, as sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionState {
    /// It evaluates killmails.
    Active,
    /// It was never active; `promote` activates it.
    Waiting,
    /// It was active before.
    Retired,
}

impl VersionState {
    /// The word that clients see.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Waiting => "uploaded",
            Self::Retired => "retired",
        }
    }
}

impl Version {
    /// How long its instances live.
    #[must_use]
    pub const fn instance(&self) -> Instance {
        if self.fresh { Instance::Fresh } else { Instance::Warm }
    }
}

impl Manifest {
    /// The active version, if there is one.
    #[must_use]
    pub fn active_version(&self) -> Option<&Version> {
        self.active.as_deref().and_then(|digest| self.version(digest))
    }

    /// The version with exactly this digest.
    #[must_use]
    pub fn version(&self, digest: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.digest == digest)
    }

    /// The version that a digest or a prefix of it names, with or without `sha256:`.
    ///
    /// # Errors
    /// It names no version, or several.
    pub fn find(&self, digest: &str) -> Result<&Version, DigestError> {
        let digits = digest.trim().strip_prefix("sha256:").unwrap_or(digest.trim()).to_ascii_lowercase();
        if digits.len() < PREFIX_DIGITS_MIN || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(DigestError::Malformed);
        }
        let mut found = self.versions.iter().filter(|version| version.digest.starts_with(&digits));
        let first = found.next().ok_or(DigestError::Unknown)?;
        match found.count() {
            0 => Ok(first),
            more => Err(DigestError::Ambiguous(more + 1)),
        }
    }

    /// As [`Manifest::version`], to change it.
    pub fn version_mut(&mut self, digest: &str) -> Option<&mut Version> {
        self.versions.iter_mut().find(|v| v.digest == digest)
    }

    /// The state of the version with this digest.
    #[must_use]
    pub fn state_of(&self, digest: &str) -> VersionState {
        if self.active.as_deref() == Some(digest) {
            VersionState::Active
        } else if self.before.iter().any(|b| b == digest) {
            VersionState::Retired
        } else {
            VersionState::Waiting
        }
    }

    /// Makes a version the active one.
    pub fn activate(&mut self, digest: &str) {
        if self.active.as_deref() == Some(digest) {
            return;
        }
        self.before.retain(|b| b != digest);
        self.before.extend(self.active.take());
        self.active = Some(digest.to_owned());
    }

    /// Activates the version that was active before; `false` if there was none.
    pub fn roll_back(&mut self) -> bool {
        let Some(before) = self.before.pop() else { return false };
        self.active = Some(before);
        true
    }

    /// Removes versions beyond [`VERSIONS_MAX`] and returns their digests.
    pub fn drop_old_versions(&mut self) -> Vec<String> {
        let mut gone = Vec::new();
        while self.versions.len() > VERSIONS_MAX {
            let last = self.versions.len() - 1;
            // The newest upload stays even if all others are waiting.
            let retired =
                self.versions[..last].iter().position(|v| self.state_of(&v.digest) == VersionState::Retired);
            let waiting = || {
                self.versions[..last].iter().position(|v| self.state_of(&v.digest) == VersionState::Waiting)
            };
            let Some(place) = retired.or_else(waiting) else { break };
            let version = self.versions.remove(place);
            self.before.retain(|b| *b != version.digest);
            gone.push(version.digest);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(n: usize) -> Version {
        Version {
            digest: format!("{n:064}"),
            size_bytes: n,
            uploaded_at: 0,
            fresh: false,
            probed: true,
            class: None,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn promotion_and_rollback_go_back_and_forth() {
        let mut manifest = Manifest { versions: (0..3).map(version).collect(), ..Manifest::default() };
        let digest = |n: usize| format!("{n:064}");
        for n in 0..3 {
            manifest.activate(&digest(n));
        }
        assert_eq!(manifest.state_of(&digest(0)), VersionState::Retired);
        assert!(manifest.roll_back());
        assert_eq!(manifest.active, Some(digest(1)));
        assert_eq!(
            manifest.state_of(&digest(2)),
            VersionState::Waiting,
            "the version rolled back waits to be promoted again"
        );
        manifest.activate(&digest(1));
        assert_eq!(manifest.before, [digest(0)], "promoting the active one changes nothing");
        assert!(manifest.roll_back());
        assert!(!manifest.roll_back());
        assert_eq!(manifest.active, Some(digest(0)));
    }

    #[test]
    fn old_versions_are_dropped_but_not_the_active_or_the_newest() {
        let mut manifest = Manifest { versions: (0..40).map(version).collect(), ..Manifest::default() };
        manifest.activate(&version(3).digest);
        manifest.activate(&version(0).digest);
        let gone = manifest.drop_old_versions();
        assert_eq!(gone.len(), 20);
        assert_eq!(gone[0], version(3).digest, "a retired version is dropped first");
        assert!(
            manifest.version(&version(0).digest).is_some() && manifest.version(&version(39).digest).is_some()
        );
    }

    #[test]
    fn a_version_is_found_by_any_unambiguous_prefix() {
        let digests = [
            "0123456789abcdef".repeat(4),
            format!("{}{}", "0123456789", "f".repeat(54)),
            "fedcba98".repeat(8),
        ];
        let versions =
            digests.iter().map(|digest| Version { digest: digest.clone(), ..version(0) }).collect();
        let manifest = Manifest { versions, ..Manifest::default() };
        let named = |digest: &str| manifest.find(digest).map(|version| version.digest.clone());
        for (digest, expected) in [
            ("fedcba98", Ok(2)),
            ("sha256:FEDCBA98fed", Ok(2)),
            ("0123456789a", Ok(0)),
            (&digests[1], Ok(1)),
            ("0123456789", Err(DigestError::Ambiguous(2))),
            ("fedcba9", Err(DigestError::Malformed)),
            ("sha256:", Err(DigestError::Malformed)),
            ("not hex at all", Err(DigestError::Malformed)),
            ("00000000", Err(DigestError::Unknown)),
        ] {
            assert_eq!(named(digest), expected.map(|at: usize| digests[at].clone()), "{digest}");
        }
    }

    #[test]
    fn law_4_the_first_record_can_still_be_read() {
        let text = r#"{"versions":[{"digest":"ab","size_bytes":5,"uploaded_at":7}],"active":"ab"}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        assert_eq!(manifest.state_of("ab"), VersionState::Active);
        assert_eq!(manifest.version("ab").map(|v| (v.instance(), v.probed)), Some((Instance::Warm, false)));
    }
}
