//! The handlers, one file for each group of routes.
//!
//! Must not know: how anything is stored, or which killmails a subscription gets.

pub(crate) mod add;
pub(crate) mod backup;
pub(crate) mod export;
pub(crate) mod health;
pub(crate) mod health_config;
pub(crate) mod killmails;
pub(crate) mod kills;
pub(crate) mod metrics;
pub(crate) mod mirror;
pub(crate) mod mirror_state;
pub(crate) mod plugins;
pub(crate) mod status;
pub(crate) mod subscriptions;
pub(crate) mod tokens;
pub(crate) mod webhooks;
pub(crate) mod welcome;
