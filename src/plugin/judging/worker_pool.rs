//! The threads that judge. Each owns its share of the evaluators, so an instance is never waited for; live
//! goes before history, and configurations are made ready in between.
//!
//! Law 6 (a guest hurts only itself) stands here: turns are short and components go round, so a slow guest
//! delays a neighbor by one call, however many configurations of it there are.
//!
//! Must not know: what a verdict leads to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};

use crate::domain::entry::Page;
use crate::domain::verdict::{Failure, Fault};
use crate::plugin::error::{Error, Refusal};
use crate::plugin::judging::evaluation::Evaluation;
use crate::plugin::judging::evaluator::Evaluator;
use crate::plugin::judging::evaluator_cache::EvaluatorCache;
use crate::plugin::judging::evaluator_setup::EvaluatorSetup;
use crate::plugin::judging::job_queue::{JobQueue, PageJob, PagesWaiting, QueueItem, SetupJob};
use crate::plugin::judging::run::{Judgment, Run};
use crate::plugin::resources::cpu_clock::{TickGuard, TickerHandle, billable_cpu};
use crate::plugin::resources::token_bucket::TokenBucket;
use crate::plugin::sandbox::setup::Setup;
use crate::tasks;

/// A job gives way to the next at the second tick: after one to two milliseconds, without asking a clock
/// after each killmail.
const SLICE_TICKS: u32 = 2;
/// CPU time that is nobody's loss in one turn.
const TIME_SLICE: Duration = Duration::from_millis(2);
/// How often a thread tidies up.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The judging threads; they end, and are waited for, when it is dropped.
pub struct WorkerPool {
    queues: Vec<Arc<JobQueue>>,
    threads: Vec<JoinHandle<()>>,
    /// Places for configurations waiting to be made ready.
    setup_slots: Arc<Semaphore>,
    setups_max: usize,
}

impl WorkerPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system refused to make a thread.
    pub fn start(
        setup: &Arc<Setup>,
        ticker: &TickerHandle,
        kept: &Arc<EvaluatorCache>,
    ) -> Result<Self, Error> {
        let config = &setup.config;
        let trials_max = config.trials_waiting_max;
        let mut pool = Self {
            queues: Vec::new(),
            threads: Vec::new(),
            setup_slots: Arc::new(Semaphore::new(trials_max)),
            setups_max: trials_max,
        };
        for _ in 0..config.worker_count() {
            let line = Arc::new(JobQueue::default());
            let worker = Worker::new(setup, &line, ticker, kept);
            pool.threads.push(tasks::thread("plugin-judge", move || worker.run())?);
            pool.queues.push(line);
        }
        Ok(pool)
    }

    /// How many threads there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.queues.len()
    }

    /// Has a page judged by the evaluator's thread; waits for a place in its queue first. There are fewer
    /// answers than killmails where the evaluator has had what it may cost.
    pub async fn judge(&self, evaluator: &Evaluator, page: Page, run: Run) -> Vec<Judgment> {
        let count = page.len();
        let failed = || vec![Err(Failure::new(Fault::Trap, "the work was lost")); count];
        let Ok(place) = Arc::clone(evaluator.queue_slots(run)).acquire_owned().await else { return failed() };
        let (reply, answer) = oneshot::channel();
        let answers = Vec::with_capacity(count);
        self.queue(evaluator.shard()).push_page(PageJob {
            evaluator: evaluator.clone(),
            page,
            run,
            answers,
            reply,
            slot: place,
        });
        answer.await.unwrap_or_else(|_| failed())
    }

    /// Has a configuration made ready.
    pub fn set_up(&self, making: EvaluatorSetup) {
        match Arc::clone(&self.setup_slots).try_acquire_owned() {
            Ok(place) => self.queue(making.shard()).push_setup((making, place)),
            Err(_) => making.fail(Refusal::TooManyTrials { max: self.setups_max }),
        }
    }

    /// How many configurations wait to be made ready.
    #[must_use]
    pub fn setups_waiting(&self) -> usize {
        self.setups_max - self.setup_slots.available_permits().min(self.setups_max)
    }

    /// The pages that wait to be judged.
    #[must_use]
    pub fn pages_waiting(&self) -> PagesWaiting {
        let mut all = PagesWaiting::default();
        self.queues.iter().for_each(|line| all += line.pages_waiting());
        all
    }

    fn queue(&self, shard: usize) -> &JobQueue {
        &self.queues[shard % self.queues.len()]
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.queues.iter().for_each(|line| line.close());
        for thread in self.threads.drain(..) {
            // The last holder of the engine may be one of its own threads.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a judging thread panicked");
            }
        }
    }
}

struct Worker {
    setup: Arc<Setup>,
    queue: Arc<JobQueue>,
    ticker: TickerHandle,
    cache: Arc<EvaluatorCache>,
    /// What configuring and trying may take; `None`: any.
    setup_cpu: Option<TokenBucket>,
    last_sweep: Instant,
}

impl Worker {
    fn new(
        setup: &Arc<Setup>,
        line: &Arc<JobQueue>,
        ticker: &TickerHandle,
        kept: &Arc<EvaluatorCache>,
    ) -> Self {
        let (setup, line, ticker, kept) =
            (Arc::clone(setup), Arc::clone(line), ticker.clone(), Arc::clone(kept));
        let now = Instant::now();
        let trials = TokenBucket::new(setup.config.trials_cpu_ms_per_sec, now);
        Self { setup, queue: line, ticker, cache: kept, setup_cpu: trials, last_sweep: now }
    }

    fn run(mut self) {
        // WASI's streams want a tokio handle at hand; this one runs nothing and starts no threads.
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let _entered = runtime.as_ref().ok().map(tokio::runtime::Runtime::enter);
        let mut awake = None;
        while !self.queue.is_closed() {
            let now = Instant::now();
            if now.saturating_duration_since(self.last_sweep) >= SWEEP_INTERVAL {
                self.last_sweep = now;
                self.queue.sweep();
                self.cache.sweep();
            }
            let pause =
                self.setup_cpu.as_mut().map_or(Duration::ZERO, |trials| trials.time_until_available(now));
            let work = match self.queue.pop(pause.is_zero(), now) {
                Ok(work) => work,
                Err(idle) => {
                    awake = None;
                    self.queue
                        .wait(idle, if pause.is_zero() { SWEEP_INTERVAL } else { pause.min(SWEEP_INTERVAL) });
                    continue;
                }
            };
            let awake = awake.get_or_insert_with(|| self.ticker.awake());
            match work {
                QueueItem::Page(job) => self.judge(job, awake),
                QueueItem::Setup(trying) => self.set_up(*trying, awake),
            }
        }
    }

    /// One turn of a page. The caller is answered when the page is done or its budget is spent.
    fn judge(&self, mut job: PageJob, awake: &TickGuard) {
        let (run, cpu) = (job.run, billable_cpu());
        let mut ended = SliceOutcome::default();
        // Readers that stopped leave pages behind that nobody waits for.
        if !job.evaluator.is_cpu_exhausted() && !job.reply.is_closed() {
            let evaluator = job.evaluator.clone();
            ended = evaluator.metered(|| run_slice(&self.setup, &mut job, &self.queue, awake));
        }
        let excess = billable_cpu().saturating_sub(cpu).saturating_sub(TIME_SLICE);
        if !excess.is_zero() {
            self.record_excess(&job, excess, ended);
        }
        let goes_on =
            job.answers.len() < job.page.len() && !job.evaluator.is_cpu_exhausted() && !job.reply.is_closed();
        let (finished, unfinished) = if goes_on { (None, Some(job)) } else { (Some(job), None) };
        self.queue.end_page_turn(run, unfinished);
        if let Some(PageJob { evaluator, page, answers, reply, slot: place, .. }) = finished {
            // The caller then owns the page again, and this job no longer keeps the evaluator in use.
            drop((evaluator, page, place));
            // An asker who went away is no failure.
            let _ = reply.send(answers);
        }
    }

    /// A job took so much more than its turn, perhaps for a call that failed.
    fn record_excess(&self, job: &PageJob, excess: Duration, ended: SliceOutcome) {
        let record = job.evaluator.record().for_run(job.run);
        if let Some(fault) = ended.failed {
            record.record_costly_fault(fault, excess);
        } else if ended.short_of_memory {
            // It is not held against the pair; what such calls may cost is bounded all the same.
            record.record_memory_shortage(excess);
        }
        if self.queue.has_other_ready(job.run, Instant::now()) {
            record.record_overrun(excess);
        }
    }

    /// One turn of what makes a configuration ready.
    fn set_up(&mut self, (mut making, place): SetupJob, awake: &TickGuard) {
        let (begun, cpu) = (awake.ticks(), billable_cpu());
        let unfinished = loop {
            let step = catch_unwind(AssertUnwindSafe(|| making.step(&self.setup, &self.cache)));
            let Ok(Some(next)) = step.inspect_err(|_| tracing::error!("configuring a plugin panicked"))
            else {
                break None;
            };
            making = next;
            if self.queue.has_live() || awake.ticks().wrapping_sub(begun) >= SLICE_TICKS {
                break Some((making, place));
            }
        };
        if let Some(trials) = &mut self.setup_cpu {
            trials.spend(billable_cpu().saturating_sub(cpu));
        }
        self.queue.end_setup_turn(unfinished);
    }
}

/// How calls of a turn ended.
#[derive(Debug, Clone, Copy, Default)]
struct SliceOutcome {
    /// The fault that one ended in.
    failed: Option<Fault>,
    /// One ended because of what all guests hold together.
    short_of_memory: bool,
}

/// Judges as many of a job's killmails as fit its turn, at least one.
fn run_slice(setup: &Setup, job: &mut PageJob, line: &JobQueue, awake: &TickGuard) -> SliceOutcome {
    let begun = awake.ticks();
    let mut turn = Evaluation::begin(&job.evaluator, setup, job.run);
    while job.answers.len() < job.page.len() {
        let answer = turn.judge(&job.page, job.answers.len());
        job.answers.push(answer);
        let gives_way = job.run != Run::Live && line.has_live();
        if gives_way || awake.ticks().wrapping_sub(begun) >= SLICE_TICKS {
            break;
        }
    }
    SliceOutcome { failed: turn.last_fault(), short_of_memory: turn.was_short_of_memory() }
}
