//! The resources that all plugin instances share and that each is charged for: memory, CPU time, slots in the
//! instance pool.
//!
//! Must not know: how instances are made, or what they evaluate.

pub(crate) mod capacity;
pub(crate) mod charge;
pub(crate) mod cpu_clock;
pub(crate) mod fault_budget;
pub(crate) mod machine_memory;
pub(crate) mod memory_account;
pub(crate) mod token_bucket;
