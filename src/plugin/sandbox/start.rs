//! The start of an instance: it is made, then configured, a call at a time.
//!
//! A call of `configure` that ends in a fault is made once more, on another instance: on a busy machine any
//! may end so once.
//!
//! Must not know: what the instance is for.

use std::sync::Arc;

use crate::plugin::error::Refusal;
use crate::plugin::resources::purse::Purse;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::convert::GuestInterest;
use crate::plugin::sandbox::guest::{ConfigureError, Guest};
use crate::plugin::sandbox::setup::Setup;

/// An instance being started.
pub struct InstanceStart {
    /// What the memory of its instances is charged to.
    purse: Arc<Purse>,
    guest: Option<Guest>,
    /// The first call ended in a fault.
    faulted: bool,
    refused_by: Option<RefusedBy>,
}

/// What a configuration was refused_by by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefusedBy {
    Guest,
    Fault,
}

impl InstanceStart {
    /// Nothing is done yet.
    #[must_use]
    pub const fn new(purse: Arc<Purse>) -> Self {
        Self { purse, guest: None, faulted: false, refused_by: None }
    }

    /// Makes the instance or calls it; gives it away once it is configured, and is ready to start the next.
    ///
    /// # Errors
    /// `Instantiate`; `Configure` with the guest's words; `Deadline`, `HostBudget` or `Configure` where its
    /// call ended in a fault twice; `Full` where guests have no memory left.
    pub fn step(
        &mut self,
        setup: &Setup,
        component: &Component,
        config: &str,
    ) -> Result<Option<(Guest, GuestInterest)>, Refusal> {
        let Some(mut guest) = self.guest.take() else {
            self.guest = Some(Guest::with_purse(setup, component, &self.purse)?);
            return Ok(None);
        };
        match guest.configure(setup, config) {
            Ok(needs) => {
                self.faulted = false;
                Ok(Some((guest, needs)))
            }
            Err(ConfigureError::Faulted(_)) if !self.faulted => {
                self.faulted = true;
                Ok(None)
            }
            Err(ConfigureError::Faulted(refusal)) => {
                self.refused_by = Some(RefusedBy::Fault);
                Err(refusal)
            }
            Err(ConfigureError::RefusedByGuest(refusal)) => {
                self.refused_by = Some(RefusedBy::Guest);
                Err(refusal)
            }
            Err(ConfigureError::OverLimit(refusal)) => Err(refusal),
        }
    }

    /// The guest refused_by the configuration in its own words.
    #[must_use]
    pub fn is_refused_by_guest(&self) -> bool {
        self.refused_by == Some(RefusedBy::Guest)
    }

    /// Configuring ended in a fault twice.
    #[must_use]
    pub fn has_faulted(&self) -> bool {
        self.refused_by == Some(RefusedBy::Fault)
    }
}
