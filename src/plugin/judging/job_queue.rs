//! The queue of one worker thread, in its order of work: live pages first, then history pages and setups
//! alternately. Within each kind, components take turns. Pages of unproven pairs wait while their component
//! keeps failing (`fault_budget`), and only a few setups of one component are in progress at a time.
//!
//! Must not know: how a page is judged or a configuration is tried.

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

/// Setups of one component that one thread may have in progress: each holds the resources of its evaluator.
/// With more than one, a slow setup does not block the others.
const STARTED_MAX: usize = 4;

/// A page to judge.
pub struct PageJob {
    /// What judges it.
    pub evaluator: Evaluator,
    pub page: Page,
    /// What it is judged for.
    pub run: Run,
    /// The results so far.
    pub answers: Vec<Judgment>,
    /// Receives the results.
    pub reply: oneshot::Sender<Vec<Judgment>>,
    /// Its slot in the bounded queue, released when the job is done.
    pub slot: OwnedSemaphorePermit,
}

impl PageJob {
    fn record(&self) -> &CallRecord {
        self.evaluator.record().for_run(self.run)
    }
}

/// An evaluator to set up.
pub struct SetupJob {
    /// The setup, started or not.
    pub setup: EvaluatorSetup,
    /// Its slot in the bounded queue, released when the job is done.
    pub slot: OwnedSemaphorePermit,
}

/// What a worker does next.
pub enum QueueItem {
    /// One time slice of a page.
    Page(PageJob),
    /// One time slice of a setup.
    Setup(Box<SetupJob>),
}

/// Nothing is ready yet.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// How many items had arrived.
    arrivals: u64,
    /// How long until a held page may continue.
    hold_time: Option<Duration>,
}

/// Pages that wait to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PagesWaiting {
    pub live: usize,
    pub history: usize,
    /// Pages among these that are held until their component may fail again.
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
    /// Setups come before history the next time.
    setups_next: bool,
    is_closed: bool,
    /// How many items arrived so far.
    arrivals: u64,
}

/// The queue of one worker. The slots that jobs acquire first bound its length.
#[derive(Default)]
pub struct JobQueue {
    queues: Mutex<Queues>,
    changed: Condvar,
    has_live: AtomicBool,
}

impl JobQueue {
    /// Queues a page.
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

    /// Queues a setup.
    pub fn push_setup(&self, job: SetupJob) {
        let digest = job.setup.digest().clone();
        let mut queues = self.queues.lock();
        queues.setups.push(&digest, job);
        queues.arrivals += 1;
        drop(queues);
        self.changed.notify_one();
    }

    /// Closes the queue and drops everything in it.
    pub fn close(&self) {
        let mut queues = self.queues.lock();
        queues.is_closed = true;
        let dropped = (queues.live.drain(), queues.history.drain(), queues.setups.drain());
        drop(queues);
        self.changed.notify_one();
        drop(dropped);
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queues.lock().is_closed
    }

    /// The next item; setups only if `may_set_up`. Call [`JobQueue::end_page_turn`] or
    /// [`JobQueue::end_setup_turn`] when its turn is over.
    ///
    /// # Errors
    /// Nothing is ready yet.
    pub fn pop(&self, may_set_up: bool, now: Instant) -> Result<QueueItem, Idle> {
        let mut queues = self.queues.lock();
        if let Some(job) = queues.live.pop(|jobs| choose_page(jobs, now)) {
            self.has_live.store(queues.live.has_ready(|jobs| choose_page(jobs, now)), Ordering::Relaxed);
            return Ok(QueueItem::Page(job));
        }
        self.has_live.store(false, Ordering::Relaxed);
        let setups_first = may_set_up && std::mem::take(&mut queues.setups_next);
        if setups_first && let Some(job) = queues.setups.pop(choose_setup) {
            return Ok(QueueItem::Setup(Box::new(job)));
        }
        if let Some(job) = queues.history.pop(|jobs| choose_page(jobs, now)) {
            queues.setups_next = true;
            return Ok(QueueItem::Page(job));
        }
        if may_set_up && let Some(job) = queues.setups.pop(choose_setup) {
            return Ok(QueueItem::Setup(Box::new(job)));
        }
        let waiting = queues.live.waiting().chain(queues.history.waiting());
        let held = waiting
            .filter_map(|jobs| jobs.front())
            .map(|job| job.record().fault_budget().hold_time(now))
            .min();
        Err(Idle { arrivals: queues.arrivals, hold_time: held })
    }

    /// Waits until an item arrives, a held page may continue, or `max` has passed.
    pub fn wait(&self, idle: Idle, max: Duration) {
        let mut queues = self.queues.lock();
        if queues.arrivals == idle.arrivals && !queues.is_closed {
            self.changed.wait_for(&mut queues, idle.hold_time.map_or(max, |held| held.min(max)));
        }
    }

    pub fn end_page_turn(&self, run: Run, unfinished: Option<PageJob>) {
        let mut queues = self.queues.lock();
        if !queues.is_closed {
            queues.for_run(run).end_turn(unfinished);
        }
        // Unlocks first: what is dropped below does not hold the lock.
        drop(queues);
    }

    /// Whether pages of this kind that belong to other components than the active one are ready.
    #[must_use]
    pub fn has_other_ready(&self, run: Run, now: Instant) -> bool {
        self.queues.lock().for_run(run).has_ready(|jobs| choose_page(jobs, now))
    }

    pub fn end_setup_turn(&self, unfinished: Option<SetupJob>) {
        let mut queues = self.queues.lock();
        if !queues.is_closed {
            queues.setups.end_turn(unfinished);
        }
    }

    /// Drops setups that nobody waits for.
    pub fn sweep(&self) {
        let dropped =
            self.queues.lock().setups.remove_unless(|job| job.setup.is_started() || job.setup.is_awaited());
        drop(dropped);
    }

    #[must_use]
    pub fn pages_waiting(&self) -> PagesWaiting {
        let (queues, now) = (self.queues.lock(), Instant::now());
        let count = |jobs: &RoundRobin<PageJob>| jobs.waiting().map(VecDeque::len).sum();
        let held = |jobs_of: &RoundRobin<PageJob>| {
            let stopped = jobs_of.waiting().filter(|jobs| {
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

    /// Whether live pages are ready; does not lock.
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

/// The job of one component that may come next. Jobs of unproven pairs may come only while their component
/// may fail, and those with the fewest costly faults come first. They alternate with the other jobs.
fn choose_page(jobs: &VecDeque<PageJob>, now: Instant) -> Option<usize> {
    let budget = jobs.front()?.record().fault_budget();
    if !budget.has_recent_faults(now) {
        return Some(0);
    }
    // A page that nobody waits for any more ends without a call.
    let is_free = |job: &PageJob| job.reply.is_closed() || !job.record().is_held(now);
    let free = jobs.iter().position(is_free);
    if !budget.hold_time(now).is_zero() {
        return free;
    }
    let unproven = jobs.iter().enumerate().filter(|(_, job)| !is_free(job));
    let fewest = unproven.min_by_key(|(_, job)| job.record().strike_priority(now)).map(|(at, _)| at);
    free.into_iter().chain(fewest).min()
}

/// The setup of one component that may come next: if enough are in progress, one of those.
fn choose_setup(jobs: &VecDeque<SetupJob>) -> Option<usize> {
    let is_started = |job: &SetupJob| job.setup.is_started();
    if jobs.iter().filter(|job| is_started(job)).count() < STARTED_MAX {
        Some(0)
    } else {
        jobs.iter().position(is_started)
    }
}
