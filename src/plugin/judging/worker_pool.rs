//! The worker threads. Each owns a share of the evaluators, so no thread waits for an instance. Live pages
//! come before history, with setups in between.
//!
//! Law 6 (a guest hurts only itself) is enforced here: time slices are short and components take turns, so a
//! slow guest delays a neighbor by one call, however many configurations it has.
//!
//! Must not know: what happens with a verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};

use crate::domain::entry::Page;
use crate::domain::verdict::{Failure, Fault};
use crate::plugin::error::{EngineError, Refusal};
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

/// A time slice ends at the second tick: after one to two milliseconds, without reading a clock after each
/// killmail.
const SLICE_TICKS: u32 = 2;
/// CPU time of one time slice; only time beyond it counts as excess.
const TIME_SLICE: Duration = Duration::from_millis(2);
/// How often a worker removes what has expired.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The worker threads. Dropping it stops and joins them.
pub struct WorkerPool {
    queues: Vec<Arc<JobQueue>>,
    threads: Vec<JoinHandle<()>>,
    /// Slots for setups that wait or are in progress.
    setup_slots: Arc<Semaphore>,
    setups_max: usize,
}

impl WorkerPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system cannot start another thread.
    pub fn start(
        setup: &Arc<Setup>,
        ticker: &TickerHandle,
        cache: &Arc<EvaluatorCache>,
    ) -> Result<Self, EngineError> {
        let config = &setup.config;
        let setups_max = config.trials_waiting_max;
        let mut pool = Self {
            queues: Vec::new(),
            threads: Vec::new(),
            setup_slots: Arc::new(Semaphore::new(setups_max)),
            setups_max,
        };
        for _ in 0..config.worker_count() {
            let queue = Arc::new(JobQueue::default());
            let worker = Worker::new(setup, &queue, ticker, cache);
            pool.threads.push(tasks::thread("plugin-judge", move || worker.run())?);
            pool.queues.push(queue);
        }
        Ok(pool)
    }

    /// The number of threads.
    #[must_use]
    pub const fn thread_count(&self) -> usize {
        self.queues.len()
    }

    /// Judges a page on the evaluator's thread, after waiting for a slot in its queue. Returns fewer results
    /// than killmails if the evaluator reaches its CPU limit.
    pub async fn judge(&self, evaluator: &Evaluator, page: Page, run: Run) -> Vec<Judgment> {
        let count = page.len();
        let failed = || vec![Err(Failure::new(Fault::Trap, "the work was lost")); count];
        let Ok(slot) = Arc::clone(evaluator.queue_slots(run)).acquire_owned().await else { return failed() };
        let (reply, answer) = oneshot::channel();
        let answers = Vec::with_capacity(count);
        self.queue(evaluator.shard()).push_page(PageJob {
            evaluator: evaluator.clone(),
            page,
            run,
            answers,
            reply,
            slot,
        });
        answer.await.unwrap_or_else(|_| failed())
    }

    /// Queues a setup, or fails it if too many wait.
    pub fn set_up(&self, evaluator_setup: EvaluatorSetup) {
        match Arc::clone(&self.setup_slots).try_acquire_owned() {
            Ok(slot) => {
                self.queue(evaluator_setup.shard()).push_setup(SetupJob { setup: evaluator_setup, slot })
            }
            Err(_) => evaluator_setup.fail(Refusal::TooManyTrials { max: self.setups_max }),
        }
    }

    /// Setups that wait or are in progress.
    #[must_use]
    pub fn setups_waiting(&self) -> usize {
        self.setups_max - self.setup_slots.available_permits().min(self.setups_max)
    }

    /// Pages that wait to be judged.
    #[must_use]
    pub fn pages_waiting(&self) -> PagesWaiting {
        let mut all = PagesWaiting::default();
        self.queues.iter().for_each(|queue| all += queue.pages_waiting());
        all
    }

    fn queue(&self, shard: usize) -> &JobQueue {
        &self.queues[shard % self.queues.len()]
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.queues.iter().for_each(|queue| queue.close());
        for thread in self.threads.drain(..) {
            // The engine may be dropped on one of its own threads.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a plugin worker thread panicked");
            }
        }
    }
}

struct Worker {
    setup: Arc<Setup>,
    queue: Arc<JobQueue>,
    ticker: TickerHandle,
    cache: Arc<EvaluatorCache>,
    /// The CPU budget of setups; `None`: no limit.
    setup_cpu: Option<TokenBucket>,
    last_sweep: Instant,
}

impl Worker {
    fn new(
        setup: &Arc<Setup>,
        queue: &Arc<JobQueue>,
        ticker: &TickerHandle,
        cache: &Arc<EvaluatorCache>,
    ) -> Self {
        let (setup, queue, ticker, cache) =
            (Arc::clone(setup), Arc::clone(queue), ticker.clone(), Arc::clone(cache));
        let now = Instant::now();
        let setup_cpu = TokenBucket::new(setup.config.trials_cpu_ms_per_sec, now);
        Self { setup, queue, ticker, cache, setup_cpu, last_sweep: now }
    }

    fn run(mut self) {
        // WASI streams need a tokio handle; this runtime runs nothing and starts no threads.
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let _entered = runtime.as_ref().ok().map(tokio::runtime::Runtime::enter);
        let mut ticking = None;
        while !self.queue.is_closed() {
            let now = Instant::now();
            if now.saturating_duration_since(self.last_sweep) >= SWEEP_INTERVAL {
                self.last_sweep = now;
                self.queue.sweep();
                self.cache.sweep();
            }
            let pause = self
                .setup_cpu
                .as_mut()
                .map_or(Duration::ZERO, |setup_cpu| setup_cpu.time_until_available(now));
            let item = match self.queue.pop(pause.is_zero(), now) {
                Ok(item) => item,
                Err(idle) => {
                    ticking = None;
                    self.queue
                        .wait(idle, if pause.is_zero() { SWEEP_INTERVAL } else { pause.min(SWEEP_INTERVAL) });
                    continue;
                }
            };
            let ticking = ticking.get_or_insert_with(|| self.ticker.keep_ticking());
            match item {
                QueueItem::Page(job) => self.judge(job, ticking),
                QueueItem::Setup(job) => self.set_up(*job, ticking),
            }
        }
    }

    /// Runs one time slice of a page. Replies when the page is done or its CPU limit is reached.
    fn judge(&self, mut job: PageJob, ticking: &TickGuard) {
        let (run, cpu) = (job.run, billable_cpu());
        let mut outcome = SliceOutcome::default();
        // Readers that have ended leave pages behind that nobody waits for.
        if !job.evaluator.is_cpu_exhausted() && !job.reply.is_closed() {
            let evaluator = job.evaluator.clone();
            outcome = evaluator.metered(|| run_slice(&self.setup, &mut job, &self.queue, ticking));
        }
        let excess = billable_cpu().saturating_sub(cpu).saturating_sub(TIME_SLICE);
        if !excess.is_zero() {
            self.record_excess(&job, excess, outcome);
        }
        let is_unfinished =
            job.answers.len() < job.page.len() && !job.evaluator.is_cpu_exhausted() && !job.reply.is_closed();
        let (finished, unfinished) = if is_unfinished { (None, Some(job)) } else { (Some(job), None) };
        self.queue.end_page_turn(run, unfinished);
        if let Some(PageJob { evaluator, page, answers, reply, slot, .. }) = finished {
            // Dropped before the reply: the caller owns the page again, and the evaluator counts as unused.
            drop((evaluator, page, slot));
            // The caller may have gone.
            let _ = reply.send(answers);
        }
    }

    /// Records CPU time beyond the time slice, which a failed call may have taken.
    fn record_excess(&self, job: &PageJob, excess: Duration, outcome: SliceOutcome) {
        let record = job.evaluator.record().for_run(job.run);
        if let Some(fault) = outcome.failed {
            record.record_costly_fault(fault, excess);
        } else if outcome.short_of_memory {
            // It does not count against the pair, but the cost of such calls is still limited.
            record.record_memory_shortage(excess);
        }
        if self.queue.has_other_ready(job.run, Instant::now()) {
            record.record_overrun(excess);
        }
    }

    /// Runs one time slice of a setup.
    fn set_up(&mut self, job: SetupJob, ticking: &TickGuard) {
        let SetupJob { setup: mut evaluator_setup, slot } = job;
        let (started, cpu) = (ticking.ticks(), billable_cpu());
        let unfinished = loop {
            let step = catch_unwind(AssertUnwindSafe(|| evaluator_setup.step(&self.setup, &self.cache)));
            let Ok(Some(next)) = step.inspect_err(|_| tracing::error!("configuring a plugin panicked"))
            else {
                break None;
            };
            evaluator_setup = next;
            if self.queue.has_live() || ticking.ticks().wrapping_sub(started) >= SLICE_TICKS {
                break Some(SetupJob { setup: evaluator_setup, slot });
            }
        };
        if let Some(setup_cpu) = &mut self.setup_cpu {
            setup_cpu.spend(billable_cpu().saturating_sub(cpu));
        }
        self.queue.end_setup_turn(unfinished);
    }
}

/// How the calls of a time slice ended.
#[derive(Debug, Clone, Copy, Default)]
struct SliceOutcome {
    /// The fault of its last call.
    failed: Option<Fault>,
    /// A call ended because guests have no memory left.
    short_of_memory: bool,
}

/// Judges as many killmails of a job as fit the time slice, at least one.
fn run_slice(setup: &Setup, job: &mut PageJob, queue: &JobQueue, ticking: &TickGuard) -> SliceOutcome {
    let started = ticking.ticks();
    let mut evaluation = Evaluation::begin(&job.evaluator, setup, job.run);
    while job.answers.len() < job.page.len() {
        let answer = evaluation.judge(&job.page, job.answers.len());
        job.answers.push(answer);
        let yields = job.run != Run::Live && queue.has_live();
        if yields || ticking.ticks().wrapping_sub(started) >= SLICE_TICKS {
            break;
        }
    }
    SliceOutcome { failed: evaluation.last_fault(), short_of_memory: evaluation.was_short_of_memory() }
}
