//! The start of an instance: it is made, then configured, a call at a time.
//!
//! A call of `configure` that ends in a fault is made once more, on another instance: on a busy machine any
//! may end so once.
//!
//! Must not know: what the instance is for.

use std::sync::Arc;

use crate::plugin::error::Refusal;
use crate::plugin::resources::memory_account::MemoryAccount;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::convert::Needs;
use crate::plugin::sandbox::guest::{Guest, Unready};
use crate::plugin::sandbox::setup::Setup;

/// An instance being started.
pub struct Start {
    /// What the memory of its instances is charged to.
    purse: Arc<MemoryAccount>,
    guest: Option<Guest>,
    /// The first call ended in a fault.
    faulted: bool,
    refused: Option<By>,
}

/// What a configuration was refused by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Words,
    Fault,
}

impl Start {
    /// Nothing is done yet.
    #[must_use]
    pub const fn new(purse: Arc<MemoryAccount>) -> Self {
        Self { purse, guest: None, faulted: false, refused: None }
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
    ) -> Result<Option<(Guest, Needs)>, Refusal> {
        let Some(mut guest) = self.guest.take() else {
            self.guest = Some(Guest::paid(setup, component, &self.purse)?);
            return Ok(None);
        };
        match guest.configure(setup, config) {
            Ok(needs) => {
                self.faulted = false;
                Ok(Some((guest, needs)))
            }
            Err(Unready::Faulted(_)) if !self.faulted => {
                self.faulted = true;
                Ok(None)
            }
            Err(Unready::Faulted(refusal)) => {
                self.refused = Some(By::Fault);
                Err(refusal)
            }
            Err(Unready::Unwilling(refusal)) => {
                self.refused = Some(By::Words);
                Err(refusal)
            }
            Err(Unready::Refused(refusal)) => Err(refusal),
        }
    }

    /// The guest refused the configuration in its own words.
    #[must_use]
    pub fn is_unwilling(&self) -> bool {
        self.refused == Some(By::Words)
    }

    /// Configuring ended in a fault twice.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.refused == Some(By::Fault)
    }
}
