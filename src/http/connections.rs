//! How many connections may be open: each is a file of the process, and the store and the source need some too.
//!
//! Must not know: who listens, what the limit of files is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Who is in.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    open: AtomicUsize,
    refused: AtomicU64,
}

impl Default for Connections {
    /// Room for any number: nobody listens.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Connections {
    /// Room for so many.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { max, open: AtomicUsize::new(0), refused: AtomicU64::new(0) }
    }

    /// One more, unless it is full; who is refused is counted.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let taken = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < self.max).then_some(open + 1));
        if taken.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Place(Arc::clone(self)))
    }

    /// Connections that may be open at a time.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.max
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections refused since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The right to one connection; given back on drop.
#[derive(Debug)]
pub struct Place(Arc<Connections>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_given_back_is_free_again() {
        let connections = Arc::new(Connections::new(2));
        let first = connections.enter().unwrap();
        let _second = connections.enter().unwrap();
        assert!(connections.enter().is_none());
        assert_eq!((connections.open(), connections.refused()), (2, 1));
        drop(first);
        assert!(connections.enter().is_some());
        assert_eq!((connections.open(), connections.max()), (1, 2));
    }
}
