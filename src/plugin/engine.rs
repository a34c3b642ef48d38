//! The engine: compiles components, keeps evaluators, has killmails judged.
//!
//! Must not know: where killmails come from or go, names and versions of plugins.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::domain::entry::{Entry, Page, SharedEntry};
use crate::plugin::build::Builder;
use crate::plugin::capacity::Capacity;
use crate::plugin::clock::Ticker;
use crate::plugin::compile::{self, Upload};
use crate::plugin::component::{About, Component};
use crate::plugin::counters::{Counters, Counts};
use crate::plugin::error::{Error, Refusal};
use crate::plugin::evaluator::{Answer, Evaluator, Instance, Key, Run};
use crate::plugin::guest::Guest;
use crate::plugin::history::History;
use crate::plugin::limits::Config;
use crate::plugin::pool::Pool;
use crate::plugin::probe;
use crate::plugin::setup::{Memory, Setup};
use crate::plugin::state::Outside;

type Evaluators = Mutex<HashMap<Key, Evaluator>>;

/// Runs plugins. One for a server.
pub struct Engine {
    setup: Arc<Setup>,
    // Dropped in this order: threads end before the ticker that could interrupt their guests.
    pool: Pool,
    ticker: Ticker,
    evaluators: Arc<Evaluators>,
    counters: Mutex<BTreeMap<String, Arc<Counters>>>,
    builder: Builder,
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
        let setup = Arc::new(Setup::new(config, Outside { history, json }, Memory::Pooled)?);
        let ticker = Ticker::start(setup.weak())?;
        let evaluators = Arc::new(Evaluators::default());
        let idle = {
            let (evaluators, after) = (Arc::downgrade(&evaluators), Duration::from_secs(setup.config.evaluator_idle_secs));
            move || sweep(&evaluators, after)
        };
        let kept = Arc::downgrade(&evaluators);
        setup.capacity.let_go_with(move || let_go(&kept));
        let pool = Pool::start(&setup, &ticker.handle(), idle)?;
        Ok(Arc::new(Self {
            builder: Builder::new(Arc::clone(&setup.config)),
            setup,
            pool,
            ticker,
            evaluators,
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

    /// Names what compiled code depends on beside the component: another compiler, or other settings of it, give another name.
    #[must_use]
    pub fn compatibility(&self) -> String {
        self.setup.compatibility()
    }

    /// Maps the code that the builder made of a component, from a file that only it wrote.
    ///
    /// # Errors
    /// It was made by another compiler, or needs what is not provided.
    pub fn load(&self, upload: Upload<'_>, about: About, code: &Path) -> Result<Component, Refusal> {
        let compiled = compile::load(&self.setup, about, code)?;
        let component = compile::component(&self.setup, &compiled, upload, self.counters(upload.digest));
        component.map_err(|refusal| refusal.legible(self.setup.config.text_bytes))
    }

    /// Checks and compiles a component in this process, and instantiates it once: for programs that trust it. Blocks for up to seconds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(&self, bytes: &[u8]) -> Result<Component, Refusal> {
        self.compiled(bytes).map_err(|refusal| refusal.legible(self.setup.config.text_bytes))
    }

    fn compiled(&self, bytes: &[u8]) -> Result<Component, Refusal> {
        let compiled = compile::compile(&self.setup, bytes)?;
        let digest = compile::sha256_hex(bytes);
        let upload = Upload { digest: &digest, size_bytes: bytes.len() };
        let component = compile::component(&self.setup, &compiled, upload, self.counters(&digest))?;
        let _awake = self.ticker.awake();
        Guest::new(&self.setup, &component)?;
        Ok(component)
    }

    fn counters(&self, digest: &str) -> Arc<Counters> {
        Arc::clone(self.counters.lock().entry(digest.to_owned()).or_default())
    }

    /// Judges a sample forward and backward on two instances. Blocks.
    ///
    /// # Errors
    /// `Configure` where the configuration is refused, `NotRepeatable` where a verdict differs, `TooMany` or `Full` where there is no room.
    pub fn probe(&self, component: &Component, config: &str, sample: &[SharedEntry]) -> Result<(), Refusal> {
        let _place = self.setup.capacity.reserve(component.about())?;
        let _awake = self.ticker.awake();
        probe::probe(&self.setup, component, config, sample).map_err(|refusal| refusal.legible(self.setup.config.text_bytes))
    }

    /// Tries an upload as [`probe::by_default`] does. Blocks.
    ///
    /// # Errors
    /// As [`Engine::probe`].
    pub fn probe_by_default(&self, component: &Component, sample: &[SharedEntry]) -> Result<bool, Refusal> {
        let _place = self.setup.capacity.reserve(component.about())?;
        let _awake = self.ticker.awake();
        probe::by_default(&self.setup, component, sample).map_err(|refusal| refusal.legible(self.setup.config.text_bytes))
    }

    /// Configures a component; pairs equal in component, configuration and `instance` share one evaluator. Blocks for up to
    /// `configure_cpu_ms`.
    ///
    /// # Errors
    /// `Configure` with the guest's text, `Instantiate`, or what [`Refusal::is_busy`] tells of where all there may be is in use.
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
        let place = self.setup.capacity.reserve(component.about())?;
        let awake = self.ticker.awake();
        let mut first = Guest::new(&self.setup, component)?;
        let needs = first.configure(&self.setup, config)?;
        drop(awake);
        let shard = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let made = Evaluator::new(&self.setup, (component.clone(), place), key.clone(), needs, first, shard);
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

    /// What all guests share: how much of it there is, and is in use.
    #[must_use]
    pub fn capacity(&self) -> &Capacity {
        &self.setup.capacity
    }
}

/// Lets go of the evaluator that was not used for the longest time; `false`: all are in use.
fn let_go(evaluators: &Weak<Evaluators>) -> bool {
    let Some(evaluators) = evaluators.upgrade() else { return false };
    let mut kept = evaluators.lock();
    let idlest = kept.iter().filter(|(_, e)| e.is_idle()).max_by_key(|(_, e)| e.idle_for()).map(|(key, _)| key.clone());
    let evicted = idlest.and_then(|key| kept.remove(&key));
    drop(kept);
    // Its instances end outside the lock.
    evicted.is_some()
}

fn sweep(evaluators: &Weak<Evaluators>, after: Duration) {
    let Some(evaluators) = evaluators.upgrade() else { return };
    let mut kept = evaluators.lock();
    let idle: Vec<Key> = kept.iter().filter(|(_, e)| e.is_idle() && e.idle_for() >= after).map(|(key, _)| key.clone()).collect();
    let evicted: Vec<Evaluator> = idle.iter().filter_map(|key| kept.remove(key)).collect();
    drop(kept);
    drop(evicted);
}
