//! The limit on open connections, and what became of those that were refused or closed. Each connection is an
//! open file of the process, and the store and the source need some too.
//!
//! Must not know: who listens, or how the limit follows from the open file limit.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::quota::{Lease, Quota, QuotaLimits};

/// Marks a response, as an extension, whose body is sent at the client's pace, however slow: a stream, an
/// export, a backup. The write timeout of connections does not apply to it.
#[derive(Debug, Clone, Copy)]
pub struct ClientPaced;

/// The right to one connection.
pub type ConnectionLease = Lease<IpAddr>;

/// Open connections, and counters since the start.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    open: Arc<Quota<IpAddr>>,
    /// Refused, because the limit was reached and no connection was idle.
    pub refused: AtomicU64,
    /// Closed while idle, to make room for another.
    pub evicted: AtomicU64,
    /// Closed, because no request arrived or it was not complete in time.
    pub timed_out: AtomicU64,
    /// Closed, because the client read nothing of its response.
    pub stalled: AtomicU64,
}

impl Default for Connections {
    /// Without a limit: for a router that no listener serves.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Connections {
    /// With a limit on connections open at a time.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            open: Arc::default(),
            refused: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
        }
    }

    /// Admits one more; `None` at the limit.
    pub fn acquire(&self) -> Option<ConnectionLease> {
        self.open.acquire(self.limits(), None).ok()
    }

    /// Admits one more as soon as another has closed.
    pub async fn acquire_when_free(&self) -> ConnectionLease {
        self.open.acquire_when_free(self.limits(), None).await
    }

    #[must_use]
    pub const fn max(&self) -> usize {
        self.max
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.in_use()
    }

    /// Counts a connection that ran into a timeout: while its response was written, or before its request was
    /// complete.
    pub fn count_timeout(&self, writing: bool) {
        let counter = if writing { &self.stalled } else { &self.timed_out };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    const fn limits(&self) -> QuotaLimits {
        QuotaLimits { total: self.max, per_key: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_beyond_the_limit_are_not_admitted() {
        let connections = Connections::new(2);
        let first = connections.acquire().unwrap();
        let _second = connections.acquire().unwrap();
        assert!(connections.acquire().is_none());
        assert_eq!((connections.open(), connections.max()), (2, 2));
        drop(first);
        assert!(connections.acquire().is_some());
    }

    #[test]
    fn timeouts_are_counted_by_what_was_under_way() {
        let connections = Connections::default();
        connections.count_timeout(true);
        connections.count_timeout(false);
        connections.count_timeout(false);
        let counted = [&connections.stalled, &connections.timed_out].map(|n| n.load(Ordering::Relaxed));
        assert_eq!(counted, [1, 2]);
    }
}
