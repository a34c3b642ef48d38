//! The limits that all guests share: memory, the slots of the pool that small components run from, the number
//! of evaluators. A new evaluator or component reserves its share of each first. If one is used up, the
//! newcomer is refused and no running guest gets a fault.
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

/// By default, guests may use this fraction of the machine's memory: a quarter.
const PART_OF_MEMORY: u64 = 4;
/// Instances per evaluator: one for live killmails, one for history.
const INSTANCES: u64 = 2;

/// How instances get their memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceAllocation {
    /// Small instances come from a pool, which reserves the address space of all of them at the start.
    Pooled,
    /// Each instance allocates its own: for a process with few instances and limited address space.
    OnDemand,
}

/// Which evaluators or components may be evicted.
#[derive(Debug, Clone, Copy)]
pub enum EvictionScope<'a> {
    /// Any of them.
    All,
    /// Those of one class: evicting others would not free the budget in question.
    Class(Class),
    /// Those whose memory is charged to one client address.
    Address(&'a AddressBudget),
}

/// The resource that there is too little of.
#[derive(Debug, Clone, Copy)]
pub enum Shortage<'a> {
    /// Bytes of memory.
    Memory,
    /// Slots of this budget, which evaluators reserve.
    Slots(&'a Budget),
}

/// Evicts unused evaluators or components.
pub trait Evictor: Send + Sync {
    /// How much evicting everything unused in this scope would free.
    fn reclaimable(&self, shortage: Shortage<'_>, scope: EvictionScope<'_>) -> u64;

    /// Evicts one; `false` if nothing in this scope is unused.
    fn evict_one(&self, scope: EvictionScope<'_>) -> bool;
}

/// The shared limits of one engine.
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
    /// With the configured limits, or without limits for [`InstanceAllocation::OnDemand`], because such a
    /// process is limited from outside.
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

    /// Registers what evicts unused evaluators. Only the first call has an effect.
    pub fn set_evaluator_evictor(&self, evictor: impl Evictor + 'static) {
        // A second evictor is ignored.
        let _ = self.evaluator_evictor.set(Box::new(evictor));
    }

    /// Registers what unloads unused components. Only the first call has an effect.
    pub fn set_component_evictor(&self, evictor: impl Evictor + 'static) {
        // A second evictor is ignored.
        let _ = self.component_evictor.set(Box::new(evictor));
    }

    /// How much evicting every unused evaluator and component in this scope would free.
    #[must_use]
    pub fn reclaimable(&self, shortage: Shortage<'_>, scope: EvictionScope<'_>) -> u64 {
        let evictors = [&self.evaluator_evictor, &self.component_evictor];
        evictors
            .into_iter()
            .filter_map(OnceLock::get)
            .map(|evictor| evictor.reclaimable(shortage, scope))
            .fold(0, u64::saturating_add)
    }

    /// Evicts one unused evaluator, or one component if there is none. `false` if nothing is unused, or if
    /// evicting everything would not free `needed`: then nothing is evicted.
    #[must_use]
    pub fn evict_for(&self, shortage: Shortage<'_>, scope: EvictionScope<'_>, needed: u64) -> bool {
        let evict = |evictor: &OnceLock<Box<dyn Evictor>>| {
            evictor.get().is_some_and(|evictor| evictor.evict_one(scope))
        };
        let is_enough = || needed <= self.reclaimable(shortage, scope);
        cpu_clock::unbilled(|| {
            is_enough() && (evict(&self.evaluator_evictor) || evict(&self.component_evictor))
        })
    }

    /// Memory of all guests and loaded components, bytes.
    #[must_use]
    pub const fn memory(&self) -> &Arc<Budget> {
        &self.memory
    }

    /// The part of it that the class `scripting` uses, bytes.
    #[must_use]
    pub const fn scripting_memory(&self) -> &Arc<Budget> {
        &self.scripting_memory
    }

    /// The part of it that loaded components use, bytes; it has no limit of its own.
    #[must_use]
    pub const fn component_memory(&self) -> &Arc<Budget> {
        &self.component_memory
    }

    /// How often memory was refused since the start because one address had used up its part.
    #[must_use]
    pub fn address_refusals(&self) -> u64 {
        self.address_refusals.load(Ordering::Relaxed)
    }

    /// Counts such a refusal.
    pub fn count_address_refusal(&self) {
        self.address_refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Evaluators of this class: how many there are, and the limit.
    #[must_use]
    pub fn evaluators(&self, class: Class) -> (u64, u64) {
        match class {
            Class::Small => {
                (self.evaluators.used().saturating_sub(self.scripting.used()), self.evaluators.max())
            }
            Class::Scripting => (self.scripting.used(), self.scripting.max()),
        }
    }

    /// Reserves what an evaluator of this component may use. Evicts unused evaluators if that frees enough.
    ///
    /// # Errors
    /// `TooMany` or `Full` with the limit.
    pub fn reserve(&self, info: &ComponentInfo) -> Result<Reservation, Refusal> {
        let requirements = self.requirements(info);
        for Requirement { budget, count, scope, refusal } in &requirements {
            let lacking = budget.lacking(*count);
            if lacking > 0 && lacking > self.reclaimable(Shortage::Slots(budget), *scope) {
                budget.refuse();
                return Err(refusal(budget));
            }
        }
        let take = |Requirement { budget, count, scope, refusal }: Requirement<'_>| {
            let mut share = budget.share();
            let evict = |lacking| self.evict_for(Shortage::Slots(budget), scope, lacking);
            if share.reach_with(count, evict) { Ok(share) } else { Err(refusal(budget)) }
        };
        Ok(Reservation(requirements.into_iter().map(take).collect::<Result<_, _>>()?))
    }

    /// What an evaluator of this component reserves. The budgets of its class come first, because evicting
    /// for them may free a slot of the shared one as well.
    fn requirements(&self, info: &ComponentInfo) -> Vec<Requirement<'_>> {
        // A component that was loaded without being counted has at least one.
        let each = |count: u32| u64::from(count.max(1)) * INSTANCES;
        let of_class = |budget, count, refusal| Requirement {
            budget,
            count,
            scope: EvictionScope::Class(info.class),
            refusal,
        };
        let mut requirements = match info.class {
            Class::Scripting => vec![of_class(&self.scripting, 1, |budget| {
                budget_full(
                    budget,
                    "evaluators of scripting components are in use",
                    "plugin.scripting_evaluators_max",
                )
            })],
            Class::Small => vec![
                of_class(&self.core_instances, each(info.core_instances), |budget| {
                    budget_full(budget, "core instances are in use", "plugin.pool_core_instances")
                }),
                of_class(&self.memories, each(info.memories), |budget| {
                    budget_full(budget, "memories of guests are in use", "plugin.pool_memories")
                }),
                of_class(&self.tables, each(info.tables), |budget| {
                    budget_full(budget, "tables of guests are in use", "plugin.pool_tables")
                }),
            ],
        };
        let too_many =
            |budget: &Budget| Refusal::TooMany { max: usize::try_from(budget.max()).unwrap_or(usize::MAX) };
        requirements.push(Requirement {
            budget: &self.evaluators,
            count: 1,
            scope: EvictionScope::All,
            refusal: too_many,
        });
        requirements
    }
}

/// One part of a reservation.
struct Requirement<'a> {
    budget: &'a Arc<Budget>,
    count: u64,
    scope: EvictionScope<'a>,
    refusal: fn(&Budget) -> Refusal,
}

/// The refusal for a request that does not fit a budget.
#[must_use]
pub fn budget_full(budget: &Budget, what: &str, setting: &str) -> Refusal {
    Refusal::Full { message: budget_full_message(budget, what, setting), limit: budget.max() }
}

/// Says how much of a budget is used, and which setting limits it.
#[must_use]
pub fn budget_full_message(budget: &Budget, what: &str, setting: &str) -> String {
    format!("{} of {} {what}, and another does not fit ({setting})", budget.used(), budget.max())
}

/// What one evaluator may use; released on drop.
#[derive(Debug)]
pub struct Reservation(Vec<Share>);

impl Reservation {
    /// How much of this budget it holds.
    #[must_use]
    pub fn amount_of(&self, budget: &Budget) -> u64 {
        self.0.iter().filter(|share| ptr::eq(&raw const **share.budget(), budget)).map(Share::bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    fn info(class: Class, tables: u32) -> ComponentInfo {
        ComponentInfo { class, tables, ..ComponentInfo::default() }
    }

    #[test]
    fn a_full_pool_is_a_refusal_that_names_the_setting() {
        let capacity = Capacity::new(&Config::default(), InstanceAllocation::Pooled);
        let mut held = Vec::new();
        let refusal = loop {
            match capacity.reserve(&info(Class::Small, 64)) {
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
            "what was reserved before the refusal is released"
        );
        assert!(capacity.reserve(&info(Class::Small, 1)).is_ok(), "ordinary components still fit");
        held.clear();
        assert_eq!(
            (capacity.evaluators(Class::Small).0, capacity.tables.used(), capacity.memories.used()),
            (0, 0, 0)
        );
    }

    #[test]
    fn scripting_components_have_their_own_limit() {
        let capacity = Capacity::new(
            &Config { scripting_evaluators_max: 1, evaluators_max: 2, ..Config::default() },
            InstanceAllocation::Pooled,
        );
        let _one = capacity.reserve(&info(Class::Scripting, 1_000)).unwrap();
        let refusal = capacity.reserve(&info(Class::Scripting, 0)).unwrap_err();
        assert!(
            refusal.is_busy() && refusal.to_string().ends_with("(plugin.scripting_evaluators_max)"),
            "{refusal}"
        );
        let _two = capacity.reserve(&info(Class::Small, 0)).unwrap();
        assert_eq!(capacity.evaluators(Class::Scripting), (1, 1));
        assert_eq!(capacity.evaluators(Class::Small), (1, 2));
        assert_eq!(capacity.reserve(&info(Class::Small, 0)).unwrap_err(), Refusal::TooMany { max: 2 });
    }

    #[test]
    fn unused_evaluators_are_evicted() {
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

    /// Unused evaluators, all of the class `small`.
    struct Idle(Arc<Mutex<Vec<Reservation>>>);

    impl Evictor for Idle {
        fn reclaimable(&self, shortage: Shortage<'_>, scope: EvictionScope<'_>) -> u64 {
            match (shortage, scope) {
                (Shortage::Memory, _) | (_, EvictionScope::Class(Class::Scripting)) => 0,
                (Shortage::Slots(budget), _) => {
                    self.0.lock().iter().map(|reservation| reservation.amount_of(budget)).sum()
                }
            }
        }

        fn evict_one(&self, scope: EvictionScope<'_>) -> bool {
            !matches!(scope, EvictionScope::Class(Class::Scripting)) && self.0.lock().pop().is_some()
        }
    }

    #[test]
    fn nothing_is_evicted_in_vain() {
        let config =
            Config { scripting_evaluators_max: 1, evaluators_max: 3, pool_tables: 100, ..Config::default() };
        let capacity = Capacity::new(&config, InstanceAllocation::Pooled);
        let unused = Arc::new(Mutex::new(vec![capacity.reserve(&info(Class::Small, 10)).unwrap()]));
        capacity.set_evaluator_evictor(Idle(Arc::clone(&unused)));
        let one = capacity.reserve(&info(Class::Scripting, 0)).unwrap();
        let two = capacity.reserve(&info(Class::Small, 20)).unwrap();
        let refused = |info: &ComponentInfo| capacity.reserve(info).unwrap_err().to_string();
        // All slots are taken, and evicting the small evaluator would not free one of the class.
        assert!(refused(&info(Class::Scripting, 0)).ends_with("(plugin.scripting_evaluators_max)"));
        // 40 tables are free, and eviction would free 20 more.
        assert!(refused(&info(Class::Small, 31)).ends_with("(plugin.pool_tables)"));
        assert_eq!(unused.lock().len(), 1);
        let three = capacity.reserve(&info(Class::Small, 30)).unwrap();
        assert_eq!(unused.lock().len(), 0);
        drop((one, two, three));
        assert_eq!(
            (capacity.evaluators.used(), capacity.scripting.used(), capacity.tables.used()),
            (0, 0, 0)
        );
    }

    #[test]
    fn scripting_memory_is_part_of_the_total() {
        let maxima = |guests_memory_bytes, scripting_guests_memory_bytes| {
            let config = Config { guests_memory_bytes, scripting_guests_memory_bytes, ..Config::default() };
            let capacity = Capacity::new(&config, InstanceAllocation::Pooled);
            (capacity.memory().max(), capacity.scripting_memory().max())
        };
        assert_eq!(maxima(512 << 20, 0), (512 << 20, 384 << 20));
        assert_eq!(maxima(100, 40), (100, 40));
        assert_eq!(maxima(100, 400), (100, 100), "never more than the total");
    }

    #[test]
    fn allocation_on_demand_has_no_limits() {
        let capacity =
            Capacity::new(&Config { evaluators_max: 0, ..Config::default() }, InstanceAllocation::OnDemand);
        assert!(capacity.reserve(&info(Class::Small, u32::MAX)).is_ok());
        assert_eq!(capacity.memory().max(), u64::MAX);
    }
}
