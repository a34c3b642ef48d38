//! Components by digest: which are ready to run, which are being prepared, which no longer can.
//!
//! What was compiled once is kept and mapped when it is first used: a matter of milliseconds. What is not kept, because the compiler is a
//! new one or the file was damaged, is compiled in the background; nobody but its own readers waits for it.
//!
//! Must not know: names of plugins, or who uses them.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::feed::manifest::Version;
use crate::plugin::build::{self, Build, Built};
use crate::plugin::compile::{Upload, sha256_hex};
use crate::plugin::component::{About, Component};
use crate::plugin::engine::Engine;
use crate::plugin::error::{Failed, Refusal};
use crate::store::{self, Store};
use crate::tasks;

/// Where the machine did not do what compiling takes, it is tried again after this.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Why a component cannot be used now.
#[derive(Debug)]
pub enum Missing {
    /// It is being compiled.
    Preparing,
    /// Today's limits or compiler refuse it.
    Unusable(Refusal),
    /// It is not kept.
    Unknown,
    /// The store failed.
    Store(store::Error),
}

/// Whether a component can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It can, or will when it is first used.
    Usable,
    /// It is being compiled.
    Preparing,
    /// It cannot.
    Unusable(Refusal),
}

#[derive(Debug, Clone)]
enum Known {
    Loaded(Component),
    Preparing,
    Unusable(Refusal),
}

/// A component to be compiled, nobody knows for whom.
#[derive(Debug, Clone)]
struct Wanted {
    digest: String,
    size_bytes: usize,
}

/// Those of one lane of the builder, first come, first served.
#[derive(Debug, Default)]
struct Queue {
    wanted: Mutex<VecDeque<Wanted>>,
    more: Notify,
}

/// All components.
pub struct Components {
    store: Arc<Store>,
    engine: Arc<Engine>,
    compiler: String,
    known: Mutex<HashMap<String, Known>>,
    /// Held while one is loaded, so that many who ask at once load it once.
    loading: Mutex<()>,
    small: Arc<Queue>,
    large: Arc<Queue>,
    changes: Arc<watch::Sender<u64>>,
}

impl Components {
    /// None yet. `changes` is moved when one becomes ready or turns out to be unusable.
    #[must_use]
    pub fn new(store: Arc<Store>, engine: Arc<Engine>, changes: Arc<watch::Sender<u64>>) -> Self {
        let compiler = engine.compatibility();
        Self {
            store,
            engine,
            compiler,
            known: Mutex::default(),
            loading: Mutex::default(),
            small: Arc::default(),
            large: Arc::default(),
            changes,
        }
    }

    /// Removes what is kept of components that are not known any more, and of other compilers.
    pub fn tidy(&self, is_known: impl Fn(&str) -> bool) {
        if let Err(error) = self.store.tidy_compiled(&self.compiler, is_known) {
            tracing::warn!("compiled plugins that nobody needs could not be removed: {error}");
        }
    }

    /// Whether it can run, as far as is known.
    #[must_use]
    pub fn state(&self, digest: &str) -> State {
        match self.known.lock().get(digest) {
            Some(Known::Unusable(why)) => State::Unusable(why.clone()),
            Some(Known::Preparing) => State::Preparing,
            Some(Known::Loaded(_)) | None => State::Usable,
        }
    }

    /// A component that is loaded.
    #[must_use]
    pub fn at_hand(&self, digest: &str) -> Option<Component> {
        match self.known.lock().get(digest) {
            Some(Known::Loaded(component)) => Some(component.clone()),
            _ => None,
        }
    }

    /// A component, loaded if need be; what is not compiled is then being prepared. Blocks while it is read.
    ///
    /// # Errors
    /// See [`Missing`].
    pub fn get(&self, digest: &str, size_bytes: usize) -> Result<Component, Missing> {
        if let Some(known) = self.known.lock().get(digest).cloned() {
            return known.ready();
        }
        let _one = self.loading.lock();
        // Perhaps loaded meanwhile.
        if let Some(known) = self.known.lock().get(digest).cloned() {
            return known.ready();
        }
        let known = self.load(digest, size_bytes)?;
        self.known.lock().insert(digest.to_owned(), known.clone());
        known.ready()
    }

    /// What was just compiled.
    pub fn put(&self, component: Component) {
        self.known.lock().insert(component.digest().to_owned(), Known::Loaded(component));
    }

    /// Lets go of what nobody uses but `is_needed`; it is mapped again when it is asked for. Compiled code beyond `compiled_max_bytes` on
    /// disk goes, too, and is made again then.
    pub fn let_go(&self, is_needed: impl Fn(&str) -> bool) {
        self.known.lock().retain(|digest, known| match known {
            Known::Loaded(component) => is_needed(digest) || component.is_in_use(),
            Known::Preparing | Known::Unusable(_) => true,
        });
        if let Err(error) = self.store.prune_compiled(self.engine.config().compiled_max_bytes, is_needed) {
            tracing::warn!("compiled plugins could not be removed: {error}");
        }
    }

    /// Forgets a component and what was compiled of it.
    ///
    /// # Errors
    /// The store.
    pub fn forget(&self, digest: &str) -> Result<(), store::Error> {
        self.known.lock().remove(digest);
        self.store.remove_compiled(digest)?;
        self.store.remove_component(digest)
    }

    /// Compiles and keeps an upload, and loads what came of it.
    ///
    /// # Errors
    /// It is refused, or could not be compiled.
    pub async fn build(self: &Arc<Self>, order: Order<'_>) -> Result<(Component, bool), Failed> {
        let Order { file, digest, size_bytes, probe, urgent, progress } = order;
        let draft = self.store.compiled_draft(digest, &self.compiler).map_err(failed)?;
        let draft = Draft(draft);
        let component = Build { file, code: &draft.0, probe, urgent };
        let Built { about, probed } = self.engine.builder().build(component, progress).await?;
        let (components, digest) = (Arc::clone(self), digest.to_owned());
        let loaded = tasks::blocking("plugin-load", move || {
            let kept = serde_json::to_vec(&about).map_err(|error| Failed::Failed(error.to_string()))?;
            components.store.keep_compiled(&digest, &components.compiler, &draft.0, &kept).map_err(failed)?;
            match components.load(&digest, size_bytes) {
                Ok(Known::Loaded(component)) => Ok(component),
                Ok(Known::Unusable(refusal)) => Err(refusal.into()),
                _ => Err(Failed::Failed("what was just compiled is not there".to_owned())),
            }
        });
        let component = loaded.await.map_err(|lost| Failed::Failed(lost.to_string()))??;
        Ok((component, probed))
    }

    /// Compiles what is not kept of these, and what is asked for later, until the server stops.
    pub fn prepare(self: &Arc<Self>, versions: Vec<Version>) {
        for queue in [&self.small, &self.large] {
            let (components, queue) = (Arc::downgrade(self), Arc::clone(queue));
            drop(tasks::spawn("plugin-prepare", async move {
                loop {
                    let next = queue.wanted.lock().pop_front();
                    let Some(wanted) = next else {
                        queue.more.notified().await;
                        continue;
                    };
                    let Some(components) = components.upgrade() else { return };
                    components.make(wanted).await;
                }
            }));
        }
        let components = Arc::clone(self);
        tasks::aside(move || {
            for version in versions {
                components.check(&version.digest, version.size_bytes);
            }
        });
    }

    /// Has it compiled if its code is not kept. It is not loaded: who uses it does that.
    fn check(&self, digest: &str, size_bytes: usize) {
        if self.known.lock().contains_key(digest) {
            return;
        }
        match self.store.compiled(digest, &self.compiler) {
            Ok(Some(_)) => {}
            Ok(None) => {
                if let Err(Missing::Store(error)) = self.get(digest, size_bytes) {
                    tracing::error!("the component {digest} cannot be read: {error}");
                }
            }
            Err(error) => tracing::error!("what was compiled of {digest} cannot be read: {error}"),
        }
    }

    fn load(&self, digest: &str, size_bytes: usize) -> Result<Known, Missing> {
        let kept = self.store.compiled(digest, &self.compiler).map_err(Missing::Store)?;
        let about = kept.as_ref().and_then(|kept| serde_json::from_slice::<About>(&kept.about).ok());
        if let (Some(kept), Some(about)) = (kept, about) {
            match self.engine.load(Upload { digest, size_bytes }, about, &kept.code) {
                Ok(component) => return Ok(Known::Loaded(component)),
                Err(refusal) => tracing::warn!("what was compiled of {digest} cannot be loaded and is made again: {refusal}"),
            }
        }
        if self.engine.config().compile_here {
            return self.compile_here(digest);
        }
        if self.store.component_file(digest).map_err(Missing::Store)?.is_none() {
            return Err(Missing::Unknown);
        }
        let is_small = size_bytes <= self.engine.config().compile_small_bytes;
        let queue = if is_small { &self.small } else { &self.large };
        queue.wanted.lock().push_back(Wanted { digest: digest.to_owned(), size_bytes });
        queue.more.notify_one();
        Ok(Known::Preparing)
    }

    fn compile_here(&self, digest: &str) -> Result<Known, Missing> {
        let bytes = self.store.read_component(digest).map_err(Missing::Store)?.ok_or(Missing::Unknown)?;
        if sha256_hex(&bytes) != digest {
            return Ok(Known::Unusable(changed(digest)));
        }
        Ok(match self.engine.compile(&bytes) {
            Ok(component) => Known::Loaded(component),
            Err(refusal) => Known::Unusable(refusal),
        })
    }

    async fn make(self: &Arc<Self>, wanted: Wanted) {
        let Wanted { digest, size_bytes } = wanted;
        let made = self.remake(&digest, size_bytes).await;
        let known = match made {
            Ok(component) => Some(Known::Loaded(component)),
            Err(Failed::Refused(refusal)) => {
                tracing::error!("the component {digest} can no longer run: {refusal}");
                Some(Known::Unusable(refusal))
            }
            Err(Failed::Failed(why)) => {
                // Asked for again, it is tried again: not at once, or readers that wait for it would ask without end.
                tracing::error!("the component {digest} could not be compiled: {why}");
                sleep(AFTER_FAILURE).await;
                None
            }
        };
        let mut all = self.known.lock();
        // Only what still is being prepared: it may have been removed, or uploaded anew.
        if matches!(all.get(&digest), Some(Known::Preparing)) {
            match known {
                Some(known) => drop(all.insert(digest, known)),
                None => drop(all.remove(&digest)),
            }
        }
        drop(all);
        self.changes.send_modify(|count| *count += 1);
    }

    async fn remake(self: &Arc<Self>, digest: &str, size_bytes: usize) -> Result<Component, Failed> {
        let (store, wanted) = (Arc::clone(&self.store), digest.to_owned());
        let read = tasks::blocking("plugin-check", move || -> Result<_, Failed> {
            let bytes = store.read_component(&wanted).map_err(failed)?;
            let bytes = bytes.ok_or_else(|| Failed::Failed("its file is gone".to_owned()))?;
            if sha256_hex(&bytes) != wanted {
                return Err(changed(&wanted).into());
            }
            store.component_file(&wanted).map_err(failed)?.ok_or_else(|| Failed::Failed("its file is gone".to_owned()))
        });
        let file = read.await.map_err(|lost| Failed::Failed(lost.to_string()))??;
        let order = Order { file: &file, digest, size_bytes, probe: false, urgent: false, progress: &|_| {} };
        self.build(order).await.map(|(component, _)| component)
    }
}

/// A component to be compiled and kept.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// Its bytes.
    pub file: &'a Path,
    /// Their SHA-256, hex.
    pub digest: &'a str,
    /// How many they are.
    pub size_bytes: usize,
    /// Whether its verdicts are tried for repeatability.
    pub probe: bool,
    /// Whether somebody waits.
    pub urgent: bool,
    /// Hears what it is at.
    pub progress: build::Progress<'a>,
}

impl Known {
    fn ready(self) -> Result<Component, Missing> {
        match self {
            Self::Loaded(component) => Ok(component),
            Self::Preparing => Err(Missing::Preparing),
            Self::Unusable(why) => Err(Missing::Unusable(why)),
        }
    }
}

/// Code that is not kept yet; gone when it is dropped, unless it was kept.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // Kept, it has another name by now.
        let _ = fs::remove_file(&self.0);
    }
}

fn failed(error: store::Error) -> Failed {
    Failed::Failed(error.to_string())
}

fn changed(digest: &str) -> Refusal {
    Refusal::NotWasm(format!("the kept component {digest} was changed on disk"))
}
