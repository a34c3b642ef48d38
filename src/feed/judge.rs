//! A subscription's plugin at work: pages go in, kept killmails and faults come out, in order.
//!
//! Must not know: how guests run, or what becomes of a fault.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::entry::SharedEntry;
use crate::domain::filter::Interest;
use crate::domain::subscription::PluginUse;
use crate::domain::verdict::{Fault, Verdict};
use crate::feed::event::Kept;
use crate::feed::plugins::Plugins;
use crate::feed::{Error, Feed};
use crate::plugin::evaluator::{Evaluator, Run};

/// What became of one killmail.
#[derive(Debug)]
pub enum Outcome {
    /// Wanted.
    Kept(Kept),
    /// Not wanted.
    Dropped,
    /// Could not be judged.
    Fault(Fault, SharedEntry),
}

/// A plugin judging for one subscription.
#[derive(Clone)]
pub struct Judge {
    plugins: Arc<Plugins>,
    using: PluginUse,
    evaluator: Evaluator,
    changes: watch::Receiver<u64>,
}

impl Judge {
    /// Finds the plugin and has it accept its configuration.
    ///
    /// # Errors
    /// There is no such plugin, or it refuses.
    pub async fn open(feed: &Feed, using: &PluginUse) -> Result<Self, Error> {
        Self::resolve(feed.plugins().clone(), using.clone()).await
    }

    async fn resolve(plugins: Arc<Plugins>, using: PluginUse) -> Result<Self, Error> {
        let changes = plugins.watch();
        let evaluator = plugins.resolve(&using).await?;
        Ok(Self { plugins, using, evaluator, changes })
    }

    /// Name of the plugin.
    pub fn name(&self) -> &str {
        &self.using.name
    }

    /// What the plugin promised to need.
    pub fn interest(&self) -> Option<&Interest> {
        self.evaluator.interest()
    }

    /// Waits until some plugin was promoted, rolled back or deleted.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether some plugin was changed since this judge was made, or found to be so.
    #[must_use]
    pub fn may_have_changed(&self) -> bool {
        self.changes.has_changed().unwrap_or(false)
    }

    /// As if the change were still to be seen: whoever was told of it did not get round to it.
    pub fn forget_change(&mut self) {
        self.changes.mark_changed();
    }

    /// The judge to go on with after a change, and whether it judges by another version.
    ///
    /// # Errors
    /// The plugin is gone, or its new version refuses the configuration.
    pub async fn follow(&self) -> Result<(Self, bool), Error> {
        let next = Self::resolve(self.plugins.clone(), self.using.clone()).await?;
        let moved = next.evaluator.digest() != self.evaluator.digest();
        Ok((next, moved))
    }

    /// The same for as long as its judgments cost less than so much CPU time.
    #[must_use]
    pub fn within(self, cpu: Duration) -> Self {
        Self { evaluator: self.evaluator.within(cpu), ..self }
    }

    /// Whether its judgments cost what they may.
    pub fn is_spent(&self) -> bool {
        self.evaluator.is_spent()
    }

    /// Judges a page, in order. The last killmails of it are left out where they would cost more than may be spent ([`Judge::within`]).
    pub async fn judge(&self, page: Vec<SharedEntry>, run: Run) -> Vec<Outcome> {
        let page = Arc::new(page);
        let verdicts = self.plugins.engine().evaluate(&self.evaluator, Arc::clone(&page), run).await;
        Arc::unwrap_or_clone(page).into_iter().zip(verdicts).map(|(entry, verdict)| self.outcome(entry, verdict)).collect()
    }

    fn outcome(&self, entry: SharedEntry, verdict: Result<Verdict, Fault>) -> Outcome {
        match verdict {
            Ok(Verdict::Drop) => Outcome::Dropped,
            Ok(Verdict::Keep) => Outcome::Kept(Kept { entry, annotations: Vec::new() }),
            Ok(Verdict::KeepWith(json)) => Outcome::Kept(Kept { entry, annotations: vec![(self.using.name.clone(), json)] }),
            Err(fault) => Outcome::Fault(fault, entry),
        }
    }
}

/// Judges a page where there is a judge; keeps everything where there is none.
pub async fn judged(judge: Option<&Judge>, page: Vec<SharedEntry>, run: Run) -> Vec<Outcome> {
    match judge {
        Some(judge) if !page.is_empty() => judge.judge(page, run).await,
        _ => page.into_iter().map(|entry| Outcome::Kept(Kept { entry, annotations: Vec::new() })).collect(),
    }
}
