//! The engine with real, small and hostile guests.
//!
//! Must not know: how the engine is built inside.

mod asked;
mod fair;
mod fault_texts;
#[path = "../../../tests/guests/mod.rs"]
mod guests;
mod hostile;
mod law;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod loaded;
mod multiplied;
mod refusal_limits;
mod refused;
mod room;
mod shared;
mod stopping;
mod trial;
mod tried;
