//! The resources that all plugin instances share and that each is charged for: memory, CPU time, slots in the
//! instance pool.
//!
//! Must not know: how instances are made, or what they evaluate.

pub mod capacity;
pub mod charge;
pub mod cpu_clock;
pub mod fault_budget;
pub mod machine_memory;
pub mod memory_account;
pub mod token_bucket;
