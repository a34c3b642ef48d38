//! What WASI 0.2 has beyond what is linked for every plugin (HTTP, sockets, whatever later versions add):
//! linked for the components that import it, so that those of ordinary toolchains start, and denied. A call
//! of it is a trap that names it.
//!
//! Must not know: whether a component ever calls it.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceType};
use wasmtime::{Engine, Result, bail};

use crate::plugin::sandbox::state::State;
use crate::plugin::sandbox::wasi;
use crate::plugin::scan::imports;

/// What the component may import: all that this linker has, and what else of WASI 0.2 it asks for.
///
/// # Errors
/// The component imports one thing in two ways.
pub fn link(linker: &Linker<State>, engine: &Engine, component: &Component) -> Result<Linker<State>> {
    let mut linker = linker.clone();
    let ty = component.component_type();
    // Resources go from one interface to the next (a request's body is a stream): each stays what it is where
    // it comes from.
    let mut known: Vec<(ResourceType, ResourceType)> = Vec::new();
    for (name, import) in ty.imports(engine) {
        let (Some(interface), ComponentItem::ComponentInstance(instance)) = (imports::wasi(name), &import.ty)
        else {
            continue;
        };
        for (export, item) in instance.exports(engine) {
            if let (ComponentItem::Resource(theirs), Some(ours)) =
                (item.ty, wasi::resource(interface, export))
            {
                known.push((theirs, ours));
            }
        }
    }
    for (name, import) in ty.imports(engine) {
        let (Some(interface), ComponentItem::ComponentInstance(instance)) = (imports::wasi(name), &import.ty)
        else {
            continue;
        };
        let linked = wasi::linked(interface);
        let place = linked.then(|| format!("wasi:{interface}@{}", wasi::VERSION));
        let mut into = linker.instance(place.as_deref().unwrap_or(name))?;
        for (export, item) in instance.exports(engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => {
                    let called = format!("{name}#{export}");
                    let denied =
                        into.func_new(export, move |_, _, _, _| bail!("`{called}` is denied to plugins"));
                    // What is linked already stays as it is.
                    if !linked {
                        denied?;
                    }
                }
                ComponentItem::Resource(theirs) if !linked => {
                    let ours = known.iter().find(|(known, _)| *known == theirs).map(|(_, ours)| *ours);
                    into.resource(export, ours.unwrap_or_else(ResourceType::host::<Denied>), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(linker)
}

/// A resource that no plugin ever gets.
struct Denied;
