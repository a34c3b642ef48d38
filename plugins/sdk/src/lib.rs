//! Write a killstream plugin: a type that holds the configuration and evaluates killmails.
//!
//! ```
//! use killstream_plugin::{Killmail, Plugin, Verdict, export};
//!
//! #[derive(serde::Deserialize)]
//! struct Titans {
//!     #[serde(default)]
//!     min_isk: f64,
//! }
//!
//! impl Plugin for Titans {
//!     fn evaluate(&self, killmail: &Killmail) -> Result<Verdict, String> {
//!         Ok(Verdict::keep_if(killmail.victim_ship_group == 30 && killmail.total_value >= self.min_isk))
//!     }
//! }
//! export!(Titans);
//! # fn main() {}
//! ```
//!
//! Build it as a `cdylib` with `cargo build --release --target wasm32-wasip2`. `wit/plugin.wit` is
//! the contract with the server. The functions here are the same, with those of the current killmail
//! as methods of [`Killmail`]. [`testing`] implements them for ordinary `cargo test`.

#[doc(hidden)]
pub mod bindings;
mod guest;
mod host;
mod killmail;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod words;

pub use bindings::exports::killstream::plugin::guest::{Interest, Verdict};
pub use bindings::killstream::plugin::types::{AttackerColumns, EveId, IskValues, ItemColumns, Kind, Point, Role, Summary, Term, Traits};
pub use host::{history, log, universe};
pub use killmail::Killmail;

#[doc(hidden)]
pub use guest::{configure, evaluate};

/// A plugin: its configuration, and how it evaluates killmails.
///
/// The value is deserialized from the subscription's `plugin_config` (`{}` if there is none). The
/// server may drop and recreate it between any two killmails, so do not keep state in it.
pub trait Plugin: serde::de::DeserializeOwned + 'static {
    /// Validates the configuration. The error's text is sent to the subscriber: begin it with the
    /// name of the field, and say which values are valid.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Which killmails this configuration can keep; the server does not pass it others. All by default.
    fn interest(&self) -> Interest {
        Interest::default()
    }

    /// Evaluates one killmail. An error counts as a fault of the plugin.
    fn evaluate(&self, killmail: &Killmail) -> Result<Verdict, String>;
}

/// Puts a manifest into the component: a JSON object whose `default_config` is the configuration that an upload is probed with. Needed
/// if `{}` is refused; without it the probe waits for the first subscriber.
///
/// ```
/// killstream_plugin::manifest!(r#"{"default_config": {"alliances": [99003581]}}"#);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! manifest {
    ($json:literal) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            const TEXT: &str = $json;
            #[used]
            #[unsafe(link_section = "killstream:manifest")]
            static MANIFEST: [u8; TEXT.len()] = match TEXT.as_bytes().first_chunk() {
                ::std::option::Option::Some(text) => *text,
                ::std::option::Option::None => ::std::unreachable!(),
            };
        };
    };
}

/// Exports a [`Plugin`] from this component.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        // Only in WebAssembly: natively there is no host, and tests use the type directly.
        #[cfg(target_family = "wasm")]
        const _: () = {
            ::std::thread_local! {
                static PLUGIN: ::std::cell::RefCell<::std::option::Option<$plugin>> =
                    const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }

            struct Exported;

            impl $crate::bindings::exports::killstream::plugin::guest::Guest for Exported {
                fn configure(
                    config: ::std::string::String,
                ) -> ::std::result::Result<::std::option::Option<$crate::Interest>, ::std::string::String> {
                    PLUGIN.with(|plugin| $crate::configure(plugin, &config))
                }

                fn evaluate(killmail: $crate::Summary) -> ::std::result::Result<$crate::Verdict, ::std::string::String> {
                    PLUGIN.with(|plugin| $crate::evaluate(plugin, killmail))
                }
            }

    $crate::bindings::export_guest!(Exported with_types_in $crate::bindings);
        };
    };
}
