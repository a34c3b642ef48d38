//! A limit shared by many, in bytes or items: each holder takes a share and returns it.
//!
//! Must not know: what the bytes are used for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes (or items) may be in use, and how many are.
#[derive(Debug)]
pub struct Budget {
    max: u64,
    used: AtomicU64,
    refused: AtomicU64,
}

impl Default for Budget {
    /// A budget without a limit.
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl Budget {
    /// A budget of `max` bytes.
    #[must_use]
    pub const fn new(max: u64) -> Self {
        Self { max, used: AtomicU64::new(0), refused: AtomicU64::new(0) }
    }

    /// The limit, bytes.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// Bytes in use now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How many requests did not fit, since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many bytes have to be returned before `more` fit.
    #[must_use]
    pub fn lacking(&self, more: u64) -> u64 {
        more.saturating_sub(self.max.saturating_sub(self.used()))
    }

    /// Counts a request that was refused without trying to take a share.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// An empty share, which can grow.
    #[must_use]
    pub fn share(self: &Arc<Self>) -> Share {
        Share { budget: Arc::clone(self), bytes: 0 }
    }

    fn try_reserve(&self, bytes: u64) -> bool {
        let grown = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }
}

/// A part of the budget; returned on drop.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    /// Grows the share to `bytes`; it never shrinks. Returns `false`, and changes nothing, if the budget does not
    /// allow it.
    #[must_use]
    pub fn reach(&mut self, bytes: u64) -> bool {
        self.reach_with(bytes, |_| false)
    }

    /// The same, but while the budget does not allow it, calls `make_room` with the number of missing bytes. That
    /// should make another holder return some, and returns `false` if none can.
    #[must_use]
    pub fn reach_with(&mut self, bytes: u64, mut make_room: impl FnMut(u64) -> bool) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        // Nobody is asked to make room for what can never fit.
        let fits = bytes <= self.budget.max;
        while more > 0 && !self.budget.try_reserve(more) {
            if !fits || !make_room(self.budget.lacking(more)) {
                self.budget.refuse();
                return false;
            }
        }
        self.bytes += more;
        true
    }

    /// Returns this many bytes of the share.
    pub fn give_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Size of the share, bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The budget it is a share of.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_budget_and_are_returned() {
        let budget = Arc::new(Budget::new(100));
        let (mut one, mut two) = (budget.share(), budget.share());
        assert!(one.reach(60) && one.reach(50) && two.reach(40));
        assert_eq!((budget.used(), one.bytes(), budget.refused()), (100, 60, 0));
        assert!(!two.reach(41) && !two.reach(u64::MAX));
        assert_eq!((budget.used(), two.bytes(), budget.refused()), (100, 40, 2));
        drop(one);
        assert!(two.reach(100));
        drop(two);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn others_make_room_before_a_request_is_refused() {
        let budget = Arc::new(Budget::new(100));
        let mut others = vec![budget.share(), budget.share()];
        assert!(others.iter_mut().all(|other| other.reach(50)));
        let mut one = budget.share();
        let mut lacking = Vec::new();
        assert!(one.reach_with(60, |bytes| {
            lacking.push(bytes);
            others.pop().is_some()
        }));
        assert_eq!(lacking, [60, 10]);
        assert_eq!((budget.used(), budget.refused()), (60, 0));
        assert!(!one.reach_with(101, |_| others.pop().is_some()));
        assert_eq!((one.bytes(), budget.refused(), others.len()), (60, 1, 0));
    }

    #[test]
    fn nobody_makes_room_for_what_can_never_fit() {
        let budget = Arc::new(Budget::new(100));
        let mut others = vec![budget.share()];
        assert!(others[0].reach(10));
        assert!(!budget.share().reach_with(101, |_| others.pop().is_some()));
        assert_eq!((budget.used(), budget.refused(), others.len()), (10, 1, 1));
        others[0].give_back(4);
        assert_eq!((budget.used(), others[0].bytes()), (6, 6));
    }
}
