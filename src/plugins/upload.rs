//! An upload: its options, and its result.
//!
//! Must not know: how components are compiled.

use crate::plugin::judging::repeatability_trial::TrialReport;
use crate::plugin::judging::run::Instance;
use crate::plugins::components::kept_component::KeptComponent;
use crate::plugins::manifest::{Version, VersionState};
use crate::store::plugins::compiled::UploadFile;

/// Options of an upload.
#[derive(Debug, Clone, Copy, Default)]
pub struct UploadOptions {
    /// Activate it at once, even if another version is active.
    pub promote: bool,
    /// How long its instances live; `None`: as for the known version, else warm.
    pub instance: Option<Instance>,
}

/// An upload that may run.
#[derive(Debug)]
pub struct CheckedUpload<'a> {
    /// The file with its bytes.
    pub file: &'a UploadFile,
    /// The component made from it.
    pub component: KeptComponent,
    /// The result of its trial.
    pub tried: TrialReport,
    /// The options it was uploaded with.
    pub options: UploadOptions,
}

/// The result of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The version.
    pub version: Version,
    /// Its state.
    pub state: VersionState,
    /// Whether the version was not known before.
    pub new: bool,
}
