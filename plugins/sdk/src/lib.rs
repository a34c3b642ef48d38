//! Write a killstream plugin: a type that holds the configuration and judges killmails.
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
//! Build it as a `cdylib` with `cargo build --release --target wasm32-wasip2`. What the server
//! promises stands in `wit/plugin.wit`; the functions here are the same, with the killmail's own
//! questions as methods of [`Killmail`]. [`testing`] answers them in ordinary `cargo test`.

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

/// A plugin is its configuration and a judgment.
///
/// The value is read from the subscription's `plugin_config` (`{}` where there is none). It may be
/// thrown away and read again between any two killmails, so keep nothing in it.
pub trait Plugin: serde::de::DeserializeOwned + 'static {
    /// Is the configuration sensible? The text of a refusal reaches the subscriber: begin it with
    /// the name of the field, say what it may be.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// What this configuration can need at all; the server keeps the rest away. Unrestricted by default.
    fn interest(&self) -> Interest {
        Interest::default()
    }

    /// Judge one killmail. An error counts as a fault of the plugin.
    fn evaluate(&self, killmail: &Killmail) -> Result<Verdict, String>;
}

/// Put a manifest into the component: a JSON object whose `default_config` is the configuration that an upload is tried with. Say one
/// where `{}` is refused; without it the trial waits for the first subscriber.
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

/// Make a [`Plugin`] the one this component exports.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        // Natively there is no host to export to; the plugin is tested as the plain type it is.
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
