//! What one caller's address has at work: different judges (pairs of plugin and configuration), the memory of
//! those that only it uses, and requests for judged history. What was taken is given back when its hold is
//! dropped.
//!
//! One subscriber with many configurations must not take the places of all others: each may keep two warm
//! instances.
//!
//! Must not know: what a judge does, how addresses are found.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::budget::Budget;
use crate::domain::key_counts::KeyCounts;
use crate::domain::subscription::PluginUse;
use crate::plugin::resources::memory_account::AddressBudget;

/// Whom a request counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Its address; of IPv6 its first half counts.
    pub address: IpAddr,
    /// It may speak for many: a private address, while nobody said which proxies there are.
    pub is_shared: bool,
}

/// An IPv4 address, or the /64 network of an IPv6 address: one host usually has all 2^64 addresses of it, and
/// is one caller.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address @ IpAddr::V4(_) => address,
    }
}

impl Caller {
    fn whole(self) -> Self {
        Self { address: network(self.address), ..self }
    }
}

/// How much one caller, and all together, may have at work.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Different judges of one address that is known.
    pub judges: usize,
    /// All judges there may be. No address has more than half of them.
    pub judges_in_all: usize,
    /// Memory of the judges that one address alone uses, bytes.
    pub memory_bytes: u64,
    /// Requests for judged history of one address that is known.
    pub requests: usize,
    /// All of them. Those of one address that may speak for many are at most half.
    pub requests_in_all: usize,
}

impl Limits {
    fn judges_of(&self, caller: Caller) -> (usize, &'static str) {
        let half = self.judges_in_all.div_ceil(2);
        if caller.is_shared || half < self.judges {
            (half, "half of plugin.evaluators_max")
        } else {
            (self.judges, "plugin.evaluators_per_address_max")
        }
    }

    fn requests_of(&self, caller: Caller) -> (usize, &'static str) {
        if caller.is_shared {
            (self.requests_in_all.div_ceil(2), "half of feed.judged_requests_max")
        } else {
            (self.requests, "feed.judged_requests_per_address_max")
        }
    }
}

/// Who has which judges at work, and how often; who asks for judged history.
#[derive(Debug, Default)]
pub struct PluginQuota {
    at_work: Mutex<HashMap<IpAddr, KeyCounts<PluginUse>>>,
    /// What each address may have, for as long as it or what is kept of its judges has any of it.
    memory: Mutex<HashMap<IpAddr, Weak<Budget>>>,
    asking: Mutex<Asking>,
    /// Whether it was said that many may come from one address.
    said: AtomicBool,
}

#[derive(Debug, Default)]
struct Asking {
    in_all: usize,
    by: HashMap<IpAddr, usize>,
}

/// As much is at work as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// The address has as many different judges as it may.
    #[error(
        "{max} pairs of plugin and configuration are in use from this address, the most it may have ({setting})"
    )]
    Judges {
        /// The limit.
        max: usize,
        /// The setting it follows from.
        setting: &'static str,
    },
    /// As many requests for judged history are under way as may be.
    #[error("{max} requests for history judged by a plugin are under way{}, the most there may be ({setting})", if *here { " from this address" } else { "" })]
    Requests {
        /// The limit.
        max: usize,
        /// The setting it follows from.
        setting: &'static str,
        /// They are of this address.
        here: bool,
    },
}

impl TooMany {
    /// The limit.
    #[must_use]
    pub const fn max(&self) -> usize {
        match self {
            Self::Judges { max, .. } | Self::Requests { max, .. } => *max,
        }
    }
}

impl PluginQuota {
    /// Takes a judge for a caller; nothing is held without a plugin or where nobody called.
    ///
    /// # Errors
    /// It would be one more different judge than an address may have.
    pub fn take(
        self: &Arc<Self>,
        limits: &Limits,
        from: Option<Caller>,
        using: Option<&PluginUse>,
    ) -> Result<Option<Hold>, TooMany> {
        let (Some(from), Some(using)) = (from.map(Caller::whole), using) else { return Ok(None) };
        let (max, setting) = limits.judges_of(from);
        let mut at_work = self.at_work.lock();
        let theirs = at_work.get(&from.address).map_or(0, KeyCounts::different);
        let is_one_more = at_work.get(&from.address).is_none_or(|theirs| theirs.of(using) == 0);
        if is_one_more && theirs >= max {
            return Err(TooMany::Judges { max, setting });
        }
        at_work.entry(from.address).or_default().add(using.clone());
        drop(at_work);
        if from.is_shared && is_one_more && theirs >= limits.judges {
            self.say(from.address, max);
        }
        let memory = self.memory_of(from.address, limits.memory_bytes);
        Ok(Some(Hold { judges: Arc::clone(self), from: from.address, using: using.clone(), _memory: memory }))
    }

    fn memory_of(&self, address: IpAddr, max: u64) -> AddressBudget {
        let mut memory = self.memory.lock();
        if let Some(theirs) = memory.get(&address).and_then(Weak::upgrade) {
            return theirs;
        }
        memory.retain(|_, theirs| theirs.strong_count() > 0);
        let theirs = Arc::new(Budget::new(max));
        memory.insert(address, Arc::downgrade(&theirs));
        theirs
    }

    /// What the memory of a judge is to be charged to: that of the address which alone has it at work, as it
    /// says itself.
    #[must_use]
    pub fn payer(&self, using: &PluginUse) -> Option<AddressBudget> {
        let at_work = self.at_work.lock();
        let mut users =
            at_work.iter().filter(|(_, theirs)| theirs.of(using) > 0).map(|(address, _)| *address);
        let (address, None) = (users.next()?, users.next()) else { return None };
        drop(at_work);
        self.memory.lock().get(&address).and_then(Weak::upgrade)
    }

    /// Takes a place among those who ask for judged history; nothing is held where nobody called.
    ///
    /// # Errors
    /// There is none for this address, or none at all.
    pub fn ask(self: &Arc<Self>, limits: &Limits, from: Option<Caller>) -> Result<Option<Asker>, TooMany> {
        let Some(from) = from.map(Caller::whole) else { return Ok(None) };
        let (max, setting) = limits.requests_of(from);
        let mut asking = self.asking.lock();
        if asking.by.get(&from.address).copied().unwrap_or_default() >= max {
            return Err(TooMany::Requests { max, setting, here: true });
        }
        if asking.in_all >= limits.requests_in_all {
            return Err(TooMany::Requests {
                max: limits.requests_in_all,
                setting: "feed.judged_requests_max",
                here: false,
            });
        }
        asking.in_all += 1;
        *asking.by.entry(from.address).or_default() += 1;
        drop(asking);
        Ok(Some(Asker { judges: Arc::clone(self), from: from.address }))
    }

    /// The operator can tell clients apart; we cannot.
    fn say(&self, address: IpAddr, max: usize) {
        if !self.said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "all clients that come from {address} count as one and share {max} pairs of plugin and configuration; \
                 where that is a proxy, name it in http.trusted_proxies"
            );
        }
    }
}

/// The right to one judge.
#[derive(Debug)]
pub struct Hold {
    judges: Arc<PluginQuota>,
    from: IpAddr,
    using: PluginUse,
    _memory: AddressBudget,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut at_work = self.judges.at_work.lock();
        let Some(theirs) = at_work.get_mut(&self.from) else { return };
        theirs.remove(&self.using);
        if theirs.is_empty() {
            at_work.remove(&self.from);
        }
    }
}

/// A place among those who ask for judged history.
#[derive(Debug)]
pub struct Asker {
    judges: Arc<PluginQuota>,
    from: IpAddr,
}

impl Drop for Asker {
    fn drop(&mut self) {
        let mut asking = self.judges.asking.lock();
        asking.in_all = asking.in_all.saturating_sub(1);
        let Some(theirs) = asking.by.get_mut(&self.from) else { return };
        *theirs = theirs.saturating_sub(1);
        if *theirs == 0 {
            asking.by.remove(&self.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { judges: 2, judges_in_all: 10, memory_bytes: 100, requests: 2, requests_in_all: 5 };

    fn plugin(config: &str) -> PluginUse {
        PluginUse { name: "watchlist".to_owned(), version: None, config: config.to_owned() }
    }

    fn caller(address: &str, is_shared: bool) -> Option<Caller> {
        Some(Caller { address: address.parse().unwrap(), is_shared })
    }

    #[test]
    fn equal_judges_count_once_and_come_back() {
        let judges = Arc::new(PluginQuota::default());
        let from = caller("1.2.3.4", false);
        let too_many = |max| TooMany::Judges { max, setting: "plugin.evaluators_per_address_max" };
        let one = judges.take(&LIMITS, from, Some(&plugin("1"))).unwrap();
        let _same = judges.take(&LIMITS, from, Some(&plugin("1"))).unwrap();
        let two = judges.take(&LIMITS, from, Some(&plugin("2"))).unwrap();
        assert_eq!(judges.take(&LIMITS, from, Some(&plugin("3"))).unwrap_err(), too_many(2));
        assert!(judges.take(&LIMITS, caller("1.2.3.5", false), Some(&plugin("3"))).is_ok());
        drop(one);
        assert!(judges.take(&LIMITS, from, Some(&plugin("3"))).is_err(), "an equal one is still at work");
        drop(two);
        assert!(judges.take(&LIMITS, from, Some(&plugin("3"))).is_ok());
        let none = Limits { judges: 0, ..LIMITS };
        assert!(judges.take(&none, from, None).unwrap().is_none());
        assert!(judges.take(&none, None, Some(&plugin("3"))).unwrap().is_none());
        let elsewhere = caller("1.2.3.6", false);
        assert_eq!(judges.take(&none, elsewhere, Some(&plugin("3"))).unwrap_err(), too_many(0));
        assert!(
            elsewhere.is_some_and(|at| !judges.at_work.lock().contains_key(&at.address)),
            "who is refused takes no room"
        );
    }

    #[test]
    fn an_address_that_may_speak_for_many_has_at_most_half() {
        let judges = Arc::new(PluginQuota::default());
        let proxy = caller("10.0.0.1", true);
        let take = |from, n: usize| judges.take(&LIMITS, from, Some(&plugin(&n.to_string())));
        let held: Vec<_> = (0..5).map(|n| take(proxy, n).unwrap()).collect();
        assert!(judges.said.load(Ordering::Relaxed), "it was said once");
        assert_eq!(
            take(proxy, 5).unwrap_err(),
            TooMany::Judges { max: 5, setting: "half of plugin.evaluators_max" }
        );
        assert!(take(caller("1.2.3.4", false), 5).is_ok(), "the other half is for others");
        drop(held);
        assert!(take(proxy, 5).is_ok());
        let few = Limits { judges: 16, judges_in_all: 4, ..LIMITS };
        let from = caller("1.2.3.4", false);
        let held: Vec<_> =
            (0..2).map(|n| judges.take(&few, from, Some(&plugin(&n.to_string()))).unwrap()).collect();
        assert_eq!(judges.take(&few, from, Some(&plugin("2"))).unwrap_err().max(), 2, "nor has any other");
        drop(held);
    }

    #[test]
    fn an_address_pays_for_the_judges_that_only_it_uses() {
        let judges = Arc::new(PluginQuota::default());
        let take =
            |address, config| judges.take(&LIMITS, caller(address, false), Some(&plugin(config))).unwrap();
        let own = take("1.1.1.1", "1");
        let payer = judges.payer(&plugin("1")).unwrap();
        assert_eq!(payer.max(), 100);
        let theirs = take("2.2.2.2", "2");
        assert!(judges.payer(&plugin("2")).is_some_and(|other| !Arc::ptr_eq(&other, &payer)));
        let shared = take("2.2.2.2", "1");
        assert!(judges.payer(&plugin("1")).is_none(), "two use it");
        drop((shared, theirs, own));
        assert!(judges.payer(&plugin("1")).is_none(), "nobody uses it");
        let _again = take("1.1.1.1", "1");
        assert!(
            judges.payer(&plugin("1")).is_some_and(|again| Arc::ptr_eq(&again, &payer)),
            "what is kept of its judges counts on"
        );
        let _third = take("3.3.3.3", "1");
        assert_eq!(judges.memory.lock().len(), 2, "addresses that have nothing are forgotten");
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller() {
        let judges = Arc::new(PluginQuota::default());
        let _held = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"].map(|at| {
            (
                judges.take(&LIMITS, caller(at, false), Some(&plugin(at))).unwrap(),
                judges.ask(&LIMITS, caller(at, false)).unwrap(),
            )
        });
        let same = caller("2001:db8:1:2:3:4:5:6", false);
        assert!(
            judges.take(&LIMITS, same, Some(&plugin("3"))).is_err() && judges.ask(&LIMITS, same).is_err()
        );
        let next = caller("2001:db8:1:3::1", false);
        assert!(judges.take(&LIMITS, next, Some(&plugin("3"))).is_ok() && judges.ask(&LIMITS, next).is_ok());
        assert_eq!(network("::ffff:1.2.3.4".parse().unwrap()), "1.2.3.4".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn requests_are_bounded_by_address_and_in_all() {
        let judges = Arc::new(PluginQuota::default());
        let ask = |address: &str, is_shared| judges.ask(&LIMITS, caller(address, is_shared));
        let held = [ask("1.1.1.1", false).unwrap(), ask("1.1.1.1", false).unwrap()];
        let refused = ask("1.1.1.1", false).unwrap_err();
        assert!(
            refused.to_string().contains("from this address") && refused.to_string().contains("per_address"),
            "{refused}"
        );
        let more: Vec<_> = (0..3).map(|_| ask("10.0.0.1", true).unwrap()).collect();
        assert_eq!(ask("10.0.0.1", true).unwrap_err().max(), 3);
        let refused = ask("2.2.2.2", false).unwrap_err();
        assert_eq!(refused, TooMany::Requests { max: 5, setting: "feed.judged_requests_max", here: false });
        drop((held, more));
        assert!(ask("2.2.2.2", false).is_ok() && judges.ask(&LIMITS, None).unwrap().is_none());
        assert!(judges.asking.lock().by.is_empty() && judges.asking.lock().in_all == 0);
    }
}
