//! Progress of long operations on a store.
//!
//! Must not know: who shows it, or how.

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is being done, for people.
    pub phase: &'static str,
    pub done: u64,
    /// Steps in total; 0 if that is not known.
    pub total: u64,
}

/// Called with each reported step.
pub type Progress<'a> = dyn Fn(Step) + 'a;

/// Steps between two reports.
const REPORT_EVERY: u64 = 256;

/// Counts the steps of one phase, and reports the last one when it is dropped.
pub struct Phase<'a> {
    progress: &'a Progress<'a>,
    step: Step,
}

impl<'a> Phase<'a> {
    /// Begins a phase of about `total` steps.
    pub fn new(progress: &'a Progress<'a>, phase: &'static str, total: u64) -> Self {
        let step = Step { phase, done: 0, total };
        progress(step);
        Self { progress, step }
    }

    /// Counts more steps as done.
    pub fn advance(&mut self, steps: u64) {
        let before = self.step.done / REPORT_EVERY;
        self.step.done += steps;
        if self.step.done / REPORT_EVERY != before {
            (self.progress)(self.step);
        }
    }
}

impl Drop for Phase<'_> {
    fn drop(&mut self) {
        (self.progress)(self.step);
    }
}
