//! Bounds of killmail ids for a time window: ids grow with time, but not strictly.
//!
//! It knows for each hour the smallest id at or after it and the greatest id at or before it. Only hours where
//! a bound changes are stored, so a bound is one lookup, and a killmail that arrives out of order costs at most
//! one more hour.
//!
//! Must not know: exact times; callers test those within the bounds.

use std::collections::BTreeMap;

const HOUR_SECS: i64 = 3600;

#[derive(Debug, Clone, PartialEq, Default)]
pub struct TimeBounds {
    /// Hour -> the smallest id of that hour and all later ones; ids ascend with the hours.
    least: BTreeMap<i64, u32>,
    /// Hour -> the greatest id of that hour and all earlier ones; ids ascend with the hours.
    most: BTreeMap<i64, u32>,
}

impl TimeBounds {
    /// Adds a killmail; `time` in unix seconds.
    pub fn insert(&mut self, time: i64, id: u32) {
        let hour = time.div_euclid(HOUR_SECS);
        if self.least.range(hour..).next().is_none_or(|(_, least)| id < *least) {
            while let Some((step, _)) =
                self.least.range(..=hour).next_back().filter(|(_, least)| **least >= id)
            {
                let step = *step;
                self.least.remove(&step);
            }
            self.least.insert(hour, id);
        }
        if self.most.range(..=hour).next_back().is_none_or(|(_, most)| id > *most) {
            while let Some((step, _)) = self.most.range(hour..).next().filter(|(_, most)| **most <= id) {
                let step = *step;
                self.most.remove(&step);
            }
            self.most.insert(hour, id);
        }
    }

    /// No killmail at or after this time has a smaller id; `None` if there are no such killmails.
    pub fn lowest_since(&self, since: i64) -> Option<u32> {
        self.least.range(since.div_euclid(HOUR_SECS)..).next().map(|(_, id)| *id)
    }

    /// No killmail before this time has a greater id; `None` if there are no such killmails.
    pub fn highest_until(&self, until: i64) -> Option<u32> {
        self.most.range(..=until.saturating_sub(1).div_euclid(HOUR_SECS)).next_back().map(|(_, id)| *id)
    }

    /// Every killmail with a greater id is at or after this time.
    pub fn all_since_above(&self, since: i64) -> u32 {
        let whole_hours_before = since.saturating_add(HOUR_SECS - 1).div_euclid(HOUR_SECS) - 1;
        self.most.range(..=whole_hours_before).next_back().map_or(0, |(_, id)| *id)
    }

    /// Every killmail with a smaller id is before this time; `None` if every killmail is.
    pub fn all_until_below(&self, until: i64) -> Option<u32> {
        self.least.range(until.div_euclid(HOUR_SECS)..).next().map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bounds_hold_and_are_as_tight_as_hours_allow(
            killmails in proptest::collection::vec((0i64..40_000, 1u32..500), 1..60), time in -5_000i64..45_000,
        ) {
            let mut bounds = TimeBounds::default();
            for (time, id) in &killmails {
                bounds.insert(*time, *id);
            }
            let ids = |keep: &dyn Fn(i64) -> bool| killmails.iter().filter(|(t, _)| keep(*t)).map(|(_, id)| *id).collect::<Vec<_>>();
            let hour = time.div_euclid(HOUR_SECS) * HOUR_SECS;
            prop_assert_eq!(bounds.lowest_since(time), ids(&|t| t >= hour).into_iter().min());
            let last_hour = (time - 1).div_euclid(HOUR_SECS) * HOUR_SECS;
            prop_assert_eq!(bounds.highest_until(time), ids(&|t| t < last_hour + HOUR_SECS).into_iter().max());
            prop_assert!(ids(&|t| t < time).into_iter().all(|id| id <= bounds.all_since_above(time)));
            prop_assert!(ids(&|t| t >= time).into_iter().all(|id| bounds.all_until_below(time).is_some_and(|bound| id >= bound)));
        }
    }
}
