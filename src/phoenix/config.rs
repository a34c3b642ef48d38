//! What the channel door may be told.
//!
//! Must not know: what is done with it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Channels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// WebSockets open at a time: each is a socket and a few KiB.
    pub max_connections: usize,
    /// WebSockets open at a time from one address; unset: no limit.
    pub max_connections_per_address: Option<usize>,
    /// Origins whose pages may connect: whole (`https://example.org`), by host (`example.org`), or a host and
    /// all below it (`*.example.org`); `["*"]` is everyone. Programs that send no origin may always.
    pub origins: Vec<String>,
    /// A longer frame or message closes the connection with 1009, bytes: 50,000 characters are 550 kB.
    pub frame_max_bytes: usize,
    /// Whether permessage-deflate is agreed to when offered.
    pub compression: bool,
    /// The server pings this often, milliseconds.
    pub ping_ms: u64,
    /// A client that sends nothing at all for so long is gone, milliseconds: closed with 1000.
    pub idle_ms: u64,
    /// A client that upgrades must be connected within so long, milliseconds.
    pub handshake_ms: u64,
    /// A client that sends no message for so long after it connected is let go, milliseconds: closed with
    /// 1008.
    pub first_message_ms: u64,
    /// A client is given so long to say goodbye, milliseconds.
    pub goodbye_ms: u64,
    /// Topics joined at a time on one connection.
    pub topics_max: usize,
    /// Systems of one request.
    pub systems_max: usize,
    /// Characters of one request.
    pub characters_max: usize,
    /// Systems or characters of one channel, all its requests together.
    pub channel_ids_max: usize,
    /// Killmails of one preload.
    pub preload_max_killmails: usize,
    /// JSON of one push of a preload, bytes; a larger killmail makes a push of its own. Many clients take no
    /// message over 1 MiB.
    pub push_bytes: u64,
    /// Preloads that wait for the one before on the same channel.
    pub preloads_waiting_max: usize,
    /// Every so often a channel is told the count of one of its systems, milliseconds.
    pub count_ms: u64,
    /// But not so soon after a killmail there, milliseconds.
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
    /// How often the server pings.
    #[must_use]
    pub fn ping(&self) -> Duration {
        Duration::from_millis(self.ping_ms.max(1))
    }

    /// How long a client may be silent.
    #[must_use]
    pub fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms.max(1))
    }

    /// How long a client has to be connected.
    #[must_use]
    pub const fn handshake(&self) -> Duration {
        Duration::from_millis(self.handshake_ms)
    }

    /// How long a client has for its first message.
    #[must_use]
    pub const fn first_message(&self) -> Duration {
        Duration::from_millis(self.first_message_ms)
    }

    /// How long a client has to say goodbye.
    #[must_use]
    pub const fn goodbye(&self) -> Duration {
        Duration::from_millis(self.goodbye_ms)
    }
}
