//! The engine: compiles components, keeps evaluators, and runs them on killmails.
//!
//! Must not know: where killmails come from or go, names and versions of plugins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::domain::entry::{Entry, Page, SharedEntry};
use crate::domain::hex::sha256_hex;
use crate::plugin::build::Builder;
use crate::plugin::build::compile;
use crate::plugin::build::compile::UploadId;
use crate::plugin::component_info::ComponentInfo;
use crate::plugin::counters::{Counters, Counts};
use crate::plugin::error::{EngineError, Refusal};
use crate::plugin::history::History;
use crate::plugin::judging::evaluator::{Evaluator, EvaluatorKey};
use crate::plugin::judging::evaluator_cache;
use crate::plugin::judging::evaluator_cache::{CacheLookup, EvaluatorCache};
use crate::plugin::judging::evaluator_setup::EvaluatorSetup;
use crate::plugin::judging::job_queue::PagesWaiting;
use crate::plugin::judging::pair_records::QuarantinedPairs;
use crate::plugin::judging::repeatability_trial;
use crate::plugin::judging::repeatability_trial::TrialReport;
use crate::plugin::judging::run::{Answer, Instance, Judgment, Run};
use crate::plugin::judging::worker_pool::WorkerPool;
use crate::plugin::limits::Config;
use crate::plugin::resources::capacity::Capacity;
use crate::plugin::resources::capacity::InstanceAllocation;
use crate::plugin::resources::charge::Charge;
use crate::plugin::resources::cpu_clock::Ticker;
use crate::plugin::resources::memory_account::AddressBudget;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::guest::Guest;
use crate::plugin::sandbox::setup::Setup;
use crate::plugin::sandbox::state::HostServices;

/// Runs plugins. A server has one.
pub struct Engine {
    setup: Arc<Setup>,
    // Dropped in this order: the threads end before the ticker that could interrupt their guests.
    pool: WorkerPool,
    ticker: Ticker,
    cache: Arc<EvaluatorCache>,
    counters: Mutex<CounterRegistry>,
    builder: Builder,
    next_shard: AtomicUsize,
}

/// Counters by component digest, and the sum of those that were removed.
#[derive(Default)]
struct CounterRegistry {
    by_digest: BTreeMap<String, Arc<Counters>>,
    /// Components whose counters are removed as soon as they are unused.
    removing: BTreeSet<String>,
    removed: Counts,
}

impl CounterRegistry {
    fn get_or_create(&mut self, digest: &str) -> Arc<Counters> {
        self.removing.remove(digest);
        Arc::clone(self.by_digest.entry(digest.to_owned()).or_default())
    }

    fn forget(&mut self, digest: &str) {
        self.removing.insert(digest.to_owned());
        let Self { by_digest, removing, removed } = self;
        removing.retain(|digest| {
            let Some(counters) = by_digest.get(digest) else { return false };
            let is_in_use = Arc::strong_count(counters) > 1;
            if !is_in_use {
                removed.add(&counters.snapshot());
                by_digest.remove(digest);
            }
            is_in_use
        });
        // It would no longer be clear which component it belongs to.
        removed.last_fault = None;
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Sets up the compiler and starts the worker threads. `json` returns the canonical JSON of an entry.
    ///
    /// # Errors
    /// The instance pool or a thread cannot be created.
    pub fn new(
        config: Config,
        history: Arc<dyn History>,
        json: fn(&Entry) -> Bytes,
    ) -> Result<Arc<Self>, EngineError> {
        let setup = Arc::new(Setup::new(config, HostServices { history, json }, InstanceAllocation::Pooled)?);
        let ticker = Ticker::start(setup.weak())?;
        let cache = EvaluatorCache::new(&setup.config);
        setup.capacity.set_evaluator_evictor(Arc::downgrade(&cache));
        let pool = WorkerPool::start(&setup, &ticker.handle(), &cache)?;
        Ok(Arc::new(Self {
            builder: Builder::new(Arc::clone(&setup.config)),
            setup,
            pool,
            ticker,
            cache,
            counters: Mutex::default(),
            next_shard: AtomicUsize::new(0),
        }))
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.setup.config
    }

    /// Compiles components in a separate process.
    #[must_use]
    pub const fn builder(&self) -> &Builder {
        &self.builder
    }

    /// Identifies what compiled code depends on beside the component: it changes with the compiler and its
    /// settings.
    #[must_use]
    pub fn compatibility(&self) -> String {
        self.setup.compatibility()
    }

    /// Checks that a component could ever fit into memory, as far as the scan can tell: its code is not
    /// included.
    ///
    /// # Errors
    /// `NeverFits`.
    pub fn admit(&self, info: &ComponentInfo) -> Result<(), Refusal> {
        Charge::check_fits(&self.setup.capacity, info.class, info.loaded_bytes(0))
    }

    /// Charges the memory of a component whose code file has this size, before the file is read.
    ///
    /// # Errors
    /// `Full` or `NeverFits`.
    pub fn charge(&self, info: &ComponentInfo, code_bytes: u64) -> Result<Charge, Refusal> {
        compile::charge_memory(&self.setup, info, code_bytes)
    }

    /// Maps the code that the builder compiled, from a file that only the builder writes.
    ///
    /// # Errors
    /// It was compiled by another compiler, or imports what is not provided.
    pub fn load(
        &self,
        upload: UploadId<'_>,
        info: ComponentInfo,
        code: &Path,
        charge: Charge,
    ) -> Result<Component, Refusal> {
        let compiled = compile::load(&self.setup, info, code, charge)?;
        let component = compile::check_linkage(&self.setup, &compiled, upload, self.counters(upload.digest));
        component.map_err(|refusal| refusal.legible(self.setup.config.text_bytes))
    }

    /// Checks and compiles a component in this process, and instantiates it once. For programs that trust the
    /// component. Blocks for up to seconds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(&self, bytes: &[u8]) -> Result<Component, Refusal> {
        self.try_compile(bytes).map_err(|refusal| refusal.legible(self.setup.config.text_bytes))
    }

    fn try_compile(&self, bytes: &[u8]) -> Result<Component, Refusal> {
        let compiled = compile::compile(&self.setup, bytes)?;
        let digest = sha256_hex(bytes);
        let upload = UploadId { digest: &digest, size_bytes: bytes.len() };
        let component = compile::check_linkage(&self.setup, &compiled, upload, self.counters(&digest))?;
        let _ticking = self.ticker.keep_ticking();
        Guest::new(&self.setup, &component)?;
        Ok(component)
    }

    fn counters(&self, digest: &str) -> Arc<Counters> {
        self.counters.lock().get_or_create(digest)
    }

    /// Runs the trial: evaluates a sample in several orders, each on a separate instance. Blocks.
    ///
    /// # Errors
    /// `Configure` if the configuration is refused, `NotRepeatable` if a verdict differs, `Deadline` and
    /// `HostBudget` if a call exceeded a limit twice, `TooMany` or `Full` if evaluators or memory are used
    /// up.
    pub fn try_sample(
        &self,
        component: &Component,
        config: &str,
        sample: &[SharedEntry],
    ) -> Result<(), Refusal> {
        let _reserved = self.setup.capacity.reserve(component.about())?;
        let _ticking = self.ticker.keep_ticking();
        repeatability_trial::try_sample(&self.setup, component, config, sample)
            .map_err(|refusal| refusal.legible(self.setup.config.text_bytes))
    }

    /// Tries an upload as [`repeatability_trial::try_upload`] does. Blocks.
    ///
    /// # Errors
    /// As [`Engine::try_sample`].
    pub fn try_upload(&self, component: &Component, sample: &[SharedEntry]) -> Result<TrialReport, Refusal> {
        let _reserved = self.setup.capacity.reserve(component.about())?;
        let _ticking = self.ticker.keep_ticking();
        repeatability_trial::try_upload(&self.setup, component, sample)
            .map_err(|refusal| refusal.legible(self.setup.config.text_bytes))
    }

    /// Configures a component, once for everyone who asks for it: pairs equal in component, configuration and
    /// `instance` share one evaluator. This happens on the worker threads, after live pages, and is given up
    /// when nobody waits for it any more. A refusal of the configuration is remembered for a while.
    ///
    /// # Errors
    /// `Configure` with the guest's message. `Configure`, `Deadline` or `HostBudget` if configuring ended in
    /// a fault twice. `Instantiate`, or a refusal that [`Refusal::is_busy`].
    pub async fn evaluator(
        &self,
        component: &Component,
        config: &str,
        instance: Instance,
    ) -> Result<Evaluator, Refusal> {
        self.evaluator_for_address(component, config, instance, None, None).await
    }

    /// The same for a component that was not tried yet: the trial on the sample comes first.
    ///
    /// # Errors
    /// As [`Engine::evaluator`] and [`Engine::try_sample`].
    pub async fn tried_evaluator(
        &self,
        component: &Component,
        config: &str,
        instance: Instance,
        sample: &[SharedEntry],
    ) -> Result<Evaluator, Refusal> {
        self.evaluator_for_address(component, config, instance, Some(sample), None).await
    }

    /// The same as either, with the memory charged to the address that alone asks for it.
    ///
    /// # Errors
    /// As [`Engine::evaluator`] and [`Engine::try_sample`].
    pub async fn evaluator_for_address(
        &self,
        component: &Component,
        config: &str,
        instance: Instance,
        sample: Option<&[SharedEntry]>,
        address: Option<&AddressBudget>,
    ) -> Result<Evaluator, Refusal> {
        let max = self.setup.config.config_bytes;
        if config.len() > max {
            let message =
                format!("the configuration is {} bytes; at most {max} (plugin.config_bytes)", config.len());
            return Err(Refusal::Configure { message, limit: Some(max as u64) });
        }
        let key = EvaluatorKey { digest: component.digest().to_owned(), config: config.to_owned(), instance };
        loop {
            let (mut receiver, was_pending) = match self.cache.lookup(&key, sample.is_some(), address) {
                CacheLookup::Ready(evaluator) => return Ok(evaluator),
                CacheLookup::Refused(refusal) => return Err(refusal),
                CacheLookup::Pending(receiver) => (receiver, true),
                CacheLookup::Missing(receiver, ticket) => {
                    let shard = self.next_shard.fetch_add(1, Ordering::Relaxed);
                    self.pool.set_up(EvaluatorSetup::new(
                        ticket,
                        component.clone(),
                        sample.unwrap_or_default(),
                        shard,
                    ));
                    (receiver, false)
                }
            };
            let lost =
                || Refusal::Crashed("the plugin could not be configured: the work was lost".to_owned());
            let result = receiver
                .wait_for(Option::is_some)
                .await
                .map_err(|_| lost())?
                .clone()
                .unwrap_or_else(|| Err(lost()));
            match result {
                // Ready, but it has to be looked up: it may have been evicted in the meantime.
                Ok(()) => {}
                // Another address has used up its memory, which says nothing about this one.
                Err(Refusal::AddressFull { .. }) if was_pending => {}
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Evaluates a page: one result per killmail, in order. Waits while the queue is full. An evaluator that
    /// reaches its CPU limit ([`Evaluator::with_cpu_limit`]) leaves out the last ones.
    pub async fn judge(&self, evaluator: &Evaluator, page: impl Into<Page>, run: Run) -> Vec<Judgment> {
        let page = page.into();
        evaluator.touch();
        if run == Run::Live
            && let Some(answers) = evaluator.remembered_page(&page)
        {
            return answers;
        }
        self.pool.judge(evaluator, page, run).await
    }

    /// The same without the messages of faults.
    pub async fn evaluate(&self, evaluator: &Evaluator, page: impl Into<Page>, run: Run) -> Vec<Answer> {
        let judged = self.judge(evaluator, page, run).await;
        judged.into_iter().map(|answer| answer.map_err(|failure| failure.fault)).collect()
    }

    /// What all guests did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let counters = self.counters.lock();
        let mut all = counters.removed.clone();
        for each in counters.by_digest.values() {
            all.add(&each.snapshot());
        }
        all
    }

    /// What the guests of one component did so far, by its SHA-256 in hex.
    #[must_use]
    pub fn counts_of(&self, digest: &str) -> Counts {
        self.counters.lock().by_digest.get(digest).map(|counters| counters.snapshot()).unwrap_or_default()
    }

    /// Forgets a component that was deleted. Its counts remain only in [`Engine::counts`].
    pub fn forget(&self, digest: &str) {
        self.cache.records().forget(digest);
        self.counters.lock().forget(digest);
    }

    /// Ready pairs of plugin and configuration, in use or not.
    #[must_use]
    pub fn evaluators_kept(&self) -> usize {
        self.cache.count()
    }

    /// Pairs that are being set up, or wait for it.
    #[must_use]
    pub fn setups_waiting(&self) -> usize {
        self.pool.setups_waiting()
    }

    /// The quarantined pairs of one component, by its SHA-256 in hex.
    #[must_use]
    pub fn quarantined(&self, digest: &str) -> QuarantinedPairs {
        self.cache.records().quarantined(digest)
    }

    /// The number of quarantined pairs.
    #[must_use]
    pub fn quarantined_count(&self) -> usize {
        self.cache.records().quarantined_count()
    }

    /// Pages that wait to be judged.
    #[must_use]
    pub fn pages_waiting(&self) -> PagesWaiting {
        self.pool.pages_waiting()
    }

    /// The number of worker threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.thread_count()
    }

    /// The limits that all guests share, and how much is in use.
    #[must_use]
    pub fn capacity(&self) -> &Capacity {
        &self.setup.capacity
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let evaluators = self.cache.drain();
        if !evaluators.is_empty() {
            evaluator_cache::drop_in_background(evaluators);
        }
    }
}
