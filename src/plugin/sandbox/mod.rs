//! One plugin instance in its sandbox: what it may import, what it may use, how it is called.
//!
//! Must not know: which threads run instances, or who shares them.

pub(crate) mod bindings;
pub mod component;
pub(crate) mod convert;
pub(crate) mod denied_wasi;
pub(crate) mod fault_text;
pub(crate) mod guest;
pub(crate) mod host;
pub(crate) mod limiter;
pub(crate) mod setup;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod stdio;
pub(crate) mod wasi;
