//! The memory that an instance or a loaded component is charged with: to what all guests share, to the part of its class, and to that of the
//! address an instance is for.
//!
//! Must not know: what takes the memory.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::Share;
use crate::plugin::capacity::{Capacity, Whose, full};
use crate::plugin::class::Class;
use crate::plugin::clock::thread_cpu;
use crate::plugin::error::Refusal;
use crate::plugin::purse::Purse;

/// Memory that is charged; given back on drop.
pub struct Charge {
    capacity: Arc<Capacity>,
    all: Share,
    /// The same bytes, where they are of the class that has a limit of its own.
    scripting: Option<Share>,
    /// The same bytes, where they are a component's.
    component: Option<Share>,
    /// The same bytes, where one address pays for them.
    purse: Arc<Purse>,
    /// CPU time spent on letting go of others to make room, not yet counted as anybody's.
    pub host_cpu: Duration,
}

impl Charge {
    /// Nothing yet, for an instance of this class.
    #[must_use]
    pub fn new(capacity: &Arc<Capacity>, class: Class, purse: &Arc<Purse>) -> Self {
        let scripting = (class == Class::Scripting).then(|| capacity.scripting_memory().share());
        Self {
            capacity: Arc::clone(capacity),
            all: capacity.memory().share(),
            scripting,
            component: None,
            purse: Arc::clone(purse),
            host_cpu: Duration::ZERO,
        }
    }

    /// That of a component which takes so many bytes loaded.
    ///
    /// # Errors
    /// `Full`: others have the memory. `TooMuchMemory`: it is more than there may ever be.
    pub fn component(capacity: &Arc<Capacity>, class: Class, bytes: u64) -> Result<Self, Refusal> {
        // Components are everybody's.
        let mut charge = Self::new(capacity, class, &Purse::new(None));
        for (budget, setting) in [
            (Some(capacity.memory()), "plugin.guests_memory_bytes"),
            (charge.scripting.as_ref().map(Share::budget), "plugin.scripting_guests_memory_bytes"),
        ] {
            if let Some(limit) = budget.map(|budget| budget.max()).filter(|limit| bytes > *limit) {
                let message = format!("it takes {bytes} bytes of memory loaded; all guests together may have {limit} ({setting})");
                return Err(Refusal::TooMuchMemory { message, limit });
            }
        }
        charge.reach(bytes)?;
        let component = charge.component.insert(capacity.component_memory().share());
        // Without a limit it cannot be refused.
        let _ = component.reach(bytes);
        Ok(charge)
    }

    /// How many bytes it is.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.all.bytes()
    }

    /// Makes it as large as this; it never shrinks. Evaluators and components that nobody uses are let go of for it.
    ///
    /// # Errors
    /// `Full` with the budget that is spent.
    pub fn reach(&mut self, bytes: u64) -> Result<(), Refusal> {
        let Self { capacity, all, scripting, purse, host_cpu, .. } = self;
        let mut make_room = |whose: Whose<'_>| {
            let before = thread_cpu();
            let made = capacity.make_room(whose);
            *host_cpu += thread_cpu().saturating_sub(before);
            made
        };
        let more = bytes.saturating_sub(all.bytes());
        if let Some(share) = scripting
            && !share.reach_with(bytes, || make_room(Whose::Class(Class::Scripting)))
        {
            const WHAT: &str = "bytes of memory for guests of the class scripting are in use";
            return Err(full(share.budget(), WHAT, "plugin.scripting_guests_memory_bytes"));
        }
        let mut give_back = || scripting.iter_mut().for_each(|share| share.give_back(more));
        while let Err(payer) = purse.take(more) {
            if more > payer.max() || !make_room(Whose::Payer(&payer)) {
                give_back();
                capacity.refuse_payer();
                const WHAT: &str = "bytes of memory for guests are in use from this address";
                return Err(full(&payer, WHAT, "half of plugin.guests_memory_bytes"));
            }
        }
        if all.reach_with(bytes, || make_room(Whose::Anyones)) {
            return Ok(());
        }
        give_back();
        purse.give_back(more);
        Err(full(all.budget(), "bytes of memory for guests are in use", "plugin.guests_memory_bytes"))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.purse.give_back(self.all.bytes());
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::budget::Budget;
    use crate::plugin::limits::Config;
    use crate::plugin::setup::Memory;

    fn capacity(all: u64, scripting: u64) -> Arc<Capacity> {
        let config = Config { guests_memory_bytes: all, scripting_guests_memory_bytes: scripting, ..Config::default() };
        Arc::new(Capacity::new(&config, Memory::Pooled))
    }

    #[test]
    fn scripting_guests_have_a_part_of_the_memory() {
        let capacity = capacity(100, 60);
        let reach = |charge: &mut Charge, bytes| charge.reach(bytes);
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
        assert_eq!(capacity.scripting_memory().used(), 10, "what the others leave is all it gets, and all it is charged with");
    }

    fn charge(capacity: &Arc<Capacity>, class: Class) -> Charge {
        Charge::new(capacity, class, &Purse::new(None))
    }

    #[test]
    fn an_address_pays_for_what_only_it_uses() {
        let capacity = capacity(100, 100);
        let payer = Arc::new(Budget::new(50));
        let purse = Purse::new(Some(&payer));
        let mut charges = [Charge::new(&capacity, Class::Scripting, &purse), Charge::new(&capacity, Class::Small, &purse)];
        charges[0].reach(30).unwrap();
        charges[1].reach(20).unwrap();
        for charge in &mut charges {
            let refusal = charge.reach(31).unwrap_err();
            let text = "50 of 50 bytes of memory for guests are in use from this address, and another does not fit (half of plugin.guests_memory_bytes)";
            assert!(refusal.is_busy() && refusal.to_string() == text, "{refusal}");
        }
        assert_eq!((payer.used(), capacity.memory().used(), capacity.scripting_memory().used()), (50, 50, 30));
        assert_eq!((capacity.refused_to_payers(), capacity.memory().refused(), capacity.scripting_memory().refused()), (2, 0, 0));
        purse.asked_for_by(None);
        charges[1].reach(60).unwrap();
        assert!(charges[1].reach(71).is_err());
        drop(charges);
        assert_eq!((payer.used(), capacity.memory().used(), capacity.scripting_memory().used()), (0, 0, 0));
    }

    #[test]
    fn components_are_charged_and_give_way_after_evaluators() {
        let capacity = capacity(100, 100);
        let component = |bytes| Charge::component(&capacity, Class::Small, bytes);
        let loaded = Arc::new(Mutex::new(vec![component(30).unwrap(), component(30).unwrap()]));
        let (asked, held) = (Arc::new(Mutex::new(1)), Arc::clone(&loaded));
        let idle = Arc::clone(&asked);
        capacity.let_go_of_evaluators_with(move |_| {
            let mut idle = idle.lock();
            let was = *idle > 0;
            *idle = 0;
            was
        });
        capacity.let_go_of_components_with(move |_| held.lock().pop().is_some());
        let _third = component(50).unwrap();
        assert_eq!((*asked.lock(), loaded.lock().len()), (0, 1), "the evaluator went before the component");
        assert_eq!((capacity.memory().used(), capacity.component_memory().used()), (80, 80));
        let refusal = component(101).err().unwrap();
        assert!(!refusal.is_busy() && refusal.reason() == "too_much_memory", "{refusal}");
        assert_eq!(loaded.lock().len(), 1, "nothing gives way to what never fits");
        assert!(component(60).err().is_some_and(|refusal| refusal.is_busy()));
    }
}
