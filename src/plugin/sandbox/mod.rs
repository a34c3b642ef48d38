//! One plugin instance in its sandbox: what it may import, what it may use, how it is called.
//!
//! Must not know: which threads run instances, or who shares them.

pub mod bindings;
pub mod component;
pub mod convert;
pub mod denied_wasi;
pub mod fault_text;
pub mod guest;
pub mod host;
pub mod limiter;
pub mod setup;
pub mod start;
pub mod state;
pub mod stdio;
pub mod wasi;
