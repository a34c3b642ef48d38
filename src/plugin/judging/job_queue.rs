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
use crate::plugin::judging::evaluator_setup::Making;
use crate::plugin::judging::pair_records::Record;
use crate::plugin::judging::round_robin::Rounds;
use crate::plugin::judging::run::{Judged, Run};

/// Configurations of one component that one thread has begun to make ready: each holds what its evaluator
/// will. One that is slow leaves room for others.
const BEGUN_MAX: usize = 4;

/// A page to judge.
pub struct Job {
    /// Who judges it.
    pub evaluator: Evaluator,
    /// The killmails.
    pub page: Page,
    /// What for.
    pub run: Run,
    /// What was said so far.
    pub answers: Vec<Judged>,
    /// Where the answers go.
    pub reply: oneshot::Sender<Vec<Judged>>,
    /// Its place in the bounded queue, given back when the job is done.
    pub place: OwnedSemaphorePermit,
}

impl Job {
    fn record(&self) -> &Record {
        self.evaluator.record().of(self.run)
    }
}

/// A configuration to be made ready, and its place in the bounded queue.
pub type Trying = (Making, OwnedSemaphorePermit);

/// What a thread does next.
pub enum Work {
    /// Judge some of a page.
    Judge(Job),
    /// Do some of what makes a configuration ready.
    Make(Box<Trying>),
}

/// There is nothing to do yet.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// How much had come.
    seen: u64,
    /// When something that waits may go on.
    held: Option<Duration>,
}

/// Pages that wait to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PagesWaiting {
    /// With live killmails.
    pub live: usize,
    /// With killmails of the past.
    pub past: usize,
    /// Those among them that wait until their component may fail again.
    pub held: usize,
}

impl AddAssign for PagesWaiting {
    fn add_assign(&mut self, other: Self) {
        *self =
            Self { live: self.live + other.live, past: self.past + other.past, held: self.held + other.held };
    }
}

#[derive(Default)]
struct Queues {
    live: Rounds<Job>,
    past: Rounds<Job>,
    trials: Rounds<Trying>,
    /// Trials come before history the next time.
    trials_next: bool,
    is_over: bool,
    /// How much came so far.
    came: u64,
}

/// The line before one thread. Its length is bounded by the places that jobs need to get in.
#[derive(Default)]
pub struct Line {
    queues: Mutex<Queues>,
    changed: Condvar,
    live_waits: AtomicBool,
}

impl Line {
    /// A page stands in line.
    pub fn judge(&self, job: Job) {
        let mut queues = self.queues.lock();
        let digest = job.evaluator.digest_shared().clone();
        match job.run {
            Run::Live => {
                queues.live.push(&digest, job);
                let now = Instant::now();
                self.live_waits.store(queues.live.has(|jobs| choose(jobs, now)), Ordering::Relaxed);
            }
            Run::History { .. } => queues.past.push(&digest, job),
        }
        queues.came += 1;
        drop(queues);
        self.changed.notify_one();
    }

    /// A configuration stands in line.
    pub fn make(&self, trying: Trying) {
        let digest = trying.0.digest().clone();
        let mut queues = self.queues.lock();
        queues.trials.push(&digest, trying);
        queues.came += 1;
        drop(queues);
        self.changed.notify_one();
    }

    /// Ends it: what stands in line is let go of.
    pub fn end(&self) {
        let mut queues = self.queues.lock();
        queues.is_over = true;
        let gone = (queues.live.clear(), queues.past.clear(), queues.trials.clear());
        drop(queues);
        self.changed.notify_one();
        drop(gone);
    }

    /// It has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.queues.lock().is_over
    }

    /// What comes next; trials only if they may. [`Line::judged`] or [`Line::tried`] must be told when its
    /// turn is over.
    ///
    /// # Errors
    /// There is nothing to do yet.
    pub fn next(&self, may_try: bool, now: Instant) -> Result<Work, Idle> {
        let mut queues = self.queues.lock();
        if let Some(job) = queues.live.next(|jobs| choose(jobs, now)) {
            self.live_waits.store(queues.live.has(|jobs| choose(jobs, now)), Ordering::Relaxed);
            return Ok(Work::Judge(job));
        }
        self.live_waits.store(false, Ordering::Relaxed);
        let trials_first = may_try && std::mem::take(&mut queues.trials_next);
        if trials_first && let Some(trying) = queues.trials.next(begun_or_few) {
            return Ok(Work::Make(Box::new(trying)));
        }
        if let Some(job) = queues.past.next(|jobs| choose(jobs, now)) {
            queues.trials_next = true;
            return Ok(Work::Judge(job));
        }
        if may_try && let Some(trying) = queues.trials.next(begun_or_few) {
            return Ok(Work::Make(Box::new(trying)));
        }
        let waiting = queues.live.waiting().chain(queues.past.waiting());
        let held = waiting
            .filter_map(|jobs| jobs.front())
            .map(|job| job.record().fault_budget().hold_time(now))
            .min();
        Err(Idle { seen: queues.came, held })
    }

    /// Waits until something comes, or something that waits may go on, or so long.
    pub fn wait(&self, idle: Idle, most: Duration) {
        let mut queues = self.queues.lock();
        if queues.came == idle.seen && !queues.is_over {
            self.changed.wait_for(&mut queues, idle.held.map_or(most, |held| held.min(most)));
        }
    }

    /// The turn of a page is over.
    pub fn judged(&self, run: Run, unfinished: Option<Job>) {
        let mut queues = self.queues.lock();
        if !queues.is_over {
            queues.of(run).end_turn(unfinished);
        }
        // What is dropped here is dropped behind the lock.
        drop(queues);
    }

    /// Whether pages of this kind for other components than the one at work wait and may come next.
    #[must_use]
    pub fn others_wait(&self, run: Run, now: Instant) -> bool {
        self.queues.lock().of(run).has(|jobs| choose(jobs, now))
    }

    /// The turn of a trial is over.
    pub fn tried(&self, unfinished: Option<Trying>) {
        let mut queues = self.queues.lock();
        if !queues.is_over {
            queues.trials.end_turn(unfinished);
        }
    }

    /// Lets go of configurations that nobody waits for any more.
    pub fn tidy(&self) {
        let gone = self.queues.lock().trials.prune(|(making, _)| making.is_begun() || making.is_awaited());
        drop(gone);
    }

    /// The pages that wait.
    #[must_use]
    pub fn waiting(&self) -> PagesWaiting {
        let (queues, now) = (self.queues.lock(), Instant::now());
        let count = |rounds: &Rounds<Job>| rounds.waiting().map(VecDeque::len).sum();
        let held = |rounds: &Rounds<Job>| {
            let stopped = rounds.waiting().filter(|jobs| {
                jobs.front().is_some_and(|job| !job.record().fault_budget().hold_time(now).is_zero())
            });
            stopped.flatten().filter(|job| job.record().is_held(now)).count()
        };
        PagesWaiting {
            live: count(&queues.live),
            past: count(&queues.past),
            held: held(&queues.live) + held(&queues.past),
        }
    }

    /// Whether live pages wait; without asking for a lock.
    #[must_use]
    pub fn live_waits(&self) -> bool {
        self.live_waits.load(Ordering::Relaxed)
    }
}

impl Queues {
    const fn of(&mut self, run: Run) -> &mut Rounds<Job> {
        match run {
            Run::Live => &mut self.live,
            Run::History { .. } => &mut self.past,
        }
    }
}

/// The job of one component that may come next. Those of pairs without proof may only while their component
/// may fail, and among them those with the fewest costly faults come first; these and the others take plain
/// turns.
fn choose(jobs: &VecDeque<Job>, now: Instant) -> Option<usize> {
    let budget = jobs.front()?.record().fault_budget();
    if !budget.has_recent_faults(now) {
        return Some(0);
    }
    // A page that nobody waits for any more is gone without a call.
    let is_free = |job: &Job| job.reply.is_closed() || !job.record().is_held(now);
    let free = jobs.iter().position(is_free);
    if !budget.hold_time(now).is_zero() {
        return free;
    }
    let unproven = jobs.iter().enumerate().filter(|(_, job)| !is_free(job));
    let fewest = unproven.min_by_key(|(_, job)| job.record().all_strikes(now)).map(|(at, _)| at);
    free.into_iter().chain(fewest).min()
}

/// The configuration that may be worked on next: once enough of them are begun, one of these.
fn begun_or_few(jobs: &VecDeque<Trying>) -> Option<usize> {
    let is_begun = |(making, _): &Trying| making.is_begun();
    if jobs.iter().filter(|trying| is_begun(trying)).count() < BEGUN_MAX {
        Some(0)
    } else {
        jobs.iter().position(is_begun)
    }
}
