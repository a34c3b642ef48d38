//! The engine: compiles components, keeps evaluators, has killmails judged.
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

/// Runs plugins. One for a server.
pub struct Engine {
    setup: Arc<Setup>,
    // Dropped in this order: threads end before the ticker that could interrupt their guests.
    pool: WorkerPool,
    ticker: Ticker,
    cache: Arc<EvaluatorCache>,
    counters: Mutex<CounterRegistry>,
    builder: Builder,
    next_shard: AtomicUsize,
}

/// Counts by digest of the component, and the sum of those that are gone.
#[derive(Default)]
struct CounterRegistry {
    by_digest: BTreeMap<String, Arc<Counters>>,
    /// Components that are forgotten as soon as nobody has them.
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
        let Self { by_digest, removing: leaving, removed: gone } = self;
        leaving.retain(|digest| {
            let Some(counters) = by_digest.get(digest) else { return false };
            let is_in_use = Arc::strong_count(counters) > 1;
            if !is_in_use {
                gone.add(&counters.snapshot());
                by_digest.remove(digest);
            }
            is_in_use
        });
        // Whose it was is no longer known.
        gone.last_fault = None;
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Sets up the compiler and starts the judging threads. `json` gives the canonical JSON of an entry.
    ///
    /// # Errors
    /// The pool of memory or a thread could not be had.
    pub fn new(
        config: Config,
        history: Arc<dyn History>,
        json: fn(&Entry) -> Bytes,
    ) -> Result<Arc<Self>, EngineError> {
        let setup = Arc::new(Setup::new(config, HostServices { history, json }, InstanceAllocation::Pooled)?);
        let ticker = Ticker::start(setup.weak())?;
        let kept = EvaluatorCache::new(&setup.config);
        setup.capacity.set_evaluator_evictor(Arc::downgrade(&kept));
        let pool = WorkerPool::start(&setup, &ticker.handle(), &kept)?;
        Ok(Arc::new(Self {
            builder: Builder::new(Arc::clone(&setup.config)),
            setup,
            pool,
            ticker,
            cache: kept,
            counters: Mutex::default(),
            next_shard: AtomicUsize::new(0),
        }))
    }

    /// The limits.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.setup.config
    }

    /// What compiles components apart from the server.
    #[must_use]
    pub const fn builder(&self) -> &Builder {
        &self.builder
    }

    /// Names what compiled code depends on beside the component: another compiler, or other settings of it,
    /// give another name.
    #[must_use]
    pub fn compatibility(&self) -> String {
        self.setup.compatibility()
    }

    /// Whether there could ever be memory for a component, as far as the scan can tell: its code comes on
    /// top.
    ///
    /// # Errors
    /// `NeverFits`.
    pub fn admit(&self, about: &ComponentInfo) -> Result<(), Refusal> {
        Charge::check_fits(&self.setup.capacity, about.class, about.loaded_bytes(0))
    }

    /// Charges memory with what code of so many bytes takes loaded, before any of it is read.
    ///
    /// # Errors
    /// `Full` or `NeverFits` where there is no memory for it.
    pub fn charge(&self, about: &ComponentInfo, code_bytes: u64) -> Result<Charge, Refusal> {
        compile::charge_memory(&self.setup, about, code_bytes)
    }

    /// Maps the code that the builder made of a component, from a file that only it wrote.
    ///
    /// # Errors
    /// It was made by another compiler, or needs what is not provided.
    pub fn load(
        &self,
        upload: UploadId<'_>,
        about: ComponentInfo,
        code: &Path,
        charge: Charge,
    ) -> Result<Component, Refusal> {
        let compiled = compile::load(&self.setup, about, code, charge)?;
        let component = compile::check_linkage(&self.setup, &compiled, upload, self.counters(upload.digest));
        component.map_err(|refusal| refusal.legible(self.setup.config.text_bytes))
    }

    /// Checks and compiles a component in this process, and instantiates it once: for programs that trust it.
    /// Blocks for up to seconds.
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
        let _awake = self.ticker.keep_ticking();
        Guest::new(&self.setup, &component)?;
        Ok(component)
    }

    fn counters(&self, digest: &str) -> Arc<Counters> {
        self.counters.lock().get_or_create(digest)
    }

    /// Judges a sample in several orders, each on an instance of its own. Blocks.
    ///
    /// # Errors
    /// `Configure` where the configuration is refused, `NotRepeatable` where a verdict differs, `Deadline`
    /// and `HostBudget` where a call took too much twice, `TooMany` or `Full` where there is no room.
    pub fn try_sample(
        &self,
        component: &Component,
        config: &str,
        sample: &[SharedEntry],
    ) -> Result<(), Refusal> {
        let _place = self.setup.capacity.reserve(component.about())?;
        let _awake = self.ticker.keep_ticking();
        repeatability_trial::try_sample(&self.setup, component, config, sample)
            .map_err(|refusal| refusal.legible(self.setup.config.text_bytes))
    }

    /// Tries an upload as [`probe::by_default`] does. Blocks.
    ///
    /// # Errors
    /// As [`Engine::probe`].
    pub fn try_upload(&self, component: &Component, sample: &[SharedEntry]) -> Result<TrialReport, Refusal> {
        let _place = self.setup.capacity.reserve(component.about())?;
        let _awake = self.ticker.keep_ticking();
        repeatability_trial::try_upload(&self.setup, component, sample)
            .map_err(|refusal| refusal.legible(self.setup.config.text_bytes))
    }

    /// Configures a component, once for all who ask; pairs equal in component, configuration and `instance`
    /// share one evaluator. It is done on the judging threads, after what is live, and given up when nobody
    /// waits for it any more. A refusal of the configuration is remembered for a while.
    ///
    /// # Errors
    /// `Configure` with the guest's text; that, `Deadline` or `HostBudget` where configuring ended in a fault
    /// twice; `Instantiate`, or what [`Refusal::is_busy`] tells of.
    pub async fn evaluator(
        &self,
        component: &Component,
        config: &str,
        instance: Instance,
    ) -> Result<Evaluator, Refusal> {
        self.evaluator_for_address(component, config, instance, None, None).await
    }

    /// The same for a component that was not tried yet: it is tried on the sample before it is configured for
    /// use.
    ///
    /// # Errors
    /// As [`Engine::evaluator`] and [`Engine::probe`].
    pub async fn tried_evaluator(
        &self,
        component: &Component,
        config: &str,
        instance: Instance,
        sample: &[SharedEntry],
    ) -> Result<Evaluator, Refusal> {
        self.evaluator_for_address(component, config, instance, Some(sample), None).await
    }

    /// The same as either, with its memory charged to the address that alone asks for it.
    ///
    /// # Errors
    /// As [`Engine::evaluator`] and [`Engine::probe`].
    pub async fn evaluator_for_address(
        &self,
        component: &Component,
        config: &str,
        instance: Instance,
        sample: Option<&[SharedEntry]>,
        payer: Option<&AddressBudget>,
    ) -> Result<Evaluator, Refusal> {
        let max = self.setup.config.config_bytes;
        if config.len() > max {
            let message =
                format!("the configuration is {} bytes; at most {max} (plugin.config_bytes)", config.len());
            return Err(Refusal::Configure { message, limit: Some(max as u64) });
        }
        let key = EvaluatorKey { digest: component.digest().to_owned(), config: config.to_owned(), instance };
        loop {
            let (mut news, is_others) = match self.cache.lookup(&key, sample.is_some(), payer) {
                CacheLookup::Ready(evaluator) => return Ok(evaluator),
                CacheLookup::Refused(refusal) => return Err(refusal),
                CacheLookup::Pending(news) => (news, true),
                CacheLookup::Missing(news, order) => {
                    let shard = self.next_shard.fetch_add(1, Ordering::Relaxed);
                    self.pool.set_up(EvaluatorSetup::new(
                        order,
                        component.clone(),
                        sample.unwrap_or_default(),
                        shard,
                    ));
                    (news, false)
                }
            };
            let lost =
                || Refusal::Crashed("the plugin could not be configured: the work was lost".to_owned());
            let made = news
                .wait_for(Option::is_some)
                .await
                .map_err(|_| lost())?
                .clone()
                .unwrap_or_else(|| Err(lost()));
            match made {
                // Good news is of something that has to be asked for: meanwhile nobody held it.
                Ok(()) => {}
                // What another address has too much of says nothing of this one.
                Err(Refusal::AddressFull { .. }) if is_others => {}
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Has a page judged: an answer for each killmail, in order. Waits while the queue is full. An evaluator
    /// that may cost only so much ([`Evaluator::within`]) leaves out the last of them once it did.
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

    /// The same without what is told of faults.
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

    /// What the guests of one component did so far; its SHA-256 in hex.
    #[must_use]
    pub fn counts_of(&self, digest: &str) -> Counts {
        self.counters.lock().by_digest.get(digest).map(|counters| counters.snapshot()).unwrap_or_default()
    }

    /// Forgets a component that is gone: what it did so far stays in [`Engine::counts`] only.
    pub fn forget(&self, digest: &str) {
        self.cache.records().forget(digest);
        self.counters.lock().forget(digest);
    }

    /// How many pairs of plugin and configuration are kept ready, in use or not.
    #[must_use]
    pub fn evaluators_kept(&self) -> usize {
        self.cache.len()
    }

    /// How many pairs wait to be made ready, or are being made.
    #[must_use]
    pub fn setups_waiting(&self) -> usize {
        self.pool.setups_waiting()
    }

    /// The pairs of one component that rest because of what they did; its SHA-256 in hex.
    #[must_use]
    pub fn quarantined(&self, digest: &str) -> QuarantinedPairs {
        self.cache.records().quarantined(digest)
    }

    /// How many pairs rest.
    #[must_use]
    pub fn quarantined_count(&self) -> usize {
        self.cache.records().quarantined_count()
    }

    /// The pages that wait to be judged.
    #[must_use]
    pub fn pages_waiting(&self) -> PagesWaiting {
        self.pool.pages_waiting()
    }

    /// How many judging threads there are.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.len()
    }

    /// What all guests share: how much of it there is, and is in use.
    #[must_use]
    pub fn capacity(&self) -> &Capacity {
        &self.setup.capacity
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let kept = self.cache.drain();
        if !kept.is_empty() {
            evaluator_cache::drop_in_background(kept);
        }
    }
}
