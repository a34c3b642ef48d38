//! How many streams may be open: of both kinds, of the enhanced kind, and from one client address.
//!
//! Must not know: what streams carry.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::answer::error::Error;
use crate::http::stream::stream_config::Config;
use crate::quota::{Lease, LimitReached, Quota, QuotaLimits};

/// The two kinds of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    Basic,
    Enhanced,
}

/// The streams open now.
#[derive(Debug, Default)]
pub struct StreamLimits {
    all: Arc<Quota<IpAddr>>,
    enhanced: Arc<Quota<IpAddr>>,
    opened: AtomicU64,
    refused: AtomicU64,
}

/// Numbers for `/status` and `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCounts {
    /// Basic streams open.
    pub basic: usize,
    /// Enhanced streams open.
    pub enhanced: usize,
    /// Streams opened since the start.
    pub opened: u64,
    /// Streams refused at a limit since the start.
    pub refused: u64,
}

/// The right to one stream; its places are free again when it is dropped.
#[derive(Debug)]
pub struct StreamLease {
    _enhanced: Option<Lease<IpAddr>>,
    _any: Lease<IpAddr>,
}

impl StreamLimits {
    /// Admits one more stream.
    ///
    /// # Errors
    /// A limit is reached.
    pub fn acquire(
        &self,
        config: &Config,
        kind: StreamKind,
        address: Option<IpAddr>,
    ) -> Result<StreamLease, Error> {
        let lease = self.lease(config, kind, address);
        let counter = if lease.is_ok() { &self.opened } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        lease.map_err(|_| Error::ConnectionLimit)
    }

    fn lease(
        &self,
        config: &Config,
        kind: StreamKind,
        address: Option<IpAddr>,
    ) -> Result<StreamLease, LimitReached> {
        let enhanced = QuotaLimits { total: config.enhanced_max_connections, per_key: None };
        let any = QuotaLimits { total: config.max_connections, per_key: config.max_connections_per_address };
        Ok(StreamLease {
            _enhanced: match kind {
                StreamKind::Basic => None,
                StreamKind::Enhanced => Some(self.enhanced.acquire(enhanced, None)?),
            },
            _any: self.all.acquire(any, address)?,
        })
    }

    /// Streams open now, and counters since the start.
    #[must_use]
    pub fn counts(&self) -> StreamCounts {
        let enhanced = self.enhanced.in_use();
        StreamCounts {
            // An enhanced stream that is just being opened counts in `enhanced` first.
            basic: self.all.in_use().saturating_sub(enhanced),
            enhanced,
            opened: self.opened.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_streams_have_a_limit_within_that_of_all() {
        let limits = StreamLimits::default();
        let config = Config { max_connections: 3, enhanced_max_connections: 1, ..Config::default() };
        let acquire = |kind| limits.acquire(&config, kind, None);
        let enhanced = acquire(StreamKind::Enhanced).unwrap();
        assert_eq!(acquire(StreamKind::Enhanced).unwrap_err(), Error::ConnectionLimit);
        let _first = acquire(StreamKind::Basic).unwrap();
        let _second = acquire(StreamKind::Basic).unwrap();
        assert!(acquire(StreamKind::Basic).is_err());
        drop(enhanced);
        let third = acquire(StreamKind::Basic).unwrap();
        assert!(acquire(StreamKind::Enhanced).is_err());
        drop(third);
        assert!(acquire(StreamKind::Enhanced).is_ok(), "a refused stream keeps no place of either kind");
        assert_eq!(limits.counts(), StreamCounts { basic: 2, enhanced: 0, opened: 5, refused: 3 });
    }

    #[test]
    fn a_client_address_has_its_own_limit() {
        let limits = StreamLimits::default();
        let config = Config { max_connections_per_address: Some(1), ..Config::default() };
        let address = "1.2.3.4".parse().ok();
        let lease = limits.acquire(&config, StreamKind::Basic, address).unwrap();
        assert!(limits.acquire(&config, StreamKind::Enhanced, address).is_err());
        assert!(limits.acquire(&config, StreamKind::Basic, "1.2.3.5".parse().ok()).is_ok());
        drop(lease);
        assert!(limits.acquire(&config, StreamKind::Basic, address).is_ok());
    }
}
