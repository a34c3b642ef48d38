//! Counts what one instance of a component creates, bottom-up: a component within it counts as often as it is
//! instantiated.
//!
//! Must not know: limits.

use wasmparser::{
    ComponentAlias, ComponentExport, ComponentExternalKind, ComponentImport, ComponentInstance,
    ComponentOuterAliasKind, ComponentTypeRef, Instance,
};

use crate::plugin::error::Refusal;

/// What one instance creates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InstanceCounts {
    pub core_instances: u64,
    pub memories: u64,
    pub tables: u64,
    /// Initial bytes of its memories.
    pub memory_bytes: u64,
    /// Imports, exports, aliases, conversions and instances.
    pub items: u64,
    /// Functions lowered to a core module. Each may need code of its own.
    pub lowered: u64,
}

impl InstanceCounts {
    fn add(&mut self, other: &Self) {
        let sum = |mine: &mut u64, theirs: u64| *mine = mine.saturating_add(theirs);
        sum(&mut self.core_instances, other.core_instances);
        sum(&mut self.memories, other.memories);
        sum(&mut self.tables, other.tables);
        sum(&mut self.memory_bytes, other.memory_bytes);
        sum(&mut self.items, other.items);
        sum(&mut self.lowered, other.lowered);
    }
}

/// What an instance of an indexed core module or component creates; `None` if it was imported or taken from
/// an instance.
type KnownCounts = Option<InstanceCounts>;

/// A component being read.
#[derive(Debug, Default)]
pub struct ComponentScope {
    modules: Vec<KnownCounts>,
    components: Vec<KnownCounts>,
    /// What one instance of it creates.
    pub counts: InstanceCounts,
}

impl ComponentScope {
    /// A core module within it has ended.
    pub fn add_module(&mut self, counts: InstanceCounts) {
        self.modules.push(Some(counts));
    }

    /// A component within it has ended.
    pub fn add_component(&mut self, counts: InstanceCounts) {
        self.components.push(Some(counts));
    }

    /// Adds imports, exports, aliases or conversions.
    pub const fn add_items(&mut self, count: u64) {
        self.counts.items = self.counts.items.saturating_add(count);
    }

    /// It instantiates a core module.
    ///
    /// # Errors
    /// The core module is not defined in the upload.
    pub fn add_instance(&mut self, instance: &Instance<'_>) -> Result<(), Refusal> {
        match instance {
            Instance::Instantiate { module_index, args } => {
                self.add_items(args.len() as u64);
                let counts = counts_of(&self.modules, *module_index, "core module")?;
                self.counts.add(&counts);
            }
            Instance::FromExports(exports) => self.add_items(exports.len() as u64),
        }
        Ok(())
    }

    /// It instantiates a component.
    ///
    /// # Errors
    /// The component is not defined in the upload.
    pub fn add_component_instance(&mut self, instance: &ComponentInstance<'_>) -> Result<(), Refusal> {
        match instance {
            ComponentInstance::Instantiate { component_index, args } => {
                self.add_items(args.len() as u64);
                let counts = counts_of(&self.components, *component_index, "component")?;
                self.counts.add(&counts);
            }
            ComponentInstance::FromExports(exports) => self.add_items(exports.len() as u64),
        }
        Ok(())
    }

    /// It imports something. What an imported module or component creates is not known.
    pub fn add_import(&mut self, import: &ComponentImport<'_>) {
        match import.ty {
            ComponentTypeRef::Module(_) => self.modules.push(None),
            ComponentTypeRef::Component(_) => self.components.push(None),
            _ => {}
        }
    }

    /// It exports something, which takes a new index.
    pub fn add_export(&mut self, export: &ComponentExport<'_>) {
        match export.kind {
            ComponentExternalKind::Module => self.modules.push(counts_at(&self.modules, export.index)),
            ComponentExternalKind::Component => {
                self.components.push(counts_at(&self.components, export.index))
            }
            _ => {}
        }
    }
}

/// Adds an alias to the innermost of these components.
pub fn add_alias(scopes: &mut [&mut ComponentScope], alias: &ComponentAlias<'_>) {
    let outer = |count: u32| scopes.len().checked_sub(1)?.checked_sub(count as usize);
    let (kind, counts) = match *alias {
        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. } => {
            (ComponentOuterAliasKind::CoreModule, None)
        }
        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
            (ComponentOuterAliasKind::Component, None)
        }
        ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, count, index } => (
            ComponentOuterAliasKind::CoreModule,
            outer(count).and_then(|from| counts_at(&scopes[from].modules, index)),
        ),
        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => (
            ComponentOuterAliasKind::Component,
            outer(count).and_then(|from| counts_at(&scopes[from].components, index)),
        ),
        _ => return,
    };
    let Some(scope) = scopes.last_mut() else { return };
    match kind {
        ComponentOuterAliasKind::CoreModule => scope.modules.push(counts),
        _ => scope.components.push(counts),
    }
}

fn counts_at(all: &[KnownCounts], index: u32) -> KnownCounts {
    all.get(index as usize).copied().flatten()
}

fn counts_of(all: &[KnownCounts], index: u32, what: &str) -> Result<InstanceCounts, Refusal> {
    counts_at(all, index).ok_or_else(|| {
        let message = format!(
            "a component within it instantiates a {what} that it imports or takes from an instance, so that what this creates cannot be \
             counted; it can only instantiate what is defined in the upload"
        );
        Refusal::TooComplex { message, limit: None }
    })
}
