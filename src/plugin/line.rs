//! What one judging thread has to do, in the order in which it does it: live pages, then pages of history and configurations to be made
//! ready, by turns. Among each kind components go round.
//!
//! Must not know: how a page is judged or a configuration tried.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::domain::entry::Page;
use crate::plugin::evaluator::{Evaluator, Judged, Run};
use crate::plugin::making::Making;
use crate::plugin::rounds::Rounds;

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

/// A configuration to be made ready, and its place in the bounded queue.
pub type Trying = (Making, OwnedSemaphorePermit);

/// What a thread does next.
pub enum Work {
    /// Judge some of a page.
    Judge(Job),
    /// Do some of what makes a configuration ready.
    Make(Box<Trying>),
}

#[derive(Default)]
struct Queues {
    live: Rounds<Job>,
    past: Rounds<Job>,
    trials: Rounds<Trying>,
    /// Trials come before history the next time.
    trials_next: bool,
    is_over: bool,
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
                self.live_waits.store(true, Ordering::Relaxed);
            }
            Run::History { .. } => queues.past.push(&digest, job),
        }
        drop(queues);
        self.changed.notify_one();
    }

    /// A configuration stands in line.
    pub fn make(&self, trying: Trying) {
        let digest = trying.0.digest().clone();
        self.queues.lock().trials.push(&digest, trying);
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

    /// What comes next; trials only if they may. [`Line::judged`] or [`Line::tried`] must be told when its turn is over.
    #[must_use]
    pub fn next(&self, may_try: bool) -> Option<Work> {
        let mut queues = self.queues.lock();
        if let Some(job) = queues.live.next() {
            self.live_waits.store(!queues.live.is_empty(), Ordering::Relaxed);
            return Some(Work::Judge(job));
        }
        let trials_first = may_try && std::mem::take(&mut queues.trials_next);
        if trials_first && let Some(trying) = queues.trials.next() {
            return Some(Work::Make(Box::new(trying)));
        }
        if let Some(job) = queues.past.next() {
            queues.trials_next = true;
            return Some(Work::Judge(job));
        }
        if may_try { queues.trials.next().map(|trying| Work::Make(Box::new(trying))) } else { None }
    }

    /// Waits until something comes that may be done, or so long.
    pub fn wait(&self, may_try: bool, most: Duration) {
        let mut queues = self.queues.lock();
        let trials = may_try && !queues.trials.is_empty();
        if queues.live.is_empty() && queues.past.is_empty() && !trials && !queues.is_over {
            self.changed.wait_for(&mut queues, most);
        }
    }

    /// The turn of a page is over; whether others of its kind waited meanwhile.
    pub fn judged(&self, run: Run, unfinished: Option<Job>) -> bool {
        let mut queues = self.queues.lock();
        if !queues.is_over {
            return queues.of(run).end_turn(unfinished);
        }
        // What is dropped here is dropped behind the lock.
        drop(queues);
        false
    }

    /// The turn of a trial is over.
    pub fn tried(&self, unfinished: Option<Trying>) {
        let mut queues = self.queues.lock();
        if !queues.is_over {
            queues.trials.end_turn(unfinished);
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
