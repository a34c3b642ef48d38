//! When a snapshot of the index is written: every so many entries, on a separate thread, and once more when
//! the store is closed.
//!
//! Must not know: what a snapshot looks like.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::RwLock;

use crate::domain::id::Seq;
use crate::store::index::resident::Resident;
use crate::store::index::snapshot::{self, Mark};
use crate::tasks;

/// Fewer entries than this are not worth a snapshot at close: replaying them takes about ten milliseconds.
const AT_CLOSE_MIN: u64 = 4_096;

/// The newest snapshot, and the thread that writes the next one.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// The newest entry in it.
    head: Seq,
    running: Option<JoinHandle<()>>,
}

impl Snapshots {
    /// `head` is the newest entry in the snapshot on disk; 0 if there is none.
    pub const fn new(head: Seq) -> Self {
        Self { head, running: None }
    }

    /// Starts a snapshot if `every` entries were appended since the last one and none is being written.
    pub fn start_if_due(&mut self, every: u64, dir: &Path, resident: &Arc<RwLock<Resident>>, mark: Mark) {
        let due = mark.head.0 >= self.head.0.saturating_add(every.max(1));
        if !due || self.running.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        self.head = mark.head;
        let (dir, resident) = (dir.to_owned(), Arc::clone(resident));
        self.running = tasks::thread("store snapshot", move || write(&dir, &resident, &mark)).ok();
    }

    /// Waits for the snapshot being written, and writes a last one if enough entries came since.
    pub fn finish(self, dir: &Path, resident: &RwLock<Resident>, mark: Mark) {
        if let Some(thread) = self.running {
            // A panic in the thread was reported when it happened.
            let _ = thread.join();
        }
        if mark.head.0 >= self.head.0.saturating_add(AT_CLOSE_MIN) {
            write(dir, resident, &mark);
        }
    }
}

fn write(dir: &Path, resident: &RwLock<Resident>, mark: &Mark) {
    if let Err(error) = snapshot::write(dir, resident, mark) {
        tracing::warn!("cannot write a snapshot of the index to {}: {error}", dir.display());
    }
}
