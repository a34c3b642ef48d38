//! Per-address quotas for plugins: how many different evaluators (pairs of plugin and configuration) one
//! address may use, how much memory its own evaluators may take, and how many requests for history judged by
//! a plugin it may have open. Permits give back their share on drop.
//!
//! Without quotas, one subscriber with many configurations could take the slots of everyone else: each pair
//! may keep two warm instances.
//!
//! Must not know: what an evaluator does, how addresses are found.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::budget::Budget;
use crate::domain::key_counts::KeyCounts;
use crate::domain::subscription::PluginUse;
use crate::plugin::resources::memory_account::AddressBudget;
use crate::quota::{Lease, LimitReached, Quota, QuotaLimits};

/// The client a request is counted against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Its address; of an IPv6 address only the /64 network counts.
    pub address: IpAddr,
    /// Many clients may stand behind it: the address is private, and no trusted proxies are configured.
    pub is_shared: bool,
}

/// An IPv4 address, or the /64 network of an IPv6 address: one host usually owns all 2^64 addresses of its
/// network and counts as one caller.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address @ IpAddr::V4(_) => address,
    }
}

impl Caller {
    fn normalized(self) -> Self {
        Self { address: network(self.address), ..self }
    }
}

/// What one address, and all of them together, may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Different evaluators of one address that is not shared.
    pub evaluators_per_address: usize,
    /// All evaluators. No address may have more than half of them.
    pub evaluators_total: usize,
    /// Memory of the evaluators that only one address uses, bytes.
    pub memory_bytes: u64,
    /// Requests for judged history of one address that is not shared.
    pub requests_per_address: usize,
    /// All requests for judged history. A shared address may have at most half of them.
    pub requests_total: usize,
}

/// A limit and the setting it follows from.
struct SettingLimit {
    max: usize,
    setting: &'static str,
}

impl Limits {
    fn evaluators_of(&self, caller: Caller) -> SettingLimit {
        let half = self.evaluators_total.div_ceil(2);
        if caller.is_shared || half < self.evaluators_per_address {
            SettingLimit { max: half, setting: "half of plugin.evaluators_max" }
        } else {
            SettingLimit { max: self.evaluators_per_address, setting: "plugin.evaluators_per_address_max" }
        }
    }

    fn requests_of(&self, caller: Caller) -> SettingLimit {
        if caller.is_shared {
            SettingLimit { max: self.requests_total.div_ceil(2), setting: "half of feed.judged_requests_max" }
        } else {
            SettingLimit { max: self.requests_per_address, setting: "feed.judged_requests_per_address_max" }
        }
    }
}

/// The evaluators and requests in use, by address.
#[derive(Debug)]
pub struct PluginQuota {
    limits: Limits,
    evaluators: Mutex<HashMap<IpAddr, KeyCounts<PluginUse>>>,
    /// The memory budget of each address, for as long as a permit or a kept evaluator of the address holds it.
    memory: Mutex<HashMap<IpAddr, Weak<Budget>>>,
    requests: Arc<Quota<IpAddr>>,
    /// The warning about a shared address was logged.
    warned: AtomicBool,
}

/// A quota is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuotaExceeded {
    /// The address uses as many different evaluators as it may.
    #[error(
        "{max} pairs of plugin and configuration are in use from this address, the most it may have ({setting})"
    )]
    Evaluators {
        max: usize,
        /// The setting it follows from.
        setting: &'static str,
    },
    /// As many requests for judged history are open as may be.
    #[error("{max} requests for history judged by a plugin are under way{}, the most there may be ({setting})", if *from_this_address { " from this address" } else { "" })]
    Requests {
        max: usize,
        /// The setting it follows from.
        setting: &'static str,
        /// Whether it is the address that has reached its limit, or all of them together.
        from_this_address: bool,
    },
}

impl QuotaExceeded {
    /// The limit that was reached.
    #[must_use]
    pub const fn max(&self) -> usize {
        match self {
            Self::Evaluators { max, .. } | Self::Requests { max, .. } => *max,
        }
    }
}

impl PluginQuota {
    /// A quota of which nothing is used.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            evaluators: Mutex::default(),
            memory: Mutex::default(),
            requests: Arc::default(),
            warned: AtomicBool::new(false),
        }
    }

    /// Counts an evaluator against a caller. `None` without a plugin or a caller.
    ///
    /// # Errors
    /// The caller would use one more different evaluator than its address may.
    pub fn acquire_evaluator(
        self: &Arc<Self>,
        caller: Option<Caller>,
        plugin: Option<&PluginUse>,
    ) -> Result<Option<EvaluatorPermit>, QuotaExceeded> {
        let (Some(caller), Some(plugin)) = (caller.map(Caller::normalized), plugin) else { return Ok(None) };
        let SettingLimit { max, setting } = self.limits.evaluators_of(caller);
        let mut evaluators = self.evaluators.lock();
        let different = evaluators.get(&caller.address).map_or(0, KeyCounts::different);
        let is_new = evaluators.get(&caller.address).is_none_or(|counts| counts.of(plugin) == 0);
        if is_new && different >= max {
            return Err(QuotaExceeded::Evaluators { max, setting });
        }
        evaluators.entry(caller.address).or_default().add(plugin.clone());
        drop(evaluators);
        if caller.is_shared && is_new && different >= self.limits.evaluators_per_address {
            self.warn_shared_address(caller.address, max);
        }
        let memory = self.memory_of(caller.address);
        Ok(Some(EvaluatorPermit {
            quota: Arc::clone(self),
            address: caller.address,
            plugin: plugin.clone(),
            _memory: memory,
        }))
    }

    fn memory_of(&self, address: IpAddr) -> AddressBudget {
        let mut memory = self.memory.lock();
        if let Some(budget) = memory.get(&address).and_then(Weak::upgrade) {
            return budget;
        }
        memory.retain(|_, budget| budget.strong_count() > 0);
        let budget = Arc::new(Budget::new(self.limits.memory_bytes));
        memory.insert(address, Arc::downgrade(&budget));
        budget
    }

    /// The budget that the memory of an evaluator is charged to: that of its address, if only one address uses
    /// it.
    #[must_use]
    pub fn payer(&self, plugin: &PluginUse) -> Option<AddressBudget> {
        let evaluators = self.evaluators.lock();
        let mut users =
            evaluators.iter().filter(|(_, counts)| counts.of(plugin) > 0).map(|(address, _)| *address);
        let (address, None) = (users.next()?, users.next()) else { return None };
        drop(evaluators);
        self.memory.lock().get(&address).and_then(Weak::upgrade)
    }

    /// Counts a request for judged history against a caller. `None` without a caller.
    ///
    /// # Errors
    /// The address, or all of them together, have as many requests open as they may.
    pub fn acquire_request(&self, caller: Option<Caller>) -> Result<Option<RequestPermit>, QuotaExceeded> {
        let Some(caller) = caller.map(Caller::normalized) else { return Ok(None) };
        let SettingLimit { max, setting } = self.limits.requests_of(caller);
        let limits = QuotaLimits { total: self.limits.requests_total, per_key: Some(max) };
        let permit = self.requests.acquire(limits, Some(caller.address));
        permit.map(Some).map_err(|limit| match limit {
            LimitReached::PerKey { max } => QuotaExceeded::Requests { max, setting, from_this_address: true },
            LimitReached::Total { max } => {
                let setting = "feed.judged_requests_max";
                QuotaExceeded::Requests { max, setting, from_this_address: false }
            }
        })
    }

    /// Logged once: only the operator can tell the clients behind one address apart.
    fn warn_shared_address(&self, address: IpAddr, max: usize) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "all clients that come from {address} count as one and share {max} pairs of plugin and configuration; \
                 where that is a proxy, name it in http.trusted_proxies"
            );
        }
    }
}

/// The right to use one evaluator; given back on drop.
#[derive(Debug)]
pub struct EvaluatorPermit {
    quota: Arc<PluginQuota>,
    address: IpAddr,
    plugin: PluginUse,
    _memory: AddressBudget,
}

impl Drop for EvaluatorPermit {
    fn drop(&mut self) {
        let mut evaluators = self.quota.evaluators.lock();
        let Some(counts) = evaluators.get_mut(&self.address) else { return };
        counts.remove(&self.plugin);
        if counts.is_empty() {
            evaluators.remove(&self.address);
        }
    }
}

/// The right to one open request for judged history; given back on drop.
pub type RequestPermit = Lease<IpAddr>;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        evaluators_per_address: 2,
        evaluators_total: 10,
        memory_bytes: 100,
        requests_per_address: 2,
        requests_total: 5,
    };

    fn plugin(config: &str) -> PluginUse {
        PluginUse { name: "watchlist".to_owned(), version: None, config: config.to_owned() }
    }

    fn caller(address: &str, is_shared: bool) -> Option<Caller> {
        Some(Caller { address: address.parse().unwrap(), is_shared })
    }

    #[test]
    fn equal_evaluators_count_once_and_are_given_back() {
        let quota = Arc::new(PluginQuota::new(LIMITS));
        let from = caller("1.2.3.4", false);
        let exceeded = |max| QuotaExceeded::Evaluators { max, setting: "plugin.evaluators_per_address_max" };
        let acquire = |caller, config| quota.acquire_evaluator(caller, Some(&plugin(config)));
        let one = acquire(from, "1").unwrap();
        let _same = acquire(from, "1").unwrap();
        let two = acquire(from, "2").unwrap();
        assert_eq!(acquire(from, "3").unwrap_err(), exceeded(2));
        assert!(acquire(caller("1.2.3.5", false), "3").is_ok());
        drop(one);
        assert!(acquire(from, "3").is_err(), "an equal one is still in use");
        drop(two);
        assert!(acquire(from, "3").is_ok());
        let none = Arc::new(PluginQuota::new(Limits { evaluators_per_address: 0, ..LIMITS }));
        assert!(none.acquire_evaluator(from, None).unwrap().is_none());
        assert!(none.acquire_evaluator(None, Some(&plugin("3"))).unwrap().is_none());
        assert_eq!(none.acquire_evaluator(from, Some(&plugin("3"))).unwrap_err(), exceeded(0));
        assert!(none.evaluators.lock().is_empty(), "a refused address takes no memory");
    }

    #[test]
    fn no_address_has_more_than_half_of_all_evaluators() {
        let quota = Arc::new(PluginQuota::new(LIMITS));
        let proxy = caller("10.0.0.1", true);
        let acquire = |quota: &Arc<PluginQuota>, caller, n: usize| {
            quota.acquire_evaluator(caller, Some(&plugin(&n.to_string())))
        };
        let held: Vec<_> = (0..5).map(|n| acquire(&quota, proxy, n).unwrap()).collect();
        assert!(quota.warned.load(Ordering::Relaxed), "the operator was told once");
        assert_eq!(
            acquire(&quota, proxy, 5).unwrap_err(),
            QuotaExceeded::Evaluators { max: 5, setting: "half of plugin.evaluators_max" }
        );
        assert!(acquire(&quota, caller("1.2.3.4", false), 5).is_ok(), "the other half is for others");
        drop(held);
        assert!(acquire(&quota, proxy, 5).is_ok());
        let limits = Limits { evaluators_per_address: 16, evaluators_total: 4, ..LIMITS };
        let few = Arc::new(PluginQuota::new(limits));
        let from = caller("1.2.3.4", false);
        let held: Vec<_> = (0..2).map(|n| acquire(&few, from, n).unwrap()).collect();
        assert_eq!(acquire(&few, from, 2).unwrap_err().max(), 2, "nor has any other");
        drop(held);
    }

    #[test]
    fn an_address_pays_for_the_evaluators_that_only_it_uses() {
        let quota = Arc::new(PluginQuota::new(LIMITS));
        let acquire =
            |address, config| quota.acquire_evaluator(caller(address, false), Some(&plugin(config))).unwrap();
        let own = acquire("1.1.1.1", "1");
        let payer = quota.payer(&plugin("1")).unwrap();
        assert_eq!(payer.max(), 100);
        let other = acquire("2.2.2.2", "2");
        assert!(quota.payer(&plugin("2")).is_some_and(|other| !Arc::ptr_eq(&other, &payer)));
        let shared = acquire("2.2.2.2", "1");
        assert!(quota.payer(&plugin("1")).is_none(), "two use it");
        drop((shared, other, own));
        assert!(quota.payer(&plugin("1")).is_none(), "nobody uses it");
        let _again = acquire("1.1.1.1", "1");
        assert!(
            quota.payer(&plugin("1")).is_some_and(|again| Arc::ptr_eq(&again, &payer)),
            "what is kept of its evaluators still counts"
        );
        let _third = acquire("3.3.3.3", "1");
        assert_eq!(quota.memory.lock().len(), 2, "addresses that have nothing are forgotten");
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller() {
        let quota = Arc::new(PluginQuota::new(LIMITS));
        let acquire = |at, config| quota.acquire_evaluator(caller(at, false), Some(&plugin(config)));
        let request = |at| quota.acquire_request(caller(at, false));
        let _held = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"]
            .map(|at| (acquire(at, at).unwrap(), request(at).unwrap()));
        let same = "2001:db8:1:2:3:4:5:6";
        assert!(acquire(same, "3").is_err() && request(same).is_err());
        let next = "2001:db8:1:3::1";
        assert!(acquire(next, "3").is_ok() && request(next).is_ok());
        assert_eq!(network("::ffff:1.2.3.4".parse().unwrap()), "1.2.3.4".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn requests_are_limited_by_address_and_in_total() {
        let quota = Arc::new(PluginQuota::new(LIMITS));
        let request = |address: &str, is_shared| quota.acquire_request(caller(address, is_shared));
        let held = [request("1.1.1.1", false).unwrap(), request("1.1.1.1", false).unwrap()];
        let refused = request("1.1.1.1", false).unwrap_err();
        assert!(
            refused.to_string().contains("from this address") && refused.to_string().contains("per_address"),
            "{refused}"
        );
        let more: Vec<_> = (0..3).map(|_| request("10.0.0.1", true).unwrap()).collect();
        assert_eq!(request("10.0.0.1", true).unwrap_err().max(), 3);
        let refused = request("2.2.2.2", false).unwrap_err();
        let setting = "feed.judged_requests_max";
        assert_eq!(refused, QuotaExceeded::Requests { max: 5, setting, from_this_address: false });
        drop((held, more));
        assert!(request("2.2.2.2", false).is_ok() && quota.acquire_request(None).unwrap().is_none());
        assert_eq!(quota.requests.in_use(), 0);
    }
}
