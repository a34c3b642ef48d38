//! The trial of a plugin before it is used: evaluating the same killmails in different orders and numbers,
//! each on a separate instance, must give the same verdicts.
//!
//! Law 7 (same in, same out) is checked here, at upload. A trial consists of single calls, so that its thread
//! can do other work between them.
//!
//! Must not know: where the sample comes from, or on which thread it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::entry::{Page, SharedEntry};
use crate::domain::safe_text::sanitize;
use crate::domain::verdict::{Failure, Fault, Verdict};
use crate::plugin::class::Class;
use crate::plugin::error::Refusal;
use crate::plugin::history::Bound;
use crate::plugin::judging::run::{Answer, Judgment};
use crate::plugin::resources::cpu_clock::billable_cpu;
use crate::plugin::resources::memory_account::MemoryAccount;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::convert::GuestInterest;
use crate::plugin::sandbox::guest::Guest;
use crate::plugin::sandbox::setup::Setup;
use crate::plugin::sandbox::start::InstanceStart;

/// The configuration if none was given.
pub const NO_CONFIG: &str = "{}";

/// The result of an upload's trial that did not refuse it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrialReport {
    /// Whether it was tried at all.
    pub probed: bool,
    /// What its uploader should know, in sentences.
    pub warnings: Vec<String>,
}

/// Tries an upload with its manifest's default configuration, or `{}`. If the guest itself rejects that
/// configuration, the upload is not tried.
///
/// # Errors
/// As [`try_sample`].
pub fn try_upload(
    setup: &Setup,
    component: &Component,
    sample: &[SharedEntry],
) -> Result<TrialReport, Refusal> {
    let mut trial = RepeatabilityTrial::new(Arc::new(sample.to_vec()), MemoryAccount::new(None));
    match trial.run(setup, component, component.default_config().unwrap_or(NO_CONFIG)) {
        Ok(()) => Ok(TrialReport {
            probed: true,
            warnings: trial.warning(setup.config.text_bytes).into_iter().collect(),
        }),
        Err(_) if trial.start.is_refused_by_guest() => Ok(TrialReport::default()),
        Err(refusal) => Err(refusal),
    }
}

/// The calls of a trial, and those that ended in a fault.
#[derive(Debug, Default)]
struct TrialFaults {
    calls: u64,
    counts: BTreeMap<&'static str, u64>,
    first: Option<Failure>,
}

impl TrialFaults {
    fn count(&mut self, answer: &Judgment) {
        self.calls += 1;
        if let Err(failure) = answer {
            *self.counts.entry(failure.fault.word()).or_default() += 1;
            self.first.get_or_insert_with(|| failure.clone());
        }
    }

    /// A warning if most calls ended in a fault: such a plugin is repeatable, but hardly what was meant.
    fn warning(&self, bytes_max: usize) -> Option<String> {
        let (faults, calls) = (self.counts.values().sum::<u64>(), self.calls);
        let first = self.first.as_ref().filter(|_| faults * 2 > calls)?;
        let share = if faults == calls { format!("all {calls}") } else { format!("{faults} of {calls}") };
        let counts: Vec<String> =
            self.counts.iter().map(|(word, count)| format!("{count} `{word}`")).collect();
        let what = match self.counts.len() {
            1 => format!("`{}`", first.fault),
            _ => format!("a fault ({}), the first `{}`", counts.join(", "), first.fault),
        };
        Some(sanitize(&format!("{share} calls of the trial ended in {what}: {}", first.message), bytes_max))
    }
}

/// Runs a whole trial.
///
/// # Errors
/// As [`RepeatabilityTrial::step`].
pub fn try_sample(
    setup: &Setup,
    component: &Component,
    config: &str,
    sample: &[SharedEntry],
) -> Result<(), Refusal> {
    RepeatabilityTrial::new(Arc::new(sample.to_vec()), MemoryAccount::new(None)).run(setup, component, config)
}

/// An order in which the sample is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SampleOrder {
    Forward,
    Backward,
    /// Without the last killmail: a sample of odd length becomes even and the other way round, which exposes
    /// guests that alternate.
    OneFewer,
    /// Each killmail twice in a row.
    Twice,
}

impl SampleOrder {
    const ALL: [Self; 4] = [Self::Forward, Self::Backward, Self::OneFewer, Self::Twice];

    /// Index of the killmail for this call, in a sample of this length; `None` after the last call.
    const fn at(self, call: usize, sample: usize) -> Option<usize> {
        let (calls, at) = match self {
            Self::Forward => (sample, call),
            Self::Backward => (sample, sample.wrapping_sub(1).wrapping_sub(call)),
            Self::OneFewer => (sample.saturating_sub(1), sample.wrapping_sub(2).wrapping_sub(call)),
            Self::Twice => (sample * 2, call / 2),
        };
        if call < calls { Some(at) } else { None }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::OneFewer => "backward without the last killmail",
            Self::Twice => "with each killmail twice in a row",
        }
    }
}

/// A trial in progress.
pub struct RepeatabilityTrial {
    sample: Page,
    /// The current order, and the next call in it.
    order: usize,
    call: usize,
    start: InstanceStart,
    guest: Option<Guest>,
    /// The next call repeats one that exceeded a limit, on a separate instance.
    is_retry: bool,
    /// The results in the first order.
    answers: Vec<Answer>,
    faults: TrialFaults,
    needs: Option<GuestInterest>,
    cpu_used: Duration,
}

impl RepeatabilityTrial {
    /// A trial on this sample; the memory it uses is charged to this account.
    #[must_use]
    pub fn new(sample: Page, account: Arc<MemoryAccount>) -> Self {
        Self {
            sample,
            order: 0,
            call: 0,
            start: InstanceStart::new(account),
            guest: None,
            is_retry: false,
            answers: Vec::new(),
            faults: TrialFaults::default(),
            needs: None,
            cpu_used: Duration::ZERO,
        }
    }

    fn run(&mut self, setup: &Setup, component: &Component, config: &str) -> Result<(), Refusal> {
        while !self.step(setup, component, config)? {}
        Ok(())
    }

    /// Runs the next step, the start of an instance or a call. Returns whether it was the last.
    ///
    /// # Errors
    /// As `InstanceStart::step`. `Deadline` or `HostBudget` if a call exceeded the limit twice, the second time on a
    /// separate instance, or if the whole trial took too much CPU time. `NotRepeatable` with the killmail
    /// whose verdicts differ.
    pub fn step(&mut self, setup: &Setup, component: &Component, config: &str) -> Result<bool, Refusal> {
        let before = billable_cpu();
        let done = self.advance(setup, component, config)?;
        self.cpu_used += billable_cpu().saturating_sub(before);
        let limit = setup.config.trial_cpu_ms;
        if !done && self.cpu_used >= Duration::from_millis(limit) {
            let calls = self.answers.len();
            let message = format!(
                "its trial took more than {limit} ms of CPU time (plugin.trial_cpu_ms); {calls} killmails were evaluated"
            );
            return Err(Refusal::Deadline { message, limit });
        }
        Ok(done)
    }

    /// Whether it was refused because configuring ended in a fault.
    #[must_use]
    pub fn failed_to_configure(&self) -> bool {
        self.start.has_faulted()
    }

    /// A warning if most of its calls ended in a fault.
    #[must_use]
    pub fn warning(&self, bytes_max: usize) -> Option<String> {
        self.faults.warning(bytes_max)
    }

    /// The killmails and fields it needs, from its first configuration.
    pub fn take_needs(&mut self) -> Option<GuestInterest> {
        self.needs.take()
    }

    fn advance(&mut self, setup: &Setup, component: &Component, config: &str) -> Result<bool, Refusal> {
        let Some(order) = SampleOrder::ALL.get(self.order).copied() else { return Ok(true) };
        let Some(mut guest) = self.guest.take() else {
            if let Some((guest, needs)) = self.start.step(setup, component, config)? {
                self.guest = Some(guest);
                self.needs.get_or_insert(needs);
            }
            return Ok(false);
        };
        let Some(at) = order.at(self.call, self.sample.len()) else {
            // The next order starts with another instance.
            (self.order, self.call) = (self.order + 1, 0);
            return Ok(self.order == SampleOrder::ALL.len());
        };
        let judged = evaluate(&mut guest, &self.sample, at)?;
        let is_repeated = std::mem::take(&mut self.is_retry);
        let answer = judged.clone().map_err(|failure| failure.fault);
        match answer {
            Err(Fault::Deadline | Fault::HostBudget) if !is_repeated => {
                self.is_retry = true;
                return Ok(false);
            }
            Err(fault) if is_repeated => refuse_overrun(setup, component.class(), fault, self.id(at))?,
            _ => {}
        }
        self.faults.count(&judged);
        let is_alive = !is_repeated && matches!(answer, Ok(_) | Err(Fault::BadOutput));
        self.compare(order, at, answer)?;
        self.guest = is_alive.then_some(guest);
        self.call += 1;
        Ok(false)
    }

    fn compare(&mut self, order: SampleOrder, at: usize, answer: Answer) -> Result<(), Refusal> {
        if order == SampleOrder::Forward {
            self.answers.push(answer);
            return Ok(());
        }
        let expected = self.answers.get(at);
        if expected == Some(&answer) {
            return Ok(());
        }
        let (id, how) = (self.id(at), order.description());
        let second = describe(&answer);
        let first = expected.map_or_else(|| "no answer".to_owned(), describe);
        Err(Refusal::NotRepeatable(format!(
            "killmail {id} got {first} when the sample was evaluated forward, and {second} when it was evaluated {how}; \
             a verdict must not depend on killmails evaluated before (use `history`, or upload with instance=fresh)"
        )))
    }

    fn id(&self, at: usize) -> u32 {
        self.sample[at].killmail.killmail_id
    }
}

/// Refuses a guest whose repeated call exceeded its own or the host's time too: neither order nor load
/// explains that.
fn refuse_overrun(setup: &Setup, class: Class, fault: Fault, id: u32) -> Result<(), Refusal> {
    let config = &setup.config;
    let limits = config.class_limits(class);
    match fault {
        Fault::Deadline => {
            let (limit, prefix) = (limits.evaluate_cpu_ms, limits.prefix);
            let message = format!(
                "its trial took more than {limit} ms of CPU time ({prefix}evaluate_cpu_ms) on killmail {id}"
            );
            Err(Refusal::Deadline { message, limit })
        }
        Fault::HostBudget => {
            let limit = config.host_cpu_ms;
            let message = format!(
                "its trial exceeded the limits of the host on killmail {id}: {limit} ms of host work (plugin.host_cpu_ms), {} history \
                 queries (plugin.history_calls_max)",
                config.history_calls_max
            );
            Err(Refusal::HostBudget { message, limit })
        }
        _ => Ok(()),
    }
}

/// Runs one call. If all guests together have no memory left, the result says nothing about this one and the
/// trial is refused.
fn evaluate(guest: &mut Guest, sample: &Page, at: usize) -> Result<Judgment, Refusal> {
    let entry = &sample[at];
    let bound = Bound { below: entry.killmail.killmail_id, head: entry.seq };
    let answer = guest.evaluate(sample, at, bound);
    match guest.out_of_budget() {
        Some(full) if answer.is_err() => Err(full.clone()),
        _ => Ok(answer),
    }
}

/// An answer as a plugin author would name it.
fn describe(answer: &Answer) -> String {
    match answer {
        Ok(Verdict::Keep) => "`keep`".to_owned(),
        Ok(Verdict::Drop) => "`drop`".to_owned(),
        Ok(Verdict::KeepWith(json)) => format!("`keep-with` {json}"),
        Err(fault) => format!("the fault `{fault}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::verdict::Verdict;

    fn indexes(order: SampleOrder, sample: usize) -> Vec<usize> {
        (0..).map_while(|call| order.at(call, sample)).collect()
    }

    #[test]
    fn a_trial_that_mostly_fails_gives_a_warning() {
        let failed = |fault, message: &str| Err(Failure::new(fault, message));
        let warning = |answers: &[Judgment]| {
            let mut faults = TrialFaults::default();
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
        assert_eq!(indexes(SampleOrder::Forward, 3), [0, 1, 2]);
        assert_eq!(indexes(SampleOrder::Backward, 3), [2, 1, 0]);
        assert_eq!(indexes(SampleOrder::OneFewer, 3), [1, 0]);
        assert_eq!(indexes(SampleOrder::Twice, 3), [0, 0, 1, 1, 2, 2]);
        for order in SampleOrder::ALL {
            assert!(indexes(order, 0).is_empty(), "{order:?}");
        }
        assert_eq!((indexes(SampleOrder::OneFewer, 1), indexes(SampleOrder::Twice, 1)), (vec![], vec![0, 0]));
    }
}
