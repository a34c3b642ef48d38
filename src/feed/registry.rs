//! Who reads now: one line for each open reader, gone when the reader is dropped.
//!
//! Must not know: what a connection is.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::{now_micros, now_ms, now_secs};
use crate::domain::id::Place;
use crate::domain::subscription::Subscription;
use crate::domain::verdict::Failure;

/// The door a reader was opened at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// A stream of server-sent events.
    #[default]
    Sse,
    /// A channel on a WebSocket.
    Websocket,
}

impl Transport {
    /// The word clients see.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Websocket => "websocket",
        }
    }
}

/// One open reader.
#[derive(Debug)]
pub struct OpenReader {
    /// Its random name, 22 characters of base64url.
    pub subscription_id: String,
    /// When it was opened, unix milliseconds.
    pub opened_at_ms: i64,
    now: Mutex<Now>,
    progress: Mutex<Progress>,
    last_fault: Mutex<Option<LastFault>>,
}

/// What the plugin did wrong last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFault {
    /// The plugin.
    pub plugin: String,
    /// What it was.
    pub failure: Failure,
    /// The killmail this subscription did not get for it.
    pub killmail_id: u32,
    /// When the subscription passed it, unix seconds.
    pub at: i64,
}

/// What of a line may change.
#[derive(Debug, Clone)]
pub struct Now {
    /// What it reads.
    pub subscription: Arc<Subscription>,
    /// When that changed last, unix milliseconds.
    pub updated_at_ms: i64,
    /// The door.
    pub through: Transport,
    /// Who reads, by the name the door has for it.
    pub subscriber: Option<Arc<str>>,
    /// Where from.
    pub address: Option<IpAddr>,
    /// When the connection was made that carries it, unix milliseconds.
    pub connected_at_ms: i64,
}

/// Who reads, as a door knows it.
#[derive(Debug, Clone)]
pub struct Who {
    /// The door.
    pub through: Transport,
    /// The name the door has for it.
    pub subscriber: Option<Arc<str>>,
    /// Where from.
    pub address: Option<IpAddr>,
    /// When the connection was made, unix milliseconds; with the reader, if not said.
    pub connected_at_ms: Option<i64>,
}

/// How far a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Where the client stands when it has seen everything handed over.
    pub place: Place,
    /// Killmails handed over.
    pub delivered: u64,
}

impl OpenReader {
    /// How it stands now.
    pub fn now(&self) -> Now {
        self.now.lock().clone()
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    /// What its plugin did wrong last.
    pub fn last_fault(&self) -> Option<LastFault> {
        self.last_fault.lock().clone()
    }

    /// What it reads.
    pub fn subscription(&self) -> Arc<Subscription> {
        self.now.lock().subscription.clone()
    }
}

/// Who reads now.
#[derive(Debug, Default)]
pub struct Registry {
    lines: Arc<Mutex<hashbrown::HashMap<String, Arc<OpenReader>>>>,
}

impl Registry {
    /// Enters a reader under a new random name.
    pub fn enter(&self, subscription: Arc<Subscription>, place: Place) -> Entered {
        let opened_at_ms = now_ms();
        let now = Now {
            subscription,
            updated_at_ms: opened_at_ms,
            through: Transport::default(),
            subscriber: None,
            address: None,
            connected_at_ms: opened_at_ms,
        };
        let progress = Mutex::new(Progress { place, delivered: 0 });
        let (now, last_fault) = (Mutex::new(now), Mutex::new(None));
        let line =
            Arc::new(OpenReader { subscription_id: random_name(), opened_at_ms, now, progress, last_fault });
        self.lines.lock().insert(line.subscription_id.clone(), line.clone());
        Entered { line, lines: self.lines.clone() }
    }

    /// Every open reader.
    pub fn lines(&self) -> Vec<Arc<OpenReader>> {
        self.lines.lock().values().cloned().collect()
    }

    /// Number of open readers.
    pub fn len(&self) -> usize {
        self.lines.lock().len()
    }

    /// Whether nobody reads.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A reader's line; dropping it strikes the line out.
pub struct Entered {
    /// The line.
    pub line: Arc<OpenReader>,
    lines: Arc<Mutex<hashbrown::HashMap<String, Arc<OpenReader>>>>,
}

impl Entered {
    /// Another subscription under the same name.
    pub fn renew(&self, subscription: Arc<Subscription>) {
        let mut now = self.line.now.lock();
        now.subscription = subscription;
        now.updated_at_ms = now_ms();
    }

    /// Says who reads.
    pub fn introduce(&self, who: Who) {
        let mut now = self.line.now.lock();
        let Who { through, subscriber, address, connected_at_ms } = who;
        (now.through, now.subscriber, now.address) = (through, subscriber, address);
        now.connected_at_ms = connected_at_ms.unwrap_or(now.connected_at_ms);
    }

    /// So many more killmails were handed over.
    pub fn delivered(&self, killmails: u64) {
        self.line.progress.lock().delivered += killmails;
    }

    /// The plugin failed on a killmail.
    pub fn failed(&self, plugin: &str, failure: &Failure, killmail_id: u32) {
        let last =
            LastFault { plugin: plugin.to_owned(), failure: failure.clone(), killmail_id, at: now_secs() };
        *self.line.last_fault.lock() = Some(last);
    }

    /// The client stands here now.
    pub fn moved(&self, place: Place) {
        self.line.progress.lock().place = place;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.lines.lock().remove(&self.line.subscription_id);
    }
}

fn random_name() -> String {
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
        let one = registry.enter(Arc::default(), Place::Live(Seq(1)));
        let two = registry.enter(Arc::default(), Place::Live(Seq(1)));
        assert_ne!(one.line.subscription_id, two.line.subscription_id);
        assert_eq!(one.line.subscription_id.len(), 22);
        drop(one);
        assert_eq!(registry.lines()[0].subscription_id, two.line.subscription_id);
        two.delivered(3);
        two.moved(Place::Live(Seq(9)));
        assert_eq!(registry.lines()[0].progress(), Progress { place: Place::Live(Seq(9)), delivered: 3 });
        drop(two);
        assert!(registry.is_empty());
    }
}
