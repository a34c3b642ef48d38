//! Subscribers that resume from the last id they received, and count killmails.
//!
//! Must not know: what they should receive.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use killstream::tasks;
use parking_lot::Mutex;

use crate::soak::stream::{self, Stream};

/// How long to wait before reconnecting.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);

/// What a subscriber has received.
#[derive(Debug, Default)]
pub struct Received {
    /// How often it received each killmail.
    pub killmails: HashMap<u32, u32>,
    /// How often it was notified of killmails from archives.
    pub backfilled: u64,
    /// Notifications of any other gap.
    pub other_gaps: u64,
    /// Number of connections opened.
    pub connections: u64,
    last_id: Option<String>,
}

/// A subscriber.
#[derive(Debug, Clone)]
pub struct Client {
    /// What it has received so far.
    pub received: Arc<Mutex<Received>>,
    stop: Arc<AtomicBool>,
}

impl Client {
    /// Starts to read the stream at this path, which has a query string.
    pub fn start(address: SocketAddr, path: String) -> Self {
        let client = Self { received: Arc::default(), stop: Arc::default() };
        let this = client.clone();
        drop(tasks::spawn("soak-client", async move {
            while !this.stop.load(Ordering::Relaxed) {
                let last_id = this
                    .received
                    .lock()
                    .last_id
                    .clone()
                    .map(|id| format!("&last_event_id={id}"))
                    .unwrap_or_default();
                if let Ok(stream) = Stream::open(address, &format!("{path}{last_id}"), None, None).await {
                    this.received.lock().connections += 1;
                    this.read(stream).await;
                }
                tokio::time::sleep(RECONNECT_AFTER).await;
            }
        }));
        client
    }

    async fn read(&self, mut stream: Stream) {
        while let Ok(block) = stream.next().await {
            let mut received = self.received.lock();
            if let Some(id) = block.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"id: ")) {
                received.last_id = Some(String::from_utf8_lossy(id).into_owned());
            }
            match stream::name(&block) {
                "gap" if stream::find(&block, b"\"backfilled\"").is_some() => received.backfilled += 1,
                "gap" => received.other_gaps += 1,
                // The first id in an unnamed event is the killmail's own.
                "" => {
                    if let Some(id) = stream::killmail_ids(&block).first() {
                        *received.killmails.entry(*id).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
    }

    /// Stops after the current connection.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
