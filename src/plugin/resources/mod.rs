//! What all plugin instances share and what each is charged with: memory, CPU time, places in the instance
//! pool.
//!
//! Must not know: how instances are made, or what they judge.

pub mod capacity;
pub mod charge;
pub mod cpu_clock;
pub mod fault_budget;
pub mod machine_memory;
pub mod memory_account;
pub mod token_bucket;
