//! A component whose compiled code is kept: what is known of it, loaded or not.
//!
//! Must not know: which plugin it belongs to.

use crate::plugin::class::Class;
use crate::plugin::sandbox::component::Component;

/// A component whose compiled code is kept.
#[derive(Debug)]
pub struct KeptComponent {
    /// SHA-256 of its bytes, hex.
    pub digest: String,
    pub size_bytes: usize,
    /// Its class, which decides its limits.
    pub class: Class,
    /// `None` if there was not enough memory to load it; the first user tries again.
    pub component: Option<Component>,
}

impl From<Component> for KeptComponent {
    fn from(component: Component) -> Self {
        let (digest, size_bytes) = (component.digest().to_owned(), component.size_bytes());
        Self { digest, size_bytes, class: component.class(), component: Some(component) }
    }
}
