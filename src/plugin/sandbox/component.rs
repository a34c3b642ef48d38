//! A compiled component that has passed every check of an upload and can be instantiated.
//!
//! Must not know: the plugin's name, or who uses it.

use std::sync::{Arc, OnceLock, Weak};

use crate::plugin::class::Class;
use crate::plugin::component_info::ComponentInfo;
use crate::plugin::counters::{Counters, Counts};
use crate::plugin::resources::capacity::EvictionScope;
use crate::plugin::resources::charge::Charge;
use crate::plugin::sandbox::bindings::PluginPre;
use crate::plugin::sandbox::state::State;

/// A compiled component. Cheap to clone.
#[derive(Clone)]
pub struct Component(Arc<Inner>);

struct Inner {
    digest: String,
    label: OnceLock<String>,
    size_bytes: usize,
    about: ComponentInfo,
    pre: PluginPre<State>,
    counters: Arc<Counters>,
    // Last, so that the charge is given back after the memory it stands for.
    charge: Arc<Charge>,
}

/// Tells whether a component is still in memory, without keeping it there.
#[derive(Clone)]
pub struct WeakComponent(Weak<Inner>);

impl WeakComponent {
    /// Whether the component is still in memory.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl std::fmt::Debug for WeakComponent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WeakComponent").field(&self.is_loaded()).finish()
    }
}

impl Component {
    /// Assembles what `build::compile` made.
    #[must_use]
    pub fn new(
        digest: &str,
        size_bytes: usize,
        about: ComponentInfo,
        pre: PluginPre<State>,
        counters: Arc<Counters>,
        charge: Arc<Charge>,
    ) -> Self {
        Self(Arc::new(Inner {
            digest: digest.to_owned(),
            label: OnceLock::new(),
            size_bytes,
            about,
            pre,
            counters,
            charge,
        }))
    }

    /// The memory charged for it, bytes.
    #[must_use]
    pub fn charged_bytes(&self) -> u64 {
        self.0.charge.bytes()
    }

    /// Whether there is another clone of it.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// The number of clones, this one included.
    #[must_use]
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Whether it belongs to `whose`.
    #[must_use]
    pub fn is_of(&self, whose: EvictionScope<'_>) -> bool {
        match whose {
            EvictionScope::All => true,
            EvictionScope::Class(class) => self.class() == class,
            // Components are shared by everyone.
            EvictionScope::Address(_) => false,
        }
    }

    /// A handle that does not keep the component in memory.
    #[must_use]
    pub fn downgrade(&self) -> WeakComponent {
        WeakComponent(Arc::downgrade(&self.0))
    }

    /// What is known of it without its code.
    #[must_use]
    pub fn about(&self) -> &ComponentInfo {
        &self.0.about
    }

    /// Its class, which decides its limits.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.about.class
    }

    /// The configuration its manifest names for the trial; `None` if the manifest names none.
    #[must_use]
    pub fn default_config(&self) -> Option<&str> {
        self.0.about.default_config.as_deref()
    }

    /// SHA-256 of the bytes as uploaded, 64 hex digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// Sets the name and version shown to people. Only the first call counts.
    pub fn set_label(&self, label: &str) {
        let _ = self.0.label.set(label.to_owned());
    }

    /// The name and version shown to people; the digest if none was set.
    #[must_use]
    pub fn label(&self) -> &str {
        self.0.label.get().unwrap_or(&self.0.digest)
    }

    /// Size as uploaded, bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.0.size_bytes
    }

    /// What its guests have done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.counters.snapshot()
    }

    /// The prepared instantiation that instances are made from.
    #[must_use]
    pub fn instance_pre(&self) -> &PluginPre<State> {
        &self.0.pre
    }

    /// The counters of its guests.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Component").field(&self.0.digest).finish()
    }
}
