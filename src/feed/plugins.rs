//! Plugins by name: their versions, which one judges, and the evaluators subscriptions use.
//!
//! Changes are on disk before anyone is told. Components are compiled at upload, at start, and when an old version is asked for.
//!
//! Must not know: how guests run, or over which door plugins come.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::now_secs;
use crate::domain::entry::SharedEntry;
use crate::domain::subscription::PluginUse;
use crate::feed::manifest::{Manifest, PREFIX_DIGITS_MIN, Standing, Unnamed, Version};
use crate::plugin::component::Component;
use crate::plugin::conduct::Resting;
use crate::plugin::counters::Counts;
use crate::plugin::engine::Engine;
use crate::plugin::error::Refusal;
use crate::plugin::evaluator::{Evaluator, Instance};
use crate::store::{self, Store};
use crate::tasks;

/// Plugins there may be (1,000): each name is a record and a line of every list.
const NAMES_MAX: u64 = 1_000;
/// The longest name, letters.
const NAME_LEN_MAX: usize = 63;
/// What a configuration is where none was given.
const NO_CONFIG: &str = "{}";

/// Why a plugin cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such name.
    #[error("there is no plugin named {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// No such version of it.
    #[error("the plugin {name:?} has no version {digest:?}")]
    UnknownVersion {
        /// The name.
        name: String,
        /// The digest as asked for.
        digest: String,
    },
    /// Not a digest, nor the beginning of one.
    #[error("{digest:?} is not a digest: sha256:<hex>, or at least its first {PREFIX_DIGITS_MIN} hex digits")]
    MalformedDigest {
        /// The digest as asked for.
        digest: String,
    },
    /// Several versions have digests that begin so.
    #[error("the digests of {count} versions of the plugin {name:?} begin with {digest:?}; give more digits")]
    AmbiguousDigest {
        /// The name.
        name: String,
        /// The digest as asked for.
        digest: String,
        /// How many.
        count: usize,
    },
    /// No version of it is active.
    #[error("the plugin {name:?} has no active version; promote one")]
    NotActive {
        /// The name.
        name: String,
    },
    /// No version was active before.
    #[error("the plugin {name:?} has no earlier version to go back to")]
    NothingBefore {
        /// The name.
        name: String,
    },
    /// Not a name.
    #[error("a plugin's name begins with a small letter and has at most {NAME_LEN_MAX} small letters, digits and dashes")]
    BadName,
    /// Too many names.
    #[error("there are {max} plugins, the most there may be")]
    TooManyNames {
        /// The limit.
        max: u64,
    },
    /// The upload or the configuration is refused.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Work was lost.
    #[error(transparent)]
    Lost(#[from] tasks::Lost),
    /// The record of a plugin cannot be read or written.
    #[error("the record of the plugin {name:?} cannot be understood: {why}")]
    Record {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// Which parameter of a subscription is to blame: `plugin` or `plugin_config`; `None` where none is.
    #[must_use]
    pub const fn parameter(&self) -> Option<&'static str> {
        match self {
            Self::Unknown { .. } | Self::UnknownVersion { .. } | Self::NotActive { .. } | Self::BadName => Some("plugin"),
            Self::MalformedDigest { .. } | Self::AmbiguousDigest { .. } => Some("plugin"),
            Self::Refused(Refusal::Configure(_) | Refusal::NotRepeatable(_) | Refusal::Deadline { .. } | Refusal::HostBudget { .. }) => {
                Some("plugin_config")
            }
            _ => None,
        }
    }
}

/// What can be told of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// The version that judges, else the newest.
    pub version: Version,
    /// Where that version stands.
    pub standing: Standing,
    /// All versions, the newest last.
    pub versions: Vec<(Version, Standing)>,
}

/// How an upload is to be taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Upload {
    /// Active at once, whatever was before.
    pub promote: bool,
    /// How long instances live; as before, else warm.
    pub instance: Option<Instance>,
}

/// What an upload led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The version.
    pub version: Version,
    /// Where it stands.
    pub standing: Standing,
    /// Whether it was not known before.
    pub new: bool,
}

#[derive(Default)]
struct Known {
    names: BTreeMap<String, Manifest>,
    compiled: HashMap<String, Component>,
}

/// All plugins of a server.
pub struct Plugins {
    store: Arc<Store>,
    engine: Arc<Engine>,
    sample: Vec<SharedEntry>,
    known: Mutex<Known>,
    /// Held by whoever changes what is on disk; never while `known` is.
    writing: Mutex<()>,
    changes: watch::Sender<u64>,
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugins").finish_non_exhaustive()
    }
}

impl Plugins {
    /// Loads what the store keeps and compiles the active versions. `sample` is what uploads are tried on. Blocks.
    ///
    /// # Errors
    /// The store, or a record that cannot be understood.
    pub fn open(store: Arc<Store>, engine: Arc<Engine>, sample: Vec<SharedEntry>) -> Result<Arc<Self>, Error> {
        let mut known = Known::default();
        for (name, bytes) in store.plugins()? {
            let manifest = serde_json::from_slice(&bytes).map_err(|e| Error::Record { name: name.clone(), why: e.to_string() })?;
            known.names.insert(name, manifest);
        }
        let (changes, _) = watch::channel(0);
        let plugins = Self { store, engine, sample, known: Mutex::new(known), writing: Mutex::new(()), changes };
        plugins.warm_up();
        Ok(Arc::new(plugins))
    }

    /// The engine under the plugins.
    #[must_use]
    pub const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Tells of every promotion, rollback and deletion, of any plugin.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The evaluator for a subscription.
    ///
    /// # Errors
    /// No such plugin or version, or it refuses the configuration; see [`Error::parameter`].
    pub async fn resolve(self: &Arc<Self>, using: &PluginUse) -> Result<Evaluator, Error> {
        let version = self.picked(using)?;
        let (name, digest) = (using.name.clone(), version.digest.clone());
        let component = match self.compiled(&digest) {
            Some(component) => component,
            None => self.aside("plugin-load", move |plugins| plugins.component(&name, &digest)).await?,
        };
        let config = if using.config.trim().is_empty() { NO_CONFIG } else { &using.config };
        if version.probed || version.fresh {
            return Ok(self.engine.evaluator(&component, config, version.instance()).await?);
        }
        let evaluator = self.engine.tried(&component, config, version.instance(), &self.sample).await?;
        let (name, digest) = (using.name.clone(), version.digest.clone());
        self.aside("plugin-tried", move |plugins| plugins.mark_probed(&name, &digest)).await?;
        Ok(evaluator)
    }

    /// Does what reads or writes the disk off the event loop.
    async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        name: &'static str,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let plugins = Arc::clone(self);
        tasks::blocking(name, move || work(&plugins)).await?
    }

    /// Takes an upload: checks, compiles, tries and keeps it. Blocks for up to seconds.
    ///
    /// # Errors
    /// Not a name, a refusal, or the store.
    pub fn upload(&self, name: &str, bytes: &[u8], how: Upload) -> Result<Uploaded, Error> {
        check_name(name)?;
        let component = self.engine.compile(bytes)?;
        let digest = component.digest().to_owned();
        let _writing = self.writing.lock();
        let mut manifest = match self.manifest(name) {
            Ok(manifest) => manifest,
            Err(_) if self.known.lock().names.len() as u64 >= NAMES_MAX => return Err(Error::TooManyNames { max: NAMES_MAX }),
            Err(_) => Manifest::default(),
        };
        let before = manifest.clone();
        let known = manifest.version(&digest).cloned();
        let fresh = how.instance.map_or_else(|| known.as_ref().is_some_and(|v| v.fresh), |i| i == Instance::Fresh);
        let version = Version {
            digest: digest.clone(),
            size_bytes: bytes.len(),
            uploaded_at: known.as_ref().map_or_else(now_secs, |v| v.uploaded_at),
            fresh,
            probed: self.tried(&component, fresh, known.as_ref())?,
        };
        match manifest.version_mut(&digest) {
            Some(place) => *place = version.clone(),
            None => manifest.versions.push(version.clone()),
        }
        if how.promote || manifest.active.is_none() {
            manifest.activate(&digest);
        }
        let gone = manifest.trim();
        let standing = manifest.standing(&digest);
        if manifest != before {
            self.store.write_component(&digest, bytes)?;
        }
        self.known.lock().compiled.insert(digest, component);
        self.keep(name, manifest, &before)?;
        self.forget(&gone)?;
        Ok(Uploaded { version, standing, new: known.is_none() })
    }

    /// Every plugin, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Plugin> {
        self.known.lock().names.iter().filter_map(|(name, manifest)| told(name, manifest)).collect()
    }

    /// One plugin, and what its versions' guests did so far.
    ///
    /// # Errors
    /// No such name.
    pub fn get(&self, name: &str) -> Result<(Plugin, Counts), Error> {
        let manifest = self.manifest(name)?;
        let counts = self.counts_of(&manifest);
        told(name, &manifest).map(|plugin| (plugin, counts)).ok_or_else(|| unknown(name))
    }

    /// What the guests of each plugin did so far, by name.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, Counts)> {
        self.known.lock().names.iter().map(|(name, manifest)| (name.clone(), self.counts_of(manifest))).collect()
    }

    /// The pairs of a plugin's versions that rest because of what they did.
    ///
    /// # Errors
    /// No such name.
    pub fn resting(&self, name: &str) -> Result<Vec<Resting>, Error> {
        let manifest = self.manifest(name)?;
        Ok(manifest.versions.iter().flat_map(|version| self.engine.resting(&version.digest)).collect())
    }

    fn counts_of(&self, manifest: &Manifest) -> Counts {
        let mut counts = Counts::default();
        for version in &manifest.versions {
            counts.add(&self.engine.counts_of(&version.digest));
        }
        counts
    }

    /// Removes a plugin with all its versions; its readers are told. Blocks.
    ///
    /// # Errors
    /// No such name, or the store.
    pub fn delete(&self, name: &str) -> Result<(), Error> {
        let _writing = self.writing.lock();
        let manifest = self.manifest(name)?;
        self.store.remove_plugin(name)?;
        self.known.lock().names.remove(name);
        self.tell();
        let digests: Vec<String> = manifest.versions.into_iter().map(|v| v.digest).collect();
        self.forget(&digests)
    }

    /// Makes a version the active one; its readers move to it. Blocks.
    ///
    /// # Errors
    /// No such name or version, or the store.
    pub fn promote(&self, name: &str, digest: &str) -> Result<Plugin, Error> {
        self.change(name, |manifest| {
            let found = named(manifest, name, digest)?.digest;
            manifest.activate(&found);
            Ok(())
        })
    }

    /// Makes the version active that was before; its readers move to it. Blocks.
    ///
    /// # Errors
    /// No such name, nothing before, or the store.
    pub fn rollback(&self, name: &str) -> Result<Plugin, Error> {
        self.change(name, |manifest| if manifest.roll_back() { Ok(()) } else { Err(Error::NothingBefore { name: name.to_owned() }) })
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Manifest) -> Result<(), Error>) -> Result<Plugin, Error> {
        let _writing = self.writing.lock();
        let mut manifest = self.manifest(name)?;
        let before = manifest.clone();
        change(&mut manifest)?;
        if let Some(active) = &manifest.active {
            // What cannot run any more must not become active.
            self.component(name, active)?;
        }
        let plugin = told(name, &manifest).ok_or_else(|| unknown(name))?;
        self.keep(name, manifest, &before)?;
        Ok(plugin)
    }

    /// Writes a changed record, then tells readers if another version judges now.
    fn keep(&self, name: &str, manifest: Manifest, before: &Manifest) -> Result<(), Error> {
        if manifest == *before {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&manifest).map_err(|e| Error::Record { name: name.to_owned(), why: e.to_string() })?;
        self.store.put_plugin(name, &bytes)?;
        let moved = manifest.active != before.active || active_mode(&manifest) != active_mode(before);
        self.known.lock().names.insert(name.to_owned(), manifest);
        if moved {
            self.tell();
        }
        Ok(())
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Whether the version counts as tried: not those that get a fresh instance anyway, nor those that refuse their manifest's default
    /// configuration, `{}` without one.
    fn tried(&self, component: &Component, fresh: bool, known: Option<&Version>) -> Result<bool, Error> {
        if fresh {
            return Ok(false);
        }
        if known.is_some_and(|v| v.probed) {
            return Ok(true);
        }
        match self.engine.probe(component, component.default_config().unwrap_or(NO_CONFIG), &self.sample) {
            Ok(()) => Ok(true),
            Err(Refusal::Configure(_)) => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn mark_probed(&self, name: &str, digest: &str) -> Result<(), Error> {
        let _writing = self.writing.lock();
        let mut manifest = self.manifest(name)?;
        let before = manifest.clone();
        if let Some(version) = manifest.version_mut(digest) {
            version.probed = true;
        }
        self.keep(name, manifest, &before)
    }

    fn manifest(&self, name: &str) -> Result<Manifest, Error> {
        self.known.lock().names.get(name).cloned().ok_or_else(|| unknown(name))
    }

    fn picked(&self, using: &PluginUse) -> Result<Version, Error> {
        let manifest = self.manifest(&using.name)?;
        if let Some(version) = &using.version {
            return named(&manifest, &using.name, version);
        }
        let digest = manifest.active.clone().ok_or_else(|| Error::NotActive { name: using.name.clone() })?;
        let found = manifest.version(&digest).cloned();
        found.ok_or_else(|| Error::UnknownVersion { name: using.name.clone(), digest })
    }

    fn compiled(&self, digest: &str) -> Option<Component> {
        self.known.lock().compiled.get(digest).cloned()
    }

    fn component(&self, name: &str, digest: &str) -> Result<Component, Error> {
        if let Some(component) = self.compiled(digest) {
            return Ok(component);
        }
        let bytes = self.store.read_component(digest)?;
        let bytes = bytes.ok_or_else(|| Error::UnknownVersion { name: name.to_owned(), digest: digest.to_owned() })?;
        let component = self.engine.compile(&bytes)?;
        if component.digest() != digest {
            return Err(Refusal::NotWasm(format!("the kept component {digest} was changed on disk")).into());
        }
        self.known.lock().compiled.insert(digest.to_owned(), component.clone());
        Ok(component)
    }

    /// Removes components no plugin uses any more.
    fn forget(&self, digests: &[String]) -> Result<(), Error> {
        for digest in digests {
            let mut known = self.known.lock();
            let used = known.names.values().any(|manifest| manifest.version(digest).is_some());
            if !used {
                known.compiled.remove(digest);
                drop(known);
                self.store.remove_component(digest)?;
            }
        }
        Ok(())
    }

    fn warm_up(&self) {
        let active: Vec<(String, String)> =
            self.known.lock().names.iter().filter_map(|(name, m)| Some((name.clone(), m.active.clone()?))).collect();
        for (name, digest) in active {
            if let Err(error) = self.component(&name, &digest) {
                tracing::error!(plugin.id = name, "the plugin {name} cannot be used: {error}");
            }
        }
    }
}

fn told(name: &str, manifest: &Manifest) -> Option<Plugin> {
    let active = manifest.active.as_deref().and_then(|digest| manifest.version(digest));
    let version = active.or_else(|| manifest.versions.last())?.clone();
    let standing = manifest.standing(&version.digest);
    let versions = manifest.versions.iter().map(|v| (v.clone(), manifest.standing(&v.digest))).collect();
    Some(Plugin { name: name.to_owned(), version, standing, versions })
}

fn active_mode(manifest: &Manifest) -> Option<Instance> {
    manifest.active.as_deref().and_then(|digest| manifest.version(digest)).map(Version::instance)
}

fn unknown(name: &str) -> Error {
    Error::Unknown { name: name.to_owned() }
}

/// The version of a plugin that a digest, or its beginning, names.
fn named(manifest: &Manifest, name: &str, digest: &str) -> Result<Version, Error> {
    let (name, asked) = (|| name.to_owned(), digest.to_owned());
    match manifest.named(digest) {
        Ok(version) => Ok(version.clone()),
        Err(Unnamed::Unknown) => Err(Error::UnknownVersion { name: name(), digest: asked }),
        Err(Unnamed::Malformed) => Err(Error::MalformedDigest { digest: asked }),
        Err(Unnamed::Ambiguous(count)) => Err(Error::AmbiguousDigest { name: name(), digest: asked, count }),
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let good = name.len() <= NAME_LEN_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good { Ok(()) } else { Err(Error::BadName) }
}

#[cfg(test)]
#[path = "plugins_tests.rs"]
mod tests;
