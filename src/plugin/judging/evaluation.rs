//! An evaluator at work on its thread: it judges killmails one after another with its instance at hand.
//!
//! Must not know: queues, or who waits for the verdicts.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::domain::entry::{Origin, Page, SharedEntry};
use crate::domain::verdict::{Failure, Fault, Verdict};
use crate::plugin::history::Bound;
use crate::plugin::judging::evaluator::Evaluator;
use crate::plugin::judging::run::{Instance, Judgment, Run};
use crate::plugin::sandbox::guest::{Guest, MemoryShortage};
use crate::plugin::sandbox::setup::Setup;

/// An evaluator at work during one time slice. Puts its instance back when dropped.
pub struct Evaluation<'a> {
    evaluator: &'a Evaluator,
    setup: &'a Setup,
    run: Run,
    guest: Option<Box<Guest>>,
    /// Whose memory was used up in the last call, if that ended it.
    memory_shortage: Option<MemoryShortage>,
    /// The fault of the last call of this time slice.
    last_fault: Option<Fault>,
    /// A call of this time slice ended because guests have no memory left.
    short_of_memory: bool,
}

impl<'a> Evaluation<'a> {
    /// Starts a time slice, on the thread of the evaluator. The instance is taken out once for many
    /// killmails.
    #[must_use]
    pub fn begin(evaluator: &'a Evaluator, setup: &'a Setup, run: Run) -> Self {
        let guest = evaluator.take_instance(run);
        Self { evaluator, setup, run, guest, memory_shortage: None, last_fault: None, short_of_memory: false }
    }

    /// The fault of the last call. Earlier faults took less than the time slice, or it would have ended with
    /// them.
    #[must_use]
    pub const fn last_fault(&self) -> Option<Fault> {
        self.last_fault
    }

    /// Whether a call ended because guests have no memory left.
    #[must_use]
    pub const fn was_short_of_memory(&self) -> bool {
        self.short_of_memory
    }

    /// Judges one killmail of the page.
    pub fn judge(&mut self, page: &Page, at: usize) -> Judgment {
        let entry = &page[at];
        let counters = self.evaluator.component().counters();
        if !self.evaluator.accepts(entry) {
            counters.record_passed_over();
            return Ok(Verdict::Drop);
        }
        if self.run == Run::Live
            && let Some(answer) = self.evaluator.remembered(entry)
        {
            counters.record_remembered(1);
            return answer;
        }
        let record = self.evaluator.record().for_run(self.run);
        if let Some(fault) = record.blocking_fault() {
            counters.record_at_rest();
            return Err(record.quarantine_failure(fault));
        }
        self.last_fault = None;
        let answer = catch_unwind(AssertUnwindSafe(|| self.call(page, at))).unwrap_or_else(|_| {
            let id = entry.killmail.killmail_id;
            tracing::error!(plugin.digest = self.evaluator.digest(), "judging killmail {id} panicked");
            Err(Failure::new(Fault::Trap, "the server failed while it was called"))
        });
        counters.record_call(&answer, entry.killmail.killmail_id);
        if let Err(failure) = &answer {
            self.log(failure, entry);
        }
        if let Some(shortage) = self.memory_shortage.take() {
            record.record_inconclusive();
            match shortage {
                MemoryShortage::AllGuests => self.short_of_memory = true,
                MemoryShortage::OneAddress => self.last_fault = Some(Fault::Memory),
            }
            // Not remembered for equal pairs: the next call may find memory.
            return answer;
        }
        record.record_call(answer.as_ref().err());
        self.last_fault = answer.as_ref().err().map(|failure| failure.fault);
        if self.run == Run::Live {
            self.evaluator.remember(entry, &answer);
        }
        answer
    }

    fn call(&mut self, page: &Page, at: usize) -> Judgment {
        let entry = &page[at];
        // Taken out for the call, so that a panic leaves no broken instance behind.
        let mut guest = match self.guest.take() {
            Some(guest) => guest,
            None => self.evaluator.instantiate(self.setup).map_err(|(failure, shortage)| {
                self.memory_shortage = shortage;
                failure
            })?,
        };
        let answer = guest.evaluate(page, at, history_bound(entry, self.run));
        let is_alive = answer.as_ref().err().is_none_or(|failure| failure.fault == Fault::BadOutput);
        self.memory_shortage =
            answer.as_ref().err().and(guest.out_of_budget()).and_then(MemoryShortage::from_refusal);
        if is_alive && self.evaluator.instance() == Instance::Warm {
            self.guest = Some(guest);
        }
        answer
    }

    /// Logs a fault for the operator, within the log limit of the plugin.
    fn log(&self, failure: &Failure, entry: &SharedEntry) {
        let component = self.evaluator.component();
        let counters = component.counters();
        if counters.try_log_line(failure.message.len(), self.setup.config.log_bytes_per_minute) {
            let (name, digest, id) = (component.label(), self.evaluator.digest(), entry.killmail.killmail_id);
            tracing::warn!(
                plugin.id = name,
                plugin.digest = digest,
                killmail.id = id,
                "plugin {name} failed on killmail {id}: {failure}"
            );
        }
    }
}

impl Drop for Evaluation<'_> {
    fn drop(&mut self) {
        self.evaluator.put_instance(self.run, self.guest.take());
    }
}

/// The history that the guest sees for this killmail: what came before it, the same in every run.
fn history_bound(entry: &SharedEntry, run: Run) -> Bound {
    let head = match (entry.origin, run) {
        (Origin::Backfill, Run::History { head }) => head,
        _ => entry.seq,
    };
    Bound { below: entry.killmail.killmail_id, head }
}
