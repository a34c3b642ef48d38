//! Whose part of the memory the instances of one evaluator take: that of the client address which alone asks
//! for it. Once another asks for it, too, it is charged to neither, since neither can be held to what the
//! other has it do.
//!
//! Must not know: what an address is, or what takes the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::budget::{Budget, Share};

/// The memory that one address may have.
pub type Payer = Arc<Budget>;

/// What the instances of one evaluator are charged to beside the budget of all.
#[derive(Debug)]
pub struct Purse {
    share: Mutex<Option<Share>>,
    /// Bytes the instances have now, whoever pays for them.
    bytes: AtomicU64,
}

impl Purse {
    /// For an evaluator that this address asks for; `None`: nobody's in particular.
    #[must_use]
    pub fn new(payer: Option<&Payer>) -> Arc<Self> {
        Arc::new(Self { share: Mutex::new(payer.map(Budget::share)), bytes: AtomicU64::new(0) })
    }

    /// This address asks for the evaluator. If it is another one than before, it is nobody's from here on.
    pub fn asked_for_by(&self, payer: Option<&Payer>) {
        let mut share = self.share.lock();
        let same = share.as_ref().zip(payer).is_some_and(|(share, payer)| Arc::ptr_eq(share.budget(), payer));
        if !same {
            *share = None;
        }
    }

    /// Whether this address pays.
    #[must_use]
    pub fn is_of(&self, payer: &Payer) -> bool {
        self.share.lock().as_ref().is_some_and(|share| Arc::ptr_eq(share.budget(), payer))
    }

    /// The address that pays.
    #[must_use]
    pub fn payer(&self) -> Option<Payer> {
        self.share.lock().as_ref().map(|share| Arc::clone(share.budget()))
    }

    /// Bytes that the instances have now, whoever pays for them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes so many bytes more.
    ///
    /// # Errors
    /// The address has no more: it.
    pub fn take(&self, bytes: u64) -> Result<(), Payer> {
        let mut share = self.share.lock();
        if let Some(share) = &mut *share
            && !share.reach(share.bytes().saturating_add(bytes))
        {
            return Err(Arc::clone(share.budget()));
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Gives so many bytes back.
    pub fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(share) = &mut *self.share.lock() {
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
        assert_eq!(purse.bytes(), 1_050, "what it has is known, whoever pays");
        purse.give_back(1_000);
        purse.asked_for_by(Some(&one));
        assert!(!purse.is_of(&one) && one.used() == 0, "it stays so");
        assert!(Purse::new(None).take(1 << 40).is_ok());
    }
}
