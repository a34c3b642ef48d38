//! Which URLs webhooks may call, and the client that calls them.
//!
//! A stranger may name any URL, so none may lead to where only this machine gets: its own ports, the private
//! network, the metadata of a cloud. The URL is checked when a subscription is created and again at each attempt
//! ([`target_policy`]). A name is checked by the addresses it has at the moment of the connection, which goes to
//! exactly those addresses ([`resolver`]).
//!
//! Must not know: what is sent, or when.

pub(crate) mod address_class;
pub(crate) mod address_policy;
#[cfg(test)]
mod address_policy_tests;
pub(crate) mod callback_url;
pub mod lookup;
pub(crate) mod port_range;
pub(crate) mod resolver;
pub mod sender;
pub(crate) mod target_error;
pub(crate) mod target_policy;
