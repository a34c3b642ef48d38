//! Components by digest: which are ready to run, which are being prepared, which no longer can.
//!
//! What was compiled once is kept and mapped when it is first used: a matter of milliseconds. What is not
//! kept, because the compiler is a new one or the file was damaged, is compiled in the background; nobody but
//! its own readers waits for it.
//!
//! Must not know: names of plugins, or who uses them.

mod draft;
mod preparing;
mod turns;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::plugin::build::compile::Upload;
use crate::plugin::build::{self, Build, Built};
use crate::plugin::class::Class;
use crate::plugin::component_info::About;
use crate::plugin::engine::Engine;
use crate::plugin::error::{Failed, Refusal};
use crate::plugin::judging::probe::Tried;
use crate::plugin::resources::capacity::{Unused, Wanted, Whose};
use crate::plugin::sandbox::component::Component;
use crate::plugins::components::draft::{Draft, check_unchanged, failed};
use crate::plugins::components::preparing::Queue;
use crate::plugins::components::turns::{Claims, Turns};
use crate::store::plugins::compiled::SealedCode;
use crate::store::{self, Store};
use crate::tasks;

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
    /// Work was lost.
    Lost(tasks::Lost),
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

/// A component whose compiled code is kept.
#[derive(Debug)]
pub struct Held {
    /// SHA-256 of its bytes, hex.
    pub digest: String,
    /// How many they are.
    pub size_bytes: usize,
    /// What it is held to.
    pub class: Class,
    /// `None`: there is no memory for it now; who uses it loads it.
    pub component: Option<Component>,
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
    /// Those who ask wait here for `loading`, off the threads for blocking work.
    turns: Turns,
    claims: Claims,
    small: Arc<Queue>,
    large: Arc<Queue>,
    changes: Arc<watch::Sender<u64>>,
    closing: watch::Sender<bool>,
}

impl Components {
    /// None yet. `changes` is moved when one becomes ready or turns out to be unusable. Those that nobody
    /// uses are unloaded where guests' memory ends.
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
            turns: Turns::default(),
            claims: Claims::default(),
            small: Arc::default(),
            large: Arc::default(),
            changes,
            closing: watch::Sender::new(false),
        });
        components.engine.capacity().let_go_of_components_with(Arc::downgrade(&components));
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
        if let Err(error) = self.store.remove_stale_code(&self.compiler, is_known) {
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

    /// As [`Components::get`], without a thread of its own for each who asks: one component is loaded at a
    /// time, and once for all who ask for it. Where there is no memory for it, all who ask within a second
    /// are told so without another look.
    ///
    /// # Errors
    /// See [`Missing`].
    pub async fn ask(self: &Arc<Self>, digest: &str, size_bytes: usize) -> Result<Component, Missing> {
        let now = || {
            self.known_now(digest)
                .map(Known::ready)
                .or_else(|| self.turns.refusal(digest).map(|full| Err(Missing::Full(full))))
        };
        if let Some(known) = now() {
            return known;
        }
        let own = self.turns.of(digest).await;
        if let Some(known) = now() {
            return known;
        }
        let turn = (self.turns.any().await, own);
        let (components, digest) = (Arc::clone(self), digest.to_owned());
        let got = tasks::blocking("plugin-load", move || {
            // Given up while it waits or works, it still has its turn to the end.
            let _turn = turn;
            let got = components.get(&digest, size_bytes);
            if let Err(Missing::Full(refusal)) = &got {
                components.turns.refuse(&digest, refusal);
            }
            got
        });
        got.await.unwrap_or_else(|lost| Err(Missing::Lost(lost)))
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
            None if self.store.component_file(digest).map_err(Missing::Store)?.is_none() => {
                return Err(Missing::Unknown);
            }
            None => Known::Preparing,
        };
        self.known.lock().insert(digest.to_owned(), known.clone());
        if matches!(known, Known::Preparing) {
            // Only after the insert: a worker that finishes at once must find the entry.
            self.want(preparing::Wanted { digest: digest.to_owned(), size_bytes, tries: 0 });
        }
        known.ready()
    }

    /// A component whose compiled code is kept, loaded if there is memory for it. Blocks while it is read.
    #[must_use]
    pub fn kept(&self, digest: &str, size_bytes: usize) -> Option<Held> {
        let held = |known: Known| known.ready().ok().map(Held::from);
        if let Some(known) = self.known_now(digest) {
            return held(known);
        }
        let _one = self.loading.lock();
        // Perhaps loaded meanwhile.
        if let Some(known) = self.known_now(digest) {
            return held(known);
        }
        match self.load(digest, size_bytes) {
            Ok(Some(known)) => {
                self.known.lock().insert(digest.to_owned(), known.clone());
                held(known)
            }
            Err(Missing::Full(_)) => Some(Held {
                digest: digest.to_owned(),
                size_bytes,
                class: self.class(digest)?,
                component: None,
            }),
            _ => None,
        }
    }

    /// Says that this component is being taken in: what is compiled of it stays until the answer is dropped.
    #[must_use]
    pub fn claim(&self, digest: &str) -> turns::Claim {
        self.claims.claim(digest)
    }

    fn known_now(&self, digest: &str) -> Option<Known> {
        let mut all = self.known.lock();
        let known = all.get_mut(digest)?;
        if let Known::Loaded { used, .. } = known {
            *used = Instant::now();
        }
        Some(known.clone())
    }

    /// Unloads the component that was not asked for for longest, of those nobody uses; `false`: there is
    /// none. It is mapped again when it is asked for.
    fn unload_one(&self, whose: Whose<'_>) -> bool {
        let mut all = self.known.lock();
        let unused = all.iter().filter_map(|(digest, known)| match known {
            Known::Loaded { component, used } if !component.is_in_use() && component.is_of(whose) => {
                Some((*used, digest))
            }
            _ => None,
        });
        let Some(oldest) = unused.min().map(|(_, digest)| digest.clone()) else { return false };
        let unloaded = all.remove(&oldest);
        drop(all);
        tracing::debug!(plugin.digest = oldest, "the component {oldest} is unloaded to make room");
        unloaded.is_some()
    }

    /// What was just compiled.
    pub fn put(&self, held: Held) {
        self.classes.lock().insert(held.digest.clone(), held.class);
        let mut all = self.known.lock();
        match held.component {
            Some(component) => drop(all.insert(held.digest, Known::loaded(component))),
            // Whatever it was before, it can be loaded now.
            None if matches!(all.get(&held.digest), Some(Known::Loaded { .. })) => {}
            None => drop(all.remove(&held.digest)),
        }
    }

    /// Lets go of what nobody uses but `is_needed`; it is mapped again when it is asked for. Compiled code
    /// beyond `compiled_max_bytes` on disk goes, too, and is made again then.
    pub fn let_go(&self, is_needed: impl Fn(&str) -> bool) {
        self.known.lock().retain(|digest, known| match known {
            Known::Loaded { component, .. } => is_needed(digest) || component.is_in_use(),
            Known::Preparing | Known::Unusable(_) => true,
        });
        if let Err(error) = self.store.evict_code(self.engine.config().compiled_max_bytes, is_needed) {
            tracing::warn!("compiled plugins could not be removed: {error}");
        }
    }

    /// Forgets a component and what was compiled of it; the latter not while an upload of the same is on its
    /// way.
    ///
    /// # Errors
    /// The store.
    pub fn forget(&self, digest: &str) -> Result<(), store::error::StoreError> {
        self.known.lock().remove(digest);
        self.classes.lock().remove(digest);
        self.engine.forget(digest);
        self.claims.unless_claimed(digest, || self.store.remove_code(digest))?;
        self.store.remove_component(digest)
    }

    /// Compiles and keeps an upload, and loads what came of it if there is memory for it.
    ///
    /// # Errors
    /// It is refused, or could not be compiled.
    pub async fn build(self: &Arc<Self>, order: Order<'_>) -> Result<(Held, Tried), Failed> {
        let Order { file, digest, size_bytes, probe, urgent, progress } = order;
        self.store.check_space().map_err(failed)?;
        let draft = self.store.code_draft(digest, &self.compiler).map_err(failed)?;
        let draft = Draft(draft);
        let component = Build { file, code: &draft.0, probe, urgent };
        let Built { about, tried } = self.engine.builder().build(component, progress).await?;
        let (components, digest) = (Arc::clone(self), digest.to_owned());
        let loaded = tasks::blocking("plugin-load", move || {
            components.keep(&draft, Upload { digest: &digest, size_bytes }, about)
        });
        let held = loaded.await.map_err(|lost| Failed::Failed(lost.to_string()))??;
        Ok((held, tried))
    }

    /// Keeps code that was just compiled, and loads it if there is memory for it.
    fn keep(&self, draft: &Draft, upload: Upload<'_>, about: About) -> Result<Held, Failed> {
        let Upload { digest, size_bytes } = upload;
        let kept = serde_json::to_vec(&about).map_err(|error| Failed::Failed(error.to_string()))?;
        let _one = self.loading.lock();
        let code = self.store.keep_code(digest, &self.compiler, &draft.0, &kept).map_err(failed)?;
        let code_bytes =
            fs::metadata(&code).map_err(|error| Failed::system("look at compiled code", &error))?.len();
        let class = about.class;
        // Just written: there is no need to check the seal.
        let loaded = self
            .engine
            .charge(&about, code_bytes)
            .and_then(|charge| self.engine.load(upload, about, &code, charge));
        let component = match loaded {
            Ok(component) => Some(component),
            Err(refusal) if refusal.is_busy() => None,
            Err(refusal) => return Err(refusal.into()),
        };
        Ok(Held { digest: digest.to_owned(), size_bytes, class, component })
    }

    /// The compiled code of a component, and what is known of it, if it is kept and can be understood; its
    /// content was not looked at yet.
    fn sealed(&self, digest: &str) -> Result<Option<(SealedCode, About)>, store::error::StoreError> {
        let Some(sealed) = self.store.sealed_code(digest, &self.compiler)? else { return Ok(None) };
        let Ok(about) = serde_json::from_slice::<About>(&sealed.unverified.metadata) else { return Ok(None) };
        self.classes.lock().insert(digest.to_owned(), about.class);
        Ok(Some((sealed, about)))
    }

    /// Maps the compiled code of a component, if it is kept and can be used. Memory is charged before the
    /// code is read.
    fn load(&self, digest: &str, size_bytes: usize) -> Result<Option<Known>, Missing> {
        let Some((sealed, about)) = self.sealed(digest).map_err(Missing::Store)? else { return Ok(None) };
        let charge = match self.engine.charge(&about, sealed.bytes) {
            Ok(charge) => charge,
            Err(refusal) if refusal.is_busy() => return Err(Missing::Full(refusal)),
            Err(refusal) => return Ok(Some(Known::Unusable(refusal))),
        };
        let Some(kept) = self.store.verify_code(digest, &self.compiler, sealed).map_err(Missing::Store)?
        else {
            return Ok(None);
        };
        match self.engine.load(Upload { digest, size_bytes }, about, &kept.path, charge) {
            Ok(component) => Ok(Some(Known::loaded(component))),
            Err(refusal) => {
                tracing::warn!("what was compiled of {digest} cannot be loaded and is made again: {refusal}");
                Ok(None)
            }
        }
    }

    fn compile_here(&self, digest: &str) -> Result<Known, Missing> {
        let bytes = self.store.read_component(digest).map_err(Missing::Store)?.ok_or(Missing::Unknown)?;
        if let Err(refusal) = check_unchanged(digest, &bytes) {
            return Ok(Known::Unusable(refusal));
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
}

impl Unused for Weak<Components> {
    fn amount(&self, wanted: Wanted<'_>, whose: Whose<'_>) -> u64 {
        let (Wanted::Memory, Some(components)) = (wanted, self.upgrade()) else { return 0 };
        let all = components.known.lock();
        let bytes = all.values().filter_map(|known| match known {
            Known::Loaded { component, .. } if !component.is_in_use() && component.is_of(whose) => {
                Some(component.charged_bytes())
            }
            _ => None,
        });
        bytes.sum()
    }

    fn let_go(&self, whose: Whose<'_>) -> bool {
        self.upgrade().is_some_and(|components| components.unload_one(whose))
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

impl From<Component> for Held {
    fn from(component: Component) -> Self {
        let (digest, size_bytes) = (component.digest().to_owned(), component.size_bytes());
        Self { digest, size_bytes, class: component.class(), component: Some(component) }
    }
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

#[cfg(test)]
#[path = "components_tests.rs"]
mod tests;
