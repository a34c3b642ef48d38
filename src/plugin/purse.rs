//! Whose part of the memory the instances of one evaluator take: that of the client address which alone asks for it. Once another asks for
//! it, too, it is charged to neither, since neither can be held to what the other has it do.
//!
//! Must not know: what an address is, or what takes the memory.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::budget::{Budget, Share};

/// The memory that one address may have.
pub type Payer = Arc<Budget>;

/// What the instances of one evaluator are charged to beside the budget of all.
pub struct Purse(Mutex<Option<Share>>);

impl Purse {
    /// For an evaluator that this address asks for; `None`: nobody's in particular.
    #[must_use]
    pub fn new(payer: Option<&Payer>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(payer.map(Budget::share))))
    }

    /// This address asks for the evaluator. If it is another one than before, it is nobody's from here on.
    pub fn asked_for_by(&self, payer: Option<&Payer>) {
        let mut share = self.0.lock();
        let same = share.as_ref().zip(payer).is_some_and(|(share, payer)| Arc::ptr_eq(share.budget(), payer));
        if !same {
            *share = None;
        }
    }

    /// The address that pays, if one does.
    #[must_use]
    pub fn payer(&self) -> Option<Payer> {
        self.0.lock().as_ref().map(|share| Arc::clone(share.budget()))
    }

    /// Whether this address pays.
    #[must_use]
    pub fn is_of(&self, payer: &Payer) -> bool {
        self.0.lock().as_ref().is_some_and(|share| Arc::ptr_eq(share.budget(), payer))
    }

    /// Takes so many bytes more.
    ///
    /// # Errors
    /// The address has no more: it.
    pub fn take(&self, bytes: u64) -> Result<(), Payer> {
        let mut share = self.0.lock();
        let Some(share) = &mut *share else { return Ok(()) };
        if share.reach(share.bytes().saturating_add(bytes)) { Ok(()) } else { Err(Arc::clone(share.budget())) }
    }

    /// Gives so many bytes back.
    pub fn give_back(&self, bytes: u64) {
        if let Some(share) = &mut *self.0.lock() {
            share.give_back(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_pays_until_another_asks() {
        let (one, two): (Payer, Payer) = (Arc::new(Budget::new(100)), Arc::new(Budget::new(100)));
        let purse = Purse::new(Some(&one));
        purse.take(60).unwrap();
        assert!(purse.take(41).is_err_and(|payer| Arc::ptr_eq(&payer, &one)));
        purse.asked_for_by(Some(&one));
        purse.give_back(10);
        assert_eq!((one.used(), purse.is_of(&one), purse.is_of(&two)), (50, true, false));
        purse.asked_for_by(Some(&two));
        assert_eq!((one.used(), two.used(), purse.is_of(&one)), (0, 0, false));
        purse.take(1_000).unwrap();
        purse.give_back(1_000);
        purse.asked_for_by(Some(&one));
        assert!(!purse.is_of(&one) && one.used() == 0, "it stays so");
        assert!(Purse::new(None).take(u64::MAX).is_ok());
    }
}
