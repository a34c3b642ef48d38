//! Who watches over all open connections: whose time is up, who leaves when others need room, and that all
//! come to an end.
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

/// Looked for at once when room is needed.
const CANDIDATES: usize = 256;
/// All connections are searched for candidates at most this often, milliseconds.
const SEARCH_PAUSE_MS: u64 = 50;
/// Times are looked at this often at the least and at the most.
const SWEEP_MIN: Duration = Duration::from_millis(10);
const SWEEP_MAX: Duration = Duration::from_secs(1);

/// The watcher.
#[derive(Debug)]
pub struct Watcher {
    config: Config,
    connections: Arc<Connections>,
    budget: Arc<Budget>,
    started: Instant,
    next: AtomicU64,
    ending: AtomicBool,
    open: Mutex<HashMap<u64, Weak<Connection>>>,
    candidates: Mutex<Candidates>,
}

/// The longest idle of when they were last searched for, the longest idle last.
#[derive(Debug, Default)]
struct Candidates {
    idle: Vec<(u64, Weak<Connection>)>,
    searched: Option<u64>,
}

impl Watcher {
    /// With nobody to watch over yet.
    #[must_use]
    pub fn new(config: Config, connections: Arc<Connections>, budget: Arc<Budget>) -> Self {
        Self {
            config,
            connections,
            budget,
            started: Instant::now(),
            next: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            open: Mutex::default(),
            candidates: Mutex::default(),
        }
    }

    /// The limits.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Who is counted.
    #[must_use]
    pub const fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// The bytes in flight.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Milliseconds since it began to watch.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Watches over one more.
    #[must_use]
    pub fn over(self: &Arc<Self>, lease: ConnectionLease) -> Arc<Connection> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(Arc::clone(self), number, lease));
        self.open.lock().insert(number, Arc::downgrade(&connection));
        if self.ending.load(Ordering::Acquire) {
            connection.end();
        }
        connection
    }

    /// One is gone.
    pub fn gone(&self, number: u64) {
        self.open.lock().remove(&number);
    }

    fn each(&self) -> Vec<Arc<Connection>> {
        // Letting go of a connection asks for the lock: that must not happen under it.
        self.open.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Asks those to look at their time who are over it.
    pub fn sweep(&self) {
        let (now, times) = (self.now(), self.config.times());
        let over = |progress: &Progress| progress.overdue(now, &times).is_some();
        self.each()
            .iter()
            .filter(|connection| over(&connection.progress))
            .for_each(|connection| connection.look());
    }

    /// How often to sweep.
    #[must_use]
    pub fn sweep_every(&self) -> Duration {
        let times = self.config.times();
        Duration::from_millis(times.head_ms.min(times.idle_ms).min(times.write_ms) / 8)
            .clamp(SWEEP_MIN, SWEEP_MAX)
    }

    /// Asks the longest idle to leave. `false`: all have something to do.
    pub fn make_room(&self) -> bool {
        let now = self.now();
        let mut candidates = self.candidates.lock();
        loop {
            while let Some((since, connection)) = candidates.idle.pop() {
                let Some(connection) = connection.upgrade() else { continue };
                // Who did something since is not the longest idle any more.
                if connection.progress.idle_since() == Some(since) {
                    connection.leave();
                    return true;
                }
            }
            if candidates.searched.is_some_and(|searched| now.saturating_sub(searched) < SEARCH_PAUSE_MS) {
                return false;
            }
            candidates.searched = Some(now);
            candidates.idle = self.longest_idle();
        }
    }

    fn longest_idle(&self) -> Vec<(u64, Weak<Connection>)> {
        let mut idle: Vec<(u64, Arc<Connection>)> = self
            .each()
            .into_iter()
            .filter_map(|connection| Some((connection.progress.idle_since()?, connection)))
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate(CANDIDATES);
        idle.iter().rev().map(|(since, connection)| (*since, Arc::downgrade(connection))).collect()
    }

    /// Asks everyone to take no further request, also those who are yet to come.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
        self.each().iter().for_each(|connection| connection.end());
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use futures_util::task::noop_waker;

    use super::*;
    use crate::server::connection::Asked;
    use crate::server::progress::Overdue;

    fn watch(config: Config) -> Arc<Watcher> {
        Arc::new(Watcher::new(config, Arc::new(Connections::new(10)), Arc::default()))
    }

    fn open(watch: &Arc<Watcher>) -> Arc<Connection> {
        watch.over(watch.connections().acquire().unwrap())
    }

    fn asked(connection: &Connection) -> Option<Asked> {
        connection.asked(&Context::from_waker(&noop_waker()))
    }

    #[test]
    fn the_longest_idle_leaves_first_and_nobody_who_is_busy() {
        let watch = watch(Config::default());
        let all: Vec<_> = (0..4).map(|_| open(&watch)).collect();
        all[0].progress.request(0);
        for (connection, since) in all[1..].iter().zip([30, 10, 20]) {
            connection.progress.request(0);
            connection.progress.answered(since);
        }
        for expected in [2, 3, 1] {
            assert!(watch.make_room());
            for (at, connection) in all.iter().enumerate() {
                assert_eq!(asked(connection).is_some(), at == expected, "{at}");
            }
            all[expected].progress.request(0);
        }
        assert!(!watch.make_room(), "all are busy");
    }

    #[test]
    fn who_got_something_to_do_meanwhile_stays() {
        let watch = watch(Config::default());
        let connection = open(&watch);
        connection.leave();
        connection.progress.request(0);
        assert_eq!(asked(&connection), None);
        connection.progress.answered(0);
        connection.leave();
        assert_eq!(asked(&connection), Some(Asked::Leave));
    }

    #[test]
    fn whose_time_is_up_hears_it_once() {
        let watch = watch(Config { head_ms: 0, ..Config::default() });
        let (silent, busy) = (open(&watch), open(&watch));
        busy.progress.request(0);
        watch.sweep();
        assert_eq!((asked(&silent), asked(&busy)), (Some(Asked::Over(Overdue::Silent)), None));
        assert_eq!(asked(&silent), None);
    }

    #[test]
    fn the_end_reaches_those_who_come_after_it() {
        let watch = watch(Config::default());
        let before = open(&watch);
        watch.end();
        let after = open(&watch);
        assert_eq!((asked(&before), asked(&after)), (Some(Asked::End), Some(Asked::End)));
        drop((before, after));
        assert_eq!((watch.each().len(), watch.connections().open()), (0, 0));
    }
}
