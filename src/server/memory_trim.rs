//! Memory that a burst took goes back to the system. The C library's allocator keeps what is freed; it is
//! asked to let go of it every so often, where enough came together since it was asked last. jemalloc (the
//! feature of that name) does so by itself.
//!
//! Must not know: what the memory was for.

use std::time::Duration;

use crate::tasks;

/// Between two looks: what a burst took is gone well within a minute.
const EVERY: Duration = Duration::from_secs(15);
/// So much more that is free is worth the work, bytes. Asking takes some milliseconds, in which other threads
/// may wait for memory.
const GROWN_BYTES: usize = 16 << 20;

/// Looks for as long as the process runs.
pub async fn give_back() {
    let mut every = tokio::time::interval(EVERY);
    let mut least = Least::default();
    loop {
        every.tick().await;
        let Ok(after) = tasks::blocking("memory", move || least.look(free, trim)).await else { return };
        least = after;
    }
}

/// The least that was free, but kept, since memory was given back last, bytes. What was given back still
/// counts as free there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Least(usize);

impl Least {
    fn look(self, free: impl Fn() -> usize, trim: impl FnOnce()) -> Self {
        let now = free();
        if now < self.0.saturating_add(GROWN_BYTES) {
            return Self(self.0.min(now));
        }
        trim();
        Self(free())
    }
}

/// What the allocator has that nobody uses, bytes.
#[cfg(all(target_os = "linux", target_env = "gnu", not(feature = "jemalloc")))]
#[expect(unsafe_code, reason = "std has no way to the allocator's own numbers")]
fn free() -> usize {
    // SAFETY: the call takes no pointers and returns numbers.
    unsafe { libc::mallinfo2() }.fordblks
}

#[cfg(all(target_os = "linux", target_env = "gnu", not(feature = "jemalloc")))]
#[expect(unsafe_code, reason = "std has no way to the allocator's own memory")]
fn trim() {
    // SAFETY: the call takes no pointers; it only returns pages to the system that hold nothing.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(feature = "jemalloc"))))]
const fn free() -> usize {
    0
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(feature = "jemalloc"))))]
const fn trim() {}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A look at an allocator in which so many MiB are free; says what is remembered and whether memory was
    /// given back.
    fn look(least: Least, free_mib: usize) -> (Least, bool) {
        let trimmed = Cell::new(false);
        (least.look(|| free_mib << 20, || trimmed.set(true)), trimmed.get())
    }

    #[test]
    fn memory_is_given_back_once_it_is_free() {
        let (least, trimmed) = look(Least::default(), 5);
        assert_eq!((least, trimmed), (Least(0), false), "little is free");
        let (least, trimmed) = look(least, 1);
        assert_eq!((least, trimmed), (Least(0), false), "a burst uses it, however long");
        let (least, trimmed) = look(least, 300);
        assert_eq!((least, trimmed), (Least(300 << 20), true), "the burst is over");
        assert_eq!(look(least, 300), (least, false), "what was given back is not given back again");
        let (least, _) = look(least, 40);
        assert!(look(least, 60).1, "another burst");
    }
}
