//! How many requests run at a time: in all, to one host, and to endpoints whose last request failed. Those hang more
//! often, so they have fewer turns of their own and never take those of others.
//!
//! Must not know: what is requested.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns for requests.
#[derive(Debug)]
pub struct Turns {
    sound: Arc<Semaphore>,
    failing: Arc<Semaphore>,
    per_host: usize,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A turn for one request, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _host: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Turns {
    /// Turns for this many requests to sound and to failing endpoints, and to one host.
    #[must_use]
    pub fn new(sound: usize, failing: usize, per_host: usize) -> Self {
        Self {
            sound: Arc::new(Semaphore::new(sound.max(1))),
            failing: Arc::new(Semaphore::new(failing.max(1))),
            per_host: per_host.max(1),
            hosts: Mutex::default(),
        }
    }

    /// Waits for a turn; `None` never comes, as nothing closes the semaphores. The turn of the host is taken first, so that
    /// those who wait for a slow host hold nothing others wait for.
    pub async fn take(&self, host: &str, is_failing: bool) -> Option<Turn> {
        let host = self.host(host).acquire_owned().await.ok()?;
        let all = if is_failing { &self.failing } else { &self.sound };
        let all = Arc::clone(all).acquire_owned().await.ok()?;
        Some(Turn { _host: host, _all: all })
    }

    fn host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock();
        if let Some(semaphore) = hosts.get(host) {
            return Arc::clone(semaphore);
        }
        // Hosts that nobody uses now are forgotten when another one comes.
        hosts.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        let semaphore = Arc::new(Semaphore::new(self.per_host));
        hosts.insert(host.to_owned(), Arc::clone(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test(start_paused = true)]
    async fn hosts_that_hang_hold_up_no_others() {
        let turns = Turns::new(4, 2, 2);
        let failing = [turns.take("a", true).await, turns.take("b", true).await];
        assert!(timeout(MOMENT, turns.take("c", true)).await.is_err(), "no third failing one");
        let slow = [turns.take("slow", false).await, turns.take("slow", false).await];
        assert!(timeout(MOMENT, turns.take("slow", false)).await.is_err(), "no third to one host");
        assert!(turns.take("live", false).await.is_some());
        drop((failing, slow));
        assert!(turns.take("slow", true).await.is_some());
    }
}
