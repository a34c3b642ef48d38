//! The integration tests: the real program, fake upstreams on loopback, real killmails.
//!
//! Must not know: how the server is built. Tests of its parts (store, feed) name them where they use them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests start their own threads and tasks; the bans are for the server"
)]

mod budgets;
mod channel_cases;
mod channel_door;
mod channel_growth;
mod channel_lists;
mod channel_many;
mod channel_pace;
mod channel_preload;
mod channel_replies;
mod channel_wire;
mod command_mistakes;
mod commands;
mod connections;
mod continuity;
mod crash;
mod damage;
mod delivery_log;
mod demo;
mod feed_cases;
mod feed_faults;
mod files;
mod guest_limits;
#[allow(dead_code, reason = "the engine's own tests use the rest")]
#[path = "../guests/mod.rs"]
mod guests;
mod hand_ins;
mod heal_cases;
mod health_cases;
mod history_cases;
mod http_cases;
mod import_cases;
mod import_files;
mod judged;
mod laws;
mod limits;
mod lines;
mod mechanisms;
mod mirror;
mod parameters;
mod paths;
mod plugin_versions;
mod plugins;
mod ranks;
mod real_killmails;
#[path = "../../examples/soak/run.rs"]
mod soak;
mod soak_cases;
mod source_health;
mod source_settings;
mod sources;
mod space;
mod stream_cases;
mod support;
mod support_test;
mod undated;
mod unreadable;
mod upload_limits;
mod uploads;
mod webhook_sender;
mod webhook_targets;
mod webhooks;
