//! From uploaded bytes to a component that may be instantiated: look, wrap, scan, compile, check imports and
//! exports.
//!
//! Compile bombs are real (400 KB of empty functions take seconds and half a gigabyte), so bytes are counted
//! before the compiler sees them, and it runs in a process of its own (`build`). This one maps what came of
//! it.
//!
//! Must not know: who uploads, or under which name.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use wasmtime::component::InstancePre;
use wit_component::ComponentEncoder;

use crate::plugin::component_info::ComponentInfo;
use crate::plugin::counters::Counters;
use crate::plugin::error::{Refusal, causes};
use crate::plugin::resources::charge::Charge;
use crate::plugin::sandbox::bindings::PluginPre;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::denied_wasi;
use crate::plugin::sandbox::setup::{Setup, World};
use crate::plugin::sandbox::state::State;
use crate::plugin::scan;
use crate::tasks;

/// Machine code of a component, and what is known of it.
pub struct Compiled {
    wasm: wasmtime::component::Component,
    about: ComponentInfo,
    charge: Arc<Charge>,
}

/// Checks and compiles a component. Blocks for the time of the compiler.
///
/// # Errors
/// What is wrong with the bytes.
pub fn compile(setup: &Setup, bytes: &[u8]) -> Result<Compiled, Refusal> {
    let mut seen = scan::scan(bytes, &setup.config)?;
    let mut wrapped = Cow::Borrowed(bytes);
    if !seen.is_component {
        wrapped = Cow::Owned(wrap(bytes)?);
        // What the encoder puts around it counts, too.
        seen = scan::scan(&wrapped, &setup.config)?;
    }
    let world = setup.world(seen.about.class);
    let compiled = tasks::caught(|| wasmtime::component::Component::new(&world.wasm, &wrapped));
    let compiled = compiled.map_err(|_| Refusal::Compile("the compiler panicked on it".to_owned()))?;
    let (wasm, about) = (compiled.map_err(|error| uncompiled(setup, &error))?, seen.about);
    // No file stands behind it: all of it is memory, and its images are once more.
    let code = wasm.image_range();
    let code_bytes = code.end.addr().saturating_sub(code.start.addr()) as u64;
    let bytes = about.heap_bytes.saturating_add(about.image_bytes).saturating_add(code_bytes);
    let charge = Arc::new(Charge::for_component(&setup.capacity, about.class, bytes)?);
    Ok(Compiled { wasm, about, charge })
}

/// The machine code, for [`load`].
///
/// # Errors
/// It cannot be written down.
pub fn code(compiled: &Compiled) -> Result<Vec<u8>, Refusal> {
    compiled.wasm.serialize().map_err(|error| Refusal::Compile(causes(&error)))
}

/// Charges memory with what code of so many bytes takes loaded, before any of it is read.
///
/// # Errors
/// `Full` or `NeverFits` where there is no memory for it.
pub fn charge(setup: &Setup, about: &ComponentInfo, code_bytes: u64) -> Result<Charge, Refusal> {
    Charge::for_component(&setup.capacity, about.class, about.loaded_bytes(code_bytes))
}

/// Maps machine code that [`code`] gave, from a file that nobody else wrote and nobody changes.
///
/// # Errors
/// Another version or other settings of the compiler made it.
#[expect(unsafe_code, reason = "machine code cannot be checked; the caller knows who wrote it")]
pub fn load(setup: &Setup, about: ComponentInfo, file: &Path, charge: Charge) -> Result<Compiled, Refusal> {
    let world = setup.world(about.class);
    // SAFETY: `feed` gives only files whose content the store has just found to be what our own compiler
    // wrote.
    let wasm = unsafe { wasmtime::component::Component::deserialize_file(&world.wasm, file) };
    Ok(Compiled {
        wasm: wasm.map_err(|error| Refusal::Compile(causes(&error)))?,
        about,
        charge: Arc::new(charge),
    })
}

/// Checks exports and imports: what comes of it can be instantiated.
///
/// # Errors
/// The import or export that is wrong.
pub fn component(
    setup: &Setup,
    compiled: &Compiled,
    upload: Upload<'_>,
    counters: Arc<Counters>,
) -> Result<Component, Refusal> {
    let world = setup.world(compiled.about.class);
    let pre = check_imports(world, &compiled.wasm)?;
    let pre = PluginPre::new(pre).map_err(|error| Refusal::MissingExport(causes(&error)))?;
    Ok(Component::new(
        upload.digest,
        upload.size_bytes,
        compiled.about.clone(),
        pre,
        counters,
        Arc::clone(&compiled.charge),
    ))
}

/// What was uploaded.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    /// SHA-256 of it, 64 hex digits.
    pub digest: &'a str,
    /// Its size, bytes.
    pub size_bytes: usize,
}

/// Makes a component of a core module that says which world it was made for.
fn wrap(module: &[u8]) -> Result<Vec<u8>, Refusal> {
    let encoded = tasks::caught(|| {
        ComponentEncoder::default().validate(true).module(module).and_then(ComponentEncoder::encode)
    });
    encoded
        .map_err(|_| Refusal::Compile("encoding the core module as a component panicked".to_owned()))?
        .map_err(|error| Refusal::Compile(format!("encoding the core module as a component: {error:#}")))
}

/// The pool looks at sizes while it compiles: what will not fit is no matter of the code.
fn uncompiled(setup: &Setup, error: &wasmtime::Error) -> Refusal {
    let told = causes(error);
    if told.contains("pooling allocator") {
        let max = setup.config.memory_bytes;
        return Refusal::Instantiate(format!(
            "it begins with more memory (at most {max} bytes, plugin.memory_bytes) or tables than it may have: {told}"
        ));
    }
    Refusal::Compile(told)
}

/// What the linker has suffices for most; the rest of WASI is linked for those that ask for it.
fn check_imports(
    world: &World,
    component: &wasmtime::component::Component,
) -> Result<InstancePre<State>, Refusal> {
    let linked = world.linker.instantiate_pre(component);
    let linked = linked
        .or_else(|_| denied_wasi::link(&world.linker, &world.wasm, component)?.instantiate_pre(component));
    linked.map_err(|error| {
        Refusal::UnknownImport(format!("the component imports what is not provided: {}", causes(&error)))
    })
}

/// What tests elsewhere need of the compiler.
#[cfg(test)]
pub mod tests {
    use ::bytes::Bytes;

    use super::*;
    use crate::plugin::history::NoHistory;
    use crate::plugin::limits::Config;
    use crate::plugin::resources::capacity::InstanceAllocation;
    use crate::plugin::sandbox::state::Outside;

    /// What the compiling process makes of a component: what is known of it, and its code.
    pub fn built(bytes: &[u8]) -> (ComponentInfo, Vec<u8>) {
        let outside = Outside { history: Arc::new(NoHistory), json: |_| Bytes::new() };
        let setup =
            Setup::new(Config::default(), outside, InstanceAllocation::OnDemand).expect("the engine starts");
        let compiled = compile(&setup, bytes).expect("it compiles");
        (compiled.about.clone(), code(&compiled).expect("it can be written"))
    }
}
