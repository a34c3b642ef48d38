//! A reader whose plugin is not ready yet, or changes: it waits, and goes on with the version that judges now.
//!
//! Must not know: how pages are read.

use tokio::time::{Instant, sleep_until};

use crate::feed::error::FeedError;
use crate::feed::event::Event;
use crate::feed::preload::Preload;
use crate::feed::reader::{AGAIN, Phase, Reader};
use crate::feed::wake_terms::wake_terms;

impl Reader {
    /// Goes on with the version that judges now. A preload ends with the one it was planned with, unless the
    /// plugin is gone.
    pub(super) async fn follow_plugin(&mut self) -> Result<(), FeedError> {
        if self.is_preparing() {
            return self.become_ready().await;
        }
        let is_due = self.again.is_some_and(|at| Instant::now() >= at);
        let Some(judge) = self.judge.as_mut().filter(|judge| is_due || judge.may_have_changed()) else {
            return Ok(());
        };
        match judge.follow().await {
            Ok(_) if matches!(self.phase, Phase::Preload(_)) => {}
            Ok((next, moved)) => {
                self.again = None;
                if moved {
                    let woken = wake_terms(&self.subscription.filter, next.interest());
                    self.held.replace(&mut (*self.subscription).clone(), woken);
                }
                self.judge = Some(next);
            }
            Err(FeedError::Plugin(error)) if error.is_transient() => {
                // All readers of a plugin want its new version at once: some hear that there is no room now.
                tracing::debug!("the version before goes on judging for now: {error}");
                judge.see_change();
                self.again = Some(Instant::now() + AGAIN);
            }
            Err(FeedError::Plugin(error)) => {
                self.end(Event::Ended { reason: "plugin_gone", message: error.to_string() })
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Waits until the plugin can judge or the server stops.
    async fn become_ready(&mut self) -> Result<(), FeedError> {
        if let Some(at) = self.again {
            sleep_until(at).await;
            self.again = None;
        }
        let Some(mut judge) = self.judge.clone() else { return Ok(()) };
        tokio::select! {
            ready = judge.ready() => match ready {
                Ok(()) => {
                    let woken = wake_terms(&self.subscription.filter, judge.interest());
                    self.held.replace(&mut (*self.subscription).clone(), woken);
                    self.judge = Some(judge);
                    if let Phase::Preload(planned) = &self.phase {
                        // Its batches were counted without what the plugin needs.
                        let Preload { filter, form, head, after, .. } = planned.clone();
                        self.phase = Phase::Preload(self.plan(filter.since.unwrap_or(i64::MIN), form, head, after).await?);
                    }
                }
                Err(FeedError::Plugin(error)) if error.is_transient() => self.again = Some(Instant::now() + AGAIN),
                Err(FeedError::Plugin(error)) => self.end(Event::Ended { reason: "plugin_gone", message: error.to_string() }),
                Err(error) => return Err(error),
            },
            // The stopping is told when the next event is asked for.
            _ = self.closing.changed() => {}
        }
        Ok(())
    }
}
