//! Tests of plugins by name, with a real store.
//!
//! Must not know: how a record is written.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::sleep;

use super::*;
use crate::plugin::history::NoHistory;
use crate::plugin::limits;
use crate::plugins::manifest::VersionState;
use crate::store;

const HIGH_VALUE: &[u8] = include_bytes!("../../plugins/prebuilt/high-value.wasm");
const WATCHLIST: &[u8] = include_bytes!("../../plugins/prebuilt/watchlist.wasm");
const GATECAMP: &[u8] = include_bytes!("../../plugins/prebuilt/gatecamp.wasm");

fn open(dir: &Path) -> Arc<Plugins> {
    open_within(dir, limits::Config::default())
}

fn open_within(dir: &Path, limits: limits::Config) -> Arc<Plugins> {
    let config =
        store::config::Config { dir: dir.to_owned(), min_free_bytes: 0, ..store::config::Config::default() };
    let store = Store::open(config, |_| Bytes::new()).unwrap();
    let engine =
        Engine::new(limits::Config { compile_here: true, ..limits }, Arc::new(NoHistory), |_| Bytes::new())
            .unwrap();
    Plugins::open(store, engine, Vec::new()).unwrap()
}

fn used(name: &str, config: &str) -> PluginUse {
    PluginUse { name: name.to_owned(), version: None, config: config.to_owned() }
}

#[tokio::test]
async fn the_first_version_is_active_and_later_ones_wait() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = open(dir.path());
    let first = plugins.upload("mine", HIGH_VALUE, UploadOptions::default()).unwrap();
    assert_eq!((first.state, first.new), (VersionState::Active, true));
    let changes = plugins.watch();
    let second = plugins.upload("mine", GATECAMP, UploadOptions::default()).unwrap();
    assert_eq!((second.state, second.new), (VersionState::Waiting, true));
    assert!(!plugins.upload("mine", GATECAMP, UploadOptions::default()).unwrap().new);
    assert_eq!(plugins.resolve(&used("mine", "")).await.unwrap().digest(), first.version.digest);
    assert!(!changes.has_changed().unwrap(), "a waiting version is not a change");

    plugins.promote("mine", &format!("sha256:{}", second.version.digest)).unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(plugins.resolve(&used("mine", "")).await.unwrap().digest(), second.version.digest);
    let pinned =
        PluginUse { version: Some(format!("sha256:{}", first.version.digest)), ..used("mine", "{}") };
    assert_eq!(plugins.resolve(&pinned).await.unwrap().digest(), first.version.digest);

    plugins.rollback("mine").unwrap();
    assert_eq!(plugins.resolve(&used("mine", "")).await.unwrap().digest(), first.version.digest);
    assert!(matches!(plugins.rollback("mine"), Err(PluginsError::NothingBefore { .. })));
    let third = plugins
        .upload("mine", WATCHLIST, UploadOptions { promote: true, ..UploadOptions::default() })
        .unwrap();
    assert_eq!(third.state, VersionState::Active);
}

#[tokio::test]
async fn plugins_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let before = {
        let plugins = open(dir.path());
        plugins
            .upload(
                "one",
                HIGH_VALUE,
                UploadOptions { instance: Some(Instance::Fresh), ..UploadOptions::default() },
            )
            .unwrap();
        plugins.upload("two", WATCHLIST, UploadOptions::default()).unwrap();
        plugins.upload("two", GATECAMP, UploadOptions::default()).unwrap();
        plugins.list()
    };
    let plugins = open(dir.path());
    assert_eq!(plugins.list(), before);
    assert_eq!(plugins.list()[0].version.instance(), Instance::Fresh);
    plugins.resolve(&used("one", "{}")).await.unwrap();
    assert!(plugins.rollback("two").is_err());
}

#[tokio::test]
async fn an_unreadable_record_does_not_affect_other_plugins() {
    let dir = tempfile::tempdir().unwrap();
    {
        let plugins = open(dir.path());
        plugins.upload("one", HIGH_VALUE, UploadOptions::default()).unwrap();
        plugins.store.put_plugin("bent", b"{\"versions\":").unwrap();
    }
    let plugins = open(dir.path());
    assert_eq!(plugins.list().iter().map(|plugin| plugin.name.as_str()).collect::<Vec<_>>(), ["one"]);
    plugins.resolve(&used("one", "{}")).await.unwrap();
    plugins.upload("bent", WATCHLIST, UploadOptions::default()).unwrap();
    assert_eq!(plugins.list().len(), 2);
}

#[tokio::test]
async fn a_component_is_removed_with_the_last_plugin_that_uses_it() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = open(dir.path());
    let digest = plugins.upload("one", HIGH_VALUE, UploadOptions::default()).unwrap().version.digest;
    plugins.upload("two", HIGH_VALUE, UploadOptions::default()).unwrap();
    let kept = || plugins.store.read_component(&digest).unwrap().is_some();
    let mut changes = plugins.watch();
    plugins.delete("one").unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(kept());
    assert!(matches!(plugins.resolve(&used("one", "{}")).await, Err(PluginsError::Unknown { .. })));
    plugins.delete("two").unwrap();
    assert!(!kept());
    assert!(matches!(plugins.delete("two"), Err(PluginsError::Unknown { .. })));
}

#[tokio::test]
async fn errors_name_the_parameter_to_blame() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = open(dir.path());
    plugins.upload("watch", WATCHLIST, UploadOptions::default()).unwrap();
    let refused = async |using: PluginUse| plugins.resolve(&using).await.unwrap_err();
    let config = refused(used("watch", "{}")).await;
    assert_eq!(config.parameter(), Some("plugin_config"));
    assert!(config.to_string().contains("characters"), "the guest's own text: {config}");
    assert_eq!(refused(used("watch", "no json")).await.parameter(), Some("plugin_config"));
    let unknown = refused(used("other", "{}")).await;
    assert_eq!(unknown.parameter(), Some("plugin"));
    assert!(unknown.to_string().contains("\"other\""), "{unknown}");
    let version = PluginUse { version: Some("sha256:00".to_owned()), ..used("watch", "{}") };
    assert_eq!(refused(version).await.parameter(), Some("plugin"));
}

#[test]
fn names_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = open(dir.path());
    for name in ["", "A", "1a", "-a", "a_b", "a/b", "ä", &"a".repeat(64)] {
        assert!(
            matches!(
                plugins.upload(name, HIGH_VALUE, UploadOptions::default()),
                Err(PluginsError::BadName { .. })
            ),
            "{name}"
        );
    }
    plugins.upload(&"a".repeat(63), HIGH_VALUE, UploadOptions::default()).unwrap();
    plugins.upload("a-1", HIGH_VALUE, UploadOptions::default()).unwrap();
}

#[tokio::test]
async fn a_changed_file_is_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let digest = {
        let plugins = open(dir.path());
        let digest = plugins.upload("one", HIGH_VALUE, UploadOptions::default()).unwrap().version.digest;
        let other = plugins.store.upload_file().unwrap();
        other.write(GATECAMP).unwrap();
        plugins.store.keep_component(&digest, &other).unwrap();
        plugins.store.remove_code(&digest).unwrap();
        digest
    };
    let plugins = open(dir.path());
    let error = plugins.resolve(&used("one", "{}")).await.unwrap_err();
    assert!(error.to_string().contains(&digest), "{error}");
}

#[tokio::test]
async fn unused_components_are_unloaded_to_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let (loaded, instance) = {
        let plugins = open(dir.path());
        for (name, bytes) in [("one", HIGH_VALUE), ("two", GATECAMP)] {
            plugins.upload(name, bytes, UploadOptions::default()).unwrap();
        }
        let loaded = plugins.engine.capacity().memory().used();
        let _evaluator = plugins.resolve(&used("one", "{}")).await.unwrap();
        (loaded, plugins.engine.capacity().memory().used() - loaded)
    };
    // There is memory for both components, or for one of them and its instance.
    let plugins = open_within(
        dir.path(),
        limits::Config { guests_memory_bytes: loaded + instance - 1, ..limits::Config::default() },
    );
    let digest = |name: &str| plugins.manifest(name).unwrap().active.unwrap();
    let is_loaded = |name: &str| plugins.components.get_loaded(&digest(name)).is_some();
    plugins.component("two", plugins.manifest("two").unwrap().versions.last().unwrap()).unwrap();
    assert!(is_loaded("two"));
    let evaluator = plugins.resolve(&used("one", "{}")).await.unwrap();
    assert_eq!(
        (is_loaded("one"), is_loaded("two")),
        (true, false),
        "the unused one is unloaded for the used one"
    );
    let refused = plugins.resolve(&used("two", "{}")).await.unwrap_err();
    assert!(
        refused.is_transient() && refused.to_string().ends_with("(plugin.guests_memory_bytes)"),
        "{refused}"
    );
    assert_eq!(
        plugins.state(plugins.manifest("two").unwrap().versions.last().unwrap()),
        Readiness::Usable,
        "a refusal does not make it unusable"
    );
    // Once nobody uses it, its evaluator is evicted, then the component itself.
    drop(evaluator);
    let end = Instant::now() + Duration::from_secs(20);
    // The refusal is remembered for a moment.
    while let Err(refused) = plugins.resolve(&used("two", "{}")).await {
        assert!(refused.is_transient() && Instant::now() < end, "{refused}");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(is_loaded("two"));
}

#[tokio::test]
async fn a_class_is_reported_only_if_the_current_limits_accept_the_version() {
    let dir = tempfile::tempdir().unwrap();
    let version = open(dir.path()).upload("one", HIGH_VALUE, UploadOptions::default()).unwrap().version;
    let small = limits::Config { functions_max: 0, ..limits::Config::default() };
    let plugins = open_within(dir.path(), small.clone());
    plugins.resolve(&used("one", "{}")).await.unwrap();
    assert_eq!((version.class, plugins.class(&version)), (Some(Class::Small), Some(Class::Scripting)));
    drop(plugins);
    let plugins = open_within(dir.path(), limits::Config { scripting_functions_max: 0, ..small });
    assert!(plugins.resolve(&used("one", "{}")).await.is_err());
    assert_eq!(plugins.class(&version), None);
}
