//! Measurements of the running process for `/status` and `/metrics`.
//!
//! Must not know: how they are shown.

pub(crate) mod process;
pub(crate) mod rate;
pub(crate) mod rates;
