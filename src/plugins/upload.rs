//! An upload: how it is to be accepted, and what it led to.
//!
//! Must not know: how components are compiled.

use crate::plugin::judging::repeatability_trial::TrialReport;
use crate::plugin::judging::run::Instance;
use crate::plugins::components::Held;
use crate::plugins::manifest::{Standing, Version};
use crate::store::plugins::compiled::UploadFile;

/// How an upload is to be taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Upload {
    /// Active at once, whatever was before.
    pub promote: bool,
    /// How long instances live; as before, else warm.
    pub instance: Option<Instance>,
}

/// An upload that may run.
#[derive(Debug)]
pub struct Accepted<'a> {
    /// Its bytes.
    pub file: &'a UploadFile,
    /// What was made of them.
    pub held: Held,
    /// What came of its trial.
    pub tried: TrialReport,
    /// How it is to be taken.
    pub how: Upload,
}

/// What an upload led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The version.
    pub version: Version,
    /// Where it stands.
    pub standing: Standing,
    /// Whether it was not known before.
    pub new: bool,
}
