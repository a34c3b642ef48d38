//! A lane: one at a time, in the order in which they came; who waits is told its place.
//!
//! Must not know: what is done when it is one's turn.

use std::collections::VecDeque;
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

impl Lane {
    /// Waits for one's turn, which lasts until the answer is dropped. `urgent` ones go before all others that still wait. Dropping
    /// the future gives up the place.
    pub async fn take(self: &Arc<Self>, urgent: bool, position: &(dyn Fn(usize) + Send + Sync)) -> Turn {
        let mut moved = self.moved.subscribe();
        let turn = self.enter(urgent);
        let mut told = 0;
        loop {
            match self.before(turn.number) {
                0 => return turn,
                ahead if ahead != told => {
                    told = ahead;
                    position(ahead);
                }
                _ => {}
            }
            if moved.changed().await.is_err() {
                return turn;
            }
        }
    }

    fn enter(self: &Arc<Self>, urgent: bool) -> Turn {
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
        assert_eq!(*places.lock(), [1, 1, 2, 3], "two passed it");
        drop(first);
        let turn = urgent.as_mut().now_or_never().expect("its turn");
        assert!(second.as_mut().now_or_never().is_none() && patient.as_mut().now_or_never().is_none());
        drop(second);
        assert!(patient.as_mut().now_or_never().is_none());
        drop(turn);
        assert!(patient.as_mut().now_or_never().is_some(), "who gave up is not waited for");
    }
}
