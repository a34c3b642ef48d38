//! Components by digest: which can run, which are being built, and which no longer can.
//!
//! Compiled code is kept on disk and mapped on first use, which takes milliseconds. If it is missing, because
//! the compiler is a new version or the file was damaged, it is compiled again in the background; only the
//! component's own readers wait for that.
//!
//! Must not know: names of plugins, or who uses them.

mod background_builds;
mod code_draft;
pub(crate) mod kept_component;
mod load_turns;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::plugin::build::compile::UploadId;
use crate::plugin::build::{self, BuildJob, Built};
use crate::plugin::class::Class;
use crate::plugin::component_info::ComponentInfo;
use crate::plugin::engine::Engine;
use crate::plugin::error::{BuildError, Refusal};
use crate::plugin::judging::repeatability_trial::TrialReport;
use crate::plugin::resources::capacity::{EvictionScope, Evictor, Shortage};
use crate::plugin::sandbox::component::Component;
use crate::plugins::components::background_builds::Queue;
use crate::plugins::components::code_draft::{CodeDraft, build_error_from, check_unchanged};
use crate::plugins::components::kept_component::KeptComponent;
use crate::plugins::components::load_turns::{Claims, LoadTurns};
use crate::store::plugins::compiled::SealedCode;
use crate::store::{self, Store};
use crate::tasks;

/// Why a component cannot be used now.
#[derive(Debug)]
pub enum LoadError {
    /// It is being compiled.
    Preparing,
    /// The current limits or the current compiler refuse it.
    Unusable(Refusal),
    /// There is not enough memory for it now.
    NoMemory(Refusal),
    /// It is not stored.
    Unknown,
    /// The store failed.
    Store(store::error::StoreError),
    /// The task that loads it was lost.
    Lost(tasks::Lost),
}

/// Whether a component can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It can run, or be loaded on first use.
    Usable,
    /// It is being compiled.
    Preparing,
    /// It cannot run.
    Unusable(Refusal),
}

#[derive(Debug, Clone)]
enum CacheEntry {
    Loaded { component: Component, used: Instant },
    Preparing,
    Unusable(Refusal),
}

pub struct Components {
    store: Arc<Store>,
    engine: Arc<Engine>,
    compiler: String,
    cache: Mutex<HashMap<String, CacheEntry>>,
    /// The classes of components that the current limits accept, loaded or not.
    classes: Mutex<HashMap<String, Class>>,
    /// Held while a component is loaded, so that concurrent requests load it once.
    loading: Mutex<()>,
    /// Async callers wait here for `loading`, without occupying a thread for blocking work.
    turns: LoadTurns,
    claims: Claims,
    small: Arc<Queue>,
    large: Arc<Queue>,
    changes: Arc<watch::Sender<u64>>,
    closing: watch::Sender<bool>,
}

impl Components {
    /// No components yet. `changes` is incremented when a component becomes ready or unusable. Unused
    /// components are unloaded when guests' memory runs out.
    #[must_use]
    pub fn new(store: Arc<Store>, engine: Arc<Engine>, changes: Arc<watch::Sender<u64>>) -> Arc<Self> {
        let compiler = engine.compatibility();
        let components = Arc::new(Self {
            store,
            engine,
            compiler,
            cache: Mutex::default(),
            classes: Mutex::default(),
            loading: Mutex::default(),
            turns: LoadTurns::default(),
            claims: Claims::default(),
            small: Arc::default(),
            large: Arc::default(),
            changes,
            closing: watch::Sender::new(false),
        });
        components.engine.capacity().set_component_evictor(Arc::downgrade(&components));
        components
    }

    /// Stops all builds, because the server stops.
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

    /// Removes compiled code of components that are not known any more, and of other compilers.
    pub fn remove_stale(&self, is_known: impl Fn(&str) -> bool) {
        if let Err(error) = self.store.remove_stale_code(&self.compiler, is_known) {
            tracing::warn!("unused compiled plugins could not be removed: {error}");
        }
    }

    /// Whether it can run, as far as is known.
    #[must_use]
    pub fn state(&self, digest: &str) -> Readiness {
        match self.cache.lock().get(digest) {
            Some(CacheEntry::Unusable(why)) => Readiness::Unusable(why.clone()),
            Some(CacheEntry::Preparing) => Readiness::Preparing,
            Some(CacheEntry::Loaded { .. }) | None => Readiness::Usable,
        }
    }

    /// The class that the current limits give it, as far as is known.
    #[must_use]
    pub fn class(&self, digest: &str) -> Option<Class> {
        self.classes.lock().get(digest).copied()
    }

    /// The component, if it is loaded.
    #[must_use]
    pub fn get_loaded(&self, digest: &str) -> Option<Component> {
        match self.cache.lock().get_mut(digest) {
            Some(CacheEntry::Loaded { component, used }) => {
                *used = Instant::now();
                Some(component.clone())
            }
            _ => None,
        }
    }

    /// As [`Components::get_blocking`], but waiting callers do not occupy threads: one component is loaded at
    /// a time, and once for all who want it. If there is not enough memory, callers within the next second
    /// get the same refusal.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn get(self: &Arc<Self>, digest: &str, size_bytes: usize) -> Result<Component, LoadError> {
        let cached_or_refused = || {
            self.cached(digest)
                .map(CacheEntry::ready)
                .or_else(|| self.turns.recent_refusal(digest).map(|full| Err(LoadError::NoMemory(full))))
        };
        if let Some(outcome) = cached_or_refused() {
            return outcome;
        }
        let own_turn = self.turns.for_component(digest).await;
        if let Some(outcome) = cached_or_refused() {
            return outcome;
        }
        let turn = (self.turns.for_any().await, own_turn);
        let (components, digest) = (Arc::clone(self), digest.to_owned());
        let loaded = tasks::blocking("plugin-load", move || {
            // A caller that gives up does not end the turn before the load has ended.
            let _turn = turn;
            let loaded = components.get_blocking(&digest, size_bytes);
            if let Err(LoadError::NoMemory(refusal)) = &loaded {
                components.turns.remember_refusal(&digest, refusal);
            }
            loaded
        });
        loaded.await.unwrap_or_else(|lost| Err(LoadError::Lost(lost)))
    }

    /// The component, loaded if necessary. Starts a build if its code is not kept. Blocks while the code is
    /// read.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn get_blocking(&self, digest: &str, size_bytes: usize) -> Result<Component, LoadError> {
        if let Some(entry) = self.cached(digest) {
            return entry.ready();
        }
        let _loading = self.loading.lock();
        // It may have been loaded meanwhile.
        if let Some(entry) = self.cached(digest) {
            return entry.ready();
        }
        let entry = match self.load(digest, size_bytes)? {
            Some(entry) => entry,
            None if self.engine.config().compile_here => self.compile_here(digest)?,
            None if self.store.component_file(digest).map_err(LoadError::Store)?.is_none() => {
                return Err(LoadError::Unknown);
            }
            None => CacheEntry::Preparing,
        };
        self.cache.lock().insert(digest.to_owned(), entry.clone());
        if matches!(entry, CacheEntry::Preparing) {
            // Only after the insert, because a worker that finishes at once must find the entry.
            self.enqueue(background_builds::PendingBuild { digest: digest.to_owned(), size_bytes, tries: 0 });
        }
        entry.ready()
    }

    /// A component whose compiled code is kept, loaded if there is enough memory. Blocks while it is read.
    #[must_use]
    pub fn get_kept(&self, digest: &str, size_bytes: usize) -> Option<KeptComponent> {
        let into_kept = |entry: CacheEntry| entry.ready().ok().map(KeptComponent::from);
        if let Some(entry) = self.cached(digest) {
            return into_kept(entry);
        }
        let _loading = self.loading.lock();
        // It may have been loaded meanwhile.
        if let Some(entry) = self.cached(digest) {
            return into_kept(entry);
        }
        match self.load(digest, size_bytes) {
            Ok(Some(entry)) => {
                self.cache.lock().insert(digest.to_owned(), entry.clone());
                into_kept(entry)
            }
            Err(LoadError::NoMemory(_)) => Some(KeptComponent {
                digest: digest.to_owned(),
                size_bytes,
                class: self.class(digest)?,
                component: None,
            }),
            _ => None,
        }
    }

    /// Keeps the compiled code of a component on disk until the claim is dropped, because it is being
    /// uploaded.
    #[must_use]
    pub fn claim(&self, digest: &str) -> load_turns::Claim {
        self.claims.claim(digest)
    }

    fn cached(&self, digest: &str) -> Option<CacheEntry> {
        let mut cache = self.cache.lock();
        let entry = cache.get_mut(digest)?;
        if let CacheEntry::Loaded { used, .. } = entry {
            *used = Instant::now();
        }
        Some(entry.clone())
    }

    /// Unloads the least recently used component that nobody uses; `false` if there is none. It is mapped
    /// again on its next use.
    fn unload_one(&self, whose: EvictionScope<'_>) -> bool {
        let mut cache = self.cache.lock();
        let unused = cache.iter().filter_map(|(digest, entry)| match entry {
            CacheEntry::Loaded { component, used } if !component.is_in_use() && component.is_of(whose) => {
                Some((*used, digest))
            }
            _ => None,
        });
        let Some(oldest) = unused.min().map(|(_, digest)| digest.clone()) else { return false };
        let unloaded = cache.remove(&oldest);
        drop(cache);
        tracing::debug!(plugin.digest = oldest, "the component {oldest} is unloaded to make room");
        unloaded.is_some()
    }

    /// Adds what was just compiled.
    pub fn insert(&self, kept: KeptComponent) {
        self.classes.lock().insert(kept.digest.clone(), kept.class);
        let mut cache = self.cache.lock();
        match kept.component {
            Some(component) => drop(cache.insert(kept.digest, CacheEntry::loaded(component))),
            // Whatever the entry said before, the component can be loaded now.
            None if matches!(cache.get(&kept.digest), Some(CacheEntry::Loaded { .. })) => {}
            None => drop(cache.remove(&kept.digest)),
        }
    }

    /// Unloads components that nobody uses and that are not `is_needed`; they are mapped again on their next
    /// use. Also removes compiled code on disk beyond `compiled_max_bytes`, which is then compiled again when
    /// needed.
    pub fn unload_except(&self, is_needed: impl Fn(&str) -> bool) {
        self.cache.lock().retain(|digest, entry| match entry {
            CacheEntry::Loaded { component, .. } => is_needed(digest) || component.is_in_use(),
            CacheEntry::Preparing | CacheEntry::Unusable(_) => true,
        });
        if let Err(error) = self.store.evict_code(self.engine.config().compiled_max_bytes, is_needed) {
            tracing::warn!("compiled plugins could not be removed: {error}");
        }
    }

    /// Removes a component and its compiled code; the code stays while an equal upload is in progress.
    ///
    /// # Errors
    /// The store fails.
    pub fn remove(&self, digest: &str) -> Result<(), store::error::StoreError> {
        self.cache.lock().remove(digest);
        self.classes.lock().remove(digest);
        self.engine.forget(digest);
        self.claims.unless_claimed(digest, || self.store.remove_code(digest))?;
        self.store.remove_component(digest)
    }

    /// Compiles an upload and saves the code, and loads it if there is enough memory.
    ///
    /// # Errors
    /// It is refused, or could not be compiled.
    pub async fn build(
        self: &Arc<Self>,
        order: BuildOrder<'_>,
    ) -> Result<(KeptComponent, TrialReport), BuildError> {
        let BuildOrder { file, digest, size_bytes, probe, urgent, progress } = order;
        self.store.check_space().map_err(build_error_from)?;
        let draft = self.store.code_draft(digest, &self.compiler).map_err(build_error_from)?;
        let draft = CodeDraft(draft);
        let component = BuildJob { file, code: &draft.0, probe, urgent };
        let Built { about, tried } = self.engine.builder().build(component, progress).await?;
        let (components, digest) = (Arc::clone(self), digest.to_owned());
        let loaded = tasks::blocking("plugin-load", move || {
            components.save_compiled(&draft, UploadId { digest: &digest, size_bytes }, about)
        });
        let kept = loaded.await.map_err(|lost| BuildError::Internal(lost.to_string()))??;
        Ok((kept, tried))
    }

    /// Saves code that was just compiled, and loads it if there is enough memory.
    fn save_compiled(
        &self,
        draft: &CodeDraft,
        upload: UploadId<'_>,
        about: ComponentInfo,
    ) -> Result<KeptComponent, BuildError> {
        let UploadId { digest, size_bytes } = upload;
        let about_json =
            serde_json::to_vec(&about).map_err(|error| BuildError::Internal(error.to_string()))?;
        let _loading = self.loading.lock();
        let code =
            self.store.keep_code(digest, &self.compiler, &draft.0, &about_json).map_err(build_error_from)?;
        let code_bytes = fs::metadata(&code)
            .map_err(|error| BuildError::io("read the size of the compiled code", &error))?
            .len();
        let class = about.class;
        // It was just written, so the seal need not be checked.
        let loaded = self
            .engine
            .charge(&about, code_bytes)
            .and_then(|charge| self.engine.load(upload, about, &code, charge));
        let component = match loaded {
            Ok(component) => Some(component),
            Err(refusal) if refusal.is_busy() => None,
            Err(refusal) => return Err(refusal.into()),
        };
        Ok(KeptComponent { digest: digest.to_owned(), size_bytes, class, component })
    }

    /// The compiled code of a component and what is known of it, if it is kept and readable. The content of
    /// the code is not checked yet.
    fn read_sealed(
        &self,
        digest: &str,
    ) -> Result<Option<(SealedCode, ComponentInfo)>, store::error::StoreError> {
        let Some(sealed) = self.store.sealed_code(digest, &self.compiler)? else { return Ok(None) };
        let Ok(about) = serde_json::from_slice::<ComponentInfo>(&sealed.unverified.metadata) else {
            return Ok(None);
        };
        self.classes.lock().insert(digest.to_owned(), about.class);
        Ok(Some((sealed, about)))
    }

    /// Maps the compiled code of a component, if it is kept and usable. Memory is charged before the code is
    /// read.
    fn load(&self, digest: &str, size_bytes: usize) -> Result<Option<CacheEntry>, LoadError> {
        let Some((sealed, about)) = self.read_sealed(digest).map_err(LoadError::Store)? else {
            return Ok(None);
        };
        let charge = match self.engine.charge(&about, sealed.bytes) {
            Ok(charge) => charge,
            Err(refusal) if refusal.is_busy() => return Err(LoadError::NoMemory(refusal)),
            Err(refusal) => return Ok(Some(CacheEntry::Unusable(refusal))),
        };
        let Some(kept) = self.store.verify_code(digest, &self.compiler, sealed).map_err(LoadError::Store)?
        else {
            return Ok(None);
        };
        match self.engine.load(UploadId { digest, size_bytes }, about, &kept.path, charge) {
            Ok(component) => Ok(Some(CacheEntry::loaded(component))),
            Err(refusal) => {
                tracing::warn!(
                    "the compiled code of {digest} cannot be loaded and is compiled again: {refusal}"
                );
                Ok(None)
            }
        }
    }

    fn compile_here(&self, digest: &str) -> Result<CacheEntry, LoadError> {
        let bytes = self.store.read_component(digest).map_err(LoadError::Store)?.ok_or(LoadError::Unknown)?;
        if let Err(refusal) = check_unchanged(digest, &bytes) {
            return Ok(CacheEntry::Unusable(refusal));
        }
        Ok(match self.engine.compile(&bytes) {
            Ok(component) => {
                self.classes.lock().insert(digest.to_owned(), component.class());
                CacheEntry::loaded(component)
            }
            Err(refusal) if refusal.is_busy() => return Err(LoadError::NoMemory(refusal)),
            Err(refusal) => CacheEntry::Unusable(refusal),
        })
    }
}

impl Evictor for Weak<Components> {
    fn reclaimable(&self, wanted: Shortage<'_>, whose: EvictionScope<'_>) -> u64 {
        let (Shortage::Memory, Some(components)) = (wanted, self.upgrade()) else { return 0 };
        let cache = components.cache.lock();
        let bytes = cache.values().filter_map(|entry| match entry {
            CacheEntry::Loaded { component, .. } if !component.is_in_use() && component.is_of(whose) => {
                Some(component.charged_bytes())
            }
            _ => None,
        });
        bytes.sum()
    }

    fn evict_one(&self, whose: EvictionScope<'_>) -> bool {
        self.upgrade().is_some_and(|components| components.unload_one(whose))
    }
}

/// A component to be compiled and saved.
#[derive(Clone, Copy)]
pub struct BuildOrder<'a> {
    /// The file with its bytes.
    pub file: &'a Path,
    /// SHA-256 of the bytes, hex.
    pub digest: &'a str,
    pub size_bytes: usize,
    /// Whether to try that its verdicts are repeatable.
    pub probe: bool,
    /// Whether a client waits.
    pub urgent: bool,
    /// Called with each stage that is reached.
    pub progress: build::Progress<'a>,
}

impl CacheEntry {
    fn loaded(component: Component) -> Self {
        Self::Loaded { component, used: Instant::now() }
    }

    fn ready(self) -> Result<Component, LoadError> {
        match self {
            Self::Loaded { component, .. } => Ok(component),
            Self::Preparing => Err(LoadError::Preparing),
            Self::Unusable(why) => Err(LoadError::Unusable(why)),
        }
    }
}

#[cfg(test)]
#[path = "components_tests.rs"]
mod tests;
