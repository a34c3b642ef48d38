//! The open readers: one entry each, removed when the reader is dropped.
//!
//! Must not know: what a connection is.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::{now_micros, now_ms, now_secs};
use crate::domain::id::Place;
use crate::domain::subscription::Subscription;
use crate::domain::verdict::Failure;

/// The transport a reader was opened by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// A stream of server-sent events.
    #[default]
    Sse,
    /// A channel on a WebSocket.
    Websocket,
    /// Requests to a URL. The reader is open only while something is delivered.
    Webhook,
}

impl Transport {
    /// The word clients see.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Websocket => "websocket",
            Self::Webhook => "webhook",
        }
    }
}

/// An open reader, as `/api/v1/subscriptions` lists it.
#[derive(Debug)]
pub struct OpenReader {
    /// Its random name, 22 characters of base64url.
    pub subscription_id: String,
    /// When it was opened, unix milliseconds.
    pub opened_at_ms: i64,
    state: Mutex<ReaderState>,
    progress: Mutex<Progress>,
    last_fault: Mutex<Option<LastFault>>,
}

/// The last fault of a subscription's plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFault {
    pub plugin: String,
    pub failure: Failure,
    /// The killmail this subscription missed because of it.
    pub killmail_id: u32,
    /// When the reader passed the killmail, unix seconds.
    pub at: i64,
}

/// What may change about an open reader.
#[derive(Debug, Clone)]
pub struct ReaderState {
    pub subscription: Arc<Subscription>,
    /// When the subscription last changed, unix milliseconds.
    pub updated_at_ms: i64,
    pub through: Transport,
    /// The client's name, as the transport knows it.
    pub subscriber: Option<Arc<str>>,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// When its connection was opened, unix milliseconds.
    pub connected_at_ms: i64,
}

/// The client of a reader, as its transport knows it.
#[derive(Debug, Clone)]
pub struct Client {
    pub through: Transport,
    /// The client's name.
    pub subscriber: Option<Arc<str>>,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// When the connection was opened, unix milliseconds; `None`: with the reader.
    pub connected_at_ms: Option<i64>,
}

/// How far a reader has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Where the client is once it has seen everything handed over.
    pub place: Place,
    /// Killmails handed over.
    pub delivered: u64,
}

impl OpenReader {
    /// Its current state.
    pub fn state(&self) -> ReaderState {
        self.state.lock().clone()
    }

    pub fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    /// The last fault of its plugin.
    pub fn last_fault(&self) -> Option<LastFault> {
        self.last_fault.lock().clone()
    }

    pub fn subscription(&self) -> Arc<Subscription> {
        self.state.lock().subscription.clone()
    }
}

/// All open readers.
#[derive(Debug, Default)]
pub struct Registry {
    readers: Arc<Mutex<hashbrown::HashMap<String, Arc<OpenReader>>>>,
}

impl Registry {
    /// Registers a reader under a new random name.
    pub fn register(&self, subscription: Arc<Subscription>, place: Place) -> Registration {
        let opened_at_ms = now_ms();
        let state = ReaderState {
            subscription,
            updated_at_ms: opened_at_ms,
            through: Transport::default(),
            subscriber: None,
            address: None,
            connected_at_ms: opened_at_ms,
        };
        let progress = Mutex::new(Progress { place, delivered: 0 });
        let (state, last_fault) = (Mutex::new(state), Mutex::new(None));
        let reader = Arc::new(OpenReader {
            subscription_id: random_name(),
            opened_at_ms,
            state,
            progress,
            last_fault,
        });
        self.readers.lock().insert(reader.subscription_id.clone(), reader.clone());
        Registration { reader, readers: self.readers.clone() }
    }

    /// Every open reader.
    pub fn readers(&self) -> Vec<Arc<OpenReader>> {
        self.readers.lock().values().cloned().collect()
    }

    /// Number of open readers.
    pub fn len(&self) -> usize {
        self.readers.lock().len()
    }

    /// Whether there are no open readers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A reader's entry in the registry, removed on drop.
pub struct Registration {
    pub reader: Arc<OpenReader>,
    readers: Arc<Mutex<hashbrown::HashMap<String, Arc<OpenReader>>>>,
}

impl Registration {
    /// Replaces the subscription; the name stays.
    pub fn set_subscription(&self, subscription: Arc<Subscription>) {
        let mut state = self.reader.state.lock();
        state.subscription = subscription;
        state.updated_at_ms = now_ms();
    }

    pub fn set_client(&self, client: Client) {
        let mut state = self.reader.state.lock();
        let Client { through, subscriber, address, connected_at_ms } = client;
        (state.through, state.subscriber, state.address) = (through, subscriber, address);
        state.connected_at_ms = connected_at_ms.unwrap_or(state.connected_at_ms);
    }

    /// Counts killmails that were handed over.
    pub fn count_delivered(&self, killmails: u64) {
        self.reader.progress.lock().delivered += killmails;
    }

    /// Notes a fault of the plugin.
    pub fn set_last_fault(&self, plugin: &str, failure: &Failure, killmail_id: u32) {
        let last =
            LastFault { plugin: plugin.to_owned(), failure: failure.clone(), killmail_id, at: now_secs() };
        *self.reader.last_fault.lock() = Some(last);
    }

    /// Notes where the client is now.
    pub fn set_place(&self, place: Place) {
        self.reader.progress.lock().place = place;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.readers.lock().remove(&self.reader.subscription_id);
    }
}

/// A random name, 22 characters of base64url.
#[must_use]
pub fn random_name() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = [0u8; 22];
    if getrandom::fill(&mut bytes).is_err() {
        // Names need not be secret, only distinct.
        let now = now_micros().to_le_bytes();
        bytes[..8].copy_from_slice(&now);
    }
    bytes.iter().map(|b| char::from(ALPHABET[usize::from(b & 63)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Seq;

    #[test]
    fn lines_vanish_with_their_readers() {
        let registry = Registry::default();
        let one = registry.register(Arc::default(), Place::Live(Seq(1)));
        let two = registry.register(Arc::default(), Place::Live(Seq(1)));
        assert_ne!(one.reader.subscription_id, two.reader.subscription_id);
        assert_eq!(one.reader.subscription_id.len(), 22);
        drop(one);
        assert_eq!(registry.readers()[0].subscription_id, two.reader.subscription_id);
        two.count_delivered(3);
        two.set_place(Place::Live(Seq(9)));
        assert_eq!(registry.readers()[0].progress(), Progress { place: Place::Live(Seq(9)), delivered: 3 });
        drop(two);
        assert!(registry.is_empty());
    }
}
