//! When the index is written to a file: every so many entries, on a thread of its own, and once more at the end.
//!
//! Must not know: what a snapshot looks like.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::domain::id::Seq;
use crate::store::Store;
use crate::store::append::Numbers;
use crate::store::snapshot::{self, Mark};
use crate::tasks;

/// Fewer entries than this are not worth a snapshot at the end: replaying them takes some ten milliseconds.
const AT_END_MIN: u64 = 4_096;

/// What was written last, and the thread that is writing.
#[derive(Debug, Default)]
pub struct Snapshots {
    pub head: Seq,
    pub running: Option<JoinHandle<()>>,
}

impl Store {
    /// Called by the writer after a commit; starts a snapshot if one is due and none is being written.
    pub(crate) fn snapshot_if_due(&self, numbers: &Numbers) {
        let mut snapshots = self.snapshots.lock();
        let due = numbers.head >= snapshots.head.0.saturating_add(self.config.snapshot_every.max(1));
        if !due || snapshots.running.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        snapshots.head = Seq(numbers.head);
        let (memory, dir, mark) = (Arc::clone(&self.memory), self.disk.dir().to_owned(), self.mark(numbers));
        let thread = tasks::thread("store snapshot", move || {
            if let Err(error) = snapshot::write(&dir, &memory, &mark) {
                tracing::warn!("cannot write a snapshot of the index to {}: {error}", dir.display());
            }
        });
        snapshots.running = thread.ok();
    }

    fn mark(&self, numbers: &Numbers) -> Mark {
        Mark { epoch: self.epoch, head: Seq(numbers.head), rev: numbers.rev }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let snapshots = std::mem::take(self.snapshots.get_mut());
        if let Some(thread) = snapshots.running {
            // A panic in there was reported when it happened.
            let _ = thread.join();
        }
        let numbers = self.writer.get_mut().numbers;
        if numbers.head < snapshots.head.0.saturating_add(AT_END_MIN) {
            return;
        }
        if let Err(error) = snapshot::write(self.disk.dir(), &self.memory, &self.mark(&numbers)) {
            tracing::warn!("cannot write a snapshot of the index to {}: {error}", self.disk.dir().display());
        }
    }
}
