//! The trial of a plugin before it is used: the same killmails in other orders and numbers, each order on an
//! instance of its own, must give the same verdicts.
//!
//! Law 7 (same in, same out) is tried here, at upload. A trial is made of single calls, so that its thread
//! can do other things between them.
//!
//! Must not know: where the sample comes from, or on which thread it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::entry::{Page, SharedEntry};
use crate::domain::legible::legible;
use crate::domain::verdict::{Failure, Fault};
use crate::plugin::class::Class;
use crate::plugin::error::Refusal;
use crate::plugin::history::Bound;
use crate::plugin::judging::run::{Answer, Judged};
use crate::plugin::resources::cpu_clock::calls_cpu;
use crate::plugin::resources::purse::Purse;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::convert::GuestInterest;
use crate::plugin::sandbox::guest::Guest;
use crate::plugin::sandbox::setup::Setup;
use crate::plugin::sandbox::start::InstanceStart;

/// What a configuration is where none was given.
pub const NO_CONFIG: &str = "{}";

/// What came of an upload's trial that did not refuse it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tried {
    /// Whether it was tried at all.
    pub probed: bool,
    /// What its uploader should know, in sentences.
    pub warnings: Vec<String>,
}

/// Tries an upload with its manifest's default configuration, `{}` without one. It is not tried where it
/// refuses that in its own words.
///
/// # Errors
/// As [`probe`].
pub fn by_default(setup: &Setup, component: &Component, sample: &[SharedEntry]) -> Result<Tried, Refusal> {
    let mut trial = Trial::new(Arc::new(sample.to_vec()), Purse::new(None));
    match trial.run(setup, component, component.default_config().unwrap_or(NO_CONFIG)) {
        Ok(()) => {
            Ok(Tried { probed: true, warnings: trial.warning(setup.config.text_bytes).into_iter().collect() })
        }
        Err(_) if trial.start.is_refused_by_guest() => Ok(Tried::default()),
        Err(refusal) => Err(refusal),
    }
}

/// The calls of a trial that ended in a fault.
#[derive(Debug, Default)]
struct Faults {
    calls: u64,
    counts: BTreeMap<&'static str, u64>,
    first: Option<Failure>,
}

impl Faults {
    fn count(&mut self, answer: &Judged) {
        self.calls += 1;
        if let Err(failure) = answer {
            *self.counts.entry(failure.fault.word()).or_default() += 1;
            self.first.get_or_insert_with(|| failure.clone());
        }
    }

    /// What is to be said where most calls ended so: such a plugin is repeatable, but hardly what was meant.
    fn warning(&self, bytes_max: usize) -> Option<String> {
        let (faults, calls) = (self.counts.values().sum::<u64>(), self.calls);
        let first = self.first.as_ref().filter(|_| faults * 2 > calls)?;
        let how_many = if faults == calls { format!("all {calls}") } else { format!("{faults} of {calls}") };
        let counted: Vec<String> =
            self.counts.iter().map(|(word, count)| format!("{count} `{word}`")).collect();
        let what = match self.counts.len() {
            1 => format!("`{}`", first.fault),
            _ => format!("a fault ({}), the first `{}`", counted.join(", "), first.fault),
        };
        Some(legible(&format!("{how_many} calls of the trial ended in {what}: {}", first.message), bytes_max))
    }
}

/// Tries it at once, from beginning to end.
///
/// # Errors
/// As [`Trial::step`].
pub fn probe(
    setup: &Setup,
    component: &Component,
    config: &str,
    sample: &[SharedEntry],
) -> Result<(), Refusal> {
    Trial::new(Arc::new(sample.to_vec()), Purse::new(None)).run(setup, component, config)
}

/// An order in which the sample is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Forward,
    Backward,
    /// Without the last: where a sample has an odd number, this has an even one, and the other way round.
    /// What alternates shows.
    OneFewer,
    /// Each killmail twice in a row.
    Twice,
}

impl Order {
    const ALL: [Self; 4] = [Self::Forward, Self::Backward, Self::OneFewer, Self::Twice];

    /// The killmail of its so-manieth call, of a sample of so many; `None`: it is over.
    const fn at(self, call: usize, sample: usize) -> Option<usize> {
        let (calls, at) = match self {
            Self::Forward => (sample, call),
            Self::Backward => (sample, sample.wrapping_sub(1).wrapping_sub(call)),
            Self::OneFewer => (sample.saturating_sub(1), sample.wrapping_sub(2).wrapping_sub(call)),
            Self::Twice => (sample * 2, call / 2),
        };
        if call < calls { Some(at) } else { None }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::OneFewer => "backward without the last killmail",
            Self::Twice => "with each killmail twice in a row",
        }
    }
}

/// A trial under way.
pub struct Trial {
    sample: Page,
    /// The order it is at, of all orders, and the call in it.
    order: usize,
    call: usize,
    start: InstanceStart,
    guest: Option<Guest>,
    /// The call took too much, and is made again: alone, on an instance of its own.
    repeats: bool,
    /// What the first order gave.
    answers: Vec<Answer>,
    faults: Faults,
    needs: Option<GuestInterest>,
    spent: Duration,
}

impl Trial {
    /// A trial on this sample; the memory it takes is charged to this purse.
    #[must_use]
    pub fn new(sample: Page, purse: Arc<Purse>) -> Self {
        Self {
            sample,
            order: 0,
            call: 0,
            start: InstanceStart::new(purse),
            guest: None,
            repeats: false,
            answers: Vec::new(),
            faults: Faults::default(),
            needs: None,
            spent: Duration::ZERO,
        }
    }

    fn run(&mut self, setup: &Setup, component: &Component, config: &str) -> Result<(), Refusal> {
        while !self.step(setup, component, config)? {}
        Ok(())
    }

    /// Does the next bit, an instance or a call; whether it was the last.
    ///
    /// # Errors
    /// As `Start::step`; `Deadline` or `HostBudget` where a call ended so twice, the second time alone on an
    /// instance of its own, or where all took more CPU time than a trial may; `NotRepeatable` with the
    /// killmail whose verdicts differ.
    pub fn step(&mut self, setup: &Setup, component: &Component, config: &str) -> Result<bool, Refusal> {
        let begun = calls_cpu();
        let done = self.advance(setup, component, config)?;
        self.spent += calls_cpu().saturating_sub(begun);
        let limit = setup.config.trial_cpu_ms;
        if !done && self.spent >= Duration::from_millis(limit) {
            let calls = self.answers.len();
            let message = format!(
                "its trial took more than {limit} ms of CPU time (plugin.trial_cpu_ms); {calls} killmails were judged"
            );
            return Err(Refusal::Deadline { message, limit });
        }
        Ok(done)
    }

    /// It was refused because configuring it ended in a fault.
    #[must_use]
    pub fn failed_to_configure(&self) -> bool {
        self.start.has_faulted()
    }

    /// What is to be said of it where most of its calls ended in a fault.
    #[must_use]
    pub fn warning(&self, bytes_max: usize) -> Option<String> {
        self.faults.warning(bytes_max)
    }

    /// What it needs to see of killmails, as it said when it was configured first.
    pub fn take_needs(&mut self) -> Option<GuestInterest> {
        self.needs.take()
    }

    fn advance(&mut self, setup: &Setup, component: &Component, config: &str) -> Result<bool, Refusal> {
        let Some(order) = Order::ALL.get(self.order).copied() else { return Ok(true) };
        let Some(mut guest) = self.guest.take() else {
            if let Some((guest, needs)) = self.start.step(setup, component, config)? {
                self.guest = Some(guest);
                self.needs.get_or_insert(needs);
            }
            return Ok(false);
        };
        let Some(at) = order.at(self.call, self.sample.len()) else {
            // The next order begins with an instance of its own.
            (self.order, self.call) = (self.order + 1, 0);
            return Ok(self.order == Order::ALL.len());
        };
        let judged = judge(&mut guest, &self.sample, at)?;
        let repeated = std::mem::take(&mut self.repeats);
        let answer = judged.clone().map_err(|failure| failure.fault);
        match answer {
            Err(Fault::Deadline | Fault::HostBudget) if !repeated => {
                self.repeats = true;
                return Ok(false);
            }
            Err(fault) if repeated => refuse_overrun(setup, component.class(), fault, self.id(at))?,
            _ => {}
        }
        self.faults.count(&judged);
        let alive = !repeated && matches!(answer, Ok(_) | Err(Fault::BadOutput));
        self.compare(order, at, answer)?;
        self.guest = alive.then_some(guest);
        self.call += 1;
        Ok(false)
    }

    fn compare(&mut self, order: Order, at: usize, answer: Answer) -> Result<(), Refusal> {
        if order == Order::Forward {
            self.answers.push(answer);
            return Ok(());
        }
        let before = self.answers.get(at);
        if before == Some(&answer) {
            return Ok(());
        }
        let (id, how) = (self.id(at), order.words());
        let there = before.map_or_else(|| "nothing".to_owned(), |before| format!("{before:?}"));
        Err(Refusal::NotRepeatable(format!(
            "killmail {id} got {there} with the sample forward and {answer:?} with it {how}; \
             a verdict must not depend on killmails judged before (use `history`, or upload with instance=fresh)"
        )))
    }

    fn id(&self, at: usize) -> u32 {
        self.sample[at].killmail.killmail_id
    }
}

/// A call that took too much of its own or of the host's time, alone too: that is no matter of order, and no
/// matter of load.
fn refuse_overrun(setup: &Setup, class: Class, fault: Fault, id: u32) -> Result<(), Refusal> {
    let config = &setup.config;
    let bounds = config.bounds(class);
    match fault {
        Fault::Deadline => {
            let (limit, prefix) = (bounds.evaluate_cpu_ms, bounds.prefix);
            let message = format!(
                "in its trial it took more than {limit} ms of CPU time ({prefix}evaluate_cpu_ms) on killmail {id}"
            );
            Err(Refusal::Deadline { message, limit })
        }
        Fault::HostBudget => {
            let limit = config.host_cpu_ms;
            let message = format!(
                "in its trial it asked more of the host on killmail {id} than it may: {limit} ms of its work (plugin.host_cpu_ms), {} \
                 questions to history (plugin.history_calls_max)",
                config.history_calls_max
            );
            Err(Refusal::HostBudget { message, limit })
        }
        _ => Ok(()),
    }
}

/// One call. Where all guests together have no memory left it says nothing about this one.
fn judge(guest: &mut Guest, sample: &Page, at: usize) -> Result<Judged, Refusal> {
    let entry = &sample[at];
    let bound = Bound { below: entry.killmail.killmail_id, head: entry.seq };
    let answer = guest.evaluate(sample, at, bound);
    match guest.out_of_budget() {
        Some(full) if answer.is_err() => Err(full.clone()),
        _ => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::verdict::Verdict;

    fn walked(order: Order, sample: usize) -> Vec<usize> {
        (0..).map_while(|call| order.at(call, sample)).collect()
    }

    #[test]
    fn a_trial_that_mostly_fails_is_warned_of() {
        let failed = |fault, message: &str| Err(Failure::new(fault, message));
        let warning = |answers: &[Judged]| {
            let mut faults = Faults::default();
            answers.iter().for_each(|answer| faults.count(answer));
            faults.warning(100)
        };
        let kept = || Ok(Verdict::Keep);
        assert_eq!(
            (warning(&[]), warning(&[kept()]), warning(&[kept(), failed(Fault::Trap, "x")])),
            (None, None, None)
        );
        let all = [failed(Fault::Trap, "no file\n\u{feff}"), failed(Fault::Trap, "y")];
        assert_eq!(warning(&all).as_deref(), Some("all 2 calls of the trial ended in `trap`: no file "));
        let most = [failed(Fault::Trap, "x"), kept(), failed(Fault::BadOutput, "y")];
        let text =
            "2 of 3 calls of the trial ended in a fault (1 `bad_output`, 1 `trap`), the first `trap`: x";
        assert_eq!(warning(&most).as_deref(), Some(text));
    }

    #[test]
    fn orders_differ_in_direction_number_and_repetition() {
        assert_eq!(walked(Order::Forward, 3), [0, 1, 2]);
        assert_eq!(walked(Order::Backward, 3), [2, 1, 0]);
        assert_eq!(walked(Order::OneFewer, 3), [1, 0]);
        assert_eq!(walked(Order::Twice, 3), [0, 0, 1, 1, 2, 2]);
        for order in Order::ALL {
            assert!(walked(order, 0).is_empty(), "{order:?}");
        }
        assert_eq!((walked(Order::OneFewer, 1), walked(Order::Twice, 1)), (vec![], vec![0, 0]));
    }
}
