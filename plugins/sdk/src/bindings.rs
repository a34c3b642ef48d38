//! The contract in `wit/`, as generated Rust. Use the names that the crate's root re-exports.
#![allow(missing_docs, unused_qualifications, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "plugin",
    pub_export_macro: true,
    export_macro_name: "export_guest",
    default_bindings_module: "killstream_plugin::bindings",
    additional_derives: [PartialEq],
});
