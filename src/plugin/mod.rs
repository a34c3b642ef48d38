//! Plugins: user code in a sandbox that decides which killmails to keep, and what to annotate them with.
//!
//! Must not know: where killmails come from or go, names and versions of plugins, transports.

pub mod build;
pub mod class;
pub mod component_info;
pub mod counters;
pub mod engine;
pub mod error;
pub mod history;
pub mod judging;
pub mod limits;
pub mod resources;
pub mod sandbox;
mod scan;

#[cfg(test)]
mod tests;
