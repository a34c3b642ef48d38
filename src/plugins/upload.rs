//! An upload: how it is to be accepted, and what it led to.
//!
//! Must not know: how components are compiled.

use crate::plugin::judging::probe::Tried;
use crate::plugin::judging::run::Instance;
use crate::plugins::components::KeptComponent;
use crate::plugins::manifest::{Version, VersionState};
use crate::store::plugins::compiled::UploadFile;

/// How an upload is to be taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct UploadOptions {
    /// Active at once, whatever was before.
    pub promote: bool,
    /// How long instances live; as before, else warm.
    pub instance: Option<Instance>,
}

/// An upload that may run.
#[derive(Debug)]
pub struct CheckedUpload<'a> {
    /// Its bytes.
    pub file: &'a UploadFile,
    /// What was made of them.
    pub component: KeptComponent,
    /// What came of its trial.
    pub tried: Tried,
    /// How it is to be taken.
    pub options: UploadOptions,
}

/// What an upload led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The version.
    pub version: Version,
    /// Where it stands.
    pub state: VersionState,
    /// Whether it was not known before.
    pub new: bool,
}
