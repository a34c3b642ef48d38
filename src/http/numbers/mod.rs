//! Measurements of the running process for `/status` and `/metrics`.
//!
//! Must not know: how they are shown.

pub mod process;
pub mod rate;
pub mod rates;
