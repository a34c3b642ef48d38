//! How far long work on a store has come.
//!
//! Must not know: who shows it, or how.

/// One step of long work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is being done, for people.
    pub phase: &'static str,
    /// How much of it is done.
    pub done: u64,
    /// Out of how much; 0 where that is not known.
    pub total: u64,
}

/// Is told of steps now and then.
pub type Progress<'a> = dyn Fn(Step) + 'a;

/// Steps between two reports.
const EVERY: u64 = 256;

/// Counts the steps of one phase.
pub struct Phase<'a> {
    progress: &'a Progress<'a>,
    step: Step,
}

impl<'a> Phase<'a> {
    /// Begins a phase of about so many steps.
    pub fn new(progress: &'a Progress<'a>, phase: &'static str, total: u64) -> Self {
        let step = Step { phase, done: 0, total };
        progress(step);
        Self { progress, step }
    }

    /// So many more steps are done.
    pub fn advance(&mut self, steps: u64) {
        let before = self.step.done / EVERY;
        self.step.done += steps;
        if self.step.done / EVERY != before {
            (self.progress)(self.step);
        }
    }
}

impl Drop for Phase<'_> {
    fn drop(&mut self) {
        (self.progress)(self.step);
    }
}
