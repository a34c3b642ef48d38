//! Judgment: user code in a sandbox says which killmails to keep, and what to put beside them.
//!
//! Must not know: where killmails come from or go, names and versions of plugins, doors.

mod bindings;
pub mod build;
pub mod capacity;
mod charge;
pub mod class;
mod clock;
pub mod compile;
pub mod component;
pub mod conduct;
mod convert;
pub mod counters;
mod denied;
pub mod engine;
pub mod error;
pub mod evaluator;
mod fault_budget;
mod guest;
pub mod history;
mod host;
mod kept;
mod limiter;
pub mod limits;
mod line;
mod machine;
mod making;
mod memo;
pub mod places;
mod pool;
pub mod probe;
pub mod purse;
pub mod records;
mod rounds;
mod scan;
mod setup;
mod start;
mod state;
mod stdio;
mod token_bucket;
mod wasi;
mod words;

#[cfg(test)]
mod tests;
