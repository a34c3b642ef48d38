//! Plugins by name: their versions, which one judges, and the evaluators subscriptions use.
//!
//! Changes are on disk before anyone is told.
//!
//! Must not know: how guests run, how components are compiled, or over which door plugins come.

pub mod components;
pub mod error;
#[cfg(test)]
mod history_cost;
#[cfg(test)]
mod history_law;
pub mod manifest;
mod names;
pub mod plugin_history;
pub mod plugin_quota;
pub mod summary;
pub mod upload;
pub mod uploads;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::now_secs;
use crate::domain::entry::SharedEntry;
use crate::domain::subscription::PluginUse;
use crate::plugin::class::Class;
use crate::plugin::counters::Counts;
use crate::plugin::engine::Engine;
use crate::plugin::judging::evaluator::Evaluator;
use crate::plugin::judging::pair_records::QuarantinedPairs;
use crate::plugin::judging::repeatability_trial::{NO_CONFIG, TrialReport};
use crate::plugin::judging::run::Instance;
use crate::plugin::resources::memory_account::AddressBudget;
use crate::plugin::sandbox::component::Component;
use crate::plugins::components::{Components, Held, Missing, State};
use crate::plugins::manifest::{Manifest, Version};
use crate::plugins::names::{check_name, named};
use crate::plugins::summary::{Plugin, summary};
use crate::plugins::upload::{Accepted, Upload, Uploaded};
use crate::store::Store;
use crate::store::plugins::compiled::UploadFile;

/// Spoken as `plugins::Error`.
pub type Error = error::Error;

/// Plugins there may be (1,000): each name is a record and a line of every list.
const NAMES_MAX: u64 = 1_000;

/// All plugins of a server.
pub struct Plugins {
    store: Arc<Store>,
    engine: Arc<Engine>,
    components: Arc<Components>,
    sample: Vec<SharedEntry>,
    names: Mutex<BTreeMap<String, Manifest>>,
    /// Held while something on disk is changed; never together with `names`.
    writing: Mutex<()>,
    changes: Arc<watch::Sender<u64>>,
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugins").finish_non_exhaustive()
    }
}

impl Plugins {
    /// Reads what the store keeps. `sample` is what configurations are tried on. Blocks.
    ///
    /// # Errors
    /// The store, or a record that cannot be understood.
    pub fn open(
        store: Arc<Store>,
        engine: Arc<Engine>,
        sample: Vec<SharedEntry>,
    ) -> Result<Arc<Self>, Error> {
        let mut names = BTreeMap::<String, Manifest>::new();
        for (name, bytes) in store.plugins()? {
            match serde_json::from_slice(&bytes) {
                Ok(manifest) => drop(names.insert(name, manifest)),
                // The other plugins are not to blame. It stays on disk as it is until a plugin of that name
                // is uploaded.
                Err(error) => tracing::error!(
                    plugin.id = name,
                    "the plugin {name} is left out: its record cannot be read: {error}"
                ),
            }
        }
        let changes = Arc::new(watch::Sender::new(0));
        let components = Components::new(Arc::clone(&store), Arc::clone(&engine), Arc::clone(&changes));
        components.tidy(|digest| names.values().any(|manifest| manifest.version(digest).is_some()));
        Ok(Arc::new(Self {
            store,
            engine,
            components,
            sample,
            names: Mutex::new(names),
            writing: Mutex::new(()),
            changes,
        }))
    }

    /// Makes active versions ready whose compiled code is not kept, until the server stops. Nobody waits for
    /// it but those who need them.
    pub fn prepare(&self) {
        let active: Vec<Version> =
            self.names.lock().values().filter_map(Manifest::active_version).cloned().collect();
        self.components.prepare(active);
    }

    /// The components under the plugins.
    #[must_use]
    pub const fn components(&self) -> &Arc<Components> {
        &self.components
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
        self.resolve_for(using, None).await
    }

    /// The same, with its memory charged to the address that alone uses it.
    ///
    /// # Errors
    /// As [`Plugins::resolve`].
    pub async fn resolve_for(
        self: &Arc<Self>,
        using: &PluginUse,
        payer: Option<&AddressBudget>,
    ) -> Result<Evaluator, Error> {
        let version = self.picked(using)?;
        let component = match self.components.at_hand(&version.digest) {
            Some(component) => component,
            None => {
                found(&using.name, &version, self.components.ask(&version.digest, version.size_bytes).await)?
            }
        };
        let config = if using.config.trim().is_empty() { NO_CONFIG } else { &using.config };
        // One configuration that passes its trial says nothing of another's.
        let sample = if version.probed || version.fresh { None } else { Some(self.sample.as_slice()) };
        Ok(self.engine.evaluator_for_address(&component, config, version.instance(), sample, payer).await?)
    }

    /// Whether there may be a plugin of this name: it is one, or there is room for it.
    ///
    /// # Errors
    /// Not a name, or too many names.
    pub fn admit(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        let names = self.names.lock();
        if !names.contains_key(name) && names.len() as u64 >= NAMES_MAX {
            return Err(Error::TooManyNames { max: NAMES_MAX });
        }
        Ok(())
    }

    /// The version with this digest, of this plugin or of another, if its compiled code is kept.
    #[must_use]
    pub fn known(&self, name: &str, digest: &str) -> Option<(Held, Version)> {
        // Under this name, or another: it was compiled and tried all the same.
        let own = self.manifest(name).ok().and_then(|manifest| manifest.version(digest).cloned());
        let other = || self.names.lock().values().find_map(|manifest| manifest.version(digest).cloned());
        let version = own.or_else(other)?;
        Some((self.components.kept(digest, version.size_bytes)?, version))
    }

    /// Removes what was compiled of an upload that was not accepted, unless it is a version of some plugin.
    pub fn discard(&self, digest: &str) {
        let _writing = self.writing.lock();
        if let Err(error) = self.forget(&[digest.to_owned()]) {
            tracing::warn!("what was compiled of {digest} could not be removed: {error}");
        }
    }

    /// Whether an upload is tried for repeatability: not one that gets a fresh instance for every call.
    #[must_use]
    pub fn is_tried(&self, name: &str, digest: &str, how: Upload) -> bool {
        let known = self
            .manifest(name)
            .ok()
            .and_then(|manifest| manifest.version(digest).map(|version| version.fresh));
        how.instance.map_or(!known.unwrap_or(false), |instance| instance == Instance::Warm)
    }

    /// Takes an upload in this process, without the limits of time and memory that others have: for programs
    /// that trust it. Blocks.
    ///
    /// # Errors
    /// Not a name, a refusal, or the store.
    pub fn upload(&self, name: &str, bytes: &[u8], how: Upload) -> Result<Uploaded, Error> {
        self.admit(name)?;
        let file = self.store.upload_file()?;
        file.write(bytes)?;
        let digest = file.digest()?;
        let known = self.manifest(name).ok().and_then(|manifest| manifest.version(&digest).cloned());
        let probe = self.is_tried(name, &digest, how) && !known.is_some_and(|version| version.probed);
        let (component, tried) = self.compile_here(&file, probe)?;
        self.accept(name, Accepted { file: &file, held: component.into(), tried, how }, || true)
    }

    /// Compiles and tries an upload in this process: the component, and what came of its trial.
    ///
    /// # Errors
    /// A refusal, or the file cannot be read.
    pub fn compile_here(&self, file: &UploadFile, probe: bool) -> Result<(Component, TrialReport), Error> {
        let bytes = file.read()?;
        let component = self.engine.compile(&bytes)?;
        let tried =
            if probe { self.engine.try_upload(&component, &self.sample)? } else { TrialReport::default() };
        Ok((component, tried))
    }

    /// Keeps an upload that may run, under a name. `still_wanted` is asked when it is one's turn. Blocks.
    ///
    /// # Errors
    /// Not a name, too many of them, given up, or the store.
    pub fn accept(
        &self,
        name: &str,
        accepted: Accepted<'_>,
        still_wanted: impl Fn() -> bool,
    ) -> Result<Uploaded, Error> {
        let Accepted { file, held, tried, how } = accepted;
        let digest = held.digest.clone();
        let _writing = self.writing.lock();
        if !still_wanted() {
            return Err(Error::GivenUp);
        }
        self.admit(name)?;
        let mut manifest = self.manifest(name).unwrap_or_default();
        let before = manifest.clone();
        let known = manifest.version(&digest).cloned();
        let version = Version {
            digest: digest.clone(),
            size_bytes: held.size_bytes,
            uploaded_at: known.as_ref().map_or_else(now_secs, |v| v.uploaded_at),
            fresh: how
                .instance
                .map_or_else(|| known.as_ref().is_some_and(|v| v.fresh), |i| i == Instance::Fresh),
            probed: tried.probed || known.as_ref().is_some_and(|v| v.probed),
            class: Some(held.class),
            warnings: if tried.probed {
                tried.warnings
            } else {
                known.as_ref().map(|v| v.warnings.clone()).unwrap_or_default()
            },
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
            self.store.keep_component(&digest, file)?;
        }
        if let Some(component) = &held.component {
            component.set_label(&format!("{name} {digest:.12}"));
        }
        self.components.put(held);
        self.keep(name, manifest, &before)?;
        self.forget(&gone)?;
        Ok(Uploaded { version, standing, new: known.is_none() })
    }

    /// Whether a version can run.
    #[must_use]
    pub fn state(&self, version: &Version) -> State {
        self.components.state(&version.digest)
    }

    /// The class of a version: what today's limits hold it to, as far as that is known; `None` where they
    /// refuse it.
    #[must_use]
    pub fn class(&self, version: &Version) -> Option<Class> {
        match self.state(version) {
            State::Unusable(_) => None,
            State::Usable | State::Preparing => self.components.class(&version.digest).or(version.class),
        }
    }

    /// Every plugin, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Plugin> {
        self.names.lock().iter().filter_map(|(name, manifest)| summary(name, manifest)).collect()
    }

    /// One plugin, and what its versions' guests did so far.
    ///
    /// # Errors
    /// No such name.
    pub fn get(&self, name: &str) -> Result<(Plugin, Counts), Error> {
        let manifest = self.manifest(name)?;
        let counts = self.counts_of(&manifest);
        summary(name, &manifest).map(|plugin| (plugin, counts)).ok_or_else(|| unknown(name))
    }

    /// What the guests of each plugin did so far, by name.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, Counts)> {
        self.names.lock().iter().map(|(name, manifest)| (name.clone(), self.counts_of(manifest))).collect()
    }

    /// The pairs of a plugin's versions that rest because of what they did.
    ///
    /// # Errors
    /// No such name.
    pub fn resting(&self, name: &str) -> Result<QuarantinedPairs, Error> {
        let manifest = self.manifest(name)?;
        Ok(manifest
            .versions
            .iter()
            .map(|version| self.engine.quarantined(&version.digest))
            .fold(QuarantinedPairs::default(), QuarantinedPairs::merged_with))
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
        self.names.lock().remove(name);
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
        self.change(name, |manifest| {
            if manifest.roll_back() { Ok(()) } else { Err(Error::NothingBefore { name: name.to_owned() }) }
        })
    }

    fn change(
        &self,
        name: &str,
        change: impl FnOnce(&mut Manifest) -> Result<(), Error>,
    ) -> Result<Plugin, Error> {
        let _writing = self.writing.lock();
        let mut manifest = self.manifest(name)?;
        let before = manifest.clone();
        change(&mut manifest)?;
        if let Some(active) = manifest.active_version() {
            // What cannot run any more must not become active.
            self.component(name, active)?;
        }
        let plugin = summary(name, &manifest).ok_or_else(|| unknown(name))?;
        self.keep(name, manifest, &before)?;
        Ok(plugin)
    }

    /// Writes a changed record, then tells readers if another version judges now.
    fn keep(&self, name: &str, manifest: Manifest, before: &Manifest) -> Result<(), Error> {
        if manifest == *before {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|e| Error::Record { name: name.to_owned(), why: e.to_string() })?;
        self.store.put_plugin(name, &bytes)?;
        let moved = manifest.active != before.active || active_mode(&manifest) != active_mode(before);
        let mut names = self.names.lock();
        names.insert(name.to_owned(), manifest);
        let active: HashSet<String> = names.values().filter_map(|manifest| manifest.active.clone()).collect();
        drop(names);
        self.components.let_go(|digest| active.contains(digest));
        if moved {
            self.tell();
        }
        Ok(())
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn manifest(&self, name: &str) -> Result<Manifest, Error> {
        self.names.lock().get(name).cloned().ok_or_else(|| unknown(name))
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

    fn component(&self, name: &str, version: &Version) -> Result<Component, Error> {
        found(name, version, self.components.get(&version.digest, version.size_bytes))
    }

    /// Removes components no plugin uses any more.
    fn forget(&self, digests: &[String]) -> Result<(), Error> {
        for digest in digests {
            let used = self.names.lock().values().any(|manifest| manifest.version(digest).is_some());
            if !used {
                self.components.forget(digest)?;
                self.engine.forget(digest);
            }
        }
        Ok(())
    }
}

/// The component of a version of the plugin of this name, labelled; or why it cannot be had.
fn found(name: &str, version: &Version, component: Result<Component, Missing>) -> Result<Component, Error> {
    if let Ok(component) = &component {
        component.set_label(&format!("{name} {:.12}", version.digest));
    }
    let name = || name.to_owned();
    component.map_err(|missing| match missing {
        Missing::Preparing => Error::Preparing { name: name() },
        Missing::Unusable(why) => Error::Unusable { name: name(), why },
        Missing::Unknown => Error::UnknownVersion { name: name(), digest: version.digest.clone() },
        Missing::Full(refusal) => Error::Refused(refusal),
        Missing::Store(error) => error.into(),
        Missing::Lost(lost) => lost.into(),
    })
}

fn active_mode(manifest: &Manifest) -> Option<Instance> {
    manifest.active_version().map(Version::instance)
}

fn unknown(name: &str) -> Error {
    Error::Unknown { name: name.to_owned() }
}

#[cfg(test)]
#[path = "plugins_tests.rs"]
mod tests;
