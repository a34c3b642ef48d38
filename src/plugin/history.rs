//! What a guest may ask of the killmails before the one it judges. Declared here, answered by whoever holds
//! the store.
//!
//! Law 7 (same in, same out) rests on `Bound`: a question is always about the same killmails, whenever it is
//! asked.
//!
//! Must not know: how killmails are kept.

use crate::domain::filter::RoleClause;
use crate::domain::id::Seq;

/// Which killmails may be seen at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Only killmail ids smaller than this.
    pub below: u32,
    /// Only what the log held up to this number.
    pub head: Seq,
}

/// Killmails that fit **all** terms, within a time. A term without ids fits nothing; no terms: all killmails
/// of that time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryQuestion {
    /// The terms.
    pub terms: Vec<RoleClause>,
    /// Killmail time at least this, unix seconds.
    pub since: Option<i64>,
    /// Killmail time before this, unix seconds.
    pub until: Option<i64>,
}

/// What a set of killmails amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// How many.
    pub killmails: u64,
    /// Their total values summed, ISK.
    pub value: f64,
    /// Time of the earliest, unix seconds.
    pub first: Option<i64>,
    /// Time of the latest, unix seconds.
    pub last: Option<i64>,
}

/// What of the host's work one call of a guest may still have, in nanoseconds of CPU time. It is charged
/// before the work, by what is asked and not by what a clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    max: u64,
    remaining: u64,
}

/// More was asked of the host than it may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("about {} ms or more of the host's work, with {} of {} ms left (plugin.host_cpu_ms)", millis(*.needed), millis(*.left), millis(*.max))]
pub struct Exhausted {
    /// What it would have taken at least, nanoseconds.
    pub needed: u64,
    /// What was left, nanoseconds.
    pub left: u64,
    /// What one call may have, nanoseconds.
    pub max: u64,
}

const fn millis(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000)
}

impl Allowance {
    /// So much for one call, nanoseconds.
    #[must_use]
    pub const fn new(max: u64) -> Self {
        Self { max, remaining: max }
    }

    /// What is left, nanoseconds.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Takes off what is about to be done, nanoseconds.
    ///
    /// # Errors
    /// More than is left; then nothing may be done.
    pub const fn charge(&mut self, nanos: u64) -> Result<(), Exhausted> {
        match self.remaining.checked_sub(nanos) {
            Some(left) => self.remaining = left,
            None => return Err(Exhausted { needed: nanos, left: self.remaining, max: self.max }),
        }
        Ok(())
    }
}

/// The memory of guests. Called on the judging threads; may block for what the allowance allows.
pub trait History: Send + Sync {
    /// How many killmails fit.
    ///
    /// # Errors
    /// The answer takes more than the allowance.
    fn count(
        &self,
        query: &HistoryQuestion,
        bound: Bound,
        allowance: &mut Allowance,
    ) -> Result<u64, Exhausted>;
    /// What those that fit amount to.
    ///
    /// # Errors
    /// The answer takes more than the allowance.
    fn totals(
        &self,
        query: &HistoryQuestion,
        bound: Bound,
        allowance: &mut Allowance,
    ) -> Result<Totals, Exhausted>;
    /// When the latest killmail that fits this term happened, unix seconds.
    ///
    /// # Errors
    /// The answer takes more than the allowance.
    fn last_seen(
        &self,
        term: &RoleClause,
        bound: Bound,
        allowance: &mut Allowance,
    ) -> Result<Option<i64>, Exhausted>;
}

/// No history at all: for trials of plugins.
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
    fn what_is_left_is_never_overdrawn() {
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
