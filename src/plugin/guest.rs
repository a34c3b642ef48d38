//! One instance of a component, configured: called on one thread at a time, thrown away after any trap.
//!
//! Must not know: who shares it, or on which thread it runs.

use wasmtime::{Error, Store, StoreContextMut, Trap, UpdateDeadline};

use crate::domain::entry::Page;
use crate::domain::verdict::{Fault, Verdict};
use crate::plugin::bindings::Plugin;
use crate::plugin::component::Component;
use crate::plugin::convert::{self, Needs};
use crate::plugin::error::Refusal;
use crate::plugin::history::Bound;
use crate::plugin::setup::Setup;
use crate::plugin::state::State;

/// An instance ready to judge.
pub struct Guest {
    store: Store<State>,
    plugin: Plugin,
}

impl Guest {
    /// Instantiates the component, without configuring it.
    ///
    /// # Errors
    /// `Instantiate`, with what it did wrong.
    pub fn new(setup: &Setup, component: &Component) -> Result<Self, Refusal> {
        let state = State::new(&setup.config, component.class(), &setup.outside, component.digest_shared(), component.counters());
        let mut store = Store::new(&setup.world(component.class()).wasm, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(setup.config.hostcall_bytes);
        store.epoch_deadline_callback(look);
        store.set_epoch_deadline(1);
        store.data_mut().configure();
        component.counters().instance();
        match component.pre().instantiate(&mut store) {
            Ok(plugin) => Ok(Self { store, plugin }),
            Err(error) => {
                let fault = fault_of(&store, &error);
                Err(Refusal::Instantiate(format!("{fault}: {}", told(&error))))
            }
        }
    }

    /// Configures the instance: what it needs to see.
    ///
    /// # Errors
    /// `Configure`, with the guest's words or what it did wrong. The instance is of no use then.
    pub fn configure(&mut self, setup: &Setup, config: &str) -> Result<Needs, Refusal> {
        self.store.data_mut().configure();
        self.store.set_epoch_deadline(1);
        let said = match self.plugin.killstream_plugin_guest().call_configure(&mut self.store, config) {
            Ok(said) => said.map_err(Refusal::Configure)?,
            Err(error) => {
                let fault = fault_of(&self.store, &error);
                return Err(Refusal::Configure(format!("configuring the plugin ended in the fault {fault}: {}", told(&error))));
            }
        };
        let (needs, named) = convert::needs(said);
        let max = setup.config.interest_ids_max;
        if named > max {
            return Err(Refusal::Configure(format!("the plugin's interest names {named} ids; at most {max} (plugin.interest_ids_max)")));
        }
        Ok(needs)
    }

    /// Judges the killmail at this place of the page.
    ///
    /// # Errors
    /// What the guest did wrong, with words for the operator. After anything but `BadOutput` the instance is dead.
    pub fn evaluate(&mut self, page: &Page, at: usize, bound: Bound) -> Result<Verdict, (Fault, String)> {
        self.store.data_mut().judge(page, at, bound);
        self.store.set_epoch_deadline(1);
        let summary = convert::summary(&page[at]);
        let said = self.plugin.killstream_plugin_guest().call_evaluate(&mut self.store, summary);
        let state = self.store.data_mut();
        state.now = None;
        match said {
            Ok(said) => convert::verdict(said, state.config.verdict_bytes),
            Err(error) => Err((fault_of(&self.store, &error), told(&error))),
        }
    }
}

/// Called at each tick a guest lives to see.
fn look(mut store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data_mut();
    if state.watch.is_over() {
        state.fault = Some(Fault::Deadline);
        return Ok(UpdateDeadline::Interrupt);
    }
    Ok(UpdateDeadline::Continue(1))
}

/// The word for what ended a call: what the host saw first, else what WebAssembly says.
fn fault_of(store: &Store<State>, error: &Error) -> Fault {
    let state = store.data();
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

/// The causes of an error in one line.
pub fn told(error: &Error) -> String {
    let causes: Vec<String> = error.chain().map(|cause| cause.to_string().replace('\n', " ")).collect();
    causes.join(": ")
}
