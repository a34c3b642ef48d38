//! How a reader waits for its plugin to become ready, and follows its changes.
//!
//! Must not know: how pages are read.

use tokio::time::{Instant, sleep_until};

use crate::feed::error::FeedError;
use crate::feed::event::Event;
use crate::feed::preload::Preload;
use crate::feed::reader::{PLUGIN_RETRY, Phase, Reader};
use crate::feed::wake_terms::wake_terms;

impl Reader {
    /// Switches to the active version of the plugin. A preload ends with the version it was planned with, unless the
    /// plugin is gone.
    pub(super) async fn follow_plugin(&mut self) -> Result<(), FeedError> {
        if self.is_preparing() {
            return self.become_ready().await;
        }
        let is_due = self.retry_at.is_some_and(|at| Instant::now() >= at);
        let Some(plugin) = self.plugin.as_mut().filter(|plugin| is_due || plugin.may_have_changed()) else {
            return Ok(());
        };
        match plugin.follow().await {
            Ok(_) if matches!(self.phase, Phase::Preload(_)) => {}
            Ok((next, moved)) => {
                self.retry_at = None;
                if moved {
                    let woken = wake_terms(&self.subscription.filter, next.interest());
                    self.lease.replace(&mut (*self.subscription).clone(), woken);
                }
                self.plugin = Some(next);
            }
            Err(FeedError::Plugin(error)) if error.is_transient() => {
                // All readers of a plugin ask for its new version at once, so some are told that there is no room.
                tracing::debug!("the previous version of the plugin stays in use for now: {error}");
                plugin.mark_unchanged();
                self.retry_at = Some(Instant::now() + PLUGIN_RETRY);
            }
            Err(FeedError::Plugin(error)) => {
                self.end(Event::Ended { reason: "plugin_gone", message: error.to_string() })
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Waits until the plugin is ready or the server stops.
    async fn become_ready(&mut self) -> Result<(), FeedError> {
        if let Some(at) = self.retry_at {
            sleep_until(at).await;
            self.retry_at = None;
        }
        let Some(mut plugin) = self.plugin.clone() else { return Ok(()) };
        tokio::select! {
            ready = plugin.ready() => match ready {
                Ok(()) => {
                    let woken = wake_terms(&self.subscription.filter, plugin.interest());
                    self.lease.replace(&mut (*self.subscription).clone(), woken);
                    self.plugin = Some(plugin);
                    if let Phase::Preload(planned) = &self.phase {
                        // Its batches were counted without the plugin's interest.
                        let Preload { filter, form, head, after, .. } = planned.clone();
                        self.phase = Phase::Preload(self.plan(filter.since.unwrap_or(i64::MIN), form, head, after).await?);
                    }
                }
                Err(FeedError::Plugin(error)) if error.is_transient() => self.retry_at = Some(Instant::now() + PLUGIN_RETRY),
                Err(FeedError::Plugin(error)) => self.end(Event::Ended { reason: "plugin_gone", message: error.to_string() }),
                Err(error) => return Err(error),
            },
            // The next call of `next` reports the stop.
            _ = self.closing.changed() => {}
        }
        Ok(())
    }
}
