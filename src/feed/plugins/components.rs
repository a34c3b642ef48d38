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
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::feed::manifest::Version;
use crate::plugin::build::{self, Build, Built};
use crate::plugin::capacity::Whose;
use crate::plugin::class::Class;
use crate::plugin::compile::{Upload, sha256_hex};
use crate::plugin::component::{About, Component};
use crate::plugin::engine::Engine;
use crate::plugin::error::{Failed, Refusal};
use crate::plugin::probe::Tried;
use crate::store::{self, Store};
use crate::tasks;

/// Where the machine did not do what compiling takes, it is tried again after this, then after longer pauses.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// What crashes or takes too much so often again is taken to do so always.
const TRIES_MAX: u32 = 4;

/// Why a component cannot be used now.
#[derive(Debug)]
pub enum Missing {
    /// It is being compiled.
    Preparing,
    /// Today's limits or compiler refuse it.
    Unusable(Refusal),
    /// There is no memory for it now.
    Full(Refusal),
    /// It is not kept.
    Unknown,
    /// The store failed.
    Store(store::error::StoreError),
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
    Loaded { component: Component, used: Instant },
    Preparing,
    Unusable(Refusal),
}

/// A component to be compiled, nobody knows for whom.
#[derive(Debug, Clone)]
struct Wanted {
    digest: String,
    size_bytes: usize,
    /// How often it was tried.
    tries: u32,
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
    /// What is known of the classes of components that today's limits let in, loaded or not.
    classes: Mutex<HashMap<String, Class>>,
    /// Held while one is loaded, so that many who ask at once load it once.
    loading: Mutex<()>,
    small: Arc<Queue>,
    large: Arc<Queue>,
    changes: Arc<watch::Sender<u64>>,
    closing: watch::Sender<bool>,
}

impl Components {
    /// None yet. `changes` is moved when one becomes ready or turns out to be unusable. Those that nobody uses are unloaded where guests'
    /// memory ends.
    #[must_use]
    pub fn new(store: Arc<Store>, engine: Arc<Engine>, changes: Arc<watch::Sender<u64>>) -> Arc<Self> {
        let compiler = engine.compatibility();
        let components = Arc::new(Self {
            store,
            engine,
            compiler,
            known: Mutex::default(),
            classes: Mutex::default(),
            loading: Mutex::default(),
            small: Arc::default(),
            large: Arc::default(),
            changes,
            closing: watch::Sender::new(false),
        });
        let unused = Arc::downgrade(&components);
        let capacity = components.engine.capacity();
        capacity.let_go_of_components_with(move |whose| unused.upgrade().is_some_and(|components| components.unload_one(whose)));
        components
    }

    /// The server stops: nothing is compiled any more.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Waits until the server stops.
    pub async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        if closing.wait_for(|closing| *closing).await.is_err() {
            std::future::pending::<()>().await;
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
            Some(Known::Loaded { .. }) | None => State::Usable,
        }
    }

    /// What today's limits hold it to, as far as is known.
    #[must_use]
    pub fn class(&self, digest: &str) -> Option<Class> {
        self.classes.lock().get(digest).copied()
    }

    /// A component that is loaded.
    #[must_use]
    pub fn at_hand(&self, digest: &str) -> Option<Component> {
        match self.known.lock().get_mut(digest) {
            Some(Known::Loaded { component, used }) => {
                *used = Instant::now();
                Some(component.clone())
            }
            _ => None,
        }
    }

    /// A component, loaded if need be; what is not compiled is then being prepared. Blocks while it is read.
    ///
    /// # Errors
    /// See [`Missing`].
    pub fn get(&self, digest: &str, size_bytes: usize) -> Result<Component, Missing> {
        if let Some(known) = self.known_now(digest) {
            return known.ready();
        }
        let _one = self.loading.lock();
        // Perhaps loaded meanwhile.
        if let Some(known) = self.known_now(digest) {
            return known.ready();
        }
        let known = match self.load(digest, size_bytes)? {
            Some(known) => known,
            None if self.engine.config().compile_here => self.compile_here(digest)?,
            None if self.store.component_file(digest).map_err(Missing::Store)?.is_none() => return Err(Missing::Unknown),
            None => Known::Preparing,
        };
        self.known.lock().insert(digest.to_owned(), known.clone());
        if matches!(known, Known::Preparing) {
            // Only after the insert: a worker that finishes at once must find the entry.
            self.want(Wanted { digest: digest.to_owned(), size_bytes, tries: 0 });
        }
        known.ready()
    }

    /// A component whose compiled code is kept, loaded if need be. Blocks while it is read.
    #[must_use]
    pub fn kept(&self, digest: &str, size_bytes: usize) -> Option<Component> {
        if let Some(known) = self.known_now(digest) {
            return known.ready().ok();
        }
        let _one = self.loading.lock();
        let known = self.load(digest, size_bytes).ok()??;
        self.known.lock().insert(digest.to_owned(), known.clone());
        known.ready().ok()
    }

    fn known_now(&self, digest: &str) -> Option<Known> {
        let mut all = self.known.lock();
        let known = all.get_mut(digest)?;
        if let Known::Loaded { used, .. } = known {
            *used = Instant::now();
        }
        Some(known.clone())
    }

    /// Unloads the component that was not asked for for longest, of those nobody uses; `false`: there is none. It is mapped again when it
    /// is asked for.
    #[must_use]
    pub fn unload_one(&self, whose: Whose<'_>) -> bool {
        let mut all = self.known.lock();
        let unused = all.iter().filter_map(|(digest, known)| match known {
            Known::Loaded { component, used } if !component.is_in_use() && component.is_of(whose) => Some((*used, digest)),
            _ => None,
        });
        let Some(oldest) = unused.min().map(|(_, digest)| digest.clone()) else { return false };
        let unloaded = all.remove(&oldest);
        drop(all);
        tracing::debug!(plugin.digest = oldest, "the component {oldest} is unloaded to make room");
        unloaded.is_some()
    }

    fn want(&self, wanted: Wanted) {
        let is_small = wanted.size_bytes <= self.engine.config().compile_small_bytes;
        let queue = if is_small { &self.small } else { &self.large };
        queue.wanted.lock().push_back(wanted);
        queue.more.notify_one();
    }

    /// What was just compiled.
    pub fn put(&self, component: Component) {
        self.classes.lock().insert(component.digest().to_owned(), component.class());
        self.known.lock().insert(component.digest().to_owned(), Known::loaded(component));
    }

    /// Lets go of what nobody uses but `is_needed`; it is mapped again when it is asked for. Compiled code beyond `compiled_max_bytes` on
    /// disk goes, too, and is made again then.
    pub fn let_go(&self, is_needed: impl Fn(&str) -> bool) {
        self.known.lock().retain(|digest, known| match known {
            Known::Loaded { component, .. } => is_needed(digest) || component.is_in_use(),
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
    pub fn forget(&self, digest: &str) -> Result<(), store::error::StoreError> {
        self.known.lock().remove(digest);
        self.classes.lock().remove(digest);
        self.store.remove_compiled(digest)?;
        self.store.remove_component(digest)
    }

    /// Compiles and keeps an upload, and loads what came of it.
    ///
    /// # Errors
    /// It is refused, or could not be compiled.
    pub async fn build(self: &Arc<Self>, order: Order<'_>) -> Result<(Component, Tried), Failed> {
        let Order { file, digest, size_bytes, probe, urgent, progress } = order;
        self.store.check_space().map_err(failed)?;
        let draft = self.store.compiled_draft(digest, &self.compiler).map_err(failed)?;
        let draft = Draft(draft);
        let component = Build { file, code: &draft.0, probe, urgent };
        let Built { about, tried } = self.engine.builder().build(component, progress).await?;
        let (components, digest) = (Arc::clone(self), digest.to_owned());
        let loaded = tasks::blocking("plugin-load", move || {
            let kept = serde_json::to_vec(&about).map_err(|error| Failed::Failed(error.to_string()))?;
            let _one = components.loading.lock();
            let code = components.store.keep_compiled(&digest, &components.compiler, &draft.0, &kept).map_err(failed)?;
            // Just written: there is no need to check the seal.
            components.engine.load(Upload { digest: &digest, size_bytes }, about, &code).map_err(Failed::from)
        });
        let component = loaded.await.map_err(|lost| Failed::Failed(lost.to_string()))??;
        Ok((component, tried))
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
                    tokio::select! {
                        () = components.make(wanted) => {}
                        // The compiler ends with who waits for it.
                        () = components.closed() => return,
                    }
                }
            }));
        }
        let components = Arc::downgrade(self);
        tasks::aside(move || {
            for version in versions {
                match components.upgrade() {
                    Some(components) if !*components.closing.borrow() => components.check(&version.digest, version.size_bytes),
                    _ => return,
                }
            }
        });
    }

    /// Has it compiled if its code is not kept. It is not loaded: who uses it does that.
    fn check(&self, digest: &str, size_bytes: usize) {
        if self.known.lock().contains_key(digest) {
            return;
        }
        match self.compiled(digest) {
            Ok(Some(_)) => {}
            Ok(None) => {
                if let Err(Missing::Store(error)) = self.get(digest, size_bytes) {
                    tracing::error!("the component {digest} cannot be read: {error}");
                }
            }
            Err(error) => tracing::error!("what was compiled of {digest} cannot be read: {error}"),
        }
    }

    /// The compiled code of a component, and what is known of it, if it is kept and can be understood.
    fn compiled(&self, digest: &str) -> Result<Option<(PathBuf, About)>, store::error::StoreError> {
        let Some(kept) = self.store.compiled(digest, &self.compiler)? else { return Ok(None) };
        let Ok(about) = serde_json::from_slice::<About>(&kept.about) else { return Ok(None) };
        self.classes.lock().insert(digest.to_owned(), about.class);
        Ok(Some((kept.code, about)))
    }

    /// Maps the compiled code of a component, if it is kept and can be used.
    fn load(&self, digest: &str, size_bytes: usize) -> Result<Option<Known>, Missing> {
        let Some((code, about)) = self.compiled(digest).map_err(Missing::Store)? else { return Ok(None) };
        match self.engine.load(Upload { digest, size_bytes }, about, &code) {
            Ok(component) => Ok(Some(Known::loaded(component))),
            Err(refusal) if refusal.is_busy() => Err(Missing::Full(refusal)),
            Err(refusal @ Refusal::TooMuchMemory { .. }) => Ok(Some(Known::Unusable(refusal))),
            Err(refusal) => {
                tracing::warn!("what was compiled of {digest} cannot be loaded and is made again: {refusal}");
                Ok(None)
            }
        }
    }

    fn compile_here(&self, digest: &str) -> Result<Known, Missing> {
        let bytes = self.store.read_component(digest).map_err(Missing::Store)?.ok_or(Missing::Unknown)?;
        if sha256_hex(&bytes) != digest {
            return Ok(Known::Unusable(changed(digest)));
        }
        Ok(match self.engine.compile(&bytes) {
            Ok(component) => {
                self.classes.lock().insert(digest.to_owned(), component.class());
                Known::loaded(component)
            }
            Err(refusal) if refusal.is_busy() => return Err(Missing::Full(refusal)),
            Err(refusal) => Known::Unusable(refusal),
        })
    }

    async fn make(self: &Arc<Self>, wanted: Wanted) {
        let digest = wanted.digest.clone();
        if !self.is_preparing(&digest) {
            // Removed, or uploaded anew.
            return;
        }
        let known = match self.remake(&digest, wanted.size_bytes).await {
            Ok(component) => {
                self.classes.lock().insert(digest.clone(), component.class());
                Some(Known::loaded(component))
            }
            // Compiled and kept, but there is no memory for it now: who uses it loads it.
            Err(Failed::Refused(refusal)) if refusal.is_busy() => None,
            Err(Failed::Refused(refusal)) if refusal.is_certain() || wanted.tries >= TRIES_MAX => {
                tracing::error!("the component {digest} can no longer run: {refusal}");
                Some(Known::Unusable(refusal))
            }
            Err(failed) => return self.again(wanted, &failed),
        };
        let mut all = self.known.lock();
        let is_wanted = matches!(all.get(&digest), Some(Known::Preparing));
        let is_gone = !all.contains_key(&digest);
        if is_wanted {
            all.remove(&digest);
            all.extend(known.map(|known| (digest.clone(), known)));
        }
        drop(all);
        if is_gone && let Err(error) = self.store.remove_compiled(&digest) {
            tracing::warn!("what was compiled of {digest} could not be removed: {error}");
        }
        self.changes.send_modify(|count| *count += 1);
    }

    fn is_preparing(&self, digest: &str) -> bool {
        matches!(self.known.lock().get(digest), Some(Known::Preparing))
    }

    /// Tries it again later, each time after a longer pause: a busy or full machine is no fault of the component. Its readers go on waiting.
    fn again(self: &Arc<Self>, wanted: Wanted, failed: &Failed) {
        let pause = AFTER_FAILURE * 3_u32.saturating_pow(wanted.tries.min(TRIES_MAX));
        tracing::error!("the component {} could not be compiled and is tried again in {} s: {failed}", wanted.digest, pause.as_secs());
        let components = Arc::downgrade(self);
        drop(tasks::spawn("plugin-prepare-again", async move {
            sleep(pause).await;
            if let Some(components) = components.upgrade() {
                components.want(Wanted { tries: wanted.tries.saturating_add(1), ..wanted });
            }
        }));
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
    fn loaded(component: Component) -> Self {
        Self::Loaded { component, used: Instant::now() }
    }

    fn ready(self) -> Result<Component, Missing> {
        match self {
            Self::Loaded { component, .. } => Ok(component),
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

fn failed(error: store::error::StoreError) -> Failed {
    match error {
        store::error::StoreError::Io { what, path, source } => Failed::unwritten(&format!("{what} {}", path.display()), &path, &source),
        store::error::StoreError::NoSpace { .. } => Failed::DiskFull(error.to_string()),
        other => Failed::Failed(other.to_string()),
    }
}

fn changed(digest: &str) -> Refusal {
    Refusal::NotWasm(format!("the kept component {digest} was changed on disk"))
}
