//! What every integration test stands on: a server, a fake upstream, an SSE client, killmails made up and
//! real.
//!
//! Must not know: what any one test wants to prove.

#![allow(dead_code, reason = "each test uses some of it")]

pub mod channel;
pub mod data;
pub mod dice;
pub mod eve_kill;
pub mod http;
pub mod killmail;
pub mod server;
pub mod socket;
pub mod sse;
pub mod strategy;
pub mod upstream;

use std::time::{Duration, Instant};

/// The longest a test waits for something that must happen: only a broken server takes so long, however busy
/// the machine is.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Whether the long forms were asked for.
pub fn long() -> bool {
    std::env::var("KILLSTREAM_LONG").is_ok_and(|v| v == "1")
}

/// Waits until `check` gives something, asking every 10 ms; panics after [`PATIENCE`] with what was waited
/// for.
pub async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
