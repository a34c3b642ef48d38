//! Plugins: user code in a sandbox that decides which killmails to keep, and what to annotate them with.
//!
//! Must not know: where killmails come from or go, names and versions of plugins, transports.

pub(crate) mod build;
pub(crate) mod class;
pub(crate) mod component_info;
pub(crate) mod counters;
pub mod engine;
pub(crate) mod error;
pub mod history;
pub mod judging;
pub mod limits;
pub(crate) mod resources;
pub mod sandbox;
mod scan;

#[cfg(test)]
mod tests;
