//! How many WebSockets may be open: in all, and from one address. A slot is free again when it is dropped.
//!
//! Must not know: what they carry.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::key_counts::KeyCounts;
use crate::phoenix::config::Config;

/// Who has a slot.
#[derive(Debug, Default)]
pub struct Slots {
    open: watch::Sender<usize>,
    by_address: Mutex<KeyCounts<IpAddr>>,
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// All are taken.
    #[error("{max} connections are open, the most there may be (channels.max_connections)")]
    All {
        /// The limit.
        max: usize,
    },
    /// All of the address are taken.
    #[error(
        "{max} connections are open from this address, the most it may have (channels.max_connections_per_address)"
    )]
    Address {
        /// The limit.
        max: usize,
    },
}

impl Slots {
    /// Takes a slot.
    ///
    /// # Errors
    /// All are taken.
    pub fn take(self: &Arc<Self>, config: &Config, address: Option<IpAddr>) -> Result<Slot, Full> {
        let mut by_address = self.by_address.lock();
        if *self.open.borrow() >= config.max_connections {
            return Err(Full::All { max: config.max_connections });
        }
        if let Some(address) = address {
            let from_there = by_address.of(&address);
            if let Some(max) = config.max_connections_per_address.filter(|max| from_there >= *max) {
                return Err(Full::Address { max });
            }
            by_address.add(address);
        }
        self.open.send_modify(|open| *open += 1);
        Ok(Slot { slots: Arc::clone(self), address })
    }

    /// How many are taken.
    pub fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Waits until none is taken.
    pub async fn none(&self) {
        // The sender is here, so that there is always someone to hear from.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}

/// The right to one WebSocket.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    address: Option<IpAddr>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_address = self.slots.by_address.lock();
        self.address.iter().for_each(|address| by_address.remove(address));
        self.slots.open.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_slot_is_free_again() {
        let slots = Arc::new(Slots::default());
        let config = Config { max_connections: 2, max_connections_per_address: Some(1), ..Config::default() };
        let here = "1.2.3.4".parse().ok();
        let one = slots.take(&config, here).unwrap();
        assert_eq!(slots.take(&config, here).unwrap_err(), Full::Address { max: 1 });
        let two = slots.take(&config, None).unwrap();
        assert_eq!(slots.take(&config, None).unwrap_err(), Full::All { max: 2 });
        drop(one);
        assert!(slots.take(&config, here).is_ok());
        assert_eq!(slots.open(), 1);
        drop(two);
        slots.none().await;
        assert!(slots.by_address.lock().is_empty());
    }
}
