//! What is known of a component without its code: kept beside the compiled code, so that a component can be
//! listed and charged before its code is loaded.
//!
//! Must not know: wasmtime, or the name of the plugin.

use serde::{Deserialize, Serialize};

use crate::plugin::class::Class;

/// What is known of a component without its code: it is kept beside the compiled code.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ComponentInfo {
    /// What it is held to.
    pub class: Class,
    /// The configuration its manifest names to be tried with.
    pub default_config: Option<String>,
    /// Core instances that one instance of it takes.
    pub core_instances: u32,
    /// Memories that one instance of it takes.
    pub memories: u32,
    /// Tables that one instance of it takes.
    pub tables: u32,
    /// Memory it takes beside its code when it is loaded (types, functions, exports), estimated from above,
    /// bytes.
    pub heap_bytes: u64,
    /// Of its code, the images that memories begin with, bytes.
    pub image_bytes: u64,
}

/// Of the code that is not image, memory is charged with this part.
const CODE_PART: u64 = 4;

impl ComponentInfo {
    /// What memory is charged with while it is loaded from a file of so many bytes. The file is mapped and
    /// never written to, so that the system may take its pages back and read them again. Images are charged
    /// all the same, since every instance begins with them; of the code, of which guests run a part, a
    /// fraction is.
    #[must_use]
    pub const fn loaded_bytes(&self, file_bytes: u64) -> u64 {
        let code = file_bytes.saturating_sub(self.image_bytes);
        self.heap_bytes.saturating_add(self.image_bytes).saturating_add(code / CODE_PART)
    }
}
