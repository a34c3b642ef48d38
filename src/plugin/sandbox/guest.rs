//! One instance of a component, configured: called on one thread at a time, thrown away after any trap.
//!
//! Must not know: who shares it, or on which thread it runs.

use std::sync::Arc;

use wasmtime::{Error, Store, StoreContextMut, Trap, UpdateDeadline};

use crate::domain::entry::Page;
use crate::domain::verdict::{Failure, Fault, Verdict};
use crate::plugin::error::Refusal;
use crate::plugin::history::Bound;
use crate::plugin::resources::charge::Charge;
use crate::plugin::resources::memory_account::MemoryAccount;
use crate::plugin::sandbox::bindings::Plugin;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::convert;
use crate::plugin::sandbox::convert::Needs;
use crate::plugin::sandbox::fault_text;
use crate::plugin::sandbox::fault_text::Doing;
use crate::plugin::sandbox::setup::Setup;
use crate::plugin::sandbox::state::State;

/// Why an instance did not take its configuration. It is of no use then.
pub enum Unready {
    /// The guest refused it, in its own words.
    Unwilling(Refusal),
    /// What it said is over a limit, or guests have no memory left.
    Refused(Refusal),
    /// The call ended in a fault: whether the guest or a busy machine is to blame shows when it is made
    /// again.
    Faulted(Refusal),
}

/// Whose memory was used up when a call ended for want of it. Neither is the pair's doing: it neither rests
/// nor is that remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowded {
    /// That of all guests.
    ByAll,
    /// That of the address which alone uses it, and so what the call cost is its own matter.
    ByItsAddress,
}

impl Crowded {
    /// What this refusal tells; `None`: it is not for want of memory.
    #[must_use]
    pub fn of(refusal: &Refusal) -> Option<Self> {
        match refusal {
            Refusal::AddressFull { .. } => Some(Self::ByItsAddress),
            refusal => refusal.is_busy().then_some(Self::ByAll),
        }
    }
}

/// An instance ready to judge.
pub struct Guest {
    store: Store<State>,
    plugin: Plugin,
}

/// What is told where a guest refuses a configuration and does not say why.
const REFUSED_IN_SILENCE: &str = "the plugin refused the configuration without a text";
/// What is told where a guest cannot judge a killmail and does not say why.
const FAILED_IN_SILENCE: &str = "the plugin could not judge it and gave no text";

impl Guest {
    /// Instantiates the component, without configuring it.
    ///
    /// # Errors
    /// `Instantiate` with what it did wrong, `Deadline` or `HostBudget` with the limit; `Full` where guests
    /// have no memory left.
    pub fn new(setup: &Setup, component: &Component) -> Result<Self, Refusal> {
        Self::paid(setup, component, &MemoryAccount::new(None))
    }

    /// The same, with its memory charged to this purse as well.
    ///
    /// # Errors
    /// As [`Guest::new`].
    pub fn paid(setup: &Setup, component: &Component, purse: &Arc<MemoryAccount>) -> Result<Self, Refusal> {
        let charge = Charge::new(&setup.capacity, component.class(), purse);
        let state = State::new(&setup.config, &setup.outside, component, charge);
        let mut store = Store::new(&setup.world(component.class()).wasm, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(setup.config.hostcall_bytes);
        store.epoch_deadline_callback(look);
        store.set_epoch_deadline(1);
        store.data_mut().configure();
        component.counters().record_instance();
        let made = component.pre().instantiate(&mut store);
        store.data_mut().end_call();
        match made {
            Ok(plugin) => Ok(Self { store, plugin }),
            Err(error) => Err(refused(&store, setup, Doing::Start, &error)),
        }
    }

    /// Configures the instance: what it needs to see.
    ///
    /// # Errors
    /// As [`Unready`] tells.
    pub fn configure(&mut self, setup: &Setup, config: &str) -> Result<Needs, Unready> {
        self.store.data_mut().configure();
        self.store.set_epoch_deadline(1);
        let said = self.plugin.killstream_plugin_guest().call_configure(&mut self.store, config);
        self.store.data_mut().end_call();
        let own = |why: &str| fault_text::own(why, setup.config.text_bytes, REFUSED_IN_SILENCE);
        let said = match said {
            Ok(said) => said.map_err(|why| Unready::Unwilling(Refusal::Configure(own(&why))))?,
            Err(error) => {
                let refusal = refused(&self.store, setup, Doing::Configure, &error);
                return Err(if refusal.is_busy() {
                    Unready::Refused(refusal)
                } else {
                    Unready::Faulted(refusal)
                });
            }
        };
        let (needs, named) = convert::needs(said);
        let max = setup.config.interest_ids_max;
        if named > max {
            let why =
                format!("the plugin's interest names {named} ids; at most {max} (plugin.interest_ids_max)");
            return Err(Unready::Refused(Refusal::Configure(why)));
        }
        Ok(needs)
    }

    /// Judges the killmail at this place of the page.
    ///
    /// # Errors
    /// What the guest did wrong. After anything but `BadOutput` the instance is dead.
    pub fn evaluate(&mut self, page: &Page, at: usize, bound: Bound) -> Result<Verdict, Failure> {
        self.store.data_mut().judge(page, at, bound);
        self.store.set_epoch_deadline(1);
        let summary = convert::summary(&page[at]);
        let said = self.plugin.killstream_plugin_guest().call_evaluate(&mut self.store, summary);
        let state = self.store.data_mut();
        state.end_call();
        let config = &state.config;
        match said {
            Ok(said) => {
                let said = said.map_err(|why| fault_text::own(&why, config.text_bytes, FAILED_IN_SILENCE));
                convert::verdict(said, config.verdict_bytes).map_err(|(fault, why)| Failure::new(fault, why))
            }
            Err(error) => {
                let fault = fault_of(state, &error);
                Err(Failure::new(fault, fault_text::of_failure(state, Doing::Evaluate, fault, &error)))
            }
        }
    }

    /// What ended the last call, where that was not what this guest alone asked for: guests have no memory
    /// left that it could have.
    #[must_use]
    pub fn out_of_budget(&self) -> Option<&Refusal> {
        self.store.data().limiter.out_of_budget.as_ref()
    }
}

/// What a call that ended before its time is refused with.
fn refused(store: &Store<State>, setup: &Setup, doing: Doing, error: &Error) -> Refusal {
    let state = store.data();
    if let Some(full) = &state.limiter.out_of_budget {
        return full.clone();
    }
    let fault = fault_of(state, error);
    let told = fault_text::of_failure(state, doing, fault, error);
    let message = match doing {
        Doing::Start => format!("making an instance of the plugin ended in the fault {fault}: {told}"),
        _ => format!("configuring the plugin ended in the fault {fault}: {told}"),
    };
    match fault {
        Fault::Deadline => Refusal::Deadline { message, limit: fault_text::deadline(state, doing).1 },
        Fault::HostBudget => Refusal::HostBudget { message, limit: setup.config.host_cpu_ms },
        _ if doing == Doing::Start => Refusal::Instantiate(format!("{fault}: {told}")),
        _ => Refusal::Configure(message),
    }
}

/// Called at each tick a guest lives to see.
fn look(mut store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data_mut();
    if state.watch.is_expired() {
        state.fault = Some(Fault::Deadline);
        return Ok(UpdateDeadline::Interrupt);
    }
    Ok(UpdateDeadline::Continue(1))
}

/// The word for what ended a call: what the host saw first, else what WebAssembly says.
fn fault_of(state: &State, error: &Error) -> Fault {
    if let Some(fault) = state.fault.or(state.limiter.exceeded) {
        return fault;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => Fault::Stack,
        Some(Trap::Interrupt) => Fault::Deadline,
        Some(_) => Fault::Trap,
        None if is_too_much_data(error) => Fault::Output,
        None => Fault::Trap,
    }
}

/// wasmtime keeps the type of this error to itself; a test holds on to its words.
fn is_too_much_data(error: &Error) -> bool {
    error.chain().any(|cause| cause.to_string().contains("fuel allocated for hostcalls has been exhausted"))
}
