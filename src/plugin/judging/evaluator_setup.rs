//! An evaluator being made: its component configured and, where it has to be, tried, a call at a time.
//!
//! Must not know: who waits for it, or on which thread it is made.

use std::sync::Arc;

use crate::domain::entry::SharedEntry;
use crate::plugin::error::Refusal;
use crate::plugin::judging::evaluator::{Evaluator, EvaluatorParts};
use crate::plugin::judging::evaluator_cache::{EvaluatorCache, SetupTicket};
use crate::plugin::judging::repeatability_trial::RepeatabilityTrial;
use crate::plugin::resources::capacity::Reservation;
use crate::plugin::resources::memory_account::MemoryAccount;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::convert::Needs;
use crate::plugin::sandbox::guest::Guest;
use crate::plugin::sandbox::setup::Setup;
use crate::plugin::sandbox::start::Start;

/// An evaluator being made.
pub struct EvaluatorSetup {
    ticket: SetupTicket,
    component: Component,
    digest: Arc<str>,
    shard: usize,
    stage: SetupStage,
    /// What the memory of its instances is charged to.
    account: Arc<MemoryAccount>,
    /// The right to the instances it may come to hold.
    reserved: Option<Reservation>,
}

/// What is to be done.
enum SetupStage {
    /// It is tried, which configures it.
    Trial(Box<RepeatabilityTrial>),
    /// It is only configured.
    Configure(Start),
}

impl SetupStage {
    /// Configuring it ended in a fault, which others will see who ask for the same.
    fn failed_to_configure(&self) -> bool {
        match self {
            Self::Trial(trial) => trial.failed_to_configure(),
            Self::Configure(start) => start.is_faulty(),
        }
    }
}

/// What a bit of the work led to.
type Step = Option<Result<(Needs, Option<Guest>), Refusal>>;

impl EvaluatorSetup {
    /// Nothing is done yet. Where the order asks for it, it is tried on the sample.
    #[must_use]
    pub fn new(order: SetupTicket, component: Component, sample: &[SharedEntry], shard: usize) -> Self {
        let purse = Arc::clone(order.account());
        let work = if order.needs_trial() {
            SetupStage::Trial(Box::new(RepeatabilityTrial::new(
                Arc::new(sample.to_vec()),
                Arc::clone(&purse),
            )))
        } else {
            SetupStage::Configure(Start::new(Arc::clone(&purse)))
        };
        Self {
            ticket: order,
            digest: component.digest().into(),
            component,
            shard,
            stage: work,
            account: purse,
            reserved: None,
        }
    }

    /// The component's digest.
    #[must_use]
    pub const fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    /// Which thread it belongs to.
    #[must_use]
    pub const fn shard(&self) -> usize {
        self.shard
    }

    /// Whether it holds what its evaluator may come to hold.
    #[must_use]
    pub const fn is_started(&self) -> bool {
        self.reserved.is_some()
    }

    /// Whether somebody still waits for it.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.ticket.is_awaited()
    }

    /// Tells all who wait that it could not be done now.
    pub fn fail(self, refusal: Refusal) {
        self.ticket.fail(refusal);
    }

    /// Does the next bit; gives itself back while there is more to do and somebody waits for it.
    #[must_use]
    pub fn step(mut self, setup: &Setup, kept: &EvaluatorCache) -> Option<Self> {
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
        let Some(made) = self.advance(setup) else { return Some(self) };
        let Self {
            ticket: order,
            component,
            digest,
            shard,
            stage: work,
            account: purse,
            reserved: Some(reserved),
        } = self
        else {
            return None;
        };
        let for_all = work.failed_to_configure() || matches!(made, Err(Refusal::Configure(_)));
        let made = made.map_err(|refusal| refusal.legible(setup.config.text_bytes)).map(|(needs, first)| {
            let record = kept.records().get_or_create(&digest, &order.key().config_digest());
            record.add_requester(purse.address().as_ref());
            let places = kept.queue_slots(component.digest());
            let grounds = EvaluatorParts {
                needs,
                initial_instance: first,
                shard,
                digest,
                record,
                places,
                purse,
                reserved,
            };
            Evaluator::new(&setup.config, component.clone(), order.key().clone(), grounds)
        });
        order.complete(&component, made, for_all);
        None
    }

    fn advance(&mut self, setup: &Setup) -> Step {
        let config = &self.ticket.key().config;
        match &mut self.stage {
            SetupStage::Configure(start) => match start.step(setup, &self.component, config) {
                Ok(made) => made.map(|(first, needs)| Ok((needs, Some(first)))),
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
                    // Its instances were called; the evaluator begins with none.
                    Some(Ok((trial.take_needs().unwrap_or_default(), None)))
                }
                Err(refusal) => Some(Err(refusal)),
            },
        }
    }
}
