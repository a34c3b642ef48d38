//! The handlers, one file for each group of routes.
//!
//! Must not know: how anything is stored, or which killmails a subscription gets.

pub mod add;
pub mod backup;
pub mod export;
pub mod health;
pub mod health_config;
pub mod killmails;
pub mod kills;
pub mod metrics;
pub mod mirror;
pub mod mirror_state;
pub mod plugins;
pub mod status;
pub mod subscriptions;
pub mod tokens;
pub mod welcome;
