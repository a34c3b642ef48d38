//! A subscription's plugin at work: pages go in, kept killmails and faults come out, in order.
//!
//! Must not know: how guests run, or what becomes of a fault.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::entry::SharedEntry;
use crate::domain::filter::Interest;
use crate::domain::subscription::PluginUse;
use crate::domain::verdict::{Failure, Fault, Verdict};
use crate::feed::Feed;
use crate::feed::error::FeedError;
use crate::feed::event::Delivered;
use crate::plugin::judging::evaluator::Evaluator;
use crate::plugin::judging::run::Run;
use crate::plugins;
use crate::plugins::Plugins;
use crate::plugins::plugin_quota::PluginQuota;

/// What became of one killmail.
#[derive(Debug)]
pub enum Outcome {
    /// Wanted.
    Kept(Delivered),
    /// Not wanted.
    Dropped,
    /// Could not be judged.
    Fault(Failure, SharedEntry),
}

/// A plugin judging for one subscription.
#[derive(Clone)]
pub struct SubscriptionPlugin {
    plugins: Arc<Plugins>,
    judges: Arc<PluginQuota>,
    using: PluginUse,
    /// `None` while the plugin is being prepared.
    evaluator: Option<Evaluator>,
    changes: watch::Receiver<u64>,
}

impl SubscriptionPlugin {
    /// Finds the plugin and has it accept its configuration.
    ///
    /// # Errors
    /// There is no such plugin, or it refuses.
    pub async fn open(feed: &Feed, using: &PluginUse) -> Result<Self, FeedError> {
        Self::resolve(feed.plugins().clone(), feed.plugin_quota().clone(), using.clone()).await
    }

    /// The same for readers, which can wait: a plugin that is being prepared is taken too, see
    /// [`SubscriptionPlugin::ready`].
    ///
    /// # Errors
    /// As [`SubscriptionPlugin::open`].
    pub async fn open_unready(feed: &Feed, using: &PluginUse) -> Result<Self, FeedError> {
        let (plugins, judges, changes) =
            (feed.plugins().clone(), feed.plugin_quota().clone(), feed.plugins().watch());
        match Self::resolve(plugins.clone(), judges.clone(), using.clone()).await {
            Err(error) if is_preparing(&error) => {
                Ok(Self { plugins, judges, using: using.clone(), evaluator: None, changes })
            }
            resolved => resolved,
        }
    }

    /// Whether the plugin can judge now.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.evaluator.is_some()
    }

    /// Waits until the plugin can judge. Dropping the future loses nothing.
    ///
    /// # Errors
    /// It turned out that it cannot, or it refuses its configuration.
    pub async fn ready(&mut self) -> Result<(), FeedError> {
        while self.evaluator.is_none() {
            // What changes from here on is heard, also while it is being resolved.
            self.changes.mark_unchanged();
            match Self::resolve(self.plugins.clone(), self.judges.clone(), self.using.clone()).await {
                Ok(ready) => *self = ready,
                Err(error) if is_preparing(&error) => self.changed().await,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn resolve(
        plugins: Arc<Plugins>,
        judges: Arc<PluginQuota>,
        using: PluginUse,
    ) -> Result<Self, FeedError> {
        let changes = plugins.watch();
        let evaluator = plugins.resolve_for(&using, judges.payer(&using).as_ref()).await?;
        Ok(Self { plugins, judges, using, evaluator: Some(evaluator), changes })
    }

    /// Name of the plugin.
    pub fn name(&self) -> &str {
        &self.using.name
    }

    /// What the plugin promised to need.
    pub fn interest(&self) -> Option<&Interest> {
        self.evaluator.as_ref().and_then(Evaluator::interest)
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

    /// As if the change had been followed.
    pub fn see_change(&mut self) {
        self.changes.mark_unchanged();
    }

    /// As if the change were still to be seen: whoever was told of it did not get round to it.
    pub fn forget_change(&mut self) {
        self.changes.mark_changed();
    }

    /// The judge to go on with after a change, and whether it judges by another version. Until the new
    /// version is ready the old one goes on.
    ///
    /// # Errors
    /// The plugin is gone, or its new version refuses the configuration.
    pub async fn follow(&self) -> Result<(Self, bool), FeedError> {
        let mut next = self.clone();
        next.changes.mark_unchanged();
        match Self::resolve(self.plugins.clone(), self.judges.clone(), self.using.clone()).await {
            Ok(resolved) => {
                let digest =
                    |judge: &Self| judge.evaluator.as_ref().map(|evaluator| evaluator.digest().to_owned());
                let moved = digest(&resolved) != digest(self);
                Ok((resolved, moved))
            }
            Err(error) if is_preparing(&error) => Ok((next, false)),
            Err(error) => Err(error),
        }
    }

    /// The same for as long as its judgments cost less than so much CPU time.
    #[must_use]
    pub fn within(self, cpu: Duration) -> Self {
        Self { evaluator: self.evaluator.map(|evaluator| evaluator.with_cpu_limit(cpu)), ..self }
    }

    /// Whether its judgments cost what they may.
    pub fn is_spent(&self) -> bool {
        self.evaluator.as_ref().is_some_and(Evaluator::is_cpu_exhausted)
    }

    /// Judges a page, in order; only what is ready can. The last killmails of it are left out where they
    /// would cost more than may be spent ([`SubscriptionPlugin::within`]).
    pub async fn judge(&self, page: Vec<SharedEntry>, run: Run) -> Vec<Outcome> {
        let Some(evaluator) = &self.evaluator else {
            let unready = Failure::new(Fault::Instantiate, "it is being prepared");
            return page.into_iter().map(|entry| Outcome::Fault(unready.clone(), entry)).collect();
        };
        let page = Arc::new(page);
        let verdicts = self.plugins.engine().judge(evaluator, Arc::clone(&page), run).await;
        Arc::unwrap_or_clone(page)
            .into_iter()
            .zip(verdicts)
            .map(|(entry, verdict)| self.outcome(entry, verdict))
            .collect()
    }

    fn outcome(&self, entry: SharedEntry, verdict: Result<Verdict, Failure>) -> Outcome {
        match verdict {
            Ok(Verdict::Drop) => Outcome::Dropped,
            Ok(Verdict::Keep) => Outcome::Kept(Delivered { entry, annotations: Vec::new() }),
            Ok(Verdict::KeepWith(json)) => {
                Outcome::Kept(Delivered { entry, annotations: vec![(self.using.name.clone(), json)] })
            }
            Err(failure) => Outcome::Fault(failure, entry),
        }
    }
}

/// Whether the plugin is being prepared, and can be had later.
const fn is_preparing(error: &FeedError) -> bool {
    matches!(error, FeedError::Plugin(plugins::Error::Preparing { .. }))
}

/// Judges a page where there is a judge; keeps everything where there is none.
pub async fn judged(judge: Option<&SubscriptionPlugin>, page: Vec<SharedEntry>, run: Run) -> Vec<Outcome> {
    match judge {
        Some(judge) if !page.is_empty() => judge.judge(page, run).await,
        _ => page
            .into_iter()
            .map(|entry| Outcome::Kept(Delivered { entry, annotations: Vec::new() }))
            .collect(),
    }
}
