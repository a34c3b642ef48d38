//! How many pages of one component may be queued: a limit per kind of killmails, and the same again for
//! unproven pairs.
//!
//! Must not know: what is queued, or in which order it is judged.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::plugin::judging::run::Run;
use crate::plugin::limits::Config;

/// The queue slots of one component. Unproven pairs have separate ones, because they may have to wait.
#[derive(Debug)]
pub struct QueueSlots {
    live: Arc<Semaphore>,
    history: Arc<Semaphore>,
    unproven_live: Arc<Semaphore>,
    unproven_history: Arc<Semaphore>,
}

impl QueueSlots {
    /// All slots free.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let [live, history] = [config.queue_live_max, config.queue_history_max]
            .map(|max| [(); 2].map(|()| Arc::new(Semaphore::new(max))));
        let ([live, unproven_live], [history, unproven_history]) = (live, history);
        Self { live, history, unproven_live, unproven_history }
    }

    /// The slots for pages of this kind.
    #[must_use]
    pub const fn for_run(&self, run: Run, is_proven: bool) -> &Arc<Semaphore> {
        match (run, is_proven) {
            (Run::Live, true) => &self.live,
            (Run::Live, false) => &self.unproven_live,
            (Run::History { .. }, true) => &self.history,
            (Run::History { .. }, false) => &self.unproven_history,
        }
    }
}
