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
use crate::plugin::error::{EngineError, Refusal};
use crate::plugin::judging::evaluator::Evaluator;
use crate::plugin::judging::evaluator_cache::Kept;
use crate::plugin::judging::evaluator_setup::Making;
use crate::plugin::judging::job_queue::{Job, Line, PagesWaiting, Trying, Work};
use crate::plugin::judging::run::{Judged, Run};
use crate::plugin::judging::turn::Turn;
use crate::plugin::resources::cpu_clock::{Awake, TickerHandle, calls_cpu};
use crate::plugin::resources::token_bucket::TokenBucket;
use crate::plugin::sandbox::setup::Setup;
use crate::tasks;

/// A job gives way to the next at the second tick: after one to two milliseconds, without asking a clock
/// after each killmail.
const TURN_TICKS: u32 = 2;
/// CPU time that is nobody's loss in one turn.
const TURN: Duration = Duration::from_millis(2);
/// How often a thread tidies up.
const TIDY: Duration = Duration::from_secs(5);

/// The judging threads; they end, and are waited for, when it is dropped.
pub struct Pool {
    lines: Vec<Arc<Line>>,
    threads: Vec<JoinHandle<()>>,
    /// Places for configurations waiting to be made ready.
    trials: Arc<Semaphore>,
    trials_max: usize,
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system refused to make a thread.
    pub fn start(setup: &Arc<Setup>, ticker: &TickerHandle, kept: &Arc<Kept>) -> Result<Self, EngineError> {
        let config = &setup.config;
        let trials_max = config.trials_waiting_max;
        let mut pool = Self {
            lines: Vec::new(),
            threads: Vec::new(),
            trials: Arc::new(Semaphore::new(trials_max)),
            trials_max,
        };
        for _ in 0..config.worker_count() {
            let line = Arc::new(Line::default());
            let worker = Worker::new(setup, &line, ticker, kept);
            pool.threads.push(tasks::thread("plugin-judge", move || worker.work())?);
            pool.lines.push(line);
        }
        Ok(pool)
    }

    /// How many threads there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.lines.len()
    }

    /// Has a page judged by the evaluator's thread; waits for a place in its queue first. There are fewer
    /// answers than killmails where the evaluator has had what it may cost.
    pub async fn judge(&self, evaluator: &Evaluator, page: Page, run: Run) -> Vec<Judged> {
        let count = page.len();
        let failed = || vec![Err(Failure::new(Fault::Trap, "the work was lost")); count];
        let Ok(place) = Arc::clone(evaluator.places_of(run)).acquire_owned().await else { return failed() };
        let (reply, answer) = oneshot::channel();
        let answers = Vec::with_capacity(count);
        self.line(evaluator.shard()).judge(Job {
            evaluator: evaluator.clone(),
            page,
            run,
            answers,
            reply,
            place,
        });
        answer.await.unwrap_or_else(|_| failed())
    }

    /// Has a configuration made ready.
    pub fn make(&self, making: Making) {
        match Arc::clone(&self.trials).try_acquire_owned() {
            Ok(place) => self.line(making.shard()).make((making, place)),
            Err(_) => making.fail(Refusal::TooManyTrials { max: self.trials_max }),
        }
    }

    /// How many configurations wait to be made ready.
    #[must_use]
    pub fn trials_waiting(&self) -> usize {
        self.trials_max - self.trials.available_permits().min(self.trials_max)
    }

    /// The pages that wait to be judged.
    #[must_use]
    pub fn pages_waiting(&self) -> PagesWaiting {
        let mut all = PagesWaiting::default();
        self.lines.iter().for_each(|line| all += line.waiting());
        all
    }

    fn line(&self, shard: usize) -> &Line {
        &self.lines[shard % self.lines.len()]
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.lines.iter().for_each(|line| line.end());
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
    line: Arc<Line>,
    ticker: TickerHandle,
    kept: Arc<Kept>,
    /// What configuring and trying may take; `None`: any.
    trials: Option<TokenBucket>,
    tidied: Instant,
}

impl Worker {
    fn new(setup: &Arc<Setup>, line: &Arc<Line>, ticker: &TickerHandle, kept: &Arc<Kept>) -> Self {
        let (setup, line, ticker, kept) =
            (Arc::clone(setup), Arc::clone(line), ticker.clone(), Arc::clone(kept));
        let now = Instant::now();
        let trials = TokenBucket::new(setup.config.trials_cpu_ms_per_sec, now);
        Self { setup, line, ticker, kept, trials, tidied: now }
    }

    fn work(mut self) {
        // WASI's streams want a tokio handle at hand; this one runs nothing and starts no threads.
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let _entered = runtime.as_ref().ok().map(tokio::runtime::Runtime::enter);
        let mut awake = None;
        while !self.line.is_over() {
            let now = Instant::now();
            if now.saturating_duration_since(self.tidied) >= TIDY {
                self.tidied = now;
                self.line.tidy();
                self.kept.tidy();
            }
            let pause = self.trials.as_mut().map_or(Duration::ZERO, |trials| trials.wait(now));
            let work = match self.line.next(pause.is_zero(), now) {
                Ok(work) => work,
                Err(idle) => {
                    awake = None;
                    self.line.wait(idle, if pause.is_zero() { TIDY } else { pause.min(TIDY) });
                    continue;
                }
            };
            let awake = awake.get_or_insert_with(|| self.ticker.awake());
            match work {
                Work::Judge(job) => self.judge(job, awake),
                Work::Make(trying) => self.make(*trying, awake),
            }
        }
    }

    /// One turn of a page. The caller is answered when the page is done or its budget is spent.
    fn judge(&self, mut job: Job, awake: &Awake) {
        let (run, cpu) = (job.run, calls_cpu());
        let mut ended = Ended::default();
        // Readers that stopped leave pages behind that nobody waits for.
        if !job.evaluator.is_spent() && !job.reply.is_closed() {
            let evaluator = job.evaluator.clone();
            ended = evaluator.spend(|| turn(&self.setup, &mut job, &self.line, awake));
        }
        let excess = calls_cpu().saturating_sub(cpu).saturating_sub(TURN);
        if !excess.is_zero() {
            self.exceeded(&job, excess, ended);
        }
        let goes_on =
            job.answers.len() < job.page.len() && !job.evaluator.is_spent() && !job.reply.is_closed();
        let (finished, unfinished) = if goes_on { (None, Some(job)) } else { (Some(job), None) };
        self.line.judged(run, unfinished);
        if let Some(Job { evaluator, page, answers, reply, place, .. }) = finished {
            // The caller then owns the page again, and this job no longer keeps the evaluator in use.
            drop((evaluator, page, place));
            // An asker who went away is no failure.
            let _ = reply.send(answers);
        }
    }

    /// A job took so much more than its turn, perhaps for a call that failed.
    fn exceeded(&self, job: &Job, excess: Duration, ended: Ended) {
        let record = job.evaluator.record().of(job.run);
        if let Some(fault) = ended.failed {
            record.wasted(fault, excess);
        } else if ended.crowded_out {
            // It is not held against the pair; what such calls may cost is bounded all the same.
            record.crowded_out(excess);
        }
        if self.line.others_wait(job.run, Instant::now()) {
            record.overran(excess);
        }
    }

    /// One turn of what makes a configuration ready.
    fn make(&mut self, (mut making, place): Trying, awake: &Awake) {
        let (begun, cpu) = (awake.ticks(), calls_cpu());
        let unfinished = loop {
            let step = catch_unwind(AssertUnwindSafe(|| making.step(&self.setup, &self.kept)));
            let Ok(Some(next)) = step.inspect_err(|_| tracing::error!("configuring a plugin panicked"))
            else {
                break None;
            };
            making = next;
            if self.line.live_waits() || awake.ticks().wrapping_sub(begun) >= TURN_TICKS {
                break Some((making, place));
            }
        };
        if let Some(trials) = &mut self.trials {
            trials.spend(calls_cpu().saturating_sub(cpu));
        }
        self.line.tried(unfinished);
    }
}

/// How calls of a turn ended.
#[derive(Debug, Clone, Copy, Default)]
struct Ended {
    /// The fault that one ended in.
    failed: Option<Fault>,
    /// One ended because of what all guests hold together.
    crowded_out: bool,
}

/// Judges as many of a job's killmails as fit its turn, at least one.
fn turn(setup: &Setup, job: &mut Job, line: &Line, awake: &Awake) -> Ended {
    let begun = awake.ticks();
    let mut turn = Turn::begin(&job.evaluator, setup, job.run);
    while job.answers.len() < job.page.len() {
        let answer = turn.judge(&job.page, job.answers.len());
        job.answers.push(answer);
        let gives_way = job.run != Run::Live && line.live_waits();
        if gives_way || awake.ticks().wrapping_sub(begun) >= TURN_TICKS {
            break;
        }
    }
    Ended { failed: turn.failed(), crowded_out: turn.was_crowded_out() }
}
