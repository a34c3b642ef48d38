//! The settings of the channel transport: section `[channels]` of the configuration.
//!
//! Must not know: how they are used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The settings of channels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Open WebSockets; each takes a socket and a few KiB.
    pub max_connections: usize,
    /// Open WebSockets from one client address; unset: no limit.
    pub max_connections_per_address: Option<usize>,
    /// Origins whose pages may connect: in full (`https://example.org`), by host (`example.org`), or a host and its
    /// subdomains (`*.example.org`). `["*"]` allows all. Programs that send no origin may always connect.
    pub origins: Vec<String>,
    /// Longest frame or message, bytes; a longer one closes the connection with 1009. A list of 50,000 characters takes
    /// 550 kB.
    pub frame_max_bytes: usize,
    /// Whether permessage-deflate is accepted when offered.
    pub compression: bool,
    /// Interval of the server's pings, milliseconds.
    pub ping_ms: u64,
    /// A client that sends nothing for this long is closed with 1000, milliseconds.
    pub idle_ms: u64,
    /// Time limit of an upgrade, milliseconds.
    pub handshake_ms: u64,
    /// A client that sends no message for this long after connecting is closed with 1008, milliseconds.
    pub first_message_ms: u64,
    /// How long to wait for a client's close frame, milliseconds.
    pub goodbye_ms: u64,
    /// Topics joined on one connection.
    pub topics_max: usize,
    /// Systems in one request.
    pub systems_max: usize,
    /// Characters in one request.
    pub characters_max: usize,
    /// Systems or characters of one channel in all.
    pub channel_ids_max: usize,
    /// Killmails in one preload.
    pub preload_max_killmails: usize,
    /// Bytes of JSON in one push of a preload. A larger killmail is a push of its own. Many clients reject messages over
    /// 1 MiB.
    pub push_bytes: u64,
    /// Preloads that may wait on one channel.
    pub preloads_waiting_max: usize,
    /// Interval of the kill counts a channel receives, one system at a time, milliseconds.
    pub count_ms: u64,
    /// No count for a system this soon after a killmail there, milliseconds.
    pub count_quiet_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_connections_per_address: None,
            origins: vec!["*".to_owned()],
            frame_max_bytes: 1 << 20,
            compression: true,
            ping_ms: 25_000,
            idle_ms: 60_000,
            handshake_ms: 10_000,
            first_message_ms: 60_000,
            goodbye_ms: 1_000,
            topics_max: 16,
            systems_max: 10_000,
            characters_max: 50_000,
            channel_ids_max: 200_000,
            preload_max_killmails: 10_000,
            push_bytes: 786_432,
            preloads_waiting_max: 32,
            count_ms: 600_000,
            count_quiet_ms: 5_000,
        }
    }
}

impl Config {
    /// Interval of the server's pings.
    #[must_use]
    pub fn ping(&self) -> Duration {
        Duration::from_millis(self.ping_ms.max(1))
    }

    /// How long a client may send nothing.
    #[must_use]
    pub fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms.max(1))
    }

    /// Time limit of an upgrade.
    #[must_use]
    pub const fn handshake(&self) -> Duration {
        Duration::from_millis(self.handshake_ms)
    }

    /// Time limit of the first message.
    #[must_use]
    pub const fn first_message(&self) -> Duration {
        Duration::from_millis(self.first_message_ms)
    }

    /// How long to wait for a client's close frame.
    #[must_use]
    pub const fn goodbye(&self) -> Duration {
        Duration::from_millis(self.goodbye_ms)
    }
}
