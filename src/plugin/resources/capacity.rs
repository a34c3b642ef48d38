//! What all guests share: memory, the places of the pool that small components run from, the number of
//! evaluators. Making an evaluator or loading a component takes its part of all of it first, so that what is
//! used up is a refusal to the newcomer and no fault of a neighbour.
//!
//! Must not know: which evaluators and components there are, or how instances are made.

use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::budget::{Budget, Share};
use crate::plugin::class::Class;
use crate::plugin::component_info::ComponentInfo;
use crate::plugin::error::Refusal;
use crate::plugin::limits::Config;
use crate::plugin::resources::memory_account::AddressBudget;
use crate::plugin::resources::{cpu_clock, machine_memory};

/// Guests may have this part of the machine's memory where nothing else is set.
const PART_OF_MEMORY: u64 = 4;
/// Instances that one evaluator may hold: one for live killmails, one for those of the past.
const INSTANCES: u64 = 2;

/// How instances get their memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceAllocation {
    /// Small ones from a pool that reserves address space for all there may be.
    Pooled,
    /// Each for itself: where there are few, and address space is limited.
    OnDemand,
}

/// Who is asked to give something back.
#[derive(Debug, Clone, Copy)]
pub enum EvictionScope<'a> {
    /// All.
    All,
    /// Those of one class: no other frees what is wanted.
    Class(Class),
    /// Those whose memory is charged to one address.
    Address(&'a AddressBudget),
}

/// Of what there is not enough.
#[derive(Debug, Clone, Copy)]
pub enum Shortage<'a> {
    /// Bytes of memory.
    Memory,
    /// Places of this budget, which evaluators reserve.
    Slots(&'a Budget),
}

/// Evaluators, or components, that nobody uses.
pub trait Evictor: Send + Sync {
    /// How much of it would be given back if all of them were let go of.
    fn reclaimable(&self, wanted: Shortage<'_>, whose: EvictionScope<'_>) -> u64;

    /// Lets go of one; `false`: there is none.
    fn evict_one(&self, whose: EvictionScope<'_>) -> bool;
}

/// What all guests of an engine may have together.
pub struct Capacity {
    memory: Arc<Budget>,
    scripting_memory: Arc<Budget>,
    component_memory: Arc<Budget>,
    address_refusals: AtomicU64,
    evaluators: Arc<Budget>,
    scripting: Arc<Budget>,
    core_instances: Arc<Budget>,
    memories: Arc<Budget>,
    tables: Arc<Budget>,
    evaluator_evictor: OnceLock<Box<dyn Evictor>>,
    component_evictor: OnceLock<Box<dyn Evictor>>,
}

impl Capacity {
    /// With these limits; none where each instance gets its memory on demand, in a process that has limits of
    /// its own.
    #[must_use]
    pub fn new(config: &Config, memory: InstanceAllocation) -> Self {
        let pooled = memory == InstanceAllocation::Pooled;
        let budget = |max: u64| Arc::new(if pooled { Budget::new(max) } else { Budget::default() });
        let memory = match config.guests_memory_bytes {
            0 if pooled => machine_memory::memory_bytes(Path::new("/")) / PART_OF_MEMORY,
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
            address_refusals: AtomicU64::new(0),
            evaluators: budget(config.evaluators_max as u64),
            scripting: budget(config.scripting_evaluators_max as u64),
            core_instances: budget(u64::from(config.pool_core_instances)),
            memories: budget(u64::from(config.pool_memories)),
            tables: budget(u64::from(config.pool_tables)),
            evaluator_evictor: OnceLock::new(),
            component_evictor: OnceLock::new(),
        }
    }

    /// Who lets go of evaluators that nobody uses. Said once.
    pub fn set_evaluator_evictor(&self, unused: impl Evictor + 'static) {
        // A second one would be of no use.
        let _ = self.evaluator_evictor.set(Box::new(unused));
    }

    /// Who unloads components that nobody uses. Said once.
    pub fn set_component_evictor(&self, unused: impl Evictor + 'static) {
        // A second one would be of no use.
        let _ = self.component_evictor.set(Box::new(unused));
    }

    /// How much of it would be given back if everything were let go of that nobody uses.
    #[must_use]
    pub fn reclaimable(&self, wanted: Shortage<'_>, whose: EvictionScope<'_>) -> u64 {
        let all = [&self.evaluator_evictor, &self.component_evictor];
        all.into_iter()
            .filter_map(OnceLock::get)
            .map(|unused| unused.reclaimable(wanted, whose))
            .fold(0, u64::saturating_add)
    }

    /// Lets go of one evaluator that nobody uses, or else of one component; `false`: there is none, or all of
    /// them would not give back so much.
    #[must_use]
    pub fn evict_for(&self, wanted: Shortage<'_>, whose: EvictionScope<'_>, lacking: u64) -> bool {
        let lets_go =
            |of: &OnceLock<Box<dyn Evictor>>| of.get().is_some_and(|unused| unused.evict_one(whose));
        let enough = || lacking <= self.reclaimable(wanted, whose);
        cpu_clock::unbilled(|| {
            enough() && (lets_go(&self.evaluator_evictor) || lets_go(&self.component_evictor))
        })
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
    pub fn address_refusals(&self) -> u64 {
        self.address_refusals.load(Ordering::Relaxed)
    }

    /// Memory was refused because one address has all that it may have.
    pub fn count_address_refusal(&self) {
        self.address_refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Evaluators of this class there are, and may be.
    #[must_use]
    pub fn evaluators(&self, class: Class) -> (u64, u64) {
        match class {
            Class::Small => {
                (self.evaluators.used().saturating_sub(self.scripting.used()), self.evaluators.max())
            }
            Class::Scripting => (self.scripting.used(), self.scripting.max()),
        }
    }

    /// Takes what an evaluator of such a component may come to hold; evaluators that nobody uses are let go
    /// of for it, if that suffices.
    ///
    /// # Errors
    /// `TooMany` or `Full` with the limit.
    pub fn reserve(&self, about: &ComponentInfo) -> Result<Reservation, Refusal> {
        let wanted = self.requirements(about);
        for Requirement { budget, count, scope: whose, refusal } in &wanted {
            let lacking = budget.lacking(*count);
            if lacking > 0 && lacking > self.reclaimable(Shortage::Slots(budget), *whose) {
                budget.refuse();
                return Err(refusal(budget));
            }
        }
        let take = |Requirement { budget, count, scope: whose, refusal }: Requirement<'_>| {
            let mut share = budget.share();
            let make_room = |lacking| self.evict_for(Shortage::Slots(budget), whose, lacking);
            if share.reach_with(count, make_room) { Ok(share) } else { Err(refusal(budget)) }
        };
        Ok(Reservation(wanted.into_iter().map(take).collect::<Result<_, _>>()?))
    }

    /// What an evaluator of such a component takes. What its class has comes first: who lets go for that may
    /// leave a place for any, too.
    fn requirements(&self, about: &ComponentInfo) -> Vec<Requirement<'_>> {
        // What was loaded without being counted has at least one.
        let each = |count: u32| u64::from(count.max(1)) * INSTANCES;
        let part = |budget, count, refusal| Requirement {
            budget,
            count,
            scope: EvictionScope::Class(about.class),
            refusal,
        };
        let mut parts = match about.class {
            Class::Scripting => vec![part(&self.scripting, 1, |budget| {
                budget_full(
                    budget,
                    "evaluators of scripting components are in use",
                    "plugin.scripting_evaluators_max",
                )
            })],
            Class::Small => vec![
                part(&self.core_instances, each(about.core_instances), |budget| {
                    budget_full(budget, "core instances are in use", "plugin.pool_core_instances")
                }),
                part(&self.memories, each(about.memories), |budget| {
                    budget_full(budget, "memories of guests are in use", "plugin.pool_memories")
                }),
                part(&self.tables, each(about.tables), |budget| {
                    budget_full(budget, "tables of guests are in use", "plugin.pool_tables")
                }),
            ],
        };
        let too_many =
            |budget: &Budget| Refusal::TooMany { max: usize::try_from(budget.max()).unwrap_or(usize::MAX) };
        parts.push(Requirement {
            budget: &self.evaluators,
            count: 1,
            scope: EvictionScope::All,
            refusal: too_many,
        });
        parts
    }
}

/// A part of what an evaluator reserves.
struct Requirement<'a> {
    budget: &'a Arc<Budget>,
    count: u64,
    scope: EvictionScope<'a>,
    refusal: fn(&Budget) -> Refusal,
}

/// What a request is refused with that finds a budget spent.
#[must_use]
pub fn budget_full(budget: &Budget, what: &str, setting: &str) -> Refusal {
    Refusal::Full { message: budget_full_message(budget, what, setting), limit: budget.max() }
}

/// What is said of a budget that is spent.
#[must_use]
pub fn budget_full_message(budget: &Budget, what: &str, setting: &str) -> String {
    format!("{} of {} {what}, and another does not fit ({setting})", budget.used(), budget.max())
}

/// What one evaluator may hold; given back on drop.
#[derive(Debug)]
pub struct Reservation(Vec<Share>);

impl Reservation {
    /// How much of this budget it is.
    #[must_use]
    pub fn amount_of(&self, budget: &Budget) -> u64 {
        self.0.iter().filter(|share| ptr::eq(&raw const **share.budget(), budget)).map(Share::bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    fn about(class: Class, tables: u32) -> ComponentInfo {
        ComponentInfo { class, tables, ..ComponentInfo::default() }
    }

    #[test]
    fn a_full_pool_is_a_refusal_that_names_the_setting() {
        let capacity = Capacity::new(&Config::default(), InstanceAllocation::Pooled);
        let mut held = Vec::new();
        let refusal = loop {
            match capacity.reserve(&about(Class::Small, 64)) {
                Ok(reservation) => held.push(reservation),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(held.len(), 62, "8,000 tables, 128 each");
        assert_eq!(
            refusal.to_string(),
            "7936 of 8000 tables of guests are in use, and another does not fit (plugin.pool_tables)"
        );
        assert!(refusal.is_busy());
        assert_eq!(
            capacity.evaluators(Class::Small),
            (62, 1_000),
            "what was taken before the refusal is given back"
        );
        assert!(capacity.reserve(&about(Class::Small, 1)).is_ok(), "there is room for ordinary ones");
        held.clear();
        assert_eq!(
            (capacity.evaluators(Class::Small).0, capacity.tables.used(), capacity.memories.used()),
            (0, 0, 0)
        );
    }

    #[test]
    fn scripting_components_have_a_number_of_their_own() {
        let capacity = Capacity::new(
            &Config { scripting_evaluators_max: 1, evaluators_max: 2, ..Config::default() },
            InstanceAllocation::Pooled,
        );
        let _one = capacity.reserve(&about(Class::Scripting, 1_000)).unwrap();
        let refusal = capacity.reserve(&about(Class::Scripting, 0)).unwrap_err();
        assert!(
            refusal.is_busy() && refusal.to_string().ends_with("(plugin.scripting_evaluators_max)"),
            "{refusal}"
        );
        let _two = capacity.reserve(&about(Class::Small, 0)).unwrap();
        assert_eq!(capacity.evaluators(Class::Scripting), (1, 1));
        assert_eq!(capacity.evaluators(Class::Small), (1, 2));
        assert_eq!(capacity.reserve(&about(Class::Small, 0)).unwrap_err(), Refusal::TooMany { max: 2 });
    }

    #[test]
    fn unused_evaluators_make_room() {
        let capacity = Arc::new(Capacity::new(
            &Config { evaluators_max: 2, ..Config::default() },
            InstanceAllocation::Pooled,
        ));
        let unused = Arc::new(Mutex::new(vec![
            capacity.reserve(&ComponentInfo::default()).unwrap(),
            capacity.reserve(&ComponentInfo::default()).unwrap(),
        ]));
        capacity.set_evaluator_evictor(Idle(Arc::clone(&unused)));
        let _one = capacity.reserve(&ComponentInfo::default()).unwrap();
        assert_eq!(unused.lock().len(), 1);
    }

    /// Evaluators that nobody uses, all of them of the class `small`.
    struct Idle(Arc<Mutex<Vec<Reservation>>>);

    impl Evictor for Idle {
        fn reclaimable(&self, wanted: Shortage<'_>, whose: EvictionScope<'_>) -> u64 {
            match (wanted, whose) {
                (Shortage::Memory, _) | (_, EvictionScope::Class(Class::Scripting)) => 0,
                (Shortage::Slots(budget), _) => {
                    self.0.lock().iter().map(|reservation| reservation.amount_of(budget)).sum()
                }
            }
        }

        fn evict_one(&self, whose: EvictionScope<'_>) -> bool {
            !matches!(whose, EvictionScope::Class(Class::Scripting)) && self.0.lock().pop().is_some()
        }
    }

    #[test]
    fn nobody_gives_way_in_vain() {
        let config =
            Config { scripting_evaluators_max: 1, evaluators_max: 3, pool_tables: 100, ..Config::default() };
        let capacity = Capacity::new(&config, InstanceAllocation::Pooled);
        let unused = Arc::new(Mutex::new(vec![capacity.reserve(&about(Class::Small, 10)).unwrap()]));
        capacity.set_evaluator_evictor(Idle(Arc::clone(&unused)));
        let one = capacity.reserve(&about(Class::Scripting, 0)).unwrap();
        let two = capacity.reserve(&about(Class::Small, 20)).unwrap();
        let refused = |about: &ComponentInfo| capacity.reserve(about).unwrap_err().to_string();
        // All places are taken, and letting go of the small one would leave the class without.
        assert!(refused(&about(Class::Scripting, 0)).ends_with("(plugin.scripting_evaluators_max)"));
        // There are 40 tables, and 20 more if it were let go of.
        assert!(refused(&about(Class::Small, 31)).ends_with("(plugin.pool_tables)"));
        assert_eq!(unused.lock().len(), 1);
        let three = capacity.reserve(&about(Class::Small, 30)).unwrap();
        assert_eq!(unused.lock().len(), 0);
        drop((one, two, three));
        assert_eq!(
            (capacity.evaluators.used(), capacity.scripting.used(), capacity.tables.used()),
            (0, 0, 0)
        );
    }

    #[test]
    fn scripting_memory_is_a_part_of_all() {
        let maxima = |guests_memory_bytes, scripting_guests_memory_bytes| {
            let config = Config { guests_memory_bytes, scripting_guests_memory_bytes, ..Config::default() };
            let capacity = Capacity::new(&config, InstanceAllocation::Pooled);
            (capacity.memory().max(), capacity.scripting_memory().max())
        };
        assert_eq!(maxima(512 << 20, 0), (512 << 20, 384 << 20));
        assert_eq!(maxima(100, 40), (100, 40));
        assert_eq!(maxima(100, 400), (100, 100), "never more than all");
    }

    #[test]
    fn a_process_with_limits_of_its_own_has_none_here() {
        let capacity =
            Capacity::new(&Config { evaluators_max: 0, ..Config::default() }, InstanceAllocation::OnDemand);
        assert!(capacity.reserve(&about(Class::Small, u32::MAX)).is_ok());
        assert_eq!(capacity.memory().max(), u64::MAX);
    }
}
