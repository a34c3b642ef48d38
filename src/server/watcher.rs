//! Watches all open connections: finds those that exceed a time limit, evicts idle ones when room is needed, and
//! shuts all of them down at the end.
//!
//! Must not know: sockets, or what is served over them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::budget::Budget;
use crate::http::request::connections::{ConnectionLease, Connections};
use crate::server::connection::{Config, Connection};
use crate::server::progress::Progress;

/// How many candidates for eviction one search collects.
const CANDIDATES: usize = 256;
/// All connections are searched for candidates at most once in this time, milliseconds.
const SEARCH_PAUSE_MS: u64 = 50;
/// Bounds of the interval between checks of the time limits.
const CHECK_EVERY_MIN: Duration = Duration::from_millis(10);
const CHECK_EVERY_MAX: Duration = Duration::from_secs(1);

/// The open connections and what limits them.
#[derive(Debug)]
pub struct Watcher {
    config: Config,
    connections: Arc<Connections>,
    budget: Arc<Budget>,
    started: Instant,
    next_id: AtomicU64,
    is_shutting_down: AtomicBool,
    open: Mutex<HashMap<u64, Weak<Connection>>>,
    candidates: Mutex<Candidates>,
}

/// Connections that were idle at the last search, with the time since when; the longest idle last.
#[derive(Debug, Default)]
struct Candidates {
    idle: Vec<(u64, Weak<Connection>)>,
    searched_at: Option<u64>,
}

impl Watcher {
    /// A watcher of no connections.
    #[must_use]
    pub fn new(config: Config, connections: Arc<Connections>, budget: Arc<Budget>) -> Self {
        Self {
            config,
            connections,
            budget,
            started: Instant::now(),
            next_id: AtomicU64::new(0),
            is_shutting_down: AtomicBool::new(false),
            open: Mutex::default(),
            candidates: Mutex::default(),
        }
    }

    /// The limits of each connection.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The count of open connections and its limit.
    #[must_use]
    pub const fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// The budget of bytes of requests in memory.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Milliseconds since the watcher was created, the time base of all connections.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Registers a new connection, which takes this place in the count.
    #[must_use]
    pub fn register(self: &Arc<Self>, lease: ConnectionLease) -> Arc<Connection> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(Arc::clone(self), id, lease));
        self.open.lock().insert(id, Arc::downgrade(&connection));
        if self.is_shutting_down.load(Ordering::Acquire) {
            connection.shut_down();
        }
        connection
    }

    /// Removes a closed connection.
    pub fn unregister(&self, id: u64) {
        self.open.lock().remove(&id);
    }

    fn open_connections(&self) -> Vec<Arc<Connection>> {
        // Dropping the last reference to a connection takes the lock, so that must not happen under it.
        self.open.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Signals the connections that exceed a time limit.
    pub fn check_timeouts(&self) {
        let (now, times) = (self.now(), self.config.time_limits());
        let is_over = |progress: &Progress| progress.timeout(now, &times).is_some();
        self.open_connections()
            .iter()
            .filter(|connection| is_over(&connection.progress))
            .for_each(|connection| connection.check_timeout());
    }

    /// How often to call [`Self::check_timeouts`]: an eighth of the shortest limit.
    #[must_use]
    pub fn check_interval(&self) -> Duration {
        let times = self.config.time_limits();
        Duration::from_millis(times.head_ms.min(times.idle_ms).min(times.write_ms) / 8)
            .clamp(CHECK_EVERY_MIN, CHECK_EVERY_MAX)
    }

    /// Evicts the connection that has been idle longest. Returns `false` if all are busy.
    pub fn evict_idle(&self) -> bool {
        let now = self.now();
        let mut candidates = self.candidates.lock();
        loop {
            while let Some((since, connection)) = candidates.idle.pop() {
                let Some(connection) = connection.upgrade() else { continue };
                // One that has been active since the search is not idle any more.
                if connection.progress.idle_since() == Some(since) {
                    connection.evict();
                    return true;
                }
            }
            if candidates.searched_at.is_some_and(|searched| now.saturating_sub(searched) < SEARCH_PAUSE_MS) {
                return false;
            }
            candidates.searched_at = Some(now);
            candidates.idle = self.longest_idle();
        }
    }

    fn longest_idle(&self) -> Vec<(u64, Weak<Connection>)> {
        let mut idle: Vec<(u64, Arc<Connection>)> = self
            .open_connections()
            .into_iter()
            .filter_map(|connection| Some((connection.progress.idle_since()?, connection)))
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate(CANDIDATES);
        idle.iter().rev().map(|(since, connection)| (*since, Arc::downgrade(connection))).collect()
    }

    /// Shuts down all connections after their current request, including those still to be registered.
    pub fn shut_down(&self) {
        self.is_shutting_down.store(true, Ordering::Release);
        self.open_connections().iter().for_each(|connection| connection.shut_down());
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use futures_util::task::noop_waker;

    use super::*;
    use crate::server::connection::Signal;
    use crate::server::progress::Timeout;

    fn watcher(config: Config) -> Arc<Watcher> {
        Arc::new(Watcher::new(config, Arc::new(Connections::new(10)), Arc::default()))
    }

    fn open(watcher: &Arc<Watcher>) -> Arc<Connection> {
        watcher.register(watcher.connections().acquire().unwrap())
    }

    fn signal(connection: &Connection) -> Option<Signal> {
        connection.take_signal(&Context::from_waker(&noop_waker()))
    }

    #[test]
    fn the_longest_idle_is_evicted_first_and_a_busy_one_never() {
        let watcher = watcher(Config::default());
        let all: Vec<_> = (0..4).map(|_| open(&watcher)).collect();
        all[0].progress.request_started(0);
        for (connection, since) in all[1..].iter().zip([30, 10, 20]) {
            connection.progress.request_started(0);
            connection.progress.response_finished(since);
        }
        for expected in [2, 3, 1] {
            assert!(watcher.evict_idle());
            for (at, connection) in all.iter().enumerate() {
                assert_eq!(signal(connection).is_some(), at == expected, "{at}");
            }
            all[expected].progress.request_started(0);
        }
        assert!(!watcher.evict_idle(), "all are busy");
    }

    #[test]
    fn a_connection_that_became_busy_is_not_evicted() {
        let watcher = watcher(Config::default());
        let connection = open(&watcher);
        connection.evict();
        connection.progress.request_started(0);
        assert_eq!(signal(&connection), None);
        connection.progress.response_finished(0);
        connection.evict();
        assert_eq!(signal(&connection), Some(Signal::Evict));
    }

    #[test]
    fn a_timeout_is_signalled_once() {
        let watcher = watcher(Config { head_ms: 0, ..Config::default() });
        let (silent, busy) = (open(&watcher), open(&watcher));
        busy.progress.request_started(0);
        watcher.check_timeouts();
        assert_eq!((signal(&silent), signal(&busy)), (Some(Signal::TimedOut(Timeout::Silent)), None));
        assert_eq!(signal(&silent), None);
    }

    #[test]
    fn shutdown_reaches_later_connections_too() {
        let watcher = watcher(Config::default());
        let before = open(&watcher);
        watcher.shut_down();
        let after = open(&watcher);
        assert_eq!((signal(&before), signal(&after)), (Some(Signal::ShutDown), Some(Signal::ShutDown)));
        drop((before, after));
        assert_eq!((watcher.open_connections().len(), watcher.connections().open()), (0, 0));
    }
}
