//! The plugin of a subscription: takes pages of killmails and returns one outcome per killmail, in order.
//!
//! Must not know: how plugins run, or what happens to a fault.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::entry::SharedEntry;
use crate::domain::filter::Interest;
use crate::domain::skip::{DELIVERY, Skip};
use crate::domain::subscription::PluginUse;
use crate::domain::verdict::{Failure, Fault, Verdict};
use crate::feed::Feed;
use crate::feed::error::FeedError;
use crate::feed::event::Delivered;
use crate::plugin::judging::evaluator::Evaluator;
use crate::plugin::judging::run::Run;
use crate::plugins::Plugins;
use crate::plugins::error::PluginsError;
use crate::plugins::plugin_quota::PluginQuota;

/// What happens to a killmail.
#[derive(Debug)]
pub enum Outcome {
    /// It is delivered.
    Kept(Delivered),
    /// The plugin dropped it.
    Dropped,
    /// The plugin failed on it.
    Fault(Failure, SharedEntry),
}

#[derive(Clone)]
pub struct SubscriptionPlugin {
    plugins: Arc<Plugins>,
    quota: Arc<PluginQuota>,
    using: PluginUse,
    /// `None` while the plugin is being prepared.
    evaluator: Option<Evaluator>,
    changes: watch::Receiver<u64>,
}

impl SubscriptionPlugin {
    /// Finds the plugin and configures it.
    ///
    /// # Errors
    /// There is no such plugin, or it refuses its configuration.
    pub async fn open(feed: &Feed, using: &PluginUse) -> Result<Self, FeedError> {
        Self::resolve(feed.plugins.clone(), feed.plugin_quota().clone(), using.clone()).await
    }

    /// The same for readers, which can wait: accepts a plugin that is still being prepared, see
    /// [`SubscriptionPlugin::ready`].
    ///
    /// # Errors
    /// As [`SubscriptionPlugin::open`].
    pub async fn open_unready(feed: &Feed, using: &PluginUse) -> Result<Self, FeedError> {
        let (plugins, quota, changes) =
            (feed.plugins.clone(), feed.plugin_quota().clone(), feed.plugins.watch());
        match Self::resolve(plugins.clone(), quota.clone(), using.clone()).await {
            Err(error) if is_preparing(&error) => {
                Ok(Self { plugins, quota, using: using.clone(), evaluator: None, changes })
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
    /// It cannot be used, or it refuses its configuration.
    pub async fn ready(&mut self) -> Result<(), FeedError> {
        while self.evaluator.is_none() {
            // Changes from here on are noticed, also while it is being resolved.
            self.changes.mark_unchanged();
            match Self::resolve(self.plugins.clone(), self.quota.clone(), self.using.clone()).await {
                Ok(ready) => *self = ready,
                Err(error) if is_preparing(&error) => self.changed().await,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn resolve(
        plugins: Arc<Plugins>,
        quota: Arc<PluginQuota>,
        using: PluginUse,
    ) -> Result<Self, FeedError> {
        let changes = plugins.watch();
        let evaluator = plugins.resolve_for(&using, quota.payer(&using).as_ref()).await?;
        Ok(Self { plugins, quota, using, evaluator: Some(evaluator), changes })
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.using.name
    }

    /// Which killmails the plugin needs to see.
    pub fn interest(&self) -> Option<&Interest> {
        self.evaluator.as_ref().and_then(Evaluator::interest)
    }

    /// Waits until some plugin is promoted, rolled back or deleted.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether some plugin changed since this one was resolved or last compared.
    #[must_use]
    pub fn may_have_changed(&self) -> bool {
        self.changes.has_changed().unwrap_or(false)
    }

    /// Marks the change as handled.
    pub fn mark_unchanged(&mut self) {
        self.changes.mark_unchanged();
    }

    /// Marks the change as not handled yet.
    pub fn mark_changed(&mut self) {
        self.changes.mark_changed();
    }

    /// Resolves the plugin again after a change; the flag says whether the version differs. The old version stays in use
    /// until the new one is ready.
    ///
    /// # Errors
    /// The plugin is gone, or its new version refuses the configuration.
    pub async fn follow(&self) -> Result<(Self, bool), FeedError> {
        let mut next = self.clone();
        next.changes.mark_unchanged();
        match Self::resolve(self.plugins.clone(), self.quota.clone(), self.using.clone()).await {
            Ok(resolved) => {
                let digest =
                    |plugin: &Self| plugin.evaluator.as_ref().map(|evaluator| evaluator.digest().to_owned());
                let moved = digest(&resolved) != digest(self);
                Ok((resolved, moved))
            }
            Err(error) if is_preparing(&error) => Ok((next, false)),
            Err(error) => Err(error),
        }
    }

    /// Limits the CPU time of its judgments.
    #[must_use]
    pub fn limited_to(self, cpu: Duration) -> Self {
        Self { evaluator: self.evaluator.map(|evaluator| evaluator.with_cpu_limit(cpu)), ..self }
    }

    /// Whether its CPU time is used up.
    pub fn is_spent(&self) -> bool {
        self.evaluator.as_ref().is_some_and(Evaluator::is_cpu_exhausted)
    }

    /// Judges a page, in order. Once the CPU time of [`SubscriptionPlugin::limited_to`] is used up, the rest of the page
    /// has no outcome.
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
        let id = entry.facts.killmail_id;
        match verdict {
            Ok(Verdict::Drop) => {
                tracing::debug!(target: DELIVERY, { killmail.id = id, why = %Skip::Verdict }, "not delivered");
                Outcome::Dropped
            }
            Ok(Verdict::Keep) => Outcome::Kept(Delivered { entry, annotations: Vec::new() }),
            Ok(Verdict::KeepWith(json)) => {
                Outcome::Kept(Delivered { entry, annotations: vec![(self.using.name.clone(), json)] })
            }
            Err(failure) => {
                let fault = failure.fault.word();
                tracing::debug!(target: DELIVERY, { killmail.id = id, why = %Skip::Fault, fault }, "not delivered");
                Outcome::Fault(failure, entry)
            }
        }
    }
}

/// Whether the plugin is still being prepared.
const fn is_preparing(error: &FeedError) -> bool {
    matches!(error, FeedError::Plugin(PluginsError::Preparing { .. }))
}

/// Judges a page; without a plugin everything is delivered.
pub async fn judge_page(
    plugin: Option<&SubscriptionPlugin>,
    page: Vec<SharedEntry>,
    run: Run,
) -> Vec<Outcome> {
    match plugin {
        Some(plugin) if !page.is_empty() => plugin.judge(page, run).await,
        _ => page
            .into_iter()
            .map(|entry| Outcome::Kept(Delivered { entry, annotations: Vec::new() }))
            .collect(),
    }
}
