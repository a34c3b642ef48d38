//! The memory that an instance or a loaded component is charged with: to what all guests share, to the part
//! of its class, and to that of the address an instance is for.
//!
//! Must not know: what takes the memory.

use std::iter;
use std::sync::Arc;

use crate::budget::{Budget, Share};
use crate::plugin::class::Class;
use crate::plugin::error::Refusal;
use crate::plugin::resources::capacity::{Capacity, Wanted, Whose, full, spent};
use crate::plugin::resources::purse::Purse;

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
        }
    }

    /// Whether there could ever be memory for a component that takes so many bytes loaded.
    ///
    /// # Errors
    /// `NeverFits`: it is more than there may be.
    pub fn fits(capacity: &Capacity, class: Class, bytes: u64) -> Result<(), Refusal> {
        let of_class = (class == Class::Scripting)
            .then(|| (capacity.scripting_memory(), "plugin.scripting_guests_memory_bytes"));
        for (budget, setting) in iter::once((capacity.memory(), "plugin.guests_memory_bytes")).chain(of_class)
        {
            let limit = budget.max();
            if bytes > limit {
                let message = format!(
                    "it takes {bytes} bytes of memory loaded; all guests together may have {limit} ({setting})"
                );
                return Err(Refusal::NeverFits { message, limit });
            }
        }
        Ok(())
    }

    /// That of a component which takes so many bytes loaded.
    ///
    /// # Errors
    /// `Full`: others have the memory. `NeverFits`: it is more than there may ever be.
    pub fn component(capacity: &Arc<Capacity>, class: Class, bytes: u64) -> Result<Self, Refusal> {
        Self::fits(capacity, class, bytes)?;
        // Components are everybody's.
        let mut charge = Self::new(capacity, class, &Purse::new(None));
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

    /// Makes it as large as this; it never shrinks. Evaluators and components that nobody uses are let go of
    /// for it, if that suffices.
    ///
    /// # Errors
    /// `Full` or `AddressFull` with the budget that is spent.
    pub fn reach(&mut self, bytes: u64) -> Result<(), Refusal> {
        let more = bytes.saturating_sub(self.all.bytes());
        self.could_fit(more)?;
        let Self { capacity, all, scripting, purse, .. } = self;
        let make_room = |whose: Whose<'_>, lacking: u64| capacity.make_room(Wanted::Memory, whose, lacking);
        if let Some(share) = scripting
            && !share.reach_with(bytes, |lacking| make_room(Whose::Class(Class::Scripting), lacking))
        {
            return Err(out_of_scripting(share.budget()));
        }
        let mut give_back = || scripting.iter_mut().for_each(|share| share.give_back(more));
        while let Err(payer) = purse.take(more) {
            if !make_room(Whose::Payer(&payer), payer.lacking(more)) {
                give_back();
                capacity.refuse_payer();
                return Err(out_of_payers(&payer));
            }
        }
        if all.reach_with(bytes, |lacking| make_room(Whose::Anyones, lacking)) {
            return Ok(());
        }
        give_back();
        purse.give_back(more);
        Err(out_of_all(all.budget()))
    }

    /// Whether so many bytes more would fit everywhere if all that nobody uses were let go of: nothing is,
    /// where that would not suffice.
    fn could_fit(&self, more: u64) -> Result<(), Refusal> {
        let Self { capacity, all, scripting, purse, .. } = self;
        let check = |budget: &Budget, whose: Whose<'_>, refusal: fn(&Budget) -> Refusal| {
            let lacking = budget.lacking(more);
            if lacking == 0 || lacking <= capacity.unused(Wanted::Memory, whose) {
                return Ok(());
            }
            budget.refuse();
            Err(refusal(budget))
        };
        if let Some(share) = scripting {
            check(share.budget(), Whose::Class(Class::Scripting), out_of_scripting)?;
        }
        if let Some(payer) = purse.payer() {
            check(&payer, Whose::Payer(&payer), out_of_payers).inspect_err(|_| capacity.refuse_payer())?;
        }
        check(all.budget(), Whose::Anyones, out_of_all)
    }
}

fn out_of_all(budget: &Budget) -> Refusal {
    full(budget, "bytes of memory for guests are in use", "plugin.guests_memory_bytes")
}

fn out_of_scripting(budget: &Budget) -> Refusal {
    full(
        budget,
        "bytes of memory for guests of the class scripting are in use",
        "plugin.scripting_guests_memory_bytes",
    )
}

fn out_of_payers(budget: &Budget) -> Refusal {
    let message = spent(
        budget,
        "bytes of memory for guests are in use from this address",
        "half of plugin.guests_memory_bytes",
    );
    Refusal::AddressFull { message, limit: budget.max() }
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
    use crate::plugin::limits::Config;
    use crate::plugin::resources::capacity::Memory;
    use crate::plugin::resources::capacity::Unused;

    fn capacity(all: u64, scripting: u64) -> Arc<Capacity> {
        let config = Config {
            guests_memory_bytes: all,
            scripting_guests_memory_bytes: scripting,
            ..Config::default()
        };
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
        assert_eq!(
            capacity.scripting_memory().used(),
            10,
            "what the others leave is all it gets, and all it is charged with"
        );
    }

    fn charge(capacity: &Arc<Capacity>, class: Class) -> Charge {
        Charge::new(capacity, class, &Purse::new(None))
    }

    #[test]
    fn an_address_pays_for_what_only_it_uses() {
        let capacity = capacity(100, 100);
        let payer = Arc::new(Budget::new(50));
        let purse = Purse::new(Some(&payer));
        let mut charges =
            [Charge::new(&capacity, Class::Scripting, &purse), Charge::new(&capacity, Class::Small, &purse)];
        charges[0].reach(30).unwrap();
        charges[1].reach(20).unwrap();
        for charge in &mut charges {
            let refusal = charge.reach(31).unwrap_err();
            let text = "50 of 50 bytes of memory for guests are in use from this address, and another does not fit (half of plugin.guests_memory_bytes)";
            assert!(refusal.is_busy() && refusal.to_string() == text, "{refusal}");
        }
        assert_eq!(
            (payer.used(), capacity.memory().used(), capacity.scripting_memory().used()),
            (50, 50, 30)
        );
        assert_eq!(
            (
                capacity.refused_to_payers(),
                capacity.memory().refused(),
                capacity.scripting_memory().refused()
            ),
            (2, 0, 0)
        );
        purse.asked_for_by(None);
        charges[1].reach(60).unwrap();
        assert!(charges[1].reach(71).is_err());
        drop(charges);
        assert_eq!((payer.used(), capacity.memory().used(), capacity.scripting_memory().used()), (0, 0, 0));
    }

    /// What nobody uses, the last first.
    struct Idle(Arc<Mutex<Vec<Charge>>>);

    impl Unused for Idle {
        fn amount(&self, _: Wanted<'_>, whose: Whose<'_>) -> u64 {
            let is_of = !matches!(whose, Whose::Payer(_));
            self.0.lock().iter().filter(|_| is_of).map(Charge::bytes).sum()
        }

        fn let_go(&self, _: Whose<'_>) -> bool {
            self.0.lock().pop().is_some()
        }
    }

    #[test]
    fn components_are_charged_and_give_way_after_evaluators() {
        let capacity = capacity(100, 100);
        let component = |bytes| Charge::component(&capacity, Class::Small, bytes);
        let loaded = Arc::new(Mutex::new(vec![component(30).unwrap(), component(30).unwrap()]));
        let mut evaluator = charge(&capacity, Class::Small);
        evaluator.reach(10).unwrap();
        let idle = Arc::new(Mutex::new(vec![evaluator]));
        capacity.let_go_of_evaluators_with(Idle(Arc::clone(&idle)));
        capacity.let_go_of_components_with(Idle(Arc::clone(&loaded)));
        let _third = component(60).unwrap();
        assert_eq!(
            (idle.lock().len(), loaded.lock().len()),
            (0, 1),
            "the evaluator went before the component"
        );
        assert_eq!((capacity.memory().used(), capacity.component_memory().used()), (90, 90));
        let refusal = component(101).err().unwrap();
        assert!(
            !refusal.is_busy() && refusal.is_permanent() && refusal.reason() == "too_much_memory",
            "{refusal}"
        );
        assert!(component(41).err().is_some_and(|refusal| refusal.is_busy()));
        assert_eq!(loaded.lock().len(), 1, "nothing gives way where that does not suffice");
        let _fourth = component(40).unwrap();
        assert_eq!(loaded.lock().len(), 0);
    }

    #[test]
    fn nothing_gives_way_in_one_budget_where_another_is_spent() {
        let capacity = capacity(100, 60);
        let payer = Arc::new(Budget::new(50));
        let mut idle = charge(&capacity, Class::Scripting);
        idle.reach(40).unwrap();
        let idle = Arc::new(Mutex::new(vec![idle]));
        capacity.let_go_of_evaluators_with(Idle(Arc::clone(&idle)));
        let mut charge = Charge::new(&capacity, Class::Scripting, &Purse::new(Some(&payer)));
        charge.reach(20).unwrap();
        // The class could give way, but the address has only 30 left.
        let refusal = charge.reach(55).unwrap_err();
        assert!(refusal.is_busy() && matches!(refusal, Refusal::AddressFull { limit: 50, .. }), "{refusal}");
        assert_eq!((idle.lock().len(), charge.bytes(), payer.used(), payer.refused()), (1, 20, 20, 1));
        charge.reach(50).unwrap();
        assert_eq!((idle.lock().len(), capacity.scripting_memory().used()), (0, 50));
    }
}
