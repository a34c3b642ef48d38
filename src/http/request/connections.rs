//! How many connections may be open: each is a file of the process, and the store and the source need some
//! too.
//!
//! Must not know: who listens, what the limit of files is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Stands among the extensions of an answer that goes on at the client's pace, however slow: a stream, an
/// export, a backup.
#[derive(Debug, Clone, Copy)]
pub struct OwnPace;

/// Who is in.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    open: AtomicUsize,
    refused: AtomicU64,
    made_room: AtomicU64,
    timed_out: AtomicU64,
    stalled: AtomicU64,
    left: Notify,
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
        Self {
            max,
            open: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            made_room: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            left: Notify::const_new(),
        }
    }

    /// One more, unless it is full.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let taken = self
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < self.max).then_some(open + 1));
        taken.is_ok().then(|| Place(Arc::clone(self)))
    }

    /// One more, as soon as somebody left.
    pub async fn wait(self: &Arc<Self>) -> Place {
        loop {
            if let Some(place) = self.enter() {
                return place;
            }
            self.left.notified().await;
        }
    }

    /// Somebody is refused.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// An idle connection made room for another.
    pub fn made_room(&self) {
        self.made_room.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was over its time: with reading an answer, or with a request.
    pub fn timed_out(&self, reading: bool) {
        let counter = if reading { &self.stalled } else { &self.timed_out };
        counter.fetch_add(1, Ordering::Relaxed);
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

    /// Idle connections closed to make room, since the start.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.made_room.load(Ordering::Relaxed)
    }

    /// Connections closed because no request came or none became whole, since the start.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Connections cut off because the client took nothing of its answer, since the start.
    #[must_use]
    pub fn stalled(&self) -> u64 {
        self.stalled.load(Ordering::Relaxed)
    }
}

/// The right to one connection; given back on drop.
#[derive(Debug)]
pub struct Place(Arc<Connections>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.left.notify_one();
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
        connections.refuse();
        assert_eq!((connections.open(), connections.refused()), (2, 1));
        drop(first);
        assert!(connections.enter().is_some());
        assert_eq!((connections.open(), connections.max()), (1, 2));
    }

    #[tokio::test]
    async fn who_waits_gets_the_place_of_who_leaves() {
        let connections = Arc::new(Connections::new(1));
        let first = connections.enter().unwrap();
        let waiting = connections.wait();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(first);
        let _second = waiting.await;
        assert_eq!(connections.open(), 1);
    }
}
