//! What is known of a component without its code. It is stored beside the compiled code, so that a component
//! can be listed and charged before its code is loaded.
//!
//! Must not know: wasmtime, or the name of the plugin.

use serde::{Deserialize, Serialize};

use crate::plugin::class::Class;

/// What is known of a component without its code. Stored beside the compiled code.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ComponentInfo {
    /// Decides which limits apply.
    pub class: Class,
    /// The configuration for the trial at upload, from its manifest.
    pub default_config: Option<String>,
    /// Core instances per instance of it.
    pub core_instances: u32,
    /// Memories per instance of it.
    pub memories: u32,
    /// Tables per instance of it.
    pub tables: u32,
    /// Memory beside its code when loaded (types, functions, exports), bytes: an upper estimate.
    pub heap_bytes: u64,
    /// Part of its code: the images that initialize memories, bytes.
    pub image_bytes: u64,
}

/// Of the code that is not an image, memory is charged for this fraction: a quarter.
const CODE_PART: u64 = 4;

impl ComponentInfo {
    /// Memory to charge while it is loaded from a file of this size. The file is mapped and never written to,
    /// so the system may drop its pages and read them again. Images are charged in full, since every instance
    /// starts with them; other code, of which guests run a part, is charged at a fraction.
    #[must_use]
    pub const fn loaded_bytes(&self, file_bytes: u64) -> u64 {
        let code = file_bytes.saturating_sub(self.image_bytes);
        self.heap_bytes.saturating_add(self.image_bytes).saturating_add(code / CODE_PART)
    }
}
