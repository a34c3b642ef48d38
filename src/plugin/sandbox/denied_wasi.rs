//! The rest of WASI 0.2 (HTTP, sockets, whatever later versions add), linked only for components that import
//! it, so that those of ordinary toolchains start. A call of any of it traps with a message that names the
//! function.
//!
//! Must not know: whether a component ever calls it.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceType};
use wasmtime::{Engine, Result, bail};

use crate::plugin::sandbox::state::State;
use crate::plugin::sandbox::wasi;
use crate::plugin::scan::imports;

/// A linker with everything that `linker` has, and stubs for what else of WASI 0.2 the component imports.
///
/// # Errors
/// The component imports one thing in two ways.
pub fn link_with_denied(
    linker: &Linker<State>,
    engine: &Engine,
    component: &Component,
) -> Result<Linker<State>> {
    let mut linker = linker.clone();
    let ty = component.component_type();
    // Interfaces share resources (a request's body is a stream). A shared resource keeps the type it has in
    // the interface that defines it.
    let mut our_resources: Vec<(ResourceType, ResourceType)> = Vec::new();
    for (name, import) in ty.imports(engine) {
        let (Some(interface), ComponentItem::ComponentInstance(instance)) =
            (imports::wasi_interface(name), &import.ty)
        else {
            continue;
        };
        for (export, item) in instance.exports(engine) {
            if let (ComponentItem::Resource(theirs), Some(ours)) =
                (item.ty, wasi::resource_type(interface, export))
            {
                our_resources.push((theirs, ours));
            }
        }
    }
    for (name, import) in ty.imports(engine) {
        let (Some(interface), ComponentItem::ComponentInstance(instance)) =
            (imports::wasi_interface(name), &import.ty)
        else {
            continue;
        };
        let linked = wasi::is_linked(interface);
        let name_in_linker = linked.then(|| format!("wasi:{interface}@{}", wasi::VERSION));
        let mut instance_linker = linker.instance(name_in_linker.as_deref().unwrap_or(name))?;
        for (export, item) in instance.exports(engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => {
                    let called = format!("{name}#{export}");
                    let denied = instance_linker
                        .func_new(export, move |_, _, _, _| bail!("`{called}` is denied to plugins"));
                    // Functions that are linked already stay as they are.
                    if !linked {
                        denied?;
                    }
                }
                ComponentItem::Resource(theirs) if !linked => {
                    let ours =
                        our_resources.iter().find(|(known, _)| *known == theirs).map(|(_, ours)| *ours);
                    instance_linker.resource(
                        export,
                        ours.unwrap_or_else(ResourceType::host::<Denied>),
                        |_, _| Ok(()),
                    )?;
                }
                _ => {}
            }
        }
    }
    Ok(linker)
}

/// A resource that no plugin ever gets.
struct Denied;
