//! The memory that an instance or a loaded component is charged for: against the budget of all guests, the
//! part of its class, and the account of the address that the instance is for.
//!
//! Must not know: what uses the memory.

use std::iter;
use std::sync::Arc;

use crate::budget::{Budget, Share};
use crate::plugin::class::Class;
use crate::plugin::error::Refusal;
use crate::plugin::resources::capacity::{
    Capacity, EvictionScope, Shortage, budget_full, budget_full_message,
};
use crate::plugin::resources::memory_account::MemoryAccount;

/// Charged memory; released on drop.
pub struct Charge {
    capacity: Arc<Capacity>,
    all: Share,
    /// The same bytes, for the class with a limit of its own.
    scripting: Option<Share>,
    /// The same bytes, if they are a component's.
    component: Option<Share>,
    /// The same bytes, if one address is charged for them.
    account: Arc<MemoryAccount>,
}

impl Charge {
    /// An empty charge for an instance of this class.
    #[must_use]
    pub fn new(capacity: &Arc<Capacity>, class: Class, account: &Arc<MemoryAccount>) -> Self {
        let scripting = (class == Class::Scripting).then(|| capacity.scripting_memory().share());
        Self {
            capacity: Arc::clone(capacity),
            all: capacity.memory().share(),
            scripting,
            component: None,
            account: Arc::clone(account),
        }
    }

    /// Checks that a component which takes this many bytes when loaded could ever fit.
    ///
    /// # Errors
    /// `NeverFits` if it exceeds a limit on its own.
    pub fn check_fits(capacity: &Capacity, class: Class, bytes: u64) -> Result<(), Refusal> {
        let of_class = (class == Class::Scripting)
            .then(|| (capacity.scripting_memory(), "plugin.scripting_guests_memory_bytes"));
        for (budget, setting) in iter::once((capacity.memory(), "plugin.guests_memory_bytes")).chain(of_class)
        {
            let limit = budget.max();
            if bytes > limit {
                let message = format!(
                    "it takes {bytes} bytes of memory when loaded; all guests together may have {limit} ({setting})"
                );
                return Err(Refusal::NeverFits { message, limit });
            }
        }
        Ok(())
    }

    /// The charge of a component that takes this many bytes when loaded.
    ///
    /// # Errors
    /// `Full` if the memory is in use. `NeverFits` if it exceeds a limit on its own.
    pub fn for_component(capacity: &Arc<Capacity>, class: Class, bytes: u64) -> Result<Self, Refusal> {
        Self::check_fits(capacity, class, bytes)?;
        // Components are shared, so no address is charged for them.
        let mut charge = Self::new(capacity, class, &MemoryAccount::new(None));
        charge.grow_to(bytes)?;
        let component = charge.component.insert(capacity.component_memory().share());
        // It has no limit, so this cannot fail.
        let _ = component.reach(bytes);
        Ok(charge)
    }

    /// Its size, bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.all.bytes()
    }

    /// Grows to this size; it never shrinks. Evicts unused evaluators and components if that frees enough.
    ///
    /// # Errors
    /// `Full` or `AddressFull` for the budget that is used up.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), Refusal> {
        let more = bytes.saturating_sub(self.all.bytes());
        self.check_could_fit(more)?;
        let Self { capacity, all, scripting, account, .. } = self;
        let evict =
            |scope: EvictionScope<'_>, lacking: u64| capacity.evict_for(Shortage::Memory, scope, lacking);
        if let Some(share) = scripting
            && !share.reach_with(bytes, |lacking| evict(EvictionScope::Class(Class::Scripting), lacking))
        {
            return Err(scripting_memory_full(share.budget()));
        }
        let mut release_scripting = || scripting.iter_mut().for_each(|share| share.give_back(more));
        while let Err(address) = account.charge(more) {
            if !evict(EvictionScope::Address(&address), address.lacking(more)) {
                release_scripting();
                capacity.count_address_refusal();
                return Err(address_memory_full(&address));
            }
        }
        if all.reach_with(bytes, |lacking| evict(EvictionScope::All, lacking)) {
            return Ok(());
        }
        release_scripting();
        account.release(more);
        Err(memory_full(all.budget()))
    }

    /// Checks every budget for this many more bytes, assuming that everything unused is evicted. If one of
    /// them would still not suffice, nothing is evicted at all.
    fn check_could_fit(&self, more: u64) -> Result<(), Refusal> {
        let Self { capacity, all, scripting, account, .. } = self;
        let check = |budget: &Budget, scope: EvictionScope<'_>, refusal: fn(&Budget) -> Refusal| {
            let lacking = budget.lacking(more);
            if lacking == 0 || lacking <= capacity.reclaimable(Shortage::Memory, scope) {
                return Ok(());
            }
            budget.refuse();
            Err(refusal(budget))
        };
        if let Some(share) = scripting {
            check(share.budget(), EvictionScope::Class(Class::Scripting), scripting_memory_full)?;
        }
        if let Some(address) = account.address() {
            check(&address, EvictionScope::Address(&address), address_memory_full)
                .inspect_err(|_| capacity.count_address_refusal())?;
        }
        check(all.budget(), EvictionScope::All, memory_full)
    }
}

fn memory_full(budget: &Budget) -> Refusal {
    budget_full(budget, "bytes of memory for guests are in use", "plugin.guests_memory_bytes")
}

fn scripting_memory_full(budget: &Budget) -> Refusal {
    budget_full(
        budget,
        "bytes of memory for guests of the class scripting are in use",
        "plugin.scripting_guests_memory_bytes",
    )
}

fn address_memory_full(budget: &Budget) -> Refusal {
    let message = budget_full_message(
        budget,
        "bytes of memory for guests are in use from this address",
        "half of plugin.guests_memory_bytes",
    );
    Refusal::AddressFull { message, limit: budget.max() }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.release(self.all.bytes());
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::plugin::limits::Config;
    use crate::plugin::resources::capacity::Evictor;
    use crate::plugin::resources::capacity::InstanceAllocation;

    fn capacity(all: u64, scripting: u64) -> Arc<Capacity> {
        let config = Config {
            guests_memory_bytes: all,
            scripting_guests_memory_bytes: scripting,
            ..Config::default()
        };
        Arc::new(Capacity::new(&config, InstanceAllocation::Pooled))
    }

    #[test]
    fn scripting_guests_have_part_of_the_memory() {
        let capacity = capacity(100, 60);
        let reach = |charge: &mut Charge, bytes| charge.grow_to(bytes);
        let (mut script, mut small) = (charge(&capacity, Class::Scripting), charge(&capacity, Class::Small));
        reach(&mut script, 60).unwrap();
        let refusal = reach(&mut script, 61).unwrap_err();
        assert!(refusal.is_busy() && refusal.limit() == Some(60), "{refusal:?}");
        assert!(refusal.to_string().ends_with("(plugin.scripting_guests_memory_bytes)"), "{refusal}");
        reach(&mut small, 40).unwrap();
        let refusal = reach(&mut small, 41).unwrap_err();
        assert!(refusal.to_string().ends_with("(plugin.guests_memory_bytes)"), "{refusal}");
        drop(script);
        assert_eq!((capacity.memory().used(), capacity.scripting_memory().used()), (40, 0));
        let mut script = charge(&capacity, Class::Scripting);
        reach(&mut small, 70).unwrap();
        reach(&mut script, 10).unwrap();
        assert!(reach(&mut script, 31).is_err());
        assert_eq!(capacity.scripting_memory().used(), 10, "it is charged only for what it gets");
    }

    fn charge(capacity: &Arc<Capacity>, class: Class) -> Charge {
        Charge::new(capacity, class, &MemoryAccount::new(None))
    }

    #[test]
    fn an_address_is_charged_for_what_only_it_uses() {
        let capacity = capacity(100, 100);
        let address = Arc::new(Budget::new(50));
        let account = MemoryAccount::new(Some(&address));
        let mut charges = [
            Charge::new(&capacity, Class::Scripting, &account),
            Charge::new(&capacity, Class::Small, &account),
        ];
        charges[0].grow_to(30).unwrap();
        charges[1].grow_to(20).unwrap();
        for charge in &mut charges {
            let refusal = charge.grow_to(31).unwrap_err();
            let text = "50 of 50 bytes of memory for guests are in use from this address, and another does not fit (half of plugin.guests_memory_bytes)";
            assert!(refusal.is_busy() && refusal.to_string() == text, "{refusal}");
        }
        assert_eq!(
            (address.used(), capacity.memory().used(), capacity.scripting_memory().used()),
            (50, 50, 30)
        );
        assert_eq!(
            (capacity.address_refusals(), capacity.memory().refused(), capacity.scripting_memory().refused()),
            (2, 0, 0)
        );
        account.add_requester(None);
        charges[1].grow_to(60).unwrap();
        assert!(charges[1].grow_to(71).is_err());
        drop(charges);
        assert_eq!((address.used(), capacity.memory().used(), capacity.scripting_memory().used()), (0, 0, 0));
    }

    /// Unused charges, the last evicted first.
    struct Idle(Arc<Mutex<Vec<Charge>>>);

    impl Evictor for Idle {
        fn reclaimable(&self, _: Shortage<'_>, scope: EvictionScope<'_>) -> u64 {
            let is_evictable = !matches!(scope, EvictionScope::Address(_));
            self.0.lock().iter().filter(|_| is_evictable).map(Charge::bytes).sum()
        }

        fn evict_one(&self, _: EvictionScope<'_>) -> bool {
            self.0.lock().pop().is_some()
        }
    }

    #[test]
    fn components_are_charged_and_evicted_after_evaluators() {
        let capacity = capacity(100, 100);
        let component = |bytes| Charge::for_component(&capacity, Class::Small, bytes);
        let loaded = Arc::new(Mutex::new(vec![component(30).unwrap(), component(30).unwrap()]));
        let mut evaluator = charge(&capacity, Class::Small);
        evaluator.grow_to(10).unwrap();
        let idle = Arc::new(Mutex::new(vec![evaluator]));
        capacity.set_evaluator_evictor(Idle(Arc::clone(&idle)));
        capacity.set_component_evictor(Idle(Arc::clone(&loaded)));
        let _third = component(60).unwrap();
        assert_eq!(
            (idle.lock().len(), loaded.lock().len()),
            (0, 1),
            "the evaluator is evicted before the component"
        );
        assert_eq!((capacity.memory().used(), capacity.component_memory().used()), (90, 90));
        let refusal = component(101).err().unwrap();
        assert!(
            !refusal.is_busy() && refusal.is_permanent() && refusal.reason() == "too_much_memory",
            "{refusal}"
        );
        assert!(component(41).err().is_some_and(|refusal| refusal.is_busy()));
        assert_eq!(loaded.lock().len(), 1, "nothing is evicted if that does not suffice");
        let _fourth = component(40).unwrap();
        assert_eq!(loaded.lock().len(), 0);
    }

    #[test]
    fn nothing_is_evicted_for_one_budget_if_another_is_used_up() {
        let capacity = capacity(100, 60);
        let address = Arc::new(Budget::new(50));
        let mut idle = charge(&capacity, Class::Scripting);
        idle.grow_to(40).unwrap();
        let idle = Arc::new(Mutex::new(vec![idle]));
        capacity.set_evaluator_evictor(Idle(Arc::clone(&idle)));
        let mut charge = Charge::new(&capacity, Class::Scripting, &MemoryAccount::new(Some(&address)));
        charge.grow_to(20).unwrap();
        // Eviction would free enough for the class, but the address has only 30 left.
        let refusal = charge.grow_to(55).unwrap_err();
        assert!(refusal.is_busy() && matches!(refusal, Refusal::AddressFull { limit: 50, .. }), "{refusal}");
        assert_eq!((idle.lock().len(), charge.bytes(), address.used(), address.refused()), (1, 20, 20, 1));
        charge.grow_to(50).unwrap();
        assert_eq!((idle.lock().len(), capacity.scripting_memory().used()), (0, 50));
    }
}
