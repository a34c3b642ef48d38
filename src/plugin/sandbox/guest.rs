//! One configured instance of a component. It is called on one thread at a time and dropped after any trap.
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
use crate::plugin::sandbox::convert::GuestInterest;
use crate::plugin::sandbox::fault_text;
use crate::plugin::sandbox::fault_text::GuestCall;
use crate::plugin::sandbox::setup::Setup;
use crate::plugin::sandbox::state::State;

/// Why an instance could not be configured. The instance cannot be used then.
pub enum ConfigureError {
    /// The guest refused the configuration, in its own words.
    RefusedByGuest(Refusal),
    /// Its answer exceeds a limit, or guests have no memory left.
    OverLimit(Refusal),
    /// The call ended in a fault. Only a second call shows whether the guest or a busy machine is to blame.
    Faulted(Refusal),
}

/// Whose memory ran out when a call ended because of it. Neither is the fault of the pair of plugin and
/// configuration: the pair is not suspended, and the failure is not remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryShortage {
    /// The memory of all guests.
    AllGuests,
    /// The memory of the only address that uses the pair, so the cost of the call is counted against that
    /// address alone.
    OneAddress,
}

impl MemoryShortage {
    /// The shortage that a refusal is about; `None` if it is about something else.
    #[must_use]
    pub fn from_refusal(refusal: &Refusal) -> Option<Self> {
        match refusal {
            Refusal::AddressFull { .. } => Some(Self::OneAddress),
            refusal => refusal.is_busy().then_some(Self::AllGuests),
        }
    }
}

/// An instance that is ready to evaluate killmails.
pub struct Guest {
    store: Store<State>,
    plugin: Plugin,
}

/// The message if a guest refuses a configuration and does not say why.
const REFUSED_WITHOUT_TEXT: &str = "the plugin rejected the configuration without giving a reason";
/// The message if a guest cannot evaluate a killmail and does not say why.
const FAILED_WITHOUT_TEXT: &str = "the plugin could not evaluate the killmail and gave no reason";

impl Guest {
    /// Instantiates the component, without configuring it.
    ///
    /// # Errors
    /// `Instantiate` with what it did wrong, `Deadline` or `HostBudget` with the limit; `Full` if guests have
    /// no memory left.
    pub fn new(setup: &Setup, component: &Component) -> Result<Self, Refusal> {
        Self::with_account(setup, component, &MemoryAccount::new(None))
    }

    /// As [`Guest::new`], with its memory also charged to `account`.
    ///
    /// # Errors
    /// As [`Guest::new`].
    pub fn with_account(
        setup: &Setup,
        component: &Component,
        account: &Arc<MemoryAccount>,
    ) -> Result<Self, Refusal> {
        let charge = Charge::new(&setup.capacity, component.class(), account);
        let state = State::new(&setup.config, &setup.services, component, charge);
        let mut store = Store::new(&setup.class_engine(component.class()).engine, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(setup.config.hostcall_bytes);
        store.epoch_deadline_callback(check_deadline);
        store.set_epoch_deadline(1);
        store.data_mut().begin_configure();
        component.counters().record_instance();
        let instantiated = component.instance_pre().instantiate(&mut store);
        store.data_mut().end_call();
        match instantiated {
            Ok(plugin) => Ok(Self { store, plugin }),
            Err(error) => Err(refusal_from(&store, setup, GuestCall::Start, &error)),
        }
    }

    /// Configures the instance. Returns which killmails the guest needs to see.
    ///
    /// # Errors
    /// See [`ConfigureError`].
    pub fn configure(&mut self, setup: &Setup, config: &str) -> Result<GuestInterest, ConfigureError> {
        self.store.data_mut().begin_configure();
        self.store.set_epoch_deadline(1);
        let answer = self.plugin.killstream_plugin_guest().call_configure(&mut self.store, config);
        self.store.data_mut().end_call();
        let guest_text =
            |why: &str| fault_text::guest_text_or(why, setup.config.text_bytes, REFUSED_WITHOUT_TEXT);
        let answer = match answer {
            Ok(answer) => answer.map_err(|why| {
                ConfigureError::RefusedByGuest(Refusal::Configure { message: guest_text(&why), limit: None })
            })?,
            Err(error) => {
                let refusal = refusal_from(&self.store, setup, GuestCall::Configure, &error);
                return Err(if refusal.is_busy() {
                    ConfigureError::OverLimit(refusal)
                } else {
                    ConfigureError::Faulted(refusal)
                });
            }
        };
        let (needs, named) = convert::guest_interest(answer);
        let max = setup.config.interest_ids_max;
        if named > max {
            let message =
                format!("the plugin's interest names {named} ids; at most {max} (plugin.interest_ids_max)");
            return Err(ConfigureError::OverLimit(Refusal::Configure { message, limit: Some(max as u64) }));
        }
        Ok(needs)
    }

    /// Evaluates the killmail at index `at` of the page.
    ///
    /// # Errors
    /// The guest's fault. The instance can be used again only after `BadOutput`.
    pub fn evaluate(&mut self, page: &Page, at: usize, bound: Bound) -> Result<Verdict, Failure> {
        self.store.data_mut().begin_evaluate(page, at, bound);
        self.store.set_epoch_deadline(1);
        let summary = convert::summary(&page[at]);
        let answer = self.plugin.killstream_plugin_guest().call_evaluate(&mut self.store, summary);
        let state = self.store.data_mut();
        state.end_call();
        let config = &state.config;
        match answer {
            Ok(answer) => {
                let answer = answer
                    .map_err(|why| fault_text::guest_text_or(&why, config.text_bytes, FAILED_WITHOUT_TEXT));
                convert::verdict(answer, config.verdict_bytes)
            }
            Err(error) => {
                let fault = classify_fault(state, &error);
                Err(Failure::new(
                    fault,
                    fault_text::describe_fault(state, GuestCall::Evaluate, fault, &error),
                ))
            }
        }
    }

    /// The refusal that ended the last call, if guests had no memory left, rather than this guest exceeding
    /// its own limits.
    #[must_use]
    pub fn out_of_budget(&self) -> Option<&Refusal> {
        self.store.data().limiter.out_of_budget.as_ref()
    }
}

/// The refusal for a call that did not return.
fn refusal_from(store: &Store<State>, setup: &Setup, call: GuestCall, error: &Error) -> Refusal {
    let state = store.data();
    if let Some(full) = &state.limiter.out_of_budget {
        return full.clone();
    }
    let fault = classify_fault(state, error);
    let description = fault_text::describe_fault(state, call, fault, error);
    let message = match call {
        GuestCall::Start => {
            format!("creating an instance of the plugin ended in the fault {fault}: {description}")
        }
        _ => format!("configuring the plugin ended in the fault {fault}: {description}"),
    };
    match fault {
        Fault::Deadline => Refusal::Deadline { message, limit: fault_text::time_limit(state, call).ms },
        Fault::HostBudget => Refusal::HostBudget { message, limit: setup.config.host_cpu_ms },
        _ if call == GuestCall::Start => Refusal::Instantiate {
            message: format!("{fault}: {description}"),
            limit: limit_exceeded(state, fault),
        },
        _ => Refusal::Configure { message, limit: limit_exceeded(state, fault) },
    }
}

/// The single limit that a call exceeded, in the unit its message names.
fn limit_exceeded(state: &State, fault: Fault) -> Option<u64> {
    match fault {
        Fault::Stack => Some(state.config.stack_bytes as u64),
        Fault::Output => Some(state.config.hostcall_bytes as u64),
        Fault::Memory | Fault::Table => state.limiter.exceeded.and_then(|exceeded| exceeded.limit),
        _ => None,
    }
}

/// Called at each epoch tick while a guest runs.
fn check_deadline(mut store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data_mut();
    if state.stopwatch.is_expired() {
        state.fault = Some(Fault::Deadline);
        return Ok(UpdateDeadline::Interrupt);
    }
    Ok(UpdateDeadline::Continue(1))
}

/// The fault that ended a call: what the host noticed first, else what WebAssembly reports.
fn classify_fault(state: &State, error: &Error) -> Fault {
    if let Some(fault) = state.fault.or(state.limiter.exceeded.map(|exceeded| exceeded.fault)) {
        return fault;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => Fault::Stack,
        Some(Trap::Interrupt) => Fault::Deadline,
        Some(_) => Fault::Trap,
        None if is_hostcall_data_exceeded(error) => Fault::Output,
        None => Fault::Trap,
    }
}

/// wasmtime keeps the type of this error private; a test pins its text.
fn is_hostcall_data_exceeded(error: &Error) -> bool {
    error.chain().any(|cause| cause.to_string().contains("fuel allocated for hostcalls has been exhausted"))
}
