//! The Rust face of `wit/`, generated: nothing here is written by hand.
//!
//! Must not know: what the functions do (`host`) or how the types become ours (`convert`).
#![allow(missing_docs, clippy::all, unused_qualifications, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "wit",
    world: "plugin",
    imports: { default: trappable },
});
