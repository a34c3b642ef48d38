//! What integration tests share: a server, fake upstreams, clients, generated and real killmails.
//!
//! Must not know: what any test proves.

#![allow(dead_code, reason = "each test uses only a part")]

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

/// How long a test waits for something that must happen. Even on a busy machine only a broken server takes this long.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Whether the long forms of tests are requested.
pub fn long() -> bool {
    std::env::var("KILLSTREAM_LONG").is_ok_and(|v| v == "1")
}

/// Calls `check` every 10 ms until it returns something. Panics after [`PATIENCE`], naming what it waited for.
pub async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
