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
pub type AddressBudget = Arc<Budget>;

/// What the instances of one evaluator are charged to beside the budget of all.
#[derive(Debug)]
pub struct MemoryAccount {
    share: Mutex<Option<Share>>,
    /// Bytes the instances have now, whoever pays for them.
    bytes: AtomicU64,
}

impl MemoryAccount {
    /// For an evaluator that this address asks for; `None`: nobody's in particular.
    #[must_use]
    pub fn new(payer: Option<&AddressBudget>) -> Arc<Self> {
        Arc::new(Self { share: Mutex::new(payer.map(Budget::share)), bytes: AtomicU64::new(0) })
    }

    /// This address asks for the evaluator. If it is another one than before, it is nobody's from here on.
    pub fn add_requester(&self, payer: Option<&AddressBudget>) {
        let mut share = self.share.lock();
        let same = share.as_ref().zip(payer).is_some_and(|(share, payer)| Arc::ptr_eq(share.budget(), payer));
        if !same {
            *share = None;
        }
    }

    /// Whether this address pays.
    #[must_use]
    pub fn is_charged_to(&self, payer: &AddressBudget) -> bool {
        self.share.lock().as_ref().is_some_and(|share| Arc::ptr_eq(share.budget(), payer))
    }

    /// The address that pays.
    #[must_use]
    pub fn address(&self) -> Option<AddressBudget> {
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
    pub fn charge(&self, bytes: u64) -> Result<(), AddressBudget> {
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
    pub fn release(&self, bytes: u64) {
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
        let (one, two): (AddressBudget, AddressBudget) =
            (Arc::new(Budget::new(100)), Arc::new(Budget::new(100)));
        let purse = MemoryAccount::new(Some(&one));
        purse.charge(60).unwrap();
        assert!(purse.charge(41).is_err_and(|payer| Arc::ptr_eq(&payer, &one)));
        purse.add_requester(Some(&one));
        purse.release(10);
        assert_eq!((one.used(), purse.is_charged_to(&one), purse.is_charged_to(&two)), (50, true, false));
        purse.add_requester(Some(&two));
        assert_eq!((one.used(), two.used(), purse.is_charged_to(&one)), (0, 0, false));
        purse.charge(1_000).unwrap();
        assert_eq!(purse.bytes(), 1_050, "what it has is known, whoever pays");
        purse.release(1_000);
        purse.add_requester(Some(&one));
        assert!(!purse.is_charged_to(&one) && one.used() == 0, "it stays so");
        assert!(MemoryAccount::new(None).charge(1 << 40).is_ok());
    }
}
