//! A lane: one at a time, in the order in which they came; who waits is told its place. Components of one
//! size have two, one behind the other: one is looked through while another is compiled.
//!
//! Must not know: what is done when it is one's turn.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// A line of those who wait, the one whose turn it is at its head.
#[derive(Debug)]
pub struct Lane {
    line: Mutex<Line>,
    moved: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiting: VecDeque<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    number: u64,
    urgent: bool,
}

impl Default for Lane {
    fn default() -> Self {
        Self { line: Mutex::default(), moved: watch::Sender::new(0) }
    }
}

/// How many are in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Waiting.
    pub waiting: usize,
    /// Being worked on.
    pub under_way: usize,
}

impl Lane {
    /// Waits for one's turn, which lasts until the answer is dropped. `urgent` ones go before all others that
    /// still wait. Dropping the future gives up the place.
    pub async fn take(self: &Arc<Self>, urgent: bool, position: &(dyn Fn(usize) + Send + Sync)) -> Turn {
        let turn = self.enter(urgent);
        turn.come(None, position).await;
        turn
    }

    /// How many are in it.
    #[must_use]
    pub fn load(&self) -> Load {
        let all = self.line.lock().waiting.len();
        Load { waiting: all.saturating_sub(1), under_way: all.min(1) }
    }

    /// Those that an urgent one that comes now has before it.
    #[must_use]
    pub fn before_urgent(&self) -> usize {
        let line = self.line.lock();
        line.waiting.iter().enumerate().filter(|(at, place)| *at == 0 || place.urgent).count()
    }

    /// Takes a place. It is one's turn once nobody is before it: see [`Turn::come`].
    #[must_use]
    pub fn enter(self: &Arc<Self>, urgent: bool) -> Turn {
        let mut line = self.line.lock();
        let number = line.next;
        line.next += 1;
        // Whose turn it is stays at the head.
        let patient = line.waiting.iter().skip(1).position(|place| !place.urgent).map(|at| at + 1);
        let at = patient.filter(|_| urgent).unwrap_or(line.waiting.len());
        line.waiting.insert(at, Place { number, urgent });
        drop(line);
        // Those it went before hear of it.
        self.moved.send_modify(|count| *count += 1);
        Turn { lane: Arc::clone(self), number }
    }

    fn before(&self, number: u64) -> usize {
        self.line.lock().waiting.iter().position(|place| place.number == number).unwrap_or(0)
    }
}

/// A place in the lane; given up on drop.
#[derive(Debug)]
pub struct Turn {
    lane: Arc<Lane>,
    number: u64,
}

impl Turn {
    /// Waits until it is one's turn. `position` is told how many are before it, here and in the lane behind
    /// this one, whenever that changes.
    pub async fn come(&self, behind: Option<&Lane>, position: &(dyn Fn(usize) + Send + Sync)) {
        let (mut moved, mut moved_behind) =
            (self.lane.moved.subscribe(), behind.map(|lane| lane.moved.subscribe()));
        let mut told = None;
        loop {
            let here = self.lane.before(self.number);
            let ahead = here + behind.map_or(0, Lane::before_urgent);
            if told != Some(ahead) {
                told = Some(ahead);
                position(ahead);
            }
            if here == 0 {
                return;
            }
            let moved_behind = async {
                match &mut moved_behind {
                    Some(moved) => moved.changed().await,
                    None => pending().await,
                }
            };
            let gone = tokio::select! {
                moved = moved.changed() => moved.is_err(),
                moved = moved_behind => moved.is_err(),
            };
            if gone {
                return;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.lane.line.lock().waiting.retain(|place| place.number != self.number);
        self.lane.moved.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_the_urgent_first() {
        let lane = Arc::new(Lane::default());
        let places = Mutex::new(Vec::new());
        let note = |at| places.lock().push(at);
        let first = lane.take(false, &note).await;
        let mut patient = Box::pin(lane.take(false, &note));
        assert!(patient.as_mut().now_or_never().is_none());
        let mut urgent = Box::pin(lane.take(true, &note));
        let mut second = Box::pin(lane.take(true, &note));
        assert!(urgent.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        assert!(patient.as_mut().now_or_never().is_none());
        assert_eq!(*places.lock(), [0, 1, 1, 2, 3], "two passed it");
        drop(first);
        let turn = urgent.as_mut().now_or_never().expect("its turn");
        assert!(second.as_mut().now_or_never().is_none() && patient.as_mut().now_or_never().is_none());
        drop(second);
        assert!(patient.as_mut().now_or_never().is_none());
        drop(turn);
        assert!(patient.as_mut().now_or_never().is_some(), "who gave up is not waited for");
    }

    #[tokio::test]
    async fn who_is_to_be_looked_through_counts_those_being_compiled() {
        let (scanning, compiling) = (Arc::new(Lane::default()), Arc::new(Lane::default()));
        let places = Mutex::new(Vec::new());
        let note = |at| places.lock().push(at);
        let compiled = [false, true, false].map(|urgent| compiling.enter(urgent));
        let (first, second) = (scanning.enter(true), scanning.enter(true));
        assert_eq!(
            (scanning.load(), compiling.load()),
            (Load { waiting: 1, under_way: 1 }, Load { waiting: 2, under_way: 1 })
        );
        let mut come = Box::pin(second.come(Some(&compiling), &note));
        assert!(come.as_mut().now_or_never().is_none());
        let [one, two, idle] = compiled;
        drop(one);
        assert!(come.as_mut().now_or_never().is_none());
        drop(first);
        assert!(come.as_mut().now_or_never().is_some());
        drop((two, idle));
        assert_eq!(*places.lock(), [3, 2, 1], "the one that nobody waits for is passed");
        assert_eq!(compiling.load(), Load::default());
    }
}
