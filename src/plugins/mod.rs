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
use crate::plugin::judging::pair_records::AtRest;
use crate::plugin::judging::probe::{NO_CONFIG, Tried};
use crate::plugin::judging::run::Instance;
use crate::plugin::resources::purse::Payer;
use crate::plugin::sandbox::component::Component;
use crate::plugins::components::{Components, KeptComponent, LoadError, Readiness};
use crate::plugins::error::PluginsError;
use crate::plugins::manifest::{Manifest, Version};
use crate::plugins::names::{check_name, find_version};
use crate::plugins::summary::{PluginSummary, summarize};
use crate::plugins::upload::{CheckedUpload, UploadOptions, Uploaded};
use crate::store::Store;
use crate::store::plugins::compiled::UploadFile;

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
    ) -> Result<Arc<Self>, PluginsError> {
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
    /// No such plugin or version, or it refuses the configuration; see [`PluginsError::parameter`].
    pub async fn resolve(self: &Arc<Self>, using: &PluginUse) -> Result<Evaluator, PluginsError> {
        self.resolve_for(using, None).await
    }

    /// The same, with its memory charged to the address that alone uses it.
    ///
    /// # Errors
    /// As [`Plugins::resolve`].
    pub async fn resolve_for(
        self: &Arc<Self>,
        using: &PluginUse,
        payer: Option<&Payer>,
    ) -> Result<Evaluator, PluginsError> {
        let version = self.pick_version(using)?;
        let component = match self.components.get_loaded(&version.digest) {
            Some(component) => component,
            None => label_loaded(
                &using.name,
                &version,
                self.components.get(&version.digest, version.size_bytes).await,
            )?,
        };
        let config = if using.config.trim().is_empty() { NO_CONFIG } else { &using.config };
        // One configuration that passes its trial says nothing of another's.
        let sample = if version.probed || version.fresh { None } else { Some(self.sample.as_slice()) };
        Ok(self.engine.paid(&component, config, version.instance(), sample, payer).await?)
    }

    /// Whether there may be a plugin of this name: it is one, or there is room for it.
    ///
    /// # Errors
    /// Not a name, or too many names.
    pub fn check_can_upload(&self, name: &str) -> Result<(), PluginsError> {
        check_name(name)?;
        let names = self.names.lock();
        if !names.contains_key(name) && names.len() as u64 >= NAMES_MAX {
            return Err(PluginsError::TooManyNames { max: NAMES_MAX });
        }
        Ok(())
    }

    /// The version with this digest, of this plugin or of another, if its compiled code is kept.
    #[must_use]
    pub fn find_kept(&self, name: &str, digest: &str) -> Option<(KeptComponent, Version)> {
        // Under this name, or another: it was compiled and tried all the same.
        let own = self.manifest(name).ok().and_then(|manifest| manifest.version(digest).cloned());
        let other = || self.names.lock().values().find_map(|manifest| manifest.version(digest).cloned());
        let version = own.or_else(other)?;
        Some((self.components.get_kept(digest, version.size_bytes)?, version))
    }

    /// Removes what was compiled of an upload that was not accepted, unless it is a version of some plugin.
    pub fn discard(&self, digest: &str) {
        let _writing = self.writing.lock();
        if let Err(error) = self.remove_unused(&[digest.to_owned()]) {
            tracing::warn!("what was compiled of {digest} could not be removed: {error}");
        }
    }

    /// Whether an upload is tried for repeatability: not one that gets a fresh instance for every call.
    #[must_use]
    pub fn needs_trial(&self, name: &str, digest: &str, options: UploadOptions) -> bool {
        let known = self
            .manifest(name)
            .ok()
            .and_then(|manifest| manifest.version(digest).map(|version| version.fresh));
        options.instance.map_or(!known.unwrap_or(false), |instance| instance == Instance::Warm)
    }

    /// Takes an upload in this process, without the limits of time and memory that others have: for programs
    /// that trust it. Blocks.
    ///
    /// # Errors
    /// Not a name, a refusal, or the store.
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

    /// Compiles and tries an upload in this process: the component, and what came of its trial.
    ///
    /// # Errors
    /// A refusal, or the file cannot be read.
    pub fn compile_here(&self, file: &UploadFile, probe: bool) -> Result<(Component, Tried), PluginsError> {
        let bytes = file.read()?;
        let component = self.engine.compile(&bytes)?;
        let tried =
            if probe { self.engine.probe_by_default(&component, &self.sample)? } else { Tried::default() };
        Ok((component, tried))
    }

    /// Keeps an upload that may run, under a name. `still_wanted` is asked when it is one's turn. Blocks.
    ///
    /// # Errors
    /// Not a name, too many of them, given up, or the store.
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

    /// The class of a version: what today's limits hold it to, as far as that is known; `None` where they
    /// refuse it.
    #[must_use]
    pub fn class(&self, version: &Version) -> Option<Class> {
        match self.state(version) {
            Readiness::Unusable(_) => None,
            Readiness::Usable | Readiness::Preparing => {
                self.components.class(&version.digest).or(version.class)
            }
        }
    }

    /// Every plugin, by name.
    #[must_use]
    pub fn list(&self) -> Vec<PluginSummary> {
        self.names.lock().iter().filter_map(|(name, manifest)| summarize(name, manifest)).collect()
    }

    /// One plugin, and what its versions' guests did so far.
    ///
    /// # Errors
    /// No such name.
    pub fn get(&self, name: &str) -> Result<(PluginSummary, Counts), PluginsError> {
        let manifest = self.manifest(name)?;
        let counts = self.counts_of(&manifest);
        summarize(name, &manifest).map(|plugin| (plugin, counts)).ok_or_else(|| unknown_plugin(name))
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
    pub fn resting(&self, name: &str) -> Result<AtRest, PluginsError> {
        let manifest = self.manifest(name)?;
        Ok(manifest
            .versions
            .iter()
            .map(|version| self.engine.resting(&version.digest))
            .fold(AtRest::default(), AtRest::and))
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
    /// No such name or version, or the store.
    pub fn promote(&self, name: &str, digest: &str) -> Result<PluginSummary, PluginsError> {
        self.update(name, |manifest| {
            let found = find_version(manifest, name, digest)?.digest;
            manifest.activate(&found);
            Ok(())
        })
    }

    /// Makes the version active that was before; its readers move to it. Blocks.
    ///
    /// # Errors
    /// No such name, nothing before, or the store.
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
            // What cannot run any more must not become active.
            self.component(name, active)?;
        }
        let plugin = summarize(name, &manifest).ok_or_else(|| unknown_plugin(name))?;
        self.save_manifest(name, manifest, &before)?;
        Ok(plugin)
    }

    /// Writes a changed record, then tells readers if another version judges now.
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

    fn pick_version(&self, using: &PluginUse) -> Result<Version, PluginsError> {
        let manifest = self.manifest(&using.name)?;
        if let Some(version) = &using.version {
            return find_version(&manifest, &using.name, version);
        }
        let digest =
            manifest.active.clone().ok_or_else(|| PluginsError::NotActive { name: using.name.clone() })?;
        let found = manifest.version(&digest).cloned();
        found.ok_or_else(|| PluginsError::UnknownVersion { name: using.name.clone(), digest })
    }

    fn component(&self, name: &str, version: &Version) -> Result<Component, PluginsError> {
        label_loaded(name, version, self.components.get_blocking(&version.digest, version.size_bytes))
    }

    /// Removes components no plugin uses any more.
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

/// The component of a version of the plugin of this name, labelled; or why it cannot be had.
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
