//! Tests of components whose compiled code is kept, with a real store.
//!
//! Must not know: who uses them.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::*;
use crate::budget::Share;
use crate::domain::hex::sha256_hex;
use crate::domain::subscription::PluginUse;
use crate::plugin::build::compile::tests::built;
use crate::plugin::history::NoHistory;
use crate::plugin::judging::run::Instance;
use crate::plugin::limits::Config;
use crate::plugins::Plugins;
use crate::plugins::upload::{CheckedUpload, UploadOptions};

const HIGH_VALUE: &[u8] = include_bytes!("../../../plugins/prebuilt/high-value.wasm");
const GATECAMP: &[u8] = include_bytes!("../../../plugins/prebuilt/gatecamp.wasm");
const MEMORY: u64 = 64 << 20;

fn open(dir: &Path) -> Arc<Plugins> {
    let config =
        store::config::Config { dir: dir.to_owned(), min_free_bytes: 0, ..store::config::Config::default() };
    let limits = Config { guests_memory_bytes: MEMORY, ..Config::default() };
    let engine = Engine::new(limits, Arc::new(NoHistory), |_| Bytes::new()).unwrap();
    Plugins::open(Store::open(config, |_| Bytes::new()).unwrap(), engine, Vec::new()).unwrap()
}

/// Saves what the compiling process would make of `bytes`.
fn save_compiled(components: &Components, bytes: &[u8]) -> KeptComponent {
    let (about, code) = built(bytes);
    let digest = sha256_hex(bytes);
    let upload = UploadId { digest: &digest, size_bytes: bytes.len() };
    let draft = CodeDraft(components.store.code_draft(&digest, &components.compiler).unwrap());
    fs::write(&draft.0, code).unwrap();
    components.save_compiled(&draft, upload, about).unwrap()
}

/// Takes all memory of guests.
fn fill(components: &Components) -> Share {
    let memory = components.engine.capacity().memory();
    let mut share = memory.share();
    assert!(share.reach(MEMORY - memory.used()));
    share
}

/// A runtime with as many threads for blocking work as two waiting tasks would take.
fn two_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).max_blocking_threads(2).enable_all().build().unwrap()
}

fn accepted(plugins: &Plugins, name: &str, bytes: &[u8]) -> KeptComponent {
    let held = save_compiled(plugins.components(), bytes);
    let file = plugins.components().store.upload_file().unwrap();
    file.write(bytes).unwrap();
    let options = UploadOptions { instance: Some(Instance::Fresh), ..UploadOptions::default() };
    let again = KeptComponent { digest: held.digest.clone(), component: held.component.clone(), ..held };
    plugins
        .accept(
            name,
            CheckedUpload { file: &file, component: again, tried: TrialReport::default(), options },
            || true,
        )
        .unwrap();
    held
}

fn used(name: &str) -> PluginUse {
    PluginUse { name: name.to_owned(), version: None, config: String::new() }
}

#[test]
fn waiting_for_a_component_takes_no_threads() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = open(dir.path());
    let digest = accepted(&plugins, "one", HIGH_VALUE).digest;
    plugins.components().cache.lock().clear();
    let runtime = two_threads();
    let loading = plugins.components().loading.lock();
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let plugins = Arc::clone(&plugins);
            runtime.spawn(async move {
                plugins.resolve(&used("one")).await.map(|evaluator| evaluator.digest().to_owned())
            })
        })
        .collect();
    // There is one worker thread, so by the time it runs this, all the others have reached the point where
    // they wait.
    runtime.block_on(runtime.spawn(async {})).unwrap();
    let other = async { timeout(Duration::from_secs(20), tasks::blocking("other", || 7)).await };
    assert_eq!(runtime.block_on(other).expect("other work finds a thread").unwrap(), 7);
    drop(loading);
    for asked in asking {
        assert_eq!(runtime.block_on(asked).unwrap().unwrap(), digest);
    }
}

#[test]
fn memory_is_charged_before_code_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = open(dir.path());
    let components = plugins.components();
    let KeptComponent { digest, size_bytes, .. } = accepted(&plugins, "one", HIGH_VALUE);
    components.cache.lock().clear();
    let code = components.store.compiled_code(&digest, &components.compiler).unwrap().unwrap().path;
    let mut changed = fs::read(&code).unwrap();
    changed[100] ^= 1;
    fs::write(&code, changed).unwrap();
    let others = fill(components);
    // If the code were read first, the damage would be noticed and the component rebuilt.
    assert!(matches!(components.get_blocking(&digest, size_bytes), Err(LoadError::NoMemory(_))));
    let memory = components.engine.capacity().memory();
    let before = memory.refused();
    let runtime = two_threads();
    for _ in 0..50 {
        assert!(matches!(runtime.block_on(components.get(&digest, size_bytes)), Err(LoadError::NoMemory(_))));
    }
    assert!(memory.refused() - before < 50, "a refusal is remembered for a moment");
    drop(others);
    assert!(matches!(components.get_blocking(&digest, size_bytes), Err(LoadError::Preparing)));
}

#[test]
fn an_upload_that_does_not_fit_into_memory_is_loaded_later() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = open(dir.path());
    let components = plugins.components();
    let others = fill(components);
    let held = accepted(&plugins, "one", HIGH_VALUE);
    assert!(held.component.is_none());
    // Uploading it again does not compile it again.
    let (again, version) = plugins.find_kept("two", &held.digest).expect("its code is kept");
    assert!(again.component.is_none() && Some(again.class) == version.class);
    let runtime = two_threads();
    assert!(runtime.block_on(plugins.resolve(&used("one"))).unwrap_err().is_transient());
    drop(others);
    let component = components.get_blocking(&held.digest, held.size_bytes).unwrap();
    assert!(component.charged_bytes() > 0);
}

#[test]
fn concurrent_requests_load_a_component_once() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = open(dir.path());
    let components = plugins.components();
    let KeptComponent { digest, size_bytes, component, .. } = accepted(&plugins, "one", GATECAMP);
    let charged = component.expect("there is memory").charged_bytes();
    for _ in 0..10 {
        components.cache.lock().clear();
        let begin = Barrier::new(4);
        let all: Vec<KeptComponent> = thread::scope(|scope| {
            let ask = || {
                begin.wait();
                components.get_kept(&digest, size_bytes).unwrap()
            };
            let asking: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        assert!(all.iter().all(|held| held.component.is_some()));
        assert_eq!(components.engine.capacity().component_memory().used(), charged);
    }
}

#[test]
fn compiled_code_stays_while_an_equal_upload_is_in_progress() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = open(dir.path());
    let components = plugins.components();
    let digest = save_compiled(components, HIGH_VALUE).digest;
    let is_kept = || components.store.compiled_code(&digest, &components.compiler).unwrap().is_some();
    let claims = [components.claim(&digest), components.claim(&digest)];
    for claim in claims {
        plugins.discard(&digest);
        assert!(is_kept());
        drop(claim);
    }
    assert!(is_kept());
    plugins.discard(&digest);
    assert!(!is_kept());
}

#[test]
fn counts_of_a_removed_component_stay_in_the_sum() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = open(dir.path());
    let held = accepted(&plugins, "one", HIGH_VALUE);
    drop(two_threads().block_on(plugins.resolve(&used("one"))).unwrap());
    let engine = plugins.engine();
    let made = engine.counts().instances;
    assert!(made > 0 && engine.counts_of(&held.digest).instances == made);
    plugins.delete("one").unwrap();
    assert_eq!(engine.counts().instances, made);
    assert_eq!(engine.counts_of(&held.digest).instances, made, "its counters live as long as it is in use");
}
