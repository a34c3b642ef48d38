//! The threads that judge. Each owns its share of the evaluators, so an instance is never waited for; live goes before history.
//!
//! Law 6 (a guest hurts only itself) stands here: turns are short and go round, so a slow guest delays a neighbor by one call.
//!
//! Must not know: what a verdict leads to.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::domain::entry::Page;
use crate::domain::verdict::Fault;
use crate::plugin::clock::{Awake, TickerHandle};
use crate::plugin::error::Error;
use crate::plugin::evaluator::{Answer, Evaluator, Run};
use crate::plugin::setup::Setup;
use crate::tasks;

/// A job gives way to the next at the second tick: after one to two milliseconds, without asking a clock after each killmail.
const TURN_TICKS: u32 = 2;
/// How often an idle thread tidies up.
const IDLE: Duration = Duration::from_secs(5);

/// A page to judge.
struct Job {
    evaluator: Evaluator,
    page: Page,
    run: Run,
    answers: Vec<Answer>,
    reply: oneshot::Sender<Vec<Answer>>,
    /// Its place in the bounded queue, given back when the job is done.
    _place: OwnedSemaphorePermit,
}

struct Worker {
    jobs: Option<Sender<Job>>,
    live_places: Arc<Semaphore>,
    past_places: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

/// The judging threads; they end, and are waited for, when it is dropped.
pub struct Pool {
    workers: Vec<Worker>,
}

impl Pool {
    /// Starts the threads. `idle` is called now and then by a thread without work.
    ///
    /// # Errors
    /// The system refused to make a thread.
    pub fn start(setup: &Arc<Setup>, ticker: &TickerHandle, idle: impl Fn() + Send + Clone + 'static) -> Result<Self, Error> {
        let config = &setup.config;
        let mut workers = Vec::new();
        for _ in 0..config.worker_count() {
            // A job needs a place first, so the channel is never full.
            let (jobs, inbox) = bounded(config.queue_live_max + config.queue_history_max);
            let (setup, ticker, idle) = (Arc::clone(setup), ticker.clone(), idle.clone());
            let thread = tasks::thread("plugin-judge", move || work(&setup, &inbox, &ticker, &idle))?;
            workers.push(Worker {
                jobs: Some(jobs),
                live_places: Arc::new(Semaphore::new(config.queue_live_max)),
                past_places: Arc::new(Semaphore::new(config.queue_history_max)),
                thread: Some(thread),
            });
        }
        Ok(Self { workers })
    }

    /// How many threads there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Has a page judged by the evaluator's thread; waits for a place in its queue first.
    pub async fn judge(&self, evaluator: &Evaluator, page: Page, run: Run) -> Vec<Answer> {
        let count = page.len();
        let failed = || vec![Err(Fault::Trap); count];
        let worker = &self.workers[evaluator.shard() % self.workers.len()];
        let places = if run == Run::Live { &worker.live_places } else { &worker.past_places };
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return failed() };
        let (reply, answer) = oneshot::channel();
        let job = Job { evaluator: evaluator.clone(), page, run, answers: Vec::with_capacity(count), reply, _place: place };
        let sent = worker.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return failed();
        }
        answer.await.unwrap_or_else(|_| failed())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.jobs = None;
        }
        for worker in &mut self.workers {
            let Some(thread) = worker.thread.take() else { continue };
            // The last holder of the engine may be one of its own threads.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a judging thread panicked");
            }
        }
    }
}

#[derive(Default)]
struct Queues {
    live: VecDeque<Job>,
    past: VecDeque<Job>,
}

impl Queues {
    fn push(&mut self, job: Job) {
        if job.run == Run::Live { self.live.push_back(job) } else { self.past.push_back(job) }
    }

    fn is_empty(&self) -> bool {
        self.live.is_empty() && self.past.is_empty()
    }

    fn pop(&mut self) -> Option<Job> {
        self.live.pop_front().or_else(|| self.past.pop_front())
    }
}

fn work(setup: &Setup, inbox: &Receiver<Job>, ticker: &TickerHandle, idle: &impl Fn()) {
    // WASI's streams want a tokio handle at hand; this one runs nothing and starts no threads.
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let _entered = runtime.as_ref().ok().map(tokio::runtime::Runtime::enter);
    let mut queues = Queues::default();
    loop {
        match inbox.recv_timeout(IDLE) {
            Ok(job) => queues.push(job),
            Err(RecvTimeoutError::Timeout) => {
                idle();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let awake = ticker.awake();
        while !queues.is_empty() {
            while let Ok(job) = inbox.try_recv() {
                queues.push(job);
            }
            let Some(mut job) = queues.pop() else { break };
            let evaluator = job.evaluator.clone();
            evaluator.spend(|| turn(setup, &mut job, inbox, &awake));
            if job.answers.len() < job.page.len() && !job.reply.is_closed() {
                queues.push(job);
            } else {
                let Job { page, answers, reply, .. } = job;
                // Whoever asked has the page to himself again.
                drop(page);
                // An asker who went away is no failure.
                let _ = reply.send(answers);
            }
        }
    }
}

/// Judges as many of a job's killmails as fit its turn, at least one.
fn turn(setup: &Setup, job: &mut Job, inbox: &Receiver<Job>, awake: &Awake) {
    let begun = awake.ticks();
    let mut turn = job.evaluator.turn(setup, job.run);
    while job.answers.len() < job.page.len() {
        let at = job.answers.len();
        let answer = catch_unwind(AssertUnwindSafe(|| turn.judge(&job.page, at)));
        job.answers.push(answer.unwrap_or_else(|_| {
            let id = job.page[at].killmail.killmail_id;
            tracing::error!(plugin.digest = job.evaluator.digest(), "judging killmail {id} panicked");
            Err(Fault::Trap)
        }));
        let gives_way = job.run != Run::Live && !inbox.is_empty();
        if gives_way || awake.ticks().wrapping_sub(begun) >= TURN_TICKS {
            return;
        }
    }
}
