//! What a guest may query about the killmails before the one it evaluates. Declared here, implemented by the
//! owner of the store.
//!
//! Law 7 (same in, same out) depends on `Bound`: a query covers the same killmails whenever it is made.
//!
//! Must not know: how killmails are stored.

use crate::domain::filter::RoleClause;
use crate::domain::id::Seq;

/// The killmails that a guest may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Only killmail ids below this.
    pub below: u32,
    /// Only entries up to this sequence number.
    pub head: Seq,
}

/// Killmails that match **all** terms, within a time range. A term without ids matches nothing; without
/// terms, all killmails of that time match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryQuestion {
    /// The terms.
    pub terms: Vec<RoleClause>,
    /// Killmail time at or after this, unix seconds.
    pub since: Option<i64>,
    /// Killmail time before this, unix seconds.
    pub until: Option<i64>,
}

/// Totals of a set of killmails.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// Their number.
    pub killmails: u64,
    /// The sum of their total values, ISK.
    pub value: f64,
    /// Time of the earliest, unix seconds.
    pub first: Option<i64>,
    /// Time of the latest, unix seconds.
    pub last: Option<i64>,
}

/// The host work that one guest call may still use, in nanoseconds of CPU time. It is charged before the
/// work, by the size of the request and not by a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    max: u64,
    remaining: u64,
}

/// A request that exceeds the allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("about {} ms or more of the host's work, with {} of {} ms left (plugin.host_cpu_ms)", millis(*.needed), millis(*.left), millis(*.max))]
pub struct Exhausted {
    /// The least it would have taken, nanoseconds.
    pub needed: u64,
    /// What was left, nanoseconds.
    pub left: u64,
    /// The allowance of one call, nanoseconds.
    pub max: u64,
}

const fn millis(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000)
}

impl Allowance {
    /// A full allowance of this many nanoseconds.
    #[must_use]
    pub const fn new(max: u64) -> Self {
        Self { max, remaining: max }
    }

    /// What is left, nanoseconds.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Charges work that is about to be done, nanoseconds.
    ///
    /// # Errors
    /// It exceeds what is left; then the work must not be done.
    pub const fn charge(&mut self, nanos: u64) -> Result<(), Exhausted> {
        match self.remaining.checked_sub(nanos) {
            Some(left) => self.remaining = left,
            None => return Err(Exhausted { needed: nanos, left: self.remaining, max: self.max }),
        }
        Ok(())
    }
}

/// The history that guests query. Called on the worker threads; may block as long as the allowance permits.
pub trait History: Send + Sync {
    /// The number of matching killmails.
    ///
    /// # Errors
    /// The answer exceeds the allowance.
    fn count(
        &self,
        query: &HistoryQuestion,
        bound: Bound,
        allowance: &mut Allowance,
    ) -> Result<u64, Exhausted>;
    /// Totals of the matching killmails.
    ///
    /// # Errors
    /// The answer exceeds the allowance.
    fn totals(
        &self,
        query: &HistoryQuestion,
        bound: Bound,
        allowance: &mut Allowance,
    ) -> Result<Totals, Exhausted>;
    /// Time of the latest killmail that matches this term, unix seconds.
    ///
    /// # Errors
    /// The answer exceeds the allowance.
    fn last_seen(
        &self,
        term: &RoleClause,
        bound: Bound,
        allowance: &mut Allowance,
    ) -> Result<Option<i64>, Exhausted>;
}

/// An empty history, for trials and tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHistory;

impl History for NoHistory {
    fn count(&self, _: &HistoryQuestion, _: Bound, _: &mut Allowance) -> Result<u64, Exhausted> {
        Ok(0)
    }

    fn totals(&self, _: &HistoryQuestion, _: Bound, _: &mut Allowance) -> Result<Totals, Exhausted> {
        Ok(Totals::default())
    }

    fn last_seen(&self, _: &RoleClause, _: Bound, _: &mut Allowance) -> Result<Option<i64>, Exhausted> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allowance_is_never_overdrawn() {
        let mut allowance = Allowance::new(50_000_000);
        assert_eq!(allowance.charge(49_500_000), Ok(()));
        let refused = allowance.charge(115_200_000).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "about 116 ms or more of the host's work, with 1 of 50 ms left (plugin.host_cpu_ms)"
        );
        assert_eq!((allowance.remaining(), allowance.charge(500_000)), (500_000, Ok(())));
    }
}
