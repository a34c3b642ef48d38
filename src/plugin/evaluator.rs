//! A component with one configuration, ready to judge; equal pairs are one.
//!
//! History and live never share an instance: each has its own place here.
//!
//! Must not know: queues and threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::domain::entry::{Origin, Page, SharedEntry};
use crate::domain::filter::Interest;
use crate::domain::id::Seq;
use crate::domain::verdict::{Fault, Verdict};
use crate::plugin::capacity::Reservation;
use crate::plugin::clock::thread_cpu;
use crate::plugin::component::Component;
use crate::plugin::convert::Needs;
use crate::plugin::guest::Guest;
use crate::plugin::history::Bound;
use crate::plugin::memo::Memo;
use crate::plugin::setup::Setup;

/// What a guest says of a killmail, or what it did wrong.
pub type Answer = Result<Verdict, Fault>;

/// How long instances live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Instance {
    /// From call to call: 0.3 us a call.
    #[default]
    Warm,
    /// For one call: for guests that are not repeatable otherwise; 26 us more a call.
    Fresh,
}

/// What a page is judged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Live parts: judged first, remembered for equal pairs.
    Live,
    /// Preload, catching up, history: judged when nothing live waits.
    History {
        /// The head when the run began: what backfilled killmails see of history.
        head: Seq,
    },
}

/// What makes two evaluators equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// SHA-256 of the component, hex.
    pub digest: String,
    /// The configuration, byte for byte.
    pub config: String,
    /// How long instances live.
    pub instance: Instance,
}

/// A component with a configuration. Clones share instances and memory of verdicts.
#[derive(Debug, Clone)]
pub struct Evaluator {
    shared: Arc<Shared>,
    /// What its pages cost, where somebody wants to know.
    spent_ns: Option<Arc<AtomicU64>>,
}

/// What equal evaluators share.
pub struct Shared {
    component: Component,
    key: Key,
    needs: Needs,
    shard: usize,
    live: Mutex<Option<Box<Guest>>>,
    past: Mutex<Option<Box<Guest>>>,
    memo: Mutex<Memo>,
    used: Mutex<Instant>,
    // Given back after the instances have ended.
    _place: Reservation,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Shared").field(&self.key).finish()
    }
}

impl Evaluator {
    /// An evaluator whose first instance is at hand, in the place that was reserved for it.
    #[must_use]
    pub fn new(setup: &Setup, (component, place): (Component, Reservation), key: Key, needs: Needs, first: Guest, shard: usize) -> Self {
        let warm = (key.instance == Instance::Warm).then(|| Box::new(first));
        let shared = Arc::new(Shared {
            component,
            key,
            needs,
            shard,
            live: Mutex::new(warm),
            past: Mutex::new(None),
            memo: Mutex::new(Memo::new(setup.config.memo_entries, setup.config.memo_bytes)),
            used: Mutex::new(Instant::now()),
            _place: place,
        });
        Self { shared, spent_ns: None }
    }

    /// The same, with a count of its own of what its pages cost.
    #[must_use]
    pub fn counted_apart(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), spent_ns: Some(Arc::default()) }
    }

    /// CPU time its pages cost so far, the host's work for them included; zero where it is not counted.
    #[must_use]
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent_ns.as_ref().map_or(0, |spent| spent.load(Ordering::Relaxed)))
    }

    /// Does work for it on this thread, and counts what that costs.
    pub fn spend<T>(&self, work: impl FnOnce() -> T) -> T {
        // Asking the system costs as much as a verdict.
        let Some(spent) = &self.spent_ns else { return work() };
        let before = thread_cpu();
        let done = work();
        let cpu = thread_cpu().saturating_sub(before);
        spent.fetch_add(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        done
    }

    /// What it promises to need of killmails; the index keeps the rest away. `None` restricts nothing.
    #[must_use]
    pub fn interest(&self) -> Option<&Interest> {
        self.shared.needs.interest.as_ref()
    }

    /// SHA-256 of the component, 64 hex digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.shared.key.digest
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &str {
        &self.shared.key.config
    }

    /// Its component.
    #[must_use]
    pub fn component(&self) -> &Component {
        &self.shared.component
    }

    /// Which thread it belongs to.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.shared.shard
    }

    /// Nobody but the engine holds it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    /// How long it was not used.
    #[must_use]
    pub fn idle_for(&self) -> Duration {
        self.shared.used.lock().elapsed()
    }

    /// It is used now.
    pub fn touch(&self) {
        *self.shared.used.lock() = Instant::now();
    }

    /// The whole page from memory, if every verdict on it is there.
    #[must_use]
    pub fn recall(&self, page: &[SharedEntry]) -> Option<Vec<Answer>> {
        let memo = self.shared.memo.lock();
        let answers: Option<Vec<Answer>> =
            page.iter().map(|entry| if self.shared.needs.accepts(entry) { memo.get(entry) } else { Some(Ok(Verdict::Drop)) }).collect();
        drop(memo);
        if answers.is_some() {
            let counters = self.shared.component.counters();
            for entry in page {
                if self.shared.needs.accepts(entry) { counters.remembered(1) } else { counters.passed_over() }
            }
        }
        answers
    }

    /// Begins to judge, on the thread this evaluator belongs to: its instance is taken out once for many killmails.
    #[must_use]
    pub fn turn<'a>(&'a self, setup: &'a Setup, run: Run) -> Turn<'a> {
        let guest = self.place(run).lock().take();
        Turn { evaluator: self, setup, run, guest }
    }

    fn place(&self, run: Run) -> &Mutex<Option<Box<Guest>>> {
        if run == Run::Live { &self.shared.live } else { &self.shared.past }
    }

    fn instantiate(&self, setup: &Setup) -> Result<Box<Guest>, Fault> {
        let mut guest = Guest::new(setup, &self.shared.component).map_err(|refusal| {
            tracing::debug!(plugin.digest = self.digest(), "plugin {}: {refusal}", self.digest());
            if refusal.is_busy() { Fault::Memory } else { Fault::Instantiate }
        })?;
        match guest.configure(setup, &self.shared.key.config) {
            Ok(_) => Ok(Box::new(guest)),
            Err(refusal) => {
                tracing::debug!(plugin.digest = self.digest(), "plugin {} refuses what it accepted before: {refusal}", self.digest());
                Err(if refusal.is_busy() { Fault::Memory } else { Fault::Configure })
            }
        }
    }
}

/// An evaluator at work, with its instance at hand; put back when dropped.
pub struct Turn<'a> {
    evaluator: &'a Evaluator,
    setup: &'a Setup,
    run: Run,
    guest: Option<Box<Guest>>,
}

impl Turn<'_> {
    /// Judges the killmail at this place of the page.
    pub fn judge(&mut self, page: &Page, at: usize) -> Answer {
        let entry = &page[at];
        let shared = &self.evaluator.shared;
        let counters = shared.component.counters();
        if !shared.needs.accepts(entry) {
            counters.passed_over();
            return Ok(Verdict::Drop);
        }
        if self.run == Run::Live
            && let Some(answer) = shared.memo.lock().get(entry)
        {
            counters.remembered(1);
            return answer;
        }
        let answer = self.call(page, at);
        counters.judged(&answer);
        if self.run == Run::Live {
            shared.memo.lock().put(entry, &answer);
        }
        answer
    }

    fn call(&mut self, page: &Page, at: usize) -> Answer {
        let entry = &page[at];
        // Taken out for the call: should the call panic, no broken instance is left behind.
        let mut guest = match self.guest.take() {
            Some(guest) => guest,
            None => self.evaluator.instantiate(self.setup)?,
        };
        let answer = guest.evaluate(page, at, bound(entry, self.run));
        let alive = matches!(answer, Ok(_) | Err((Fault::BadOutput, _)));
        if alive && self.evaluator.shared.key.instance == Instance::Warm {
            self.guest = Some(guest);
        }
        answer.map_err(|(fault, text)| {
            tracing::debug!(
                plugin.digest = self.evaluator.digest(),
                killmail.id = entry.killmail.killmail_id,
                "plugin fault {fault} on killmail {}: {text}",
                entry.killmail.killmail_id
            );
            fault
        })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(guest) = self.guest.take() {
            *self.evaluator.place(self.run).lock() = Some(guest);
        }
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
