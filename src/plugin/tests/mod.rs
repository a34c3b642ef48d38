//! The engine with real, small and hostile guests.
//!
//! Must not know: how the engine is built inside.

mod fair;
#[path = "../../../tests/guests/mod.rs"]
mod guests;
mod hostile;
mod law;
mod refused;
mod shared;
mod stopping;
mod trial;
mod tried;
