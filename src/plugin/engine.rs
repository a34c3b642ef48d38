//! The engine: compiles components, keeps evaluators, has killmails judged.
//!
//! Must not know: where killmails come from or go, names and versions of plugins.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::domain::entry::{Entry, Page, SharedEntry};
use crate::plugin::bindings::Plugin;
use crate::plugin::clock::Ticker;
use crate::plugin::compile;
use crate::plugin::component::Component;
use crate::plugin::counters::{Counters, Counts};
use crate::plugin::error::{Error, Refusal};
use crate::plugin::evaluator::{Answer, Evaluator, Instance, Key, Run};
use crate::plugin::guest::{Guest, told};
use crate::plugin::history::History;
use crate::plugin::limits::Config;
use crate::plugin::pool::Pool;
use crate::plugin::probe;
use crate::plugin::state::{Outside, State};
use crate::plugin::wasi;

/// What every part of the engine needs to make and run instances.
pub struct Setup {
    /// The limits.
    pub config: Arc<Config>,
    /// What guests may ask.
    pub outside: Arc<Outside>,
    /// The compiler and its pool of memory.
    pub wasm: wasmtime::Engine,
    /// What guests may import.
    pub linker: Linker<State>,
}

type Evaluators = Mutex<HashMap<Key, Evaluator>>;

/// Runs plugins. One for a server.
pub struct Engine {
    setup: Arc<Setup>,
    // Dropped in this order: threads end before the ticker that could interrupt their guests.
    pool: Pool,
    ticker: Ticker,
    evaluators: Arc<Evaluators>,
    counters: Mutex<BTreeMap<String, Arc<Counters>>>,
    compiling: Mutex<()>,
    next_shard: AtomicUsize,
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
    pub fn new(config: Config, history: Arc<dyn History>, json: fn(&Entry) -> Bytes) -> Result<Arc<Self>, Error> {
        let wasm = compiler(&config).map_err(|e| Error::Engine(told(&e)))?;
        let linker = linked(&wasm).map_err(|e| Error::Engine(told(&e)))?;
        let ticker = Ticker::start(wasm.weak())?;
        let outside = Arc::new(Outside { history, json });
        let setup = Arc::new(Setup { config: Arc::new(config), outside, wasm, linker });
        let evaluators = Arc::new(Evaluators::default());
        let idle = {
            let (evaluators, after) = (Arc::downgrade(&evaluators), Duration::from_secs(setup.config.evaluator_idle_secs));
            move || sweep(&evaluators, after)
        };
        let pool = Pool::start(&setup, &ticker.handle(), idle)?;
        Ok(Arc::new(Self {
            setup,
            pool,
            ticker,
            evaluators,
            counters: Mutex::default(),
            compiling: Mutex::default(),
            next_shard: AtomicUsize::new(0),
        }))
    }

    /// The limits.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.setup.config
    }

    /// Checks and compiles an upload, and instantiates it once. Blocks for up to seconds; one at a time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(&self, bytes: &[u8]) -> Result<Component, Refusal> {
        let _one = self.compiling.lock();
        let counters = |digest: &str| Arc::clone(self.counters.lock().entry(digest.to_owned()).or_default());
        let component = compile::compile(&self.setup, bytes, counters)?;
        let _awake = self.ticker.awake();
        Guest::new(&self.setup, &component)?;
        Ok(component)
    }

    /// Judges a sample forward and backward on two instances. Blocks.
    ///
    /// # Errors
    /// `Configure` where the configuration is refused, `NotRepeatable` where a verdict differs.
    pub fn probe(&self, component: &Component, config: &str, sample: &[SharedEntry]) -> Result<(), Refusal> {
        let _awake = self.ticker.awake();
        probe::probe(&self.setup, component, config, sample)
    }

    /// Configures a component; pairs equal in component, configuration and `instance` share one evaluator. Blocks for up to
    /// `configure_cpu_ms`.
    ///
    /// # Errors
    /// `Configure` with the guest's text, `Instantiate`, or `TooMany` when all evaluators there may be are in use.
    pub fn evaluator(&self, component: &Component, config: &str, instance: Instance) -> Result<Evaluator, Refusal> {
        let max = self.setup.config.config_bytes;
        if config.len() > max {
            return Err(Refusal::Configure(format!("the configuration is {} bytes; at most {max} (plugin.config_bytes)", config.len())));
        }
        let key = Key { digest: component.digest().to_owned(), config: config.to_owned(), instance };
        if let Some(known) = self.evaluators.lock().get(&key) {
            known.touch();
            return Ok(known.clone());
        }
        self.make_room()?;
        let awake = self.ticker.awake();
        let mut first = Guest::new(&self.setup, component)?;
        let needs = first.configure(&self.setup, config)?;
        drop(awake);
        let shard = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let made = Evaluator::new(&self.setup, component.clone(), key.clone(), needs, first, shard);
        Ok(self.evaluators.lock().entry(key).or_insert(made).clone())
    }

    /// Has a page judged: an answer for each killmail, in order. Waits while the queue is full.
    pub async fn evaluate(&self, evaluator: &Evaluator, page: impl Into<Page>, run: Run) -> Vec<Answer> {
        let page = page.into();
        evaluator.touch();
        if run == Run::Live
            && let Some(answers) = evaluator.recall(&page)
        {
            return answers;
        }
        self.pool.judge(evaluator, page, run).await
    }

    /// What all guests did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut all = Counts::default();
        for counters in self.counters.lock().values() {
            all.add(&counters.read());
        }
        all
    }

    /// What the guests of one component did so far; its SHA-256 in hex.
    #[must_use]
    pub fn counts_of(&self, digest: &str) -> Counts {
        self.counters.lock().get(digest).map(|counters| counters.read()).unwrap_or_default()
    }

    /// How many pairs of plugin and configuration are kept ready, in use or not.
    #[must_use]
    pub fn evaluators_kept(&self) -> usize {
        self.evaluators.lock().len()
    }

    /// How many judging threads there are.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.len()
    }

    fn make_room(&self) -> Result<(), Refusal> {
        let max = self.setup.config.evaluators_max;
        let mut kept = self.evaluators.lock();
        if kept.len() < max {
            return Ok(());
        }
        let idlest = kept.iter().filter(|(_, e)| e.is_idle()).max_by_key(|(_, e)| e.idle_for()).map(|(key, _)| key.clone());
        let evicted = kept.remove(&idlest.ok_or(Refusal::TooMany { max })?);
        drop(kept);
        // Its instances end outside the lock.
        drop(evicted);
        Ok(())
    }
}

fn sweep(evaluators: &Weak<Evaluators>, after: Duration) {
    let Some(evaluators) = evaluators.upgrade() else { return };
    let mut kept = evaluators.lock();
    let idle: Vec<Key> = kept.iter().filter(|(_, e)| e.is_idle() && e.idle_for() >= after).map(|(key, _)| key.clone()).collect();
    let evicted: Vec<Evaluator> = idle.iter().filter_map(|key| kept.remove(key)).collect();
    drop(kept);
    drop(evicted);
}

fn linked(wasm: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(wasm);
    Plugin::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// The compiler with its pool; without one where the address space does not allow it (instances then take longer to make).
fn compiler(limits: &Config) -> wasmtime::Result<wasmtime::Engine> {
    let mut settings = tuned(limits);
    settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits)));
    wasmtime::Engine::new(&settings).or_else(|error| {
        tracing::warn!("no pool of instances for plugins: {}", told(&error));
        wasmtime::Engine::new(&tuned(limits))
    })
}

/// The compiler's settings: one behaviour on every machine, nothing that is still being worked out, no way to make threads.
fn tuned(limits: &Config) -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .cranelift_nan_canonicalization(true)
        .max_wasm_stack(limits.stack_bytes)
        .async_stack_size(limits.stack_bytes * 2)
        .memory_reservation(limits.memory_bytes as u64)
        .memory_reservation_for_growth(0)
        .memory_guard_size(64 * 1024)
        .memory_init_cow(true)
        .wasm_multi_memory(true)
        .wasm_tail_call(true)
        .wasm_simd(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_stack_switching(false);
    config
}

/// Two warm instances for each evaluator and some to spare. Address space only, until it is used.
fn pool(limits: &Config) -> PoolingAllocationConfig {
    let instances = u32::try_from(limits.evaluators_max).unwrap_or(u32::MAX / 16).saturating_mul(2).saturating_add(64);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(8))
        .total_memories(instances.saturating_mul(2))
        .total_tables(instances.saturating_mul(4))
        .max_memory_size(limits.memory_bytes)
        .table_elements(limits.table_elements_max)
        .max_memories_per_module(u32::try_from(limits.memories_max).unwrap_or(u32::MAX))
        .max_tables_per_module(u32::try_from(limits.tables_max).unwrap_or(u32::MAX))
        .linear_memory_keep_resident(64 * 1024)
        .table_keep_resident(16 * 1024);
    pool
}
