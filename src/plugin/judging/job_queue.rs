//! What one judging thread has to do, in the order in which it does it: live pages, then pages of history and
//! configurations to be made ready, by turns. Among each kind components go round. Pages of pairs that have
//! proved nothing yet wait while their component keeps failing (`fault_budget`), and of one component only a
//! few configurations are begun at a time.
//!
//! Must not know: how a page is judged or a configuration tried.

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::domain::entry::Page;
use crate::plugin::judging::evaluator::Evaluator;
use crate::plugin::judging::evaluator_setup::EvaluatorSetup;
use crate::plugin::judging::pair_records::CallRecord;
use crate::plugin::judging::round_robin::RoundRobin;
use crate::plugin::judging::run::{Judgment, Run};

/// Configurations of one component that one thread has begun to make ready: each holds what its evaluator
/// will. One that is slow leaves room for others.
const STARTED_MAX: usize = 4;

/// A page to judge.
pub struct PageJob {
    /// Who judges it.
    pub evaluator: Evaluator,
    /// The killmails.
    pub page: Page,
    /// What for.
    pub run: Run,
    /// What was said so far.
    pub answers: Vec<Judgment>,
    /// Where the answers go.
    pub reply: oneshot::Sender<Vec<Judgment>>,
    /// Its place in the bounded queue, given back when the job is done.
    pub slot: OwnedSemaphorePermit,
}

impl PageJob {
    fn record(&self) -> &CallRecord {
        self.evaluator.record().for_run(self.run)
    }
}

/// A configuration to be made ready, and its place in the bounded queue.
pub type SetupJob = (EvaluatorSetup, OwnedSemaphorePermit);

/// What a thread does next.
pub enum QueueItem {
    /// Judge some of a page.
    Page(PageJob),
    /// Do some of what makes a configuration ready.
    Setup(Box<SetupJob>),
}

/// There is nothing to do yet.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// How much had come.
    arrivals: u64,
    /// When something that waits may go on.
    hold_time: Option<Duration>,
}

/// Pages that wait to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PagesWaiting {
    /// With live killmails.
    pub live: usize,
    /// With killmails of the past.
    pub history: usize,
    /// Those among them that wait until their component may fail again.
    pub held: usize,
}

impl AddAssign for PagesWaiting {
    fn add_assign(&mut self, other: Self) {
        *self = Self {
            live: self.live + other.live,
            history: self.history + other.history,
            held: self.held + other.held,
        };
    }
}

#[derive(Default)]
struct Queues {
    live: RoundRobin<PageJob>,
    history: RoundRobin<PageJob>,
    setups: RoundRobin<SetupJob>,
    /// Trials come before history the next time.
    setups_next: bool,
    is_closed: bool,
    /// How much came so far.
    arrivals: u64,
}

/// The line before one thread. Its length is bounded by the places that jobs need to get in.
#[derive(Default)]
pub struct JobQueue {
    queues: Mutex<Queues>,
    changed: Condvar,
    has_live: AtomicBool,
}

impl JobQueue {
    /// A page stands in line.
    pub fn push_page(&self, job: PageJob) {
        let mut queues = self.queues.lock();
        let digest = job.evaluator.shared_digest().clone();
        match job.run {
            Run::Live => {
                queues.live.push(&digest, job);
                let now = Instant::now();
                self.has_live.store(queues.live.has_ready(|jobs| choose_page(jobs, now)), Ordering::Relaxed);
            }
            Run::History { .. } => queues.history.push(&digest, job),
        }
        queues.arrivals += 1;
        drop(queues);
        self.changed.notify_one();
    }

    /// A configuration stands in line.
    pub fn push_setup(&self, trying: SetupJob) {
        let digest = trying.0.digest().clone();
        let mut queues = self.queues.lock();
        queues.setups.push(&digest, trying);
        queues.arrivals += 1;
        drop(queues);
        self.changed.notify_one();
    }

    /// Ends it: what stands in line is let go of.
    pub fn close(&self) {
        let mut queues = self.queues.lock();
        queues.is_closed = true;
        let gone = (queues.live.drain(), queues.history.drain(), queues.setups.drain());
        drop(queues);
        self.changed.notify_one();
        drop(gone);
    }

    /// It has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queues.lock().is_closed
    }

    /// What comes next; trials only if they may. [`Line::judged`] or [`Line::tried`] must be told when its
    /// turn is over.
    ///
    /// # Errors
    /// There is nothing to do yet.
    pub fn pop(&self, may_try: bool, now: Instant) -> Result<QueueItem, Idle> {
        let mut queues = self.queues.lock();
        if let Some(job) = queues.live.pop(|jobs| choose_page(jobs, now)) {
            self.has_live.store(queues.live.has_ready(|jobs| choose_page(jobs, now)), Ordering::Relaxed);
            return Ok(QueueItem::Page(job));
        }
        self.has_live.store(false, Ordering::Relaxed);
        let trials_first = may_try && std::mem::take(&mut queues.setups_next);
        if trials_first && let Some(trying) = queues.setups.pop(choose_setup) {
            return Ok(QueueItem::Setup(Box::new(trying)));
        }
        if let Some(job) = queues.history.pop(|jobs| choose_page(jobs, now)) {
            queues.setups_next = true;
            return Ok(QueueItem::Page(job));
        }
        if may_try && let Some(trying) = queues.setups.pop(choose_setup) {
            return Ok(QueueItem::Setup(Box::new(trying)));
        }
        let waiting = queues.live.waiting().chain(queues.history.waiting());
        let held = waiting
            .filter_map(|jobs| jobs.front())
            .map(|job| job.record().fault_budget().hold_time(now))
            .min();
        Err(Idle { arrivals: queues.arrivals, hold_time: held })
    }

    /// Waits until something comes, or something that waits may go on, or so long.
    pub fn wait(&self, idle: Idle, most: Duration) {
        let mut queues = self.queues.lock();
        if queues.arrivals == idle.arrivals && !queues.is_closed {
            self.changed.wait_for(&mut queues, idle.hold_time.map_or(most, |held| held.min(most)));
        }
    }

    /// The turn of a page is over.
    pub fn end_page_turn(&self, run: Run, unfinished: Option<PageJob>) {
        let mut queues = self.queues.lock();
        if !queues.is_closed {
            queues.for_run(run).end_turn(unfinished);
        }
        // What is dropped here is dropped behind the lock.
        drop(queues);
    }

    /// Whether pages of this kind for other components than the one at work wait and may come next.
    #[must_use]
    pub fn has_other_ready(&self, run: Run, now: Instant) -> bool {
        self.queues.lock().for_run(run).has_ready(|jobs| choose_page(jobs, now))
    }

    /// The turn of a trial is over.
    pub fn end_setup_turn(&self, unfinished: Option<SetupJob>) {
        let mut queues = self.queues.lock();
        if !queues.is_closed {
            queues.setups.end_turn(unfinished);
        }
    }

    /// Lets go of configurations that nobody waits for any more.
    pub fn sweep(&self) {
        let gone =
            self.queues.lock().setups.remove_unless(|(making, _)| making.is_started() || making.is_awaited());
        drop(gone);
    }

    /// The pages that wait.
    #[must_use]
    pub fn pages_waiting(&self) -> PagesWaiting {
        let (queues, now) = (self.queues.lock(), Instant::now());
        let count = |rounds: &RoundRobin<PageJob>| rounds.waiting().map(VecDeque::len).sum();
        let held = |rounds: &RoundRobin<PageJob>| {
            let stopped = rounds.waiting().filter(|jobs| {
                jobs.front().is_some_and(|job| !job.record().fault_budget().hold_time(now).is_zero())
            });
            stopped.flatten().filter(|job| job.record().is_held(now)).count()
        };
        PagesWaiting {
            live: count(&queues.live),
            history: count(&queues.history),
            held: held(&queues.live) + held(&queues.history),
        }
    }

    /// Whether live pages wait; without asking for a lock.
    #[must_use]
    pub fn has_live(&self) -> bool {
        self.has_live.load(Ordering::Relaxed)
    }
}

impl Queues {
    const fn for_run(&mut self, run: Run) -> &mut RoundRobin<PageJob> {
        match run {
            Run::Live => &mut self.live,
            Run::History { .. } => &mut self.history,
        }
    }
}

/// The job of one component that may come next. Those of pairs without proof may only while their component
/// may fail, and among them those with the fewest costly faults come first; these and the others take plain
/// turns.
fn choose_page(jobs: &VecDeque<PageJob>, now: Instant) -> Option<usize> {
    let budget = jobs.front()?.record().fault_budget();
    if !budget.has_recent_faults(now) {
        return Some(0);
    }
    // A page that nobody waits for any more is gone without a call.
    let is_free = |job: &PageJob| job.reply.is_closed() || !job.record().is_held(now);
    let free = jobs.iter().position(is_free);
    if !budget.hold_time(now).is_zero() {
        return free;
    }
    let unproven = jobs.iter().enumerate().filter(|(_, job)| !is_free(job));
    let fewest = unproven.min_by_key(|(_, job)| job.record().strike_priority(now)).map(|(at, _)| at);
    free.into_iter().chain(fewest).min()
}

/// The configuration that may be worked on next: once enough of them are begun, one of these.
fn choose_setup(jobs: &VecDeque<SetupJob>) -> Option<usize> {
    let is_begun = |(making, _): &SetupJob| making.is_started();
    if jobs.iter().filter(|trying| is_begun(trying)).count() < STARTED_MAX {
        Some(0)
    } else {
        jobs.iter().position(is_begun)
    }
}
