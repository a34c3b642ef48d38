//! A queue that serves one component at a time, in order of arrival, and reports positions to those who wait.
//! Components of one size pass two queues: one is scanned while another is compiled.
//!
//! Must not know: what is done when a turn comes.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// A queue; the component at the front has its turn.
#[derive(Debug)]
pub struct TurnQueue {
    state: Mutex<QueueState>,
    moved: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct QueueState {
    next: u64,
    places: VecDeque<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    number: u64,
    urgent: bool,
}

impl Default for TurnQueue {
    fn default() -> Self {
        Self { state: Mutex::default(), moved: watch::Sender::new(0) }
    }
}

/// The length of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueLoad {
    pub waiting: usize,
    /// Having their turn: 0 or 1.
    pub under_way: usize,
}

impl TurnQueue {
    /// Waits for a turn, which lasts until the returned place is dropped. `urgent` places go before all
    /// others that still wait. Dropping the future gives up the place.
    pub async fn wait_for_turn(
        self: &Arc<Self>,
        urgent: bool,
        position: &(dyn Fn(usize) + Send + Sync),
    ) -> QueuePlace {
        let turn = self.join(urgent);
        turn.wait(None, position).await;
        turn
    }

    /// The length of the queue.
    #[must_use]
    pub fn load(&self) -> QueueLoad {
        let length = self.state.lock().places.len();
        QueueLoad { waiting: length.saturating_sub(1), under_way: length.min(1) }
    }

    /// How many would be ahead of an urgent place taken now.
    #[must_use]
    pub fn ahead_of_urgent(&self) -> usize {
        let state = self.state.lock();
        state.places.iter().enumerate().filter(|(at, place)| *at == 0 || place.urgent).count()
    }

    /// Takes a place. Its turn comes once nobody is ahead of it, see [`QueuePlace::wait`].
    #[must_use]
    pub fn join(self: &Arc<Self>, urgent: bool) -> QueuePlace {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        // The place that has its turn stays at the front.
        let patient = state.places.iter().skip(1).position(|place| !place.urgent).map(|at| at + 1);
        let at = patient.filter(|_| urgent).unwrap_or(state.places.len());
        state.places.insert(at, Place { number, urgent });
        drop(state);
        // Places that were overtaken report their new position.
        self.moved.send_modify(|count| *count += 1);
        QueuePlace { queue: Arc::clone(self), number }
    }

    fn ahead_of(&self, number: u64) -> usize {
        self.state.lock().places.iter().position(|place| place.number == number).unwrap_or(0)
    }
}

/// A place in a queue; given up on drop.
#[derive(Debug)]
pub struct QueuePlace {
    queue: Arc<TurnQueue>,
    number: u64,
}

impl QueuePlace {
    /// Waits for the turn. `position` is called with the number of places ahead, in this queue and in the one
    /// after it (`behind`), whenever it changes.
    pub async fn wait(&self, behind: Option<&TurnQueue>, position: &(dyn Fn(usize) + Send + Sync)) {
        let (mut moved, mut moved_behind) =
            (self.queue.moved.subscribe(), behind.map(|queue| queue.moved.subscribe()));
        let mut reported = None;
        loop {
            let here = self.queue.ahead_of(self.number);
            let ahead = here + behind.map_or(0, TurnQueue::ahead_of_urgent);
            if reported != Some(ahead) {
                reported = Some(ahead);
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

impl Drop for QueuePlace {
    fn drop(&mut self) {
        self.queue.state.lock().places.retain(|place| place.number != self.number);
        self.queue.moved.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn places_are_served_one_at_a_time_and_urgent_ones_first() {
        let queue = Arc::new(TurnQueue::default());
        let places = Mutex::new(Vec::new());
        let note = |at| places.lock().push(at);
        let first = queue.wait_for_turn(false, &note).await;
        let mut patient = Box::pin(queue.wait_for_turn(false, &note));
        assert!(patient.as_mut().now_or_never().is_none());
        let mut urgent = Box::pin(queue.wait_for_turn(true, &note));
        let mut second = Box::pin(queue.wait_for_turn(true, &note));
        assert!(urgent.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        assert!(patient.as_mut().now_or_never().is_none());
        assert_eq!(*places.lock(), [0, 1, 1, 2, 3], "two overtook it");
        drop(first);
        let turn = urgent.as_mut().now_or_never().expect("its turn");
        assert!(second.as_mut().now_or_never().is_none() && patient.as_mut().now_or_never().is_none());
        drop(second);
        assert!(patient.as_mut().now_or_never().is_none());
        drop(turn);
        assert!(patient.as_mut().now_or_never().is_some(), "a place that was given up is skipped");
    }

    #[tokio::test]
    async fn the_position_for_a_scan_includes_the_compile_queue() {
        let (scanning, compiling) = (Arc::new(TurnQueue::default()), Arc::new(TurnQueue::default()));
        let places = Mutex::new(Vec::new());
        let note = |at| places.lock().push(at);
        let compiled = [false, true, false].map(|urgent| compiling.join(urgent));
        let (first, second) = (scanning.join(true), scanning.join(true));
        assert_eq!(
            (scanning.load(), compiling.load()),
            (QueueLoad { waiting: 1, under_way: 1 }, QueueLoad { waiting: 2, under_way: 1 })
        );
        let mut wait = Box::pin(second.wait(Some(&compiling), &note));
        assert!(wait.as_mut().now_or_never().is_none());
        let [one, two, idle] = compiled;
        drop(one);
        assert!(wait.as_mut().now_or_never().is_none());
        drop(first);
        assert!(wait.as_mut().now_or_never().is_some());
        drop((two, idle));
        assert_eq!(*places.lock(), [3, 2, 1], "the place that is not urgent is overtaken");
        assert_eq!(compiling.load(), QueueLoad::default());
    }
}
