//! What all guests share: memory, the places of the pool that small components run from, the number of evaluators. Making an
//! evaluator or loading a component takes its part of all of it first, so that what is used up is a refusal to the newcomer and no
//! fault of a neighbour.
//!
//! Must not know: which evaluators and components there are, or how instances are made.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::budget::{Budget, Share};
use crate::plugin::class::Class;
use crate::plugin::component::About;
use crate::plugin::error::Refusal;
use crate::plugin::limits::Config;
use crate::plugin::machine;
use crate::plugin::purse::Payer;
use crate::plugin::setup::Memory;

/// Guests may have this part of the machine's memory where nothing else is set.
const PART_OF_MEMORY: u64 = 4;
/// Instances that one evaluator may hold: one for live killmails, one for those of the past.
const INSTANCES: u64 = 2;

/// Who is asked to give something back.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// All.
    Anyones,
    /// Those of one class: no other frees what is wanted.
    Class(Class),
    /// Those whose memory is charged to one address.
    Payer(&'a Payer),
}

/// Lets go of one evaluator, or component, that nobody uses; `false`: there is none.
type LetGo = Box<dyn Fn(Whose<'_>) -> bool + Send + Sync>;

/// What all guests of an engine may have together.
pub struct Capacity {
    memory: Arc<Budget>,
    scripting_memory: Arc<Budget>,
    component_memory: Arc<Budget>,
    refused_to_payers: AtomicU64,
    evaluators: Arc<Budget>,
    scripting: Arc<Budget>,
    core_instances: Arc<Budget>,
    memories: Arc<Budget>,
    tables: Arc<Budget>,
    idle_evaluators: OnceLock<LetGo>,
    idle_components: OnceLock<LetGo>,
}

impl Capacity {
    /// With these limits; none where each instance gets its memory on demand, in a process that has limits of its own.
    #[must_use]
    pub fn new(config: &Config, memory: Memory) -> Self {
        let pooled = memory == Memory::Pooled;
        let budget = |max: u64| Arc::new(if pooled { Budget::new(max) } else { Budget::default() });
        let memory = match config.guests_memory_bytes {
            0 if pooled => machine::memory_bytes(Path::new("/")) / PART_OF_MEMORY,
            bytes => bytes,
        };
        let scripting_memory = match config.scripting_guests_memory_bytes {
            0 => memory - memory / 4,
            bytes => bytes.min(memory),
        };
        Self {
            memory: budget(memory),
            scripting_memory: budget(scripting_memory),
            component_memory: Arc::default(),
            refused_to_payers: AtomicU64::new(0),
            evaluators: budget(config.evaluators_max as u64),
            scripting: budget(config.scripting_evaluators_max as u64),
            core_instances: budget(u64::from(config.pool_core_instances)),
            memories: budget(u64::from(config.pool_memories)),
            tables: budget(u64::from(config.pool_tables)),
            idle_evaluators: OnceLock::new(),
            idle_components: OnceLock::new(),
        }
    }

    /// Who lets go of evaluators that nobody uses. Said once.
    pub fn let_go_of_evaluators_with(&self, let_go: impl Fn(Whose<'_>) -> bool + Send + Sync + 'static) {
        // A second one would be of no use.
        let _ = self.idle_evaluators.set(Box::new(let_go));
    }

    /// Who unloads components that nobody uses. Said once.
    pub fn let_go_of_components_with(&self, let_go: impl Fn(Whose<'_>) -> bool + Send + Sync + 'static) {
        // A second one would be of no use.
        let _ = self.idle_components.set(Box::new(let_go));
    }

    /// Lets go of one evaluator that nobody uses, or else of one component; `false`: there is none.
    #[must_use]
    pub fn make_room(&self, whose: Whose<'_>) -> bool {
        let lets_go = |of: &OnceLock<LetGo>| of.get().is_some_and(|let_go| let_go(whose));
        lets_go(&self.idle_evaluators) || lets_go(&self.idle_components)
    }

    /// The memory of all guests and of what is loaded for them, bytes.
    #[must_use]
    pub const fn memory(&self) -> &Arc<Budget> {
        &self.memory
    }

    /// The part of it that the class `scripting` has, bytes.
    #[must_use]
    pub const fn scripting_memory(&self) -> &Arc<Budget> {
        &self.scripting_memory
    }

    /// The part of it that loaded components have, bytes; it has no limit of its own.
    #[must_use]
    pub const fn component_memory(&self) -> &Arc<Budget> {
        &self.component_memory
    }

    /// How often memory was refused because one address had all that it may have, since the start.
    #[must_use]
    pub fn refused_to_payers(&self) -> u64 {
        self.refused_to_payers.load(Ordering::Relaxed)
    }

    /// Memory was refused because one address has all that it may have.
    pub fn refuse_payer(&self) {
        self.refused_to_payers.fetch_add(1, Ordering::Relaxed);
    }

    /// Evaluators of this class there are, and may be.
    #[must_use]
    pub fn evaluators(&self, class: Class) -> (u64, u64) {
        match class {
            Class::Small => (self.evaluators.used().saturating_sub(self.scripting.used()), self.evaluators.max()),
            Class::Scripting => (self.scripting.used(), self.scripting.max()),
        }
    }

    /// Takes what an evaluator of such a component may come to hold; evaluators that nobody uses are let go of for it.
    ///
    /// # Errors
    /// `TooMany` or `Full` with the limit.
    pub fn reserve(&self, about: &About) -> Result<Reservation, Refusal> {
        let max = usize::try_from(self.evaluators.max()).unwrap_or(usize::MAX);
        let evaluator = self.take(&self.evaluators, 1, Whose::Anyones, || Refusal::TooMany { max })?;
        let parts = match about.class {
            Class::Scripting => vec![self.take(&self.scripting, 1, Whose::Class(Class::Scripting), || {
                full(&self.scripting, "evaluators of scripting components are in use", "plugin.scripting_evaluators_max")
            })?],
            Class::Small => self.places(about)?,
        };
        Ok(Reservation { _evaluator: evaluator, _parts: parts })
    }

    fn places(&self, about: &About) -> Result<Vec<Share>, Refusal> {
        let kinds = [
            (&self.core_instances, about.core_instances, "core instances are in use", "plugin.pool_core_instances"),
            (&self.memories, about.memories, "memories of guests are in use", "plugin.pool_memories"),
            (&self.tables, about.tables, "tables of guests are in use", "plugin.pool_tables"),
        ];
        // What was loaded without being counted has at least one.
        let each = |count: u32| u64::from(count.max(1)) * INSTANCES;
        let whose = Whose::Class(Class::Small);
        kinds
            .into_iter()
            .map(|(budget, count, what, setting)| self.take(budget, each(count), whose, || full(budget, what, setting)))
            .collect()
    }

    fn take(&self, budget: &Arc<Budget>, count: u64, whose: Whose<'_>, refusal: impl FnOnce() -> Refusal) -> Result<Share, Refusal> {
        let mut share = budget.share();
        let let_go = || self.idle_evaluators.get().is_some_and(|let_go| let_go(whose));
        if share.reach_with(count, let_go) { Ok(share) } else { Err(refusal()) }
    }
}

/// What a request is refused with that finds a budget spent.
#[must_use]
pub fn full(budget: &Budget, what: &str, setting: &str) -> Refusal {
    let (used, limit) = (budget.used(), budget.max());
    Refusal::Full { message: format!("{used} of {limit} {what}, and another does not fit ({setting})"), limit }
}

/// What one evaluator may hold; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    _evaluator: Share,
    _parts: Vec<Share>,
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    fn about(class: Class, tables: u32) -> About {
        About { class, tables, ..About::default() }
    }

    #[test]
    fn a_full_pool_is_a_refusal_that_names_the_setting() {
        let capacity = Capacity::new(&Config::default(), Memory::Pooled);
        let mut held = Vec::new();
        let refusal = loop {
            match capacity.reserve(&about(Class::Small, 64)) {
                Ok(reservation) => held.push(reservation),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(held.len(), 62, "8,000 tables, 128 each");
        assert_eq!(refusal.to_string(), "7936 of 8000 tables of guests are in use, and another does not fit (plugin.pool_tables)");
        assert!(refusal.is_busy());
        assert_eq!(capacity.evaluators(Class::Small), (62, 1_000), "what was taken before the refusal is given back");
        assert!(capacity.reserve(&about(Class::Small, 1)).is_ok(), "there is room for ordinary ones");
        held.clear();
        assert_eq!((capacity.evaluators(Class::Small).0, capacity.tables.used(), capacity.memories.used()), (0, 0, 0));
    }

    #[test]
    fn scripting_components_have_a_number_of_their_own() {
        let capacity = Capacity::new(&Config { scripting_evaluators_max: 1, evaluators_max: 2, ..Config::default() }, Memory::Pooled);
        let _one = capacity.reserve(&about(Class::Scripting, 1_000)).unwrap();
        let refusal = capacity.reserve(&about(Class::Scripting, 0)).unwrap_err();
        assert!(refusal.is_busy() && refusal.to_string().ends_with("(plugin.scripting_evaluators_max)"), "{refusal}");
        let _two = capacity.reserve(&about(Class::Small, 0)).unwrap();
        assert_eq!(capacity.evaluators(Class::Scripting), (1, 1));
        assert_eq!(capacity.evaluators(Class::Small), (1, 2));
        assert_eq!(capacity.reserve(&about(Class::Small, 0)).unwrap_err(), Refusal::TooMany { max: 2 });
    }

    #[test]
    fn unused_evaluators_make_room() {
        let capacity = Arc::new(Capacity::new(&Config { evaluators_max: 2, ..Config::default() }, Memory::Pooled));
        let unused = Arc::new(Mutex::new(vec![capacity.reserve(&About::default()).unwrap(), capacity.reserve(&About::default()).unwrap()]));
        let held = Arc::clone(&unused);
        capacity.let_go_of_evaluators_with(move |_| held.lock().pop().is_some());
        let _one = capacity.reserve(&About::default()).unwrap();
        assert_eq!(unused.lock().len(), 1);
    }

    #[test]
    fn a_small_evaluator_does_not_give_way_to_a_scripting_one_in_vain() {
        let capacity = Capacity::new(&Config { scripting_evaluators_max: 1, ..Config::default() }, Memory::Pooled);
        let _one = capacity.reserve(&about(Class::Scripting, 0)).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        capacity.let_go_of_evaluators_with(move |whose| {
            heard.lock().push(matches!(whose, Whose::Class(Class::Scripting)));
            false
        });
        assert!(capacity.reserve(&about(Class::Scripting, 0)).is_err());
        assert_eq!(*asked.lock(), [true]);
    }

    #[test]
    fn scripting_memory_is_a_part_of_all() {
        let maxima = |guests_memory_bytes, scripting_guests_memory_bytes| {
            let config = Config { guests_memory_bytes, scripting_guests_memory_bytes, ..Config::default() };
            let capacity = Capacity::new(&config, Memory::Pooled);
            (capacity.memory().max(), capacity.scripting_memory().max())
        };
        assert_eq!(maxima(512 << 20, 0), (512 << 20, 384 << 20));
        assert_eq!(maxima(100, 40), (100, 40));
        assert_eq!(maxima(100, 400), (100, 100), "never more than all");
    }

    #[test]
    fn a_process_with_limits_of_its_own_has_none_here() {
        let capacity = Capacity::new(&Config { evaluators_max: 0, ..Config::default() }, Memory::OnDemand);
        assert!(capacity.reserve(&about(Class::Small, u32::MAX)).is_ok());
        assert_eq!(capacity.memory().max(), u64::MAX);
    }
}
