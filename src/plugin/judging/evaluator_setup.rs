//! The setup of an evaluator: its component is configured and, if required, tried, one call at a time.
//!
//! Must not know: who waits for it, or on which thread it runs.

use std::sync::Arc;

use crate::domain::entry::SharedEntry;
use crate::plugin::error::Refusal;
use crate::plugin::judging::evaluator::{Evaluator, EvaluatorParts};
use crate::plugin::judging::evaluator_cache::{EvaluatorCache, SetupTicket};
use crate::plugin::judging::repeatability_trial::RepeatabilityTrial;
use crate::plugin::resources::capacity::Reservation;
use crate::plugin::resources::memory_account::MemoryAccount;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::convert::GuestInterest;
use crate::plugin::sandbox::guest::Guest;
use crate::plugin::sandbox::setup::Setup;
use crate::plugin::sandbox::start::InstanceStart;

/// An evaluator that is being set up.
pub struct EvaluatorSetup {
    ticket: SetupTicket,
    component: Component,
    digest: Arc<str>,
    shard: usize,
    stage: SetupStage,
    /// The account that the memory of its instances is charged to.
    account: Arc<MemoryAccount>,
    /// The resources of the future evaluator; `None` until the setup starts.
    reserved: Option<Reservation>,
}

/// What is left to do.
enum SetupStage {
    /// The trial, which also configures it.
    Trial(Box<RepeatabilityTrial>),
    Configure(InstanceStart),
}

impl SetupStage {
    /// Whether configuring ended in a fault, which would happen to others with the same configuration too.
    fn failed_to_configure(&self) -> bool {
        match self {
            Self::Trial(trial) => trial.failed_to_configure(),
            Self::Configure(start) => start.has_faulted(),
        }
    }
}

/// The result of one step; `None` while there is more to do.
type Step = Option<Result<(GuestInterest, Option<Guest>), Refusal>>;

impl EvaluatorSetup {
    /// A setup that has not started. It includes a trial on the sample if the ticket requires one.
    #[must_use]
    pub fn new(ticket: SetupTicket, component: Component, sample: &[SharedEntry], shard: usize) -> Self {
        let account = Arc::clone(ticket.account());
        let stage = if ticket.needs_trial() {
            SetupStage::Trial(Box::new(RepeatabilityTrial::new(
                Arc::new(sample.to_vec()),
                Arc::clone(&account),
            )))
        } else {
            SetupStage::Configure(InstanceStart::new(Arc::clone(&account)))
        };
        Self { ticket, digest: component.digest().into(), component, shard, stage, account, reserved: None }
    }

    /// The component's digest.
    #[must_use]
    pub const fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    /// Index of the worker thread.
    #[must_use]
    pub const fn shard(&self) -> usize {
        self.shard
    }

    /// Whether it holds the resources of its evaluator.
    #[must_use]
    pub const fn is_started(&self) -> bool {
        self.reserved.is_some()
    }

    /// Whether anyone still waits for it.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.ticket.is_awaited()
    }

    /// Reports to all waiting that it cannot be done now.
    pub fn fail(self, refusal: Refusal) {
        self.ticket.fail(refusal);
    }

    /// Runs the next call. Returns itself while there is more to do and anyone waits for it.
    #[must_use]
    pub fn step(mut self, setup: &Setup, cache: &EvaluatorCache) -> Option<Self> {
        if !self.ticket.close_unless_awaited() {
            return None;
        }
        if self.reserved.is_none() {
            match setup.capacity.reserve(self.component.about()) {
                Ok(reserved) => self.reserved = Some(reserved),
                Err(refusal) => {
                    self.ticket.fail(refusal);
                    return None;
                }
            }
        }
        let Some(result) = self.advance(setup) else { return Some(self) };
        let Self { ticket, component, digest, shard, stage, account, reserved: Some(reserved) } = self else {
            return None;
        };
        let applies_without_trial =
            stage.failed_to_configure() || matches!(result, Err(Refusal::Configure { .. }));
        let result =
            result.map_err(|refusal| refusal.legible(setup.config.text_bytes)).map(|(needs, first)| {
                let record = cache.records().get_or_create(&digest, &ticket.key().config_digest());
                record.add_requester(account.address().as_ref());
                let slots = cache.queue_slots(component.digest());
                let parts = EvaluatorParts {
                    needs,
                    initial_instance: first,
                    shard,
                    digest,
                    record,
                    slots,
                    account,
                    reserved,
                };
                Evaluator::new(&setup.config, component.clone(), ticket.key().clone(), parts)
            });
        ticket.complete(&component, result, applies_without_trial);
        None
    }

    fn advance(&mut self, setup: &Setup) -> Step {
        let config = &self.ticket.key().config;
        match &mut self.stage {
            SetupStage::Configure(start) => match start.step(setup, &self.component, config) {
                Ok(result) => result.map(|(first, needs)| Ok((needs, Some(first)))),
                Err(refusal) => Some(Err(refusal)),
            },
            SetupStage::Trial(trial) => match trial.step(setup, &self.component, config) {
                Ok(false) => None,
                Ok(true) => {
                    let max = setup.config.log_bytes_per_minute;
                    let warning = trial.warning(setup.config.text_bytes);
                    if let Some(warning) =
                        warning.filter(|warning| self.component.counters().try_log_line(warning.len(), max))
                    {
                        let (name, digest) = (self.component.label(), self.component.digest());
                        tracing::warn!(plugin.id = name, plugin.digest = digest, "plugin {name}: {warning}");
                    }
                    // The instances of the trial were called, so the evaluator starts without one.
                    Some(Ok((trial.take_needs().unwrap_or_default(), None)))
                }
                Err(refusal) => Some(Err(refusal)),
            },
        }
    }
}
