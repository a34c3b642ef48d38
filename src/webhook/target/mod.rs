//! Which URLs webhooks may call, and the client that calls them.
//!
//! A stranger may name any URL, so none may lead to where only this machine gets: its own ports, the private
//! network, the metadata of a cloud. The URL is checked when a subscription is created and again at each attempt
//! ([`target_policy`]). A name is checked by the addresses it has at the moment of the connection, which goes to
//! exactly those addresses ([`resolver`]).
//!
//! Must not know: what is sent, or when.

pub mod address_class;
pub mod address_policy;
#[cfg(test)]
mod address_policy_tests;
pub mod callback_url;
pub mod config;
pub mod lookup;
pub mod port_range;
pub mod resolver;
pub mod sender;
pub mod target_error;
pub mod target_policy;
