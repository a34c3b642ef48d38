//! From uploaded bytes to a component that may be instantiated: look, wrap, scan, compile, check imports and exports.
//!
//! Compile bombs are real (400 KB of empty functions take seconds and half a gigabyte), so bytes are counted before the compiler
//! sees them, and it runs in a process of its own (`build`). This one maps what came of it.
//!
//! Must not know: who uploads, or under which name.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::{InstancePre, types::ComponentItem};
use wit_component::ComponentEncoder;

use crate::plugin::bindings::PluginPre;
use crate::plugin::component::{About, Component};
use crate::plugin::counters::Counters;
use crate::plugin::error::Refusal;
use crate::plugin::guest::told;
use crate::plugin::scan;
use crate::plugin::setup::{Setup, World};
use crate::plugin::state::State;
use crate::tasks;

/// What a plugin must export.
const GUEST: &str = "killstream:plugin/guest@1.0.0-rc.1";
/// What to do about something that is not a plugin.
const HOW_TO_BUILD: &str = "in Rust: `crate-type = [\"cdylib\"]`, `killstream_plugin::export!(YourType)`, and \
     `cargo build --release --target wasm32-wasip2`; in other languages, build a component for the world `killstream:plugin/plugin`";
/// The section in which toolchains describe the world a core module was made for.
const WORLD_SECTION: &str = "component-type";

/// Machine code of a component, and what is known of it.
pub struct Compiled {
    wasm: wasmtime::component::Component,
    about: About,
}

/// Checks and compiles a component. Blocks for the time of the compiler.
///
/// # Errors
/// What is wrong with the bytes.
pub fn compile(setup: &Setup, bytes: &[u8]) -> Result<Compiled, Refusal> {
    let seen = scan::scan(bytes, &setup.config)?;
    let world = setup.world(seen.about.class);
    let wrapped = if seen.is_component { Cow::Borrowed(bytes) } else { Cow::Owned(wrap(bytes, seen.has_world)?) };
    let compiled = tasks::caught(|| wasmtime::component::Component::new(&world.wasm, &wrapped));
    let compiled = compiled.map_err(|_| Refusal::Compile("the compiler panicked on it".to_owned()))?;
    Ok(Compiled { wasm: compiled.map_err(|error| uncompiled(setup, &error))?, about: seen.about })
}

/// The machine code, for [`load`].
///
/// # Errors
/// It cannot be written down.
pub fn code(compiled: &Compiled) -> Result<Vec<u8>, Refusal> {
    compiled.wasm.serialize().map_err(|error| Refusal::Compile(told(&error)))
}

/// Maps machine code that [`code`] gave, from a file that nobody else wrote and nobody changes.
///
/// # Errors
/// Another version or other settings of the compiler made it.
#[expect(unsafe_code, reason = "machine code cannot be checked; the caller knows who wrote it")]
pub fn load(setup: &Setup, about: About, file: &Path) -> Result<Compiled, Refusal> {
    let world = setup.world(about.class);
    // SAFETY: `feed` gives only files whose content the store has just found to be what our own compiler wrote.
    let wasm = unsafe { wasmtime::component::Component::deserialize_file(&world.wasm, file) };
    Ok(Compiled { wasm: wasm.map_err(|error| Refusal::Compile(told(&error)))?, about })
}

/// Checks exports and imports: what comes of it can be instantiated.
///
/// # Errors
/// The import or export that is wrong.
pub fn component(setup: &Setup, compiled: &Compiled, upload: Upload<'_>, counters: Arc<Counters>) -> Result<Component, Refusal> {
    let world = setup.world(compiled.about.class);
    check_exports(world, &compiled.wasm)?;
    let pre = check_imports(world, &compiled.wasm)?;
    let pre = PluginPre::new(pre).map_err(|error| Refusal::MissingExport(told(&error)))?;
    Ok(Component::new(upload.digest, upload.size_bytes, compiled.about.clone(), pre, counters))
}

/// What was uploaded.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    /// SHA-256 of it, 64 hex digits.
    pub digest: &'a str,
    /// Its size, bytes.
    pub size_bytes: usize,
}

/// SHA-256 in 64 hex digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a component of a core module that says which world it was made for.
fn wrap(module: &[u8], has_world: bool) -> Result<Vec<u8>, Refusal> {
    if !has_world {
        return Err(Refusal::MissingExport(format!(
            "this is a core module without a `{WORLD_SECTION}` section, so it exports no `{GUEST}`; {HOW_TO_BUILD}"
        )));
    }
    if let Some(name) = scan::preview1_import(module) {
        return Err(Refusal::UnknownImport(format!(
            "the core module imports `{name}` of WASI preview 1, which is not provided; build with `--target wasm32-wasip2`"
        )));
    }
    let encoded = tasks::caught(|| ComponentEncoder::default().validate(true).module(module).and_then(ComponentEncoder::encode));
    encoded
        .map_err(|_| Refusal::Compile("encoding the core module as a component panicked".to_owned()))?
        .map_err(|error| Refusal::Compile(format!("encoding the core module as a component: {error:#}")))
}

/// The pool looks at sizes while it compiles: what will not fit is no matter of the code.
fn uncompiled(setup: &Setup, error: &wasmtime::Error) -> Refusal {
    let told = told(error);
    if told.contains("pooling allocator") {
        let max = setup.config.memory_bytes;
        return Refusal::Instantiate(format!(
            "it begins with more memory (at most {max} bytes, plugin.memory_bytes) or tables than it may have: {told}"
        ));
    }
    Refusal::Compile(told)
}

fn check_exports(world: &World, component: &wasmtime::component::Component) -> Result<(), Refusal> {
    let item = component.component_type();
    let exports: Vec<&str> = item.exports(&world.wasm).map(|(name, _)| name).collect();
    if exports.contains(&GUEST) {
        return Ok(());
    }
    let found = match exports.as_slice() {
        [] => "it exports nothing, as a library without `export!` does".to_owned(),
        some => format!("it exports {}", listed(some)),
    };
    Err(Refusal::MissingExport(format!("the component does not export `{GUEST}`; {found}; {HOW_TO_BUILD}")))
}

fn check_imports(world: &World, component: &wasmtime::component::Component) -> Result<InstancePre<State>, Refusal> {
    world.linker.instantiate_pre(component).map_err(|error| {
        let item = component.component_type();
        let foreign: Vec<&str> = item
            .imports(&world.wasm)
            .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentInstance(_) | ComponentItem::ComponentFunc(_)))
            .map(|(name, _)| name)
            .filter(|name| !is_ours(name))
            .collect();
        let told = told(&error);
        match foreign.as_slice() {
            [] => Refusal::UnknownImport(format!("the component imports what is not provided: {told}")),
            some => Refusal::UnknownImport(format!("the component imports {}, which is not provided ({told})", listed(some))),
        }
    })
}

/// Whether an import is of an interface we provide, in whatever version: what then fails is in the text of the linker.
fn is_ours(name: &str) -> bool {
    const INTERFACES: [&str; 9] = [
        "killstream:plugin/types@1.",
        "killstream:plugin/killmail@1.",
        "killstream:plugin/history@1.",
        "killstream:plugin/universe@1.",
        "killstream:plugin/log@1.",
        "wasi:cli/",
        "wasi:clocks/",
        "wasi:filesystem/",
        "wasi:random/",
    ];
    name.starts_with("wasi:io/") || INTERFACES.iter().any(|known| name.starts_with(known))
}

fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
