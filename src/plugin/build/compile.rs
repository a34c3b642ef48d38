//! Turns uploaded bytes into a component that can be instantiated: scan, wrap, compile, check imports and
//! exports.
//!
//! Compile bombs are real (400 KB of empty functions take seconds and half a gigabyte). Therefore bytes are
//! scanned before the compiler sees them, and the compiler runs in a process of its own (`build`). The server
//! only maps the result.
//!
//! Must not know: who uploads, or under which name.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use wasmtime::component::InstancePre;
use wit_component::ComponentEncoder;

use crate::plugin::component_info::ComponentInfo;
use crate::plugin::counters::Counters;
use crate::plugin::error::{Refusal, error_chain};
use crate::plugin::resources::charge::Charge;
use crate::plugin::sandbox::bindings::PluginPre;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::denied_wasi;
use crate::plugin::sandbox::setup::{ClassEngine, Setup};
use crate::plugin::sandbox::state::State;
use crate::plugin::scan;
use crate::tasks;

/// Machine code of a component, and what is known of it.
pub struct Compiled {
    wasm: wasmtime::component::Component,
    about: ComponentInfo,
    charge: Arc<Charge>,
}

/// Scans and compiles a component. Blocks while the compiler runs.
///
/// # Errors
/// What is wrong with the bytes.
pub fn compile(setup: &Setup, bytes: &[u8]) -> Result<Compiled, Refusal> {
    let mut seen = scan::scan(bytes, &setup.config)?;
    let mut wrapped = Cow::Borrowed(bytes);
    if !seen.is_component {
        wrapped = Cow::Owned(wrap(bytes)?);
        // What the encoder adds counts, too.
        seen = scan::scan(&wrapped, &setup.config)?;
    }
    let class_engine = setup.class_engine(seen.about.class);
    let compiled = tasks::catch_panic(|| wasmtime::component::Component::new(&class_engine.engine, &wrapped));
    let compiled = compiled.map_err(|_| Refusal::Compile("the compiler panicked on it".to_owned()))?;
    let (wasm, about) = (compiled.map_err(|error| compile_refusal(setup, &error))?, seen.about);
    // No file backs this code, so all of it is memory, and its images take memory once more.
    let code = wasm.image_range();
    let code_bytes = code.end.addr().saturating_sub(code.start.addr()) as u64;
    let bytes = about.heap_bytes.saturating_add(about.image_bytes).saturating_add(code_bytes);
    let charge = Arc::new(Charge::for_component(&setup.capacity, about.class, bytes)?);
    Ok(Compiled { wasm, about, charge })
}

/// Serializes the machine code for [`load`].
///
/// # Errors
/// It cannot be serialized.
pub fn serialize(compiled: &Compiled) -> Result<Vec<u8>, Refusal> {
    compiled.wasm.serialize().map_err(|error| Refusal::Compile(error_chain(&error)))
}

/// Charges the memory that `code_bytes` of code take once loaded, before any of it is read.
///
/// # Errors
/// `Full` or `NeverFits` if there is not enough memory.
pub fn charge_memory(setup: &Setup, about: &ComponentInfo, code_bytes: u64) -> Result<Charge, Refusal> {
    Charge::for_component(&setup.capacity, about.class, about.loaded_bytes(code_bytes))
}

/// Maps machine code made by [`serialize`], from a file that nobody else wrote and nobody changes.
///
/// # Errors
/// It was made by another version or other settings of the compiler.
#[expect(unsafe_code, reason = "machine code cannot be checked; the caller knows who wrote it")]
pub fn load(setup: &Setup, about: ComponentInfo, file: &Path, charge: Charge) -> Result<Compiled, Refusal> {
    let class_engine = setup.class_engine(about.class);
    // SAFETY: callers pass only files whose content the store has just found to be what our own compiler
    // wrote.
    let wasm = unsafe { wasmtime::component::Component::deserialize_file(&class_engine.engine, file) };
    Ok(Compiled {
        wasm: wasm.map_err(|error| Refusal::Compile(error_chain(&error)))?,
        about,
        charge: Arc::new(charge),
    })
}

/// Checks imports and exports. The result can be instantiated.
///
/// # Errors
/// The import or export that is wrong.
pub fn check_linkage(
    setup: &Setup,
    compiled: &Compiled,
    upload: UploadId<'_>,
    counters: Arc<Counters>,
) -> Result<Component, Refusal> {
    let class_engine = setup.class_engine(compiled.about.class);
    let pre = check_imports(class_engine, &compiled.wasm)?;
    let pre = PluginPre::new(pre).map_err(|error| Refusal::MissingExport(error_chain(&error)))?;
    Ok(Component::new(
        upload.digest,
        upload.size_bytes,
        compiled.about.clone(),
        pre,
        counters,
        Arc::clone(&compiled.charge),
    ))
}

#[derive(Debug, Clone, Copy)]
pub struct UploadId<'a> {
    /// SHA-256 of the bytes, 64 hex digits.
    pub digest: &'a str,
    pub size_bytes: usize,
}

/// Encodes a core module as a component of the world it says it was made for.
fn wrap(module: &[u8]) -> Result<Vec<u8>, Refusal> {
    let encoded = tasks::catch_panic(|| {
        ComponentEncoder::default().validate(true).module(module).and_then(ComponentEncoder::encode)
    });
    encoded
        .map_err(|_| Refusal::Compile("encoding the core module as a component panicked".to_owned()))?
        .map_err(|error| Refusal::Compile(format!("encoding the core module as a component: {error:#}")))
}

/// The pool checks the initial size of each memory during compilation, even in core modules that are never
/// instantiated, which `scan` does not count.
fn compile_refusal(setup: &Setup, error: &wasmtime::Error) -> Refusal {
    let causes = error_chain(error);
    if !is_too_large_for_pool(&causes) {
        return Refusal::Compile(causes);
    }
    let max = setup.config.memory_bytes;
    Refusal::Instantiate {
        message: format!(
            "it begins with more memory than it may have (at most {max} bytes, plugin.memory_bytes): {causes}"
        ),
        limit: Some(max as u64),
    }
}

/// wasmtime reports this only as text; a test pins it.
fn is_too_large_for_pool(causes: &str) -> bool {
    causes.contains("is unsupported in this pooling allocator configuration")
}

/// The shared linker is enough for most components. The rest of WASI is linked only for those that import it.
fn check_imports(
    class_engine: &ClassEngine,
    component: &wasmtime::component::Component,
) -> Result<InstancePre<State>, Refusal> {
    let linked = class_engine.linker.instantiate_pre(component);
    let linked = linked.or_else(|_| {
        denied_wasi::link_with_denied(&class_engine.linker, &class_engine.engine, component)?
            .instantiate_pre(component)
    });
    linked.map_err(|error| {
        Refusal::UnknownImport(format!("the component imports what is not provided: {}", error_chain(&error)))
    })
}

/// Helpers for tests of other modules.
#[cfg(test)]
pub mod tests {
    use ::bytes::Bytes;

    use super::*;
    use crate::plugin::class::Class;
    use crate::plugin::history::NoHistory;
    use crate::plugin::limits::Config;
    use crate::plugin::resources::capacity::InstanceAllocation;
    use crate::plugin::sandbox::state::HostServices;

    #[test]
    fn an_unused_module_with_too_much_memory_is_refused_with_the_limit() {
        let services = HostServices { history: Arc::new(NoHistory), json: |_| Bytes::new() };
        let setup =
            Setup::new(Config::default(), services, InstanceAllocation::Pooled).expect("the engine starts");
        let component =
            wat::parse_str("(component (core module (memory 65536)))").expect("it is a component");
        let error = wasmtime::component::Component::new(&setup.class_engine(Class::Small).engine, component)
            .expect_err("the pool has no such memory");
        let refusal = compile_refusal(&setup, &error);
        let limit = setup.config.memory_bytes as u64;
        assert_eq!((refusal.reason(), refusal.limit()), ("instantiate", Some(limit)), "{refusal}");
        assert!(refusal.to_string().contains("plugin.memory_bytes"), "{refusal}");
    }

    /// What the compiling process makes of a component: what is known of it, and its code.
    pub fn built(bytes: &[u8]) -> (ComponentInfo, Vec<u8>) {
        let services = HostServices { history: Arc::new(NoHistory), json: |_| Bytes::new() };
        let setup =
            Setup::new(Config::default(), services, InstanceAllocation::OnDemand).expect("the engine starts");
        let compiled = compile(&setup, bytes).expect("it compiles");
        (compiled.about.clone(), serialize(&compiled).expect("it can be written"))
    }
}
