//! Returns memory freed after a burst to the system. The C library's allocator keeps freed memory; it is trimmed
//! periodically, if enough was freed since the last time. jemalloc (the feature of that name) does so by itself.
//!
//! Must not know: what the memory was used for.

use std::time::Duration;

use crate::tasks;

/// How often to check: the memory of a burst is returned well within a minute.
const EVERY: Duration = Duration::from_secs(15);
/// Trim only if this much more is free than at the least since the last trim, bytes. A trim takes some
/// milliseconds, during which other threads may wait for memory.
const GROWN_BYTES: usize = 16 << 20;

/// Checks and trims for as long as the process runs.
pub async fn trim_periodically() {
    let mut every = tokio::time::interval(EVERY);
    let mut least = LeastFree::default();
    loop {
        every.tick().await;
        let Ok(after) = tasks::blocking("memory", move || least.check(free_bytes, trim)).await else {
            return;
        };
        least = after;
    }
}

/// The least memory that was free since the last trim, bytes. The allocator counts trimmed memory as free, so
/// what matters is how much it grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct LeastFree(usize);

impl LeastFree {
    fn check(self, free: impl Fn() -> usize, trim: impl FnOnce()) -> Self {
        let now = free();
        if now < self.0.saturating_add(GROWN_BYTES) {
            return Self(self.0.min(now));
        }
        trim();
        Self(free())
    }
}

/// Bytes the allocator holds that are not in use.
#[cfg(all(target_os = "linux", target_env = "gnu", not(feature = "jemalloc")))]
#[expect(unsafe_code, reason = "std has no access to the allocator's statistics")]
fn free_bytes() -> usize {
    // SAFETY: the call takes no pointers and returns a plain struct.
    unsafe { libc::mallinfo2() }.fordblks
}

#[cfg(all(target_os = "linux", target_env = "gnu", not(feature = "jemalloc")))]
#[expect(unsafe_code, reason = "std cannot trim the allocator")]
fn trim() {
    // SAFETY: the call takes no pointers; it only returns unused pages to the system.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(feature = "jemalloc"))))]
const fn free_bytes() -> usize {
    0
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(feature = "jemalloc"))))]
const fn trim() {}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A check while this many MiB are free; returns the new least and whether memory was trimmed.
    fn check(least: LeastFree, free_mib: usize) -> (LeastFree, bool) {
        let trimmed = Cell::new(false);
        (least.check(|| free_mib << 20, || trimmed.set(true)), trimmed.get())
    }

    #[test]
    fn memory_is_trimmed_once_it_is_free() {
        let (least, trimmed) = check(LeastFree::default(), 5);
        assert_eq!((least, trimmed), (LeastFree(0), false), "little is free");
        let (least, trimmed) = check(least, 1);
        assert_eq!((least, trimmed), (LeastFree(0), false), "a burst is using it");
        let (least, trimmed) = check(least, 300);
        assert_eq!((least, trimmed), (LeastFree(300 << 20), true), "the burst is over");
        assert_eq!(check(least, 300), (least, false), "what was trimmed is not trimmed again");
        let (least, _) = check(least, 40);
        assert!(check(least, 60).1, "another burst");
    }
}
