//! Tests of the engine with real guests, small and hostile ones.
//!
//! Must not know: the internals of the engine.

mod amplification;
mod capacity;
mod fairness;
mod fault_texts;
#[path = "../../../tests/guests/mod.rs"]
mod guests;
mod hostile;
mod imports;
mod laws;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod loaded_size;
mod refusal_limits;
mod rejected_uploads;
mod shared;
mod shutdown;
mod support;
mod trials;
