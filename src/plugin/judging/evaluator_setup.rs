//! An evaluator being made: its component configured and, where it has to be, tried, a call at a time.
//!
//! Must not know: who waits for it, or on which thread it is made.

use std::sync::Arc;

use crate::domain::entry::SharedEntry;
use crate::plugin::error::Refusal;
use crate::plugin::judging::evaluator::{Evaluator, Grounds};
use crate::plugin::judging::evaluator_cache::{Kept, Order};
use crate::plugin::judging::probe::Trial;
use crate::plugin::resources::capacity::Reservation;
use crate::plugin::resources::purse::Purse;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::convert::GuestInterest;
use crate::plugin::sandbox::guest::Guest;
use crate::plugin::sandbox::setup::Setup;
use crate::plugin::sandbox::start::InstanceStart;

/// An evaluator being made.
pub struct Making {
    order: Order,
    component: Component,
    digest: Arc<str>,
    shard: usize,
    work: Work,
    /// What the memory of its instances is charged to.
    purse: Arc<Purse>,
    /// The right to the instances it may come to hold.
    reserved: Option<Reservation>,
}

/// What is to be done.
enum Work {
    /// It is tried, which configures it.
    Try(Box<Trial>),
    /// It is only configured.
    Start(InstanceStart),
}

impl Work {
    /// Configuring it ended in a fault, which others will see who ask for the same.
    fn failed_to_configure(&self) -> bool {
        match self {
            Self::Try(trial) => trial.failed_to_configure(),
            Self::Start(start) => start.has_faulted(),
        }
    }
}

/// What a bit of the work led to.
type Step = Option<Result<(GuestInterest, Option<Guest>), Refusal>>;

impl Making {
    /// Nothing is done yet. Where the order asks for it, it is tried on the sample.
    #[must_use]
    pub fn new(order: Order, component: Component, sample: &[SharedEntry], shard: usize) -> Self {
        let purse = Arc::clone(order.purse());
        let work = if order.tried() {
            Work::Try(Box::new(Trial::new(Arc::new(sample.to_vec()), Arc::clone(&purse))))
        } else {
            Work::Start(InstanceStart::new(Arc::clone(&purse)))
        };
        Self { order, digest: component.digest().into(), component, shard, work, purse, reserved: None }
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
    pub const fn is_begun(&self) -> bool {
        self.reserved.is_some()
    }

    /// Whether somebody still waits for it.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.order.is_awaited()
    }

    /// Tells all who wait that it could not be done now.
    pub fn fail(self, refusal: Refusal) {
        self.order.fail(refusal);
    }

    /// Does the next bit; gives itself back while there is more to do and somebody waits for it.
    #[must_use]
    pub fn step(mut self, setup: &Setup, kept: &Kept) -> Option<Self> {
        if !self.order.is_wanted() {
            return None;
        }
        if self.reserved.is_none() {
            match setup.capacity.reserve(self.component.about()) {
                Ok(reserved) => self.reserved = Some(reserved),
                Err(refusal) => {
                    self.order.fail(refusal);
                    return None;
                }
            }
        }
        let Some(made) = self.advance(setup) else { return Some(self) };
        let Self { order, component, digest, shard, work, purse, reserved: Some(reserved) } = self else {
            return None;
        };
        let for_all = work.failed_to_configure() || matches!(made, Err(Refusal::Configure { .. }));
        let made = made.map_err(|refusal| refusal.legible(setup.config.text_bytes)).map(|(needs, first)| {
            let record = kept.records().of(&digest, &order.key().config_digest());
            record.asked_for_by(purse.payer().as_ref());
            let places = kept.places(component.digest());
            let grounds = Grounds { needs, first, shard, digest, record, places, purse, reserved };
            Evaluator::new(&setup.config, component.clone(), order.key().clone(), grounds)
        });
        order.fulfil(&component, made, for_all);
        None
    }

    fn advance(&mut self, setup: &Setup) -> Step {
        let config = &self.order.key().config;
        match &mut self.work {
            Work::Start(start) => match start.step(setup, &self.component, config) {
                Ok(made) => made.map(|(first, needs)| Ok((needs, Some(first)))),
                Err(refusal) => Some(Err(refusal)),
            },
            Work::Try(trial) => match trial.step(setup, &self.component, config) {
                Ok(false) => None,
                Ok(true) => {
                    let max = setup.config.log_bytes_per_minute;
                    let warning = trial.warning(setup.config.text_bytes);
                    if let Some(warning) =
                        warning.filter(|warning| self.component.counters().may_log_line(warning.len(), max))
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
