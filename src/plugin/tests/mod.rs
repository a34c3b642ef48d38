//! The engine with real, small and hostile guests.
//!
//! Must not know: how the engine is built inside.

#[path = "../../../tests/guests/mod.rs"]
mod guests;
mod hostile;
mod law;
mod refused;
mod room;
mod shared;
mod trial;
