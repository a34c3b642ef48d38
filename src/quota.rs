//! A limit on how many of something may be in use at a time: in all, and for each key, usually a client
//! address. Each use holds a lease; dropping it frees the place.
//!
//! Must not know: what is counted, or which setting a limit comes from.

use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::key_counts::KeyCounts;

/// How many leases may be held. Passed with each request, because a limit may depend on the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLimits {
    /// By all keys together.
    pub total: usize,
    /// By one key; `None`: only the total counts.
    pub per_key: Option<usize>,
}

/// The limit that a request ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReached {
    /// All places are taken.
    Total { max: usize },
    /// This key has as many as it may.
    PerKey { max: usize },
}

/// Counts the leases held now.
#[derive(Debug)]
pub struct Quota<K> {
    /// Changed only while `by_key` is locked. A channel, so that others can wait for a change.
    in_use: watch::Sender<usize>,
    by_key: Mutex<KeyCounts<K>>,
}

impl<K> Default for Quota<K> {
    fn default() -> Self {
        Self { in_use: watch::Sender::default(), by_key: Mutex::default() }
    }
}

impl<K: Clone + Eq + Hash> Quota<K> {
    /// Takes a place. A request without a key counts towards the total only.
    ///
    /// # Errors
    /// The key's limit is reached, or the total. The key's is checked first: it is what the caller can
    /// change.
    pub fn acquire(self: &Arc<Self>, limits: QuotaLimits, key: Option<K>) -> Result<Lease<K>, LimitReached> {
        let mut by_key = self.by_key.lock();
        if let (Some(key), Some(max)) = (&key, limits.per_key)
            && by_key.of(key) >= max
        {
            return Err(LimitReached::PerKey { max });
        }
        if self.in_use() >= limits.total {
            return Err(LimitReached::Total { max: limits.total });
        }
        if let Some(key) = &key {
            by_key.add(key.clone());
        }
        self.in_use.send_modify(|count| *count += 1);
        drop(by_key);
        Ok(Lease { quota: Arc::clone(self), key })
    }

    /// Takes a place as soon as one is free.
    pub async fn acquire_when_free(self: &Arc<Self>, limits: QuotaLimits, key: Option<K>) -> Lease<K> {
        // Subscribed before the first try, so that no release is missed.
        let mut changes = self.in_use.subscribe();
        loop {
            if let Ok(lease) = self.acquire(limits, key.clone()) {
                return lease;
            }
            // Cannot fail: `self` holds the sender.
            let _ = changes.changed().await;
        }
    }

    /// Waits until no lease is held.
    pub async fn wait_until_unused(&self) {
        // Cannot fail: `self` holds the sender.
        let _ = self.in_use.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Leases held now.
    #[must_use]
    pub fn in_use(&self) -> usize {
        *self.in_use.borrow()
    }
}

/// One place of a quota; given back on drop.
#[derive(Debug)]
pub struct Lease<K: Clone + Eq + Hash> {
    quota: Arc<Quota<K>>,
    key: Option<K>,
}

impl<K: Clone + Eq + Hash> Drop for Lease<K> {
    fn drop(&mut self) {
        let mut by_key = self.quota.by_key.lock();
        if let Some(key) = &self.key {
            by_key.remove(key);
        }
        self.quota.in_use.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: QuotaLimits = QuotaLimits { total: 3, per_key: Some(1) };

    fn limit(result: Result<Lease<&str>, LimitReached>) -> Option<LimitReached> {
        result.err()
    }

    #[test]
    fn a_key_has_its_own_limit_and_a_dropped_lease_frees_its_place() {
        let quota = Arc::new(Quota::default());
        let first = quota.acquire(LIMITS, Some("a")).unwrap();
        assert_eq!(limit(quota.acquire(LIMITS, Some("a"))), Some(LimitReached::PerKey { max: 1 }));
        let _second = quota.acquire(LIMITS, Some("b")).unwrap();
        let _third = quota.acquire(LIMITS, None).unwrap();
        assert_eq!(limit(quota.acquire(LIMITS, None)), Some(LimitReached::Total { max: 3 }));
        assert_eq!(limit(quota.acquire(LIMITS, Some("c"))), Some(LimitReached::Total { max: 3 }));
        assert_eq!(limit(quota.acquire(LIMITS, Some("a"))), Some(LimitReached::PerKey { max: 1 }));
        drop(first);
        assert_eq!(quota.in_use(), 2);
        assert!(quota.acquire(LIMITS, Some("a")).is_ok());
    }

    #[test]
    fn without_a_limit_per_key_only_the_total_counts() {
        let quota = Arc::new(Quota::default());
        let limits = QuotaLimits { per_key: None, ..LIMITS };
        let leases: Vec<_> = (0..3).map(|_| quota.acquire(limits, Some("a")).unwrap()).collect();
        assert_eq!(limit(quota.acquire(limits, Some("a"))), Some(LimitReached::Total { max: 3 }));
        drop(leases);
        assert!(quota.by_key.lock().is_empty(), "a key without leases takes no memory");
        assert_eq!(quota.in_use(), 0);
    }

    #[tokio::test]
    async fn a_waiting_caller_gets_the_place_that_is_given_back() {
        let quota = Arc::new(Quota::<&str>::default());
        let limits = QuotaLimits { total: 1, per_key: None };
        let first = quota.acquire(limits, None).unwrap();
        let waiting = quota.acquire_when_free(limits, None);
        let unused = quota.wait_until_unused();
        tokio::pin!(waiting, unused);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(first);
        let second = waiting.await;
        assert_eq!(quota.in_use(), 1);
        assert!(futures_util::poll!(&mut unused).is_pending());
        drop(second);
        unused.await;
    }
}
