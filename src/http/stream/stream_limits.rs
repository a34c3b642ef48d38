//! How many streams may be open: in all, of the enhanced kind, from one address. A slot is free again when it
//! is dropped.
//!
//! Must not know: what streams carry.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::domain::key_counts::KeyCounts;
use crate::http::answer::error::Error;

/// Streams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Streams open at a time, of both kinds: each is a socket and a few KiB.
    pub max_connections: usize,
    /// Enhanced streams open at a time: they may preload.
    pub enhanced_max_connections: usize,
    /// Streams open at a time from one address; unset: no limit.
    pub max_connections_per_address: Option<usize>,
    /// How long clients are told to wait before they connect again, milliseconds.
    pub retry_ms: u64,
    /// A basic stream says something after so long without a killmail, milliseconds.
    pub ping_ms: u64,
    /// The enhanced stream's heartbeat, milliseconds.
    pub heartbeat_ms: u64,
    /// A fault word of a plugin is told to a client at most once in this time, milliseconds.
    pub fault_pause_ms: u64,
    /// Texts of batches on their way wait in so many bytes of memory for all streams together; slower
    /// clients' are read again.
    pub batch_cache_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            enhanced_max_connections: 10_000,
            max_connections_per_address: None,
            retry_ms: 2_000,
            ping_ms: 9_500,
            heartbeat_ms: 30_000,
            fault_pause_ms: 60_000,
            batch_cache_bytes: 32 << 20,
        }
    }
}

/// The two kinds of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Unnamed events.
    Basic,
    /// Named events.
    Enhanced,
}

/// Who has a slot.
#[derive(Debug, Default)]
pub struct StreamLimits {
    taken: Mutex<Taken>,
}

/// What is taken, and was.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// Basic streams open.
    pub basic: usize,
    /// Enhanced streams open.
    pub enhanced: usize,
    /// Streams opened since the start.
    pub opened: u64,
    /// Streams refused for want of a slot since the start.
    pub refused: u64,
    by_address: KeyCounts<IpAddr>,
}

impl StreamLimits {
    /// Takes a slot.
    ///
    /// # Errors
    /// All are taken.
    pub fn take(
        self: &Arc<Self>,
        config: &Config,
        kind: StreamKind,
        address: Option<IpAddr>,
    ) -> Result<Slot, Error> {
        let mut taken = self.taken.lock();
        let from_there = address.map_or(0, |address| taken.by_address.of(&address));
        let full = taken.basic + taken.enhanced >= config.max_connections
            || (kind == StreamKind::Enhanced && taken.enhanced >= config.enhanced_max_connections)
            || config.max_connections_per_address.is_some_and(|most| from_there >= most);
        if full {
            taken.refused += 1;
            return Err(Error::ConnectionLimit);
        }
        *taken.of(kind) += 1;
        taken.opened += 1;
        address.into_iter().for_each(|address| taken.by_address.add(address));
        drop(taken);
        Ok(Slot { slots: Arc::clone(self), kind, address })
    }

    /// What is taken now: basic, enhanced, opened and refused since the start.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, u64, u64) {
        let taken = self.taken.lock();
        (taken.basic, taken.enhanced, taken.opened, taken.refused)
    }
}

impl Taken {
    const fn of(&mut self, kind: StreamKind) -> &mut usize {
        match kind {
            StreamKind::Basic => &mut self.basic,
            StreamKind::Enhanced => &mut self.enhanced,
        }
    }
}

/// The right to one stream.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<StreamLimits>,
    kind: StreamKind,
    address: Option<IpAddr>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock();
        *taken.of(self.kind) -= 1;
        self.address.iter().for_each(|address| taken.by_address.remove(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_slot_is_free_again() {
        let slots = Arc::new(StreamLimits::default());
        let config = Config { max_connections: 3, enhanced_max_connections: 1, ..Config::default() };
        let enhanced = slots.take(&config, StreamKind::Enhanced, None).unwrap();
        assert_eq!(slots.take(&config, StreamKind::Enhanced, None).unwrap_err(), Error::ConnectionLimit);
        let _one = slots.take(&config, StreamKind::Basic, None).unwrap();
        let _two = slots.take(&config, StreamKind::Basic, None).unwrap();
        assert!(slots.take(&config, StreamKind::Basic, None).is_err());
        drop(enhanced);
        assert!(slots.take(&config, StreamKind::Enhanced, None).is_ok());
        assert_eq!(slots.counts(), (2, 0, 4, 2));
    }

    #[test]
    fn an_address_has_its_own_limit() {
        let slots = Arc::new(StreamLimits::default());
        let config = Config { max_connections_per_address: Some(1), ..Config::default() };
        let here = "1.2.3.4".parse().ok();
        let slot = slots.take(&config, StreamKind::Basic, here).unwrap();
        assert!(slots.take(&config, StreamKind::Enhanced, here).is_err());
        assert!(slots.take(&config, StreamKind::Basic, "1.2.3.5".parse().ok()).is_ok());
        drop(slot);
        assert!(slots.take(&config, StreamKind::Basic, here).is_ok());
        assert!(slots.taken.lock().by_address.is_empty());
    }
}
