//! Starts an instance step by step: creates it, then configures it.
//!
//! If `configure` ends in a fault, it is called once more, on another instance, because any call may fail
//! once on a busy machine.
//!
//! Must not know: what the instance is for.

use std::sync::Arc;

use crate::plugin::error::Refusal;
use crate::plugin::resources::memory_account::MemoryAccount;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::convert::GuestInterest;
use crate::plugin::sandbox::guest::{ConfigureError, Guest};
use crate::plugin::sandbox::setup::Setup;

/// An instance being started.
pub struct InstanceStart {
    /// The account that the memory of the instances is charged to.
    account: Arc<MemoryAccount>,
    guest: Option<Guest>,
    /// The first call of `configure` ended in a fault.
    faulted: bool,
    refused_by: Option<RefusedBy>,
}

/// What refused the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefusedBy {
    Guest,
    Fault,
}

impl InstanceStart {
    /// Nothing is done yet.
    #[must_use]
    pub const fn new(account: Arc<MemoryAccount>) -> Self {
        Self { account, guest: None, faulted: false, refused_by: None }
    }

    /// Creates the instance, or configures it. Returns it once it is configured; then the next step starts
    /// another one.
    ///
    /// # Errors
    /// `Instantiate`; `Configure` with the guest's own text; `Deadline`, `HostBudget` or `Configure` if
    /// `configure` ended in a fault twice; `Full` if guests have no memory left.
    pub fn step(
        &mut self,
        setup: &Setup,
        component: &Component,
        config: &str,
    ) -> Result<Option<(Guest, GuestInterest)>, Refusal> {
        let Some(mut guest) = self.guest.take() else {
            self.guest = Some(Guest::with_account(setup, component, &self.account)?);
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

    /// Whether the guest refused the configuration in its own words.
    #[must_use]
    pub fn is_refused_by_guest(&self) -> bool {
        self.refused_by == Some(RefusedBy::Guest)
    }

    /// Whether `configure` ended in a fault twice.
    #[must_use]
    pub fn has_faulted(&self) -> bool {
        self.refused_by == Some(RefusedBy::Fault)
    }
}
