//! CPU time of threads that run guests, and the tick at which a running guest is checked.
//!
//! A preempted guest loses nothing: only the time its thread really ran counts. It is read only after a tick.
//!
//! Must not know: what happens to a guest that exceeds its time (`guest`).

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use wasmtime::EngineWeak;

use crate::tasks;

/// How often a running guest is checked.
pub const TICK: Duration = Duration::from_millis(1);

/// CPU time of the current thread since it started; zero if the system cannot report it.
#[must_use]
#[expect(unsafe_code, reason = "the standard library has no clock for the CPU time of a thread")]
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes, and the call keeps no reference to it.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0;
    if failed {
        return Duration::ZERO;
    }
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

thread_local! {
    /// CPU time that this thread spent on evictions.
    static UNBILLED_CPU: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Runs an eviction without billing its CPU time: the call that needed the memory did not ask for this work,
/// and evicted evaluators make no more calls.
pub fn unbilled<T>(work: impl FnOnce() -> T) -> T {
    let before = thread_cpu();
    let done = work();
    let cpu = thread_cpu().saturating_sub(before);
    UNBILLED_CPU.with(|sum| sum.set(sum.get() + cpu));
    done
}

/// CPU time of the current thread since it started, without evictions. Calls are measured with it.
#[must_use]
pub fn billable_cpu() -> Duration {
    thread_cpu().saturating_sub(UNBILLED_CPU.with(Cell::get))
}

/// Measures the time of one call. It starts at the first tick: most calls end before it and never read a
/// clock.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    cpu_max: Duration,
    wall_max: Duration,
    started: Option<(Duration, Instant)>,
    expired_by_wall_clock: bool,
    /// CPU time that the host spent for the guest, which does not count as the guest's.
    pub host_cpu: Duration,
}

impl Stopwatch {
    /// A stopwatch for one call, with its limits in milliseconds.
    #[must_use]
    pub const fn new(cpu_max_ms: u64, wall_max_ms: u64) -> Self {
        Self {
            cpu_max: Duration::from_millis(cpu_max_ms),
            wall_max: Duration::from_millis(wall_max_ms),
            started: None,
            expired_by_wall_clock: false,
            host_cpu: Duration::ZERO,
        }
    }

    /// Called at every tick of a running guest: whether its time is used up.
    pub fn is_expired(&mut self) -> bool {
        let Some((cpu, wall)) = self.started else {
            // Host work so far counts neither as the guest's time nor against it later.
            self.started = Some((billable_cpu().saturating_sub(self.host_cpu), Instant::now()));
            return false;
        };
        let used = billable_cpu().saturating_sub(cpu).saturating_sub(self.host_cpu);
        self.expired_by_wall_clock = used < self.cpu_max && wall.elapsed() >= self.wall_max;
        used >= self.cpu_max || self.expired_by_wall_clock
    }

    /// It expired by the wall clock: the thread got too little CPU time.
    #[must_use]
    pub const fn is_expired_by_wall_clock(&self) -> bool {
        self.expired_by_wall_clock
    }
}

#[derive(Debug, Default)]
struct TickerState {
    guards: usize,
    is_stopped: bool,
}

#[derive(Debug, Default)]
struct TickerShared {
    state: Mutex<TickerState>,
    changed: Condvar,
    ticks: AtomicU32,
}

/// The thread that ticks while any guest may run, and sleeps otherwise.
#[derive(Debug)]
pub struct Ticker {
    signal: Arc<TickerShared>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread. It does not keep the engines alive.
    ///
    /// # Errors
    /// The system cannot start another thread.
    pub fn start(engines: [EngineWeak; 2]) -> io::Result<Self> {
        let signal = Arc::new(TickerShared::default());
        let inner = Arc::clone(&signal);
        let thread = tasks::thread("plugin-tick", move || tick(&engines, &inner))?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// Ticks until the guard is dropped. Hold one whenever a guest may run.
    #[must_use]
    pub fn keep_ticking(&self) -> TickGuard {
        TickGuard::new(&self.signal)
    }

    /// A handle for worker threads.
    #[must_use]
    pub fn handle(&self) -> TickerHandle {
        TickerHandle(Arc::clone(&self.signal))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.signal.state.lock().is_stopped = true;
        self.signal.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ticker panicked");
        }
    }
}

/// A worker's handle to the ticker.
#[derive(Debug, Clone)]
pub struct TickerHandle(Arc<TickerShared>);

impl TickerHandle {
    #[must_use]
    pub fn keep_ticking(&self) -> TickGuard {
        TickGuard::new(&self.0)
    }
}

/// The ticker ticks while a guard exists.
#[derive(Debug)]
pub struct TickGuard(Arc<TickerShared>);

impl TickGuard {
    fn new(signal: &Arc<TickerShared>) -> Self {
        let mut state = signal.state.lock();
        state.guards += 1;
        if state.guards == 1 {
            signal.changed.notify_all();
        }
        drop(state);
        Self(Arc::clone(signal))
    }

    /// Ticks so far, wrapping: a clock that is free to read, with a resolution of one [`TICK`].
    #[must_use]
    pub fn ticks(&self) -> u32 {
        self.0.ticks.load(Ordering::Relaxed)
    }
}

impl Drop for TickGuard {
    fn drop(&mut self) {
        self.0.state.lock().guards -= 1;
    }
}

fn tick(engines: &[EngineWeak], signal: &TickerShared) {
    loop {
        let mut state = signal.state.lock();
        while state.guards == 0 && !state.is_stopped {
            signal.changed.wait(&mut state);
        }
        if state.is_stopped {
            return;
        }
        drop(state);
        std::thread::sleep(TICK);
        for engine in engines {
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
        }
        signal.ticks.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses this much CPU time on the current thread.
    fn use_up(cpu: Duration) {
        let start = thread_cpu();
        while thread_cpu().saturating_sub(start) < cpu {}
    }

    #[test]
    fn evictions_are_not_billed() {
        let mut watch = Stopwatch::new(20, 600_000);
        assert!(!watch.is_expired());
        let before = billable_cpu();
        unbilled(|| use_up(Duration::from_millis(200)));
        assert!(!watch.is_expired() && watch.host_cpu.is_zero());
        assert!(billable_cpu().saturating_sub(before) < Duration::from_millis(100));
        use_up(Duration::from_millis(20));
        assert!(watch.is_expired(), "its own time still counts");
    }
}
