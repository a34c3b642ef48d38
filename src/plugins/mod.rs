//! Plugins by name: their versions, which one is active, and the evaluators that subscriptions use.
//!
//! Changes are written to disk before readers are notified.
//!
//! Must not know: how guests run, how components are compiled, or which transport an upload came in on.

pub(crate) mod components;
pub(crate) mod error;
#[cfg(test)]
mod history_cost;
#[cfg(test)]
mod history_law;
pub(crate) mod manifest;
mod names;
pub mod plugin_history;
pub(crate) mod plugin_quota;
pub(crate) mod summary;
pub mod upload;
pub(crate) mod uploads;

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
use crate::plugins::components::kept_component::KeptComponent;
use crate::plugins::components::{Components, LoadError, Readiness};
use crate::plugins::error::PluginsError;
use crate::plugins::manifest::{Manifest, Version};
use crate::plugins::names::{check_name, find_version};
use crate::plugins::summary::{PluginSummary, summarize};
use crate::plugins::upload::{CheckedUpload, UploadOptions, Uploaded};
use crate::store::Store;
use crate::store::plugins::compiled::UploadFile;

/// The most plugins there may be: each is a record in the store and an entry of every list.
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
    /// Reads the plugins from the store. Configurations are tried on `sample`. Blocks.
    ///
    /// # Errors
    /// The store fails.
    pub fn open(
        store: Arc<Store>,
        engine: Arc<Engine>,
        sample: Vec<SharedEntry>,
    ) -> Result<Arc<Self>, PluginsError> {
        let mut names = BTreeMap::<String, Manifest>::new();
        for (name, bytes) in store.plugins()? {
            match serde_json::from_slice(&bytes) {
                Ok(manifest) => drop(names.insert(name, manifest)),
                // Keep the other plugins. The record stays on disk as it is until a plugin of that name is
                // uploaded.
                Err(error) => tracing::error!(
                    plugin.id = name,
                    "the plugin {name} is skipped because its record cannot be read: {error}"
                ),
            }
        }
        let changes = Arc::new(watch::Sender::new(0));
        let components = Components::new(Arc::clone(&store), Arc::clone(&engine), Arc::clone(&changes));
        components.remove_stale(|digest| names.values().any(|manifest| manifest.version(digest).is_some()));
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

    /// Builds active versions whose compiled code is not kept, in the background, until the server stops.
    pub fn prepare(&self) {
        let active: Vec<Version> =
            self.names.lock().values().filter_map(Manifest::active_version).cloned().collect();
        self.components.prepare(active);
    }

    /// The components of all versions.
    #[must_use]
    pub const fn components(&self) -> &Arc<Components> {
        &self.components
    }

    /// The engine that runs the plugins.
    #[must_use]
    pub const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Changes with every promotion, rollback and deletion of any plugin.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The evaluator for a subscription.
    ///
    /// # Errors
    /// There is no such plugin or version, or it refuses the configuration; see [`PluginsError::parameter`].
    pub async fn resolve(self: &Arc<Self>, requested: &PluginUse) -> Result<Evaluator, PluginsError> {
        self.resolve_for(requested, None).await
    }

    /// As [`Plugins::resolve`], with its memory charged to the only address that uses it.
    ///
    /// # Errors
    /// As [`Plugins::resolve`].
    pub async fn resolve_for(
        self: &Arc<Self>,
        requested: &PluginUse,
        payer: Option<&AddressBudget>,
    ) -> Result<Evaluator, PluginsError> {
        let version = self.pick_version(requested)?;
        let component = match self.components.get_loaded(&version.digest) {
            Some(component) => component,
            None => label_loaded(
                &requested.name,
                &version,
                self.components.get(&version.digest, version.size_bytes).await,
            )?,
        };
        let config = if requested.config.trim().is_empty() { NO_CONFIG } else { &requested.config };
        // A trial with one configuration says nothing about another one.
        let sample = if version.probed || version.fresh { None } else { Some(self.sample.as_slice()) };
        Ok(self.engine.evaluator_for_address(&component, config, version.instance(), sample, payer).await?)
    }

    /// Checks whether a plugin of this name may be uploaded: it exists, or there is room for one more.
    ///
    /// # Errors
    /// The name is not valid, or there are too many plugins.
    pub fn check_can_upload(&self, name: &str) -> Result<(), PluginsError> {
        check_name(name)?;
        let names = self.names.lock();
        if !names.contains_key(name) && names.len() as u64 >= NAMES_MAX {
            return Err(PluginsError::TooManyNames { max: NAMES_MAX });
        }
        Ok(())
    }

    /// The version with this digest, of this plugin or another, if its compiled code is kept.
    #[must_use]
    pub fn find_kept(&self, name: &str, digest: &str) -> Option<(KeptComponent, Version)> {
        // A version under another name was compiled and tried just the same.
        let own = self.manifest(name).ok().and_then(|manifest| manifest.version(digest).cloned());
        let other = || self.names.lock().values().find_map(|manifest| manifest.version(digest).cloned());
        let version = own.or_else(other)?;
        Some((self.components.get_kept(digest, version.size_bytes)?, version))
    }

    /// Removes the compiled code of an upload that was not accepted, unless it is a version of some plugin.
    pub fn discard(&self, digest: &str) {
        let _writing = self.writing.lock();
        if let Err(error) = self.remove_unused(&[digest.to_owned()]) {
            tracing::warn!("the compiled code of {digest} could not be removed: {error}");
        }
    }

    /// Whether an upload must be tried for repeatability: not if every call gets a fresh instance.
    #[must_use]
    pub fn needs_trial(&self, name: &str, digest: &str, options: UploadOptions) -> bool {
        let known = self
            .manifest(name)
            .ok()
            .and_then(|manifest| manifest.version(digest).map(|version| version.fresh));
        options.instance.map_or(!known.unwrap_or(false), |instance| instance == Instance::Warm)
    }

    /// Accepts an upload and compiles it in this process, without limits of time and memory, for programs
    /// that trust it. Blocks.
    ///
    /// # Errors
    /// The name is not valid, the upload is refused, or the store fails.
    pub fn upload(&self, name: &str, bytes: &[u8], options: UploadOptions) -> Result<Uploaded, PluginsError> {
        self.check_can_upload(name)?;
        let file = self.store.upload_file()?;
        file.write(bytes)?;
        let digest = file.digest()?;
        let known = self.manifest(name).ok().and_then(|manifest| manifest.version(&digest).cloned());
        let probe = self.needs_trial(name, &digest, options) && !known.is_some_and(|version| version.probed);
        let (component, tried) = self.compile_here(&file, probe)?;
        self.accept(name, CheckedUpload { file: &file, component: component.into(), tried, options }, || true)
    }

    /// Compiles and tries an upload in this process. Returns the component and the result of its trial.
    ///
    /// # Errors
    /// The upload is refused, or the file cannot be read.
    pub fn compile_here(
        &self,
        file: &UploadFile,
        probe: bool,
    ) -> Result<(Component, TrialReport), PluginsError> {
        let bytes = file.read()?;
        let component = self.engine.compile(&bytes)?;
        let tried =
            if probe { self.engine.try_upload(&component, &self.sample)? } else { TrialReport::default() };
        Ok((component, tried))
    }

    /// Saves a checked upload under a name. `still_wanted` is called once other changes are done. Blocks.
    ///
    /// # Errors
    /// The name is not valid, there are too many plugins, the upload is no longer wanted, or the store fails.
    pub fn accept(
        &self,
        name: &str,
        checked: CheckedUpload<'_>,
        still_wanted: impl Fn() -> bool,
    ) -> Result<Uploaded, PluginsError> {
        let CheckedUpload { file, component, tried, options } = checked;
        let digest = component.digest.clone();
        let _writing = self.writing.lock();
        if !still_wanted() {
            return Err(PluginsError::GivenUp);
        }
        self.check_can_upload(name)?;
        let mut manifest = self.manifest(name).unwrap_or_default();
        let before = manifest.clone();
        let known = manifest.version(&digest).cloned();
        let version = Version {
            digest: digest.clone(),
            size_bytes: component.size_bytes,
            uploaded_at: known.as_ref().map_or_else(now_secs, |v| v.uploaded_at),
            fresh: options
                .instance
                .map_or_else(|| known.as_ref().is_some_and(|v| v.fresh), |i| i == Instance::Fresh),
            probed: tried.probed || known.as_ref().is_some_and(|v| v.probed),
            class: Some(component.class),
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
        if options.promote || manifest.active.is_none() {
            manifest.activate(&digest);
        }
        let gone = manifest.drop_old_versions();
        let state = manifest.state_of(&digest);
        if manifest != before {
            self.store.keep_component(&digest, file)?;
        }
        if let Some(loaded) = &component.component {
            loaded.set_label(&format!("{name} {digest:.12}"));
        }
        self.components.insert(component);
        self.save_manifest(name, manifest, &before)?;
        self.remove_unused(&gone)?;
        Ok(Uploaded { version, state, new: known.is_none() })
    }

    /// Whether a version can run.
    #[must_use]
    pub fn state(&self, version: &Version) -> Readiness {
        self.components.state(&version.digest)
    }

    /// The class that the current limits give a version, as far as is known; `None` if they refuse it.
    #[must_use]
    pub fn class(&self, version: &Version) -> Option<Class> {
        match self.state(version) {
            Readiness::Unusable(_) => None,
            Readiness::Usable | Readiness::Preparing => {
                self.components.class(&version.digest).or(version.class)
            }
        }
    }

    /// All plugins, by name.
    #[must_use]
    pub fn list(&self) -> Vec<PluginSummary> {
        self.names.lock().iter().filter_map(|(name, manifest)| summarize(name, manifest)).collect()
    }

    /// One plugin, and what the guests of its versions have done so far.
    ///
    /// # Errors
    /// There is no such plugin.
    pub fn get(&self, name: &str) -> Result<(PluginSummary, Counts), PluginsError> {
        let manifest = self.manifest(name)?;
        let counts = self.counts_of(&manifest);
        summarize(name, &manifest).map(|plugin| (plugin, counts)).ok_or_else(|| unknown_plugin(name))
    }

    /// What the guests of each plugin have done so far, by name.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, Counts)> {
        self.names.lock().iter().map(|(name, manifest)| (name.clone(), self.counts_of(manifest))).collect()
    }

    /// The suspended pairs of all versions of a plugin.
    ///
    /// # Errors
    /// There is no such plugin.
    pub fn resting(&self, name: &str) -> Result<QuarantinedPairs, PluginsError> {
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

    /// Removes a plugin with all its versions and notifies its readers. Blocks.
    ///
    /// # Errors
    /// There is no such plugin, or the store fails.
    pub fn delete(&self, name: &str) -> Result<(), PluginsError> {
        let _writing = self.writing.lock();
        let manifest = self.manifest(name)?;
        self.store.remove_plugin(name)?;
        self.names.lock().remove(name);
        self.notify();
        let digests: Vec<String> = manifest.versions.into_iter().map(|v| v.digest).collect();
        self.remove_unused(&digests)
    }

    /// Makes a version the active one; its readers move to it. Blocks.
    ///
    /// # Errors
    /// There is no such plugin or version, or the store fails.
    pub fn promote(&self, name: &str, digest: &str) -> Result<PluginSummary, PluginsError> {
        self.update(name, |manifest| {
            let found = find_version(manifest, name, digest)?.digest;
            manifest.activate(&found);
            Ok(())
        })
    }

    /// Activates the version that was active before; its readers move to it. Blocks.
    ///
    /// # Errors
    /// There is no such plugin, no earlier version, or the store fails.
    pub fn rollback(&self, name: &str) -> Result<PluginSummary, PluginsError> {
        self.update(name, |manifest| {
            if manifest.roll_back() {
                Ok(())
            } else {
                Err(PluginsError::NothingBefore { name: name.to_owned() })
            }
        })
    }

    fn update(
        &self,
        name: &str,
        change: impl FnOnce(&mut Manifest) -> Result<(), PluginsError>,
    ) -> Result<PluginSummary, PluginsError> {
        let _writing = self.writing.lock();
        let mut manifest = self.manifest(name)?;
        let before = manifest.clone();
        change(&mut manifest)?;
        if let Some(active) = manifest.active_version() {
            // A version that can no longer run must not become active.
            self.component(name, active)?;
        }
        let plugin = summarize(name, &manifest).ok_or_else(|| unknown_plugin(name))?;
        self.save_manifest(name, manifest, &before)?;
        Ok(plugin)
    }

    /// Writes a changed record, then notifies readers if another version is active now.
    fn save_manifest(&self, name: &str, manifest: Manifest, before: &Manifest) -> Result<(), PluginsError> {
        if manifest == *before {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|e| PluginsError::Record { name: name.to_owned(), why: e.to_string() })?;
        self.store.put_plugin(name, &bytes)?;
        let moved = manifest.active != before.active || active_instance(&manifest) != active_instance(before);
        let mut names = self.names.lock();
        names.insert(name.to_owned(), manifest);
        let active: HashSet<String> = names.values().filter_map(|manifest| manifest.active.clone()).collect();
        drop(names);
        self.components.unload_except(|digest| active.contains(digest));
        if moved {
            self.notify();
        }
        Ok(())
    }

    fn notify(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn manifest(&self, name: &str) -> Result<Manifest, PluginsError> {
        self.names.lock().get(name).cloned().ok_or_else(|| unknown_plugin(name))
    }

    fn pick_version(&self, requested: &PluginUse) -> Result<Version, PluginsError> {
        let manifest = self.manifest(&requested.name)?;
        if let Some(version) = &requested.version {
            return find_version(&manifest, &requested.name, version);
        }
        let digest = manifest
            .active
            .clone()
            .ok_or_else(|| PluginsError::NotActive { name: requested.name.clone() })?;
        let found = manifest.version(&digest).cloned();
        found.ok_or_else(|| PluginsError::UnknownVersion { name: requested.name.clone(), digest })
    }

    fn component(&self, name: &str, version: &Version) -> Result<Component, PluginsError> {
        label_loaded(name, version, self.components.get_blocking(&version.digest, version.size_bytes))
    }

    /// Removes those of these components that no plugin uses any more.
    fn remove_unused(&self, digests: &[String]) -> Result<(), PluginsError> {
        for digest in digests {
            let used = self.names.lock().values().any(|manifest| manifest.version(digest).is_some());
            if !used {
                self.components.remove(digest)?;
                self.engine.forget(digest);
            }
        }
        Ok(())
    }
}

/// Labels a loaded component with the plugin's name and the digest, or explains why it could not be loaded.
fn label_loaded(
    name: &str,
    version: &Version,
    component: Result<Component, LoadError>,
) -> Result<Component, PluginsError> {
    if let Ok(component) = &component {
        component.set_label(&format!("{name} {:.12}", version.digest));
    }
    let name = || name.to_owned();
    component.map_err(|missing| match missing {
        LoadError::Preparing => PluginsError::Preparing { name: name() },
        LoadError::Unusable(why) => PluginsError::Unusable { name: name(), why },
        LoadError::Unknown => PluginsError::UnknownVersion { name: name(), digest: version.digest.clone() },
        LoadError::NoMemory(refusal) => PluginsError::Refused(refusal),
        LoadError::Store(error) => error.into(),
        LoadError::Lost(lost) => lost.into(),
    })
}

fn active_instance(manifest: &Manifest) -> Option<Instance> {
    manifest.active_version().map(Version::instance)
}

fn unknown_plugin(name: &str) -> PluginsError {
    PluginsError::Unknown { name: name.to_owned() }
}

#[cfg(test)]
#[path = "plugins_tests.rs"]
mod tests;
