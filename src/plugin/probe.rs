//! The trial of a plugin before it is used: the same killmails, forward on one instance and backward on another, must give the same verdicts.
//!
//! Law 7 (same in, same out) is tried here, at upload.
//!
//! Must not know: where the sample comes from.

use std::sync::Arc;

use crate::domain::entry::{Page, SharedEntry};
use crate::plugin::component::Component;
use crate::plugin::error::Refusal;
use crate::plugin::evaluator::Answer;
use crate::plugin::guest::Guest;
use crate::plugin::history::Bound;
use crate::plugin::setup::Setup;

/// What a configuration is where none was given.
pub const NO_CONFIG: &str = "{}";

/// Tries an upload with its manifest's default configuration, `{}` without one: whether it was tried at all, which it is not where it
/// refuses that.
///
/// # Errors
/// As [`probe`].
pub fn by_default(setup: &Setup, component: &Component, sample: &[SharedEntry]) -> Result<bool, Refusal> {
    match probe(setup, component, component.default_config().unwrap_or(NO_CONFIG), sample) {
        Ok(()) => Ok(true),
        Err(Refusal::Configure(_)) => Ok(false),
        Err(refusal) => Err(refusal),
    }
}

/// Judges the sample twice.
///
/// # Errors
/// `Configure`, `Instantiate`, or `NotRepeatable` with the killmail whose verdicts differ.
pub fn probe(setup: &Setup, component: &Component, config: &str, sample: &[SharedEntry]) -> Result<(), Refusal> {
    let page: Page = Arc::new(sample.to_vec());
    let forward = judge(setup, component, config, &page, 0..page.len())?;
    let mut backward = judge(setup, component, config, &page, (0..page.len()).rev())?;
    backward.reverse();
    for ((entry, there), back) in sample.iter().zip(forward).zip(backward) {
        if there != back {
            let id = entry.killmail.killmail_id;
            return Err(Refusal::NotRepeatable(format!(
                "killmail {id} got {there:?} with the sample forward and {back:?} with it backward; \
                 a verdict must not depend on killmails judged before (use `history`, or upload with instance=fresh)"
            )));
        }
    }
    Ok(())
}

fn judge(
    setup: &Setup,
    component: &Component,
    config: &str,
    page: &Page,
    order: impl Iterator<Item = usize>,
) -> Result<Vec<Answer>, Refusal> {
    let make = || {
        let mut guest = Guest::new(setup, component)?;
        guest.configure(setup, config)?;
        Ok(guest)
    };
    let mut guest = make()?;
    let mut answers = Vec::new();
    for at in order {
        let entry = &page[at];
        let bound = Bound { below: entry.killmail.killmail_id, head: entry.seq };
        let answer = guest.evaluate(page, at, bound).map_err(|(fault, _)| fault);
        if answer.is_err() {
            guest = make()?;
        }
        answers.push(answer);
    }
    Ok(answers)
}
