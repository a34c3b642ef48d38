//! How many different judges (pairs of plugin and configuration) one address has at work. A judge is given back when its hold is dropped.
//!
//! One subscriber with many configurations must not take the places of all others: each may keep two warm instances.
//!
//! Must not know: what a judge does, how addresses are found.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::domain::subscription::PluginUse;
use crate::domain::tally::Tally;

/// Who has which judges at work, and how often.
#[derive(Debug, Default)]
pub struct Judges {
    at_work: Mutex<HashMap<IpAddr, Tally<PluginUse>>>,
}

/// The address has as many different judges at work as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{max} pairs of plugin and configuration are in use from this address, the most it may have (plugin.evaluators_per_address_max)")]
pub struct TooMany {
    /// The limit.
    pub max: usize,
}

impl Judges {
    /// Takes a judge for an address; nothing is held without a plugin or where the address does not count.
    ///
    /// # Errors
    /// It would be one more different judge than an address may have.
    pub fn take(self: &Arc<Self>, max: usize, from: Option<IpAddr>, using: Option<&PluginUse>) -> Result<Option<Hold>, TooMany> {
        let (Some(from), Some(using)) = (from, using) else { return Ok(None) };
        let mut at_work = self.at_work.lock();
        let is_one_more = |theirs: &Tally<PluginUse>| theirs.of(using) == 0 && theirs.different() >= max;
        if at_work.get(&from).map_or(max == 0, is_one_more) {
            return Err(TooMany { max });
        }
        at_work.entry(from).or_default().add(using.clone());
        drop(at_work);
        Ok(Some(Hold { judges: Arc::clone(self), from, using: using.clone() }))
    }
}

/// The right to one judge.
#[derive(Debug)]
pub struct Hold {
    judges: Arc<Judges>,
    from: IpAddr,
    using: PluginUse,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(config: &str) -> PluginUse {
        PluginUse { name: "watchlist".to_owned(), version: None, config: config.to_owned() }
    }

    #[test]
    fn equal_judges_count_once_and_come_back() {
        let judges = Arc::new(Judges::default());
        let from = "1.2.3.4".parse().ok();
        let one = judges.take(2, from, Some(&plugin("1"))).unwrap();
        let _same = judges.take(2, from, Some(&plugin("1"))).unwrap();
        let two = judges.take(2, from, Some(&plugin("2"))).unwrap();
        assert_eq!(judges.take(2, from, Some(&plugin("3"))).unwrap_err(), TooMany { max: 2 });
        assert!(judges.take(2, "1.2.3.5".parse().ok(), Some(&plugin("3"))).is_ok());
        drop(one);
        assert!(judges.take(2, from, Some(&plugin("3"))).is_err(), "an equal one is still at work");
        drop(two);
        assert!(judges.take(2, from, Some(&plugin("3"))).is_ok());
        assert!(judges.take(0, from, None).unwrap().is_none());
        assert!(judges.take(0, None, Some(&plugin("3"))).unwrap().is_none());
        let elsewhere = "1.2.3.6".parse().ok();
        assert_eq!(judges.take(0, elsewhere, Some(&plugin("3"))).unwrap_err(), TooMany { max: 0 });
        assert!(elsewhere.is_some_and(|address| !judges.at_work.lock().contains_key(&address)), "who is refused takes no room");
    }
}
