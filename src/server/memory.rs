//! Memory that a burst took goes back to the system. The C library's allocator keeps what is freed; it is asked to let go of it every so
//! often, where enough came together since it was asked last. jemalloc (the feature of that name) does so by itself.
//!
//! Must not know: what the memory was for.

use std::time::Duration;

use crate::http::process::Process;
use crate::tasks;

/// Between two looks: what a burst took is gone well within a minute.
const EVERY: Duration = Duration::from_secs(15);
/// Growth since the last time that is worth the work, bytes. Asking takes some milliseconds, in which other threads may wait for memory.
const GROWN_BYTES: u64 = 16 << 20;

/// Looks for as long as the process runs.
pub async fn give_back() {
    let mut every = tokio::time::interval(EVERY);
    let mut least = Least::default();
    loop {
        every.tick().await;
        let Ok(after) = tasks::blocking("memory", move || least.look(resident, trim)).await else { return };
        least = after;
    }
}

/// The least that was resident since the memory was given back last, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Least(u64);

impl Least {
    fn look(self, resident: impl Fn() -> u64, trim: impl FnOnce()) -> Self {
        let now = resident();
        if now < self.0.saturating_add(GROWN_BYTES) {
            return Self(self.0.min(now));
        }
        trim();
        Self(resident())
    }
}

fn resident() -> u64 {
    Process::now().memory_bytes
}

#[cfg(all(target_os = "linux", target_env = "gnu", not(feature = "jemalloc")))]
#[expect(unsafe_code, reason = "std has no way to the allocator's own memory")]
fn trim() {
    // SAFETY: the call takes no pointers; it only returns pages to the system that hold nothing.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(feature = "jemalloc"))))]
const fn trim() {}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn memory_is_given_back_after_it_grew() {
        let resident = Cell::new(100 << 20);
        let trims = Cell::new(0);
        let look = |least: Least, gives: u64| {
            least.look(
                || resident.get(),
                || {
                    trims.set(trims.get() + 1);
                    resident.set(resident.get() - gives);
                },
            )
        };
        let least = look(Least::default(), 20 << 20);
        assert_eq!((least, trims.get()), (Least(80 << 20), 1));
        resident.set(90 << 20);
        let least = look(least, 0);
        assert_eq!((least, trims.get()), (Least(80 << 20), 1), "too little grew");
        resident.set(70 << 20);
        let least = look(least, 0);
        resident.set(87 << 20);
        let least = look(least, 0);
        assert_eq!((least, trims.get()), (Least(87 << 20), 2), "what is in use is not tried again and again");
        assert_eq!(look(least, 0), Least(87 << 20));
        assert_eq!(trims.get(), 2);
    }
}
