//! How many pages of one component may stand in line: for each kind of killmails so many places, and as many
//! for pairs without proof.
//!
//! Must not know: what stands in line, or in which order it is judged.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::plugin::judging::run::Run;
use crate::plugin::limits::Config;

/// The places in the queues for pages of one component. Pairs without proof have as many of their own: they
/// may have to wait.
#[derive(Debug)]
pub struct QueueSlots {
    live: Arc<Semaphore>,
    history: Arc<Semaphore>,
    unproven_live: Arc<Semaphore>,
    unproven_history: Arc<Semaphore>,
}

impl QueueSlots {
    /// All of them free.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let [live, past] = [config.queue_live_max, config.queue_history_max]
            .map(|max| [(); 2].map(|()| Arc::new(Semaphore::new(max))));
        let ([live, unproven_live], [past, unproven_past]) = (live, past);
        Self { live, history: past, unproven_live, unproven_history: unproven_past }
    }

    /// Those for this kind of page.
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
