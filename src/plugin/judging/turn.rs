//! An evaluator judging on its thread: killmails one after another, with its instance at hand.
//!
//! Must not know: queues, or who waits for the verdicts.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::domain::entry::{Origin, Page, SharedEntry};
use crate::domain::verdict::{Failure, Fault, Verdict};
use crate::plugin::history::Bound;
use crate::plugin::judging::evaluator::Evaluator;
use crate::plugin::judging::run::{Instance, Judged, Run};
use crate::plugin::sandbox::guest::{Guest, MemoryShortage};
use crate::plugin::sandbox::setup::Setup;

/// An evaluator at work, with its instance at hand; put back when dropped.
pub struct Turn<'a> {
    evaluator: &'a Evaluator,
    setup: &'a Setup,
    run: Run,
    guest: Option<Box<Guest>>,
    /// The last call ended for want of memory that others hold.
    crowded: Option<MemoryShortage>,
    /// The fault that the last call of this turn ended in.
    failed: Option<Fault>,
    /// A call of this turn ended because of what all guests hold together.
    crowded_out: bool,
}

impl<'a> Turn<'a> {
    /// Begins to judge, on the thread the evaluator belongs to: its instance is taken out once for many
    /// killmails.
    #[must_use]
    pub fn begin(evaluator: &'a Evaluator, setup: &'a Setup, run: Run) -> Self {
        let guest = evaluator.take_instance(run);
        Self { evaluator, setup, run, guest, crowded: None, failed: None, crowded_out: false }
    }

    /// The fault that the last call ended in. An earlier one took less than a turn, which would have ended
    /// with it otherwise.
    #[must_use]
    pub const fn failed(&self) -> Option<Fault> {
        self.failed
    }

    /// Whether a call ended because of what all guests hold together.
    #[must_use]
    pub const fn was_crowded_out(&self) -> bool {
        self.crowded_out
    }

    /// Judges the killmail at this place of the page.
    pub fn judge(&mut self, page: &Page, at: usize) -> Judged {
        let entry = &page[at];
        let counters = self.evaluator.component().counters();
        if !self.evaluator.accepts(entry) {
            counters.passed_over();
            return Ok(Verdict::Drop);
        }
        if self.run == Run::Live
            && let Some(answer) = self.evaluator.remembered(entry)
        {
            counters.remembered(1);
            return answer;
        }
        let record = self.evaluator.record().of(self.run);
        if let Some(fault) = record.rests() {
            counters.at_rest();
            return Err(record.words_at_rest(fault));
        }
        self.failed = None;
        let answer = catch_unwind(AssertUnwindSafe(|| self.call(page, at))).unwrap_or_else(|_| {
            let id = entry.killmail.killmail_id;
            tracing::error!(plugin.digest = self.evaluator.digest(), "judging killmail {id} panicked");
            Err(Failure::new(Fault::Trap, "the server failed while it was called"))
        });
        counters.judged(&answer, entry.killmail.killmail_id);
        if let Err(failure) = &answer {
            self.log(failure, entry);
        }
        if let Some(crowded) = self.crowded.take() {
            record.undecided();
            match crowded {
                MemoryShortage::AllGuests => self.crowded_out = true,
                MemoryShortage::OneAddress => self.failed = Some(Fault::Memory),
            }
            // The next one may find room: equal pairs must not hear of this one's want of it.
            return answer;
        }
        record.called(answer.as_ref().err());
        self.failed = answer.as_ref().err().map(|failure| failure.fault);
        if self.run == Run::Live {
            self.evaluator.remember(entry, &answer);
        }
        answer
    }

    fn call(&mut self, page: &Page, at: usize) -> Judged {
        let entry = &page[at];
        // Taken out for the call: should the call panic, no broken instance is left behind.
        let mut guest = match self.guest.take() {
            Some(guest) => guest,
            None => self.evaluator.instantiate(self.setup).map_err(|(failure, crowded)| {
                self.crowded = crowded;
                failure
            })?,
        };
        let answer = guest.evaluate(page, at, bound(entry, self.run));
        let alive = answer.as_ref().err().is_none_or(|failure| failure.fault == Fault::BadOutput);
        self.crowded =
            answer.as_ref().err().and(guest.out_of_budget()).and_then(MemoryShortage::from_refusal);
        if alive && self.evaluator.instance() == Instance::Warm {
            self.guest = Some(guest);
        }
        answer
    }

    /// Tells the operator of a fault, as far as the plugin's log may grow.
    fn log(&self, failure: &Failure, entry: &SharedEntry) {
        let component = self.evaluator.component();
        let counters = component.counters();
        if counters.may_log_line(failure.message.len(), self.setup.config.log_bytes_per_minute) {
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

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.evaluator.put_instance(self.run, self.guest.take());
    }
}

/// What of history is before this killmail: the same in every run.
fn bound(entry: &SharedEntry, run: Run) -> Bound {
    let head = match (entry.origin, run) {
        (Origin::Backfill, Run::History { head }) => head,
        _ => entry.seq,
    };
    Bound { below: entry.killmail.killmail_id, head }
}
