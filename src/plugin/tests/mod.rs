//! The engine with real, small and hostile guests.

#[path = "../../../tests/guests/mod.rs"]
mod guests;
mod hostile;
mod refused;
mod shared;
mod trial;
