//! The memory account of one evaluator: its instances are charged to the client address that alone asks for
//! it. Once a second address asks for it, neither is charged, because neither controls what the other makes
//! it do.
//!
//! Must not know: what an address is, or what uses the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::budget::{Budget, Share};

/// The memory budget of one client address.
pub type AddressBudget = Arc<Budget>;

/// The memory of one evaluator's instances, charged to an address beside the budget of all guests.
#[derive(Debug)]
pub struct MemoryAccount {
    share: Mutex<Option<Share>>,
    /// Bytes of the instances, charged to an address or not.
    bytes: AtomicU64,
}

impl MemoryAccount {
    /// For an evaluator that this address asks for; `None`: no address is charged.
    #[must_use]
    pub fn new(address: Option<&AddressBudget>) -> Arc<Self> {
        Arc::new(Self { share: Mutex::new(address.map(Budget::share)), bytes: AtomicU64::new(0) })
    }

    /// Records that this address asks for the evaluator. If it is not the one charged so far, no address is
    /// charged from now on.
    pub fn add_requester(&self, address: Option<&AddressBudget>) {
        let mut share = self.share.lock();
        let same =
            share.as_ref().zip(address).is_some_and(|(share, address)| Arc::ptr_eq(share.budget(), address));
        if !same {
            *share = None;
        }
    }

    /// Whether this address is charged.
    #[must_use]
    pub fn is_charged_to(&self, address: &AddressBudget) -> bool {
        self.share.lock().as_ref().is_some_and(|share| Arc::ptr_eq(share.budget(), address))
    }

    /// The address that is charged.
    #[must_use]
    pub fn address(&self) -> Option<AddressBudget> {
        self.share.lock().as_ref().map(|share| Arc::clone(share.budget()))
    }

    /// Bytes of the instances, charged to an address or not.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Charges this many more bytes.
    ///
    /// # Errors
    /// The budget of the address, if it is used up.
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

    /// Releases this many bytes.
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
    fn one_address_is_charged_until_another_asks() {
        let (one, two): (AddressBudget, AddressBudget) =
            (Arc::new(Budget::new(100)), Arc::new(Budget::new(100)));
        let account = MemoryAccount::new(Some(&one));
        account.charge(60).unwrap();
        assert!(account.charge(41).is_err_and(|address| Arc::ptr_eq(&address, &one)));
        account.add_requester(Some(&one));
        account.release(10);
        assert_eq!((one.used(), account.is_charged_to(&one), account.is_charged_to(&two)), (50, true, false));
        account.add_requester(Some(&two));
        assert_eq!((one.used(), two.used(), account.is_charged_to(&one)), (0, 0, false));
        account.charge(1_000).unwrap();
        assert_eq!(account.bytes(), 1_050, "its size is known even if no address is charged");
        account.release(1_000);
        account.add_requester(Some(&one));
        assert!(!account.is_charged_to(&one) && one.used() == 0, "it stays shared");
        assert!(MemoryAccount::new(None).charge(1 << 40).is_ok());
    }
}
