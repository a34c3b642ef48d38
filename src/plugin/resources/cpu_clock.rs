//! Time for guests: CPU time of the thread they run on, and the tick that lets a running guest be looked at.
//!
//! A preempted guest is innocent: what counts is the time its thread really ran, read only once a tick has
//! come.
//!
//! Must not know: what is done to a guest that is over its time (`guest`).

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use wasmtime::EngineWeak;

use crate::tasks;

/// How often a running guest is looked at.
pub const TICK: Duration = Duration::from_millis(1);

/// CPU time this thread has used since it began.
#[must_use]
#[expect(unsafe_code, reason = "the standard library has no clock of a thread's CPU time")]
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer, and the call keeps no reference to it.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0;
    if failed {
        return Duration::ZERO;
    }
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

thread_local! {
    /// CPU time this thread has used to let go of others where there was no room.
    static UNBILLED_CPU: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Does work that makes room by letting go of others. Its time is nobody's: who needed the room did not ask
/// for that work, and those that are let go of have no more calls.
pub fn unbilled<T>(work: impl FnOnce() -> T) -> T {
    let before = thread_cpu();
    let done = work();
    let cpu = thread_cpu().saturating_sub(before);
    UNBILLED_CPU.with(|sum| sum.set(sum.get() + cpu));
    done
}

/// CPU time this thread has used since it began, but for what it took to make room: what calls are measured
/// with.
#[must_use]
pub fn billable_cpu() -> Duration {
    thread_cpu().saturating_sub(UNBILLED_CPU.with(Cell::get))
}

/// The time one call of a guest takes. It begins at the first tick: most calls end before it and never ask a
/// clock.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    cpu_max: Duration,
    wall_max: Duration,
    started: Option<(Duration, Instant)>,
    expired_by_wall_clock: bool,
    /// CPU time the host used on the guest's behalf, not counted as the guest's.
    pub host_cpu: Duration,
}

impl Stopwatch {
    /// A stopwatch for one call.
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

    /// Called at every tick the guest lives to see: whether its time is over.
    pub fn is_expired(&mut self) -> bool {
        let Some((cpu, wall)) = self.started else {
            // What the host did before counts neither as the guest's nor against it later.
            self.started = Some((billable_cpu().saturating_sub(self.host_cpu), Instant::now()));
            return false;
        };
        let used = billable_cpu().saturating_sub(cpu).saturating_sub(self.host_cpu);
        self.expired_by_wall_clock = used < self.cpu_max && wall.elapsed() >= self.wall_max;
        used >= self.cpu_max || self.expired_by_wall_clock
    }

    /// It is over because of the wall clock: the thread got too little CPU time.
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

/// The one thread that ticks while any guest may run, and sleeps while none does.
#[derive(Debug)]
pub struct Ticker {
    signal: Arc<TickerShared>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread; it does not keep the engines alive.
    ///
    /// # Errors
    /// The system refused to make a thread.
    pub fn start(engines: [EngineWeak; 2]) -> io::Result<Self> {
        let signal = Arc::new(TickerShared::default());
        let inner = Arc::clone(&signal);
        let thread = tasks::thread("plugin-tick", move || tick(&engines, &inner))?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// Ticks as long as the answer lives. Hold one whenever a guest may run.
    #[must_use]
    pub fn keep_ticking(&self) -> TickGuard {
        TickGuard::new(&self.signal)
    }

    /// What workers keep to become awake.
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

/// A worker's way to the ticker.
#[derive(Debug, Clone)]
pub struct TickerHandle(Arc<TickerShared>);

impl TickerHandle {
    /// As [`Ticker::awake`].
    #[must_use]
    pub fn awake(&self) -> TickGuard {
        TickGuard::new(&self.0)
    }
}

/// While it lives, the ticker ticks.
#[derive(Debug)]
pub struct TickGuard(Arc<TickerShared>);

impl TickGuard {
    fn new(signal: &Arc<TickerShared>) -> Self {
        let mut shift = signal.state.lock();
        shift.guards += 1;
        if shift.guards == 1 {
            signal.changed.notify_all();
        }
        drop(shift);
        Self(Arc::clone(signal))
    }

    /// Ticks so far, wrapping: a clock that costs nothing to read, one [`TICK`] fine.
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
        let mut shift = signal.state.lock();
        while shift.guards == 0 && !shift.is_stopped {
            signal.changed.wait(&mut shift);
        }
        if shift.is_stopped {
            return;
        }
        drop(shift);
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

    /// Uses so much CPU time of this thread.
    fn use_up(cpu: Duration) {
        let begun = thread_cpu();
        while thread_cpu().saturating_sub(begun) < cpu {}
    }

    #[test]
    fn making_room_is_nobodys_time() {
        let mut watch = Stopwatch::new(20, 600_000);
        assert!(!watch.is_expired());
        let before = billable_cpu();
        unbilled(|| use_up(Duration::from_millis(200)));
        assert!(!watch.is_expired() && watch.host_cpu.is_zero());
        assert!(billable_cpu().saturating_sub(before) < Duration::from_millis(100));
        use_up(Duration::from_millis(20));
        assert!(watch.is_expired(), "its own time is counted on");
    }
}
