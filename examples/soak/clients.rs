//! Subscribers that come back with the last id they saw, and count.
//!
//! Must not know: what they should see.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use killstream::tasks;
use parking_lot::Mutex;

use crate::soak::stream::{self, Stream};

/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(50);

/// What a subscriber saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// How often each killmail came.
    pub killmails: HashMap<u32, u32>,
    /// How often it was told of killmails from archives.
    pub backfilled: u64,
    /// Gaps of any other kind.
    pub other_gaps: u64,
    /// Connections.
    pub connections: u64,
    last_id: Option<String>,
}

/// A subscriber.
#[derive(Debug, Clone)]
pub struct Client {
    /// What it saw so far.
    pub seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
}

impl Client {
    /// Begins to read what this path (with a `?`) gives.
    pub fn start(address: SocketAddr, path: String) -> Self {
        let client = Self { seen: Arc::default(), stop: Arc::default() };
        let this = client.clone();
        drop(tasks::spawn("soak-client", async move {
            while !this.stop.load(Ordering::Relaxed) {
                let last_id = this
                    .seen
                    .lock()
                    .last_id
                    .clone()
                    .map(|id| format!("&last_event_id={id}"))
                    .unwrap_or_default();
                if let Ok(stream) = Stream::open(address, &format!("{path}{last_id}"), None, None).await {
                    this.seen.lock().connections += 1;
                    this.read(stream).await;
                }
                tokio::time::sleep(AGAIN).await;
            }
        }));
        client
    }

    async fn read(&self, mut stream: Stream) {
        while let Ok(block) = stream.next().await {
            let mut seen = self.seen.lock();
            if let Some(id) = block.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"id: ")) {
                seen.last_id = Some(String::from_utf8_lossy(id).into_owned());
            }
            match stream::name(&block) {
                "gap" if stream::find(&block, b"\"backfilled\"").is_some() => seen.backfilled += 1,
                "gap" => seen.other_gaps += 1,
                // The first id of an unnamed event's killmail is its own.
                "" => {
                    if let Some(id) = stream::killmail_ids(&block).first() {
                        *seen.killmails.entry(*id).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
    }

    /// Stands still from here on.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
