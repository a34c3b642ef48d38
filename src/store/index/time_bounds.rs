//! Bounds of killmail ids for a window of time: ids grow with time, nearly.
//!
//! For each hour the smallest id at or after it and the greatest at or before it, as two staircases: only the
//! hours where a bound changes are kept, so that a bound is one look-up and late or mixed arrivals cost no
//! more than a step.
//!
//! Must not know: exact times; those decide within the bounds.

use std::collections::BTreeMap;

const HOUR_SECS: i64 = 3600;

/// The two staircases.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TimeBounds {
    /// Hour -> the smallest id of that hour and all later ones; ids ascend with the hours.
    least: BTreeMap<i64, u32>,
    /// Hour -> the greatest id of that hour and all earlier ones; ids ascend with the hours.
    most: BTreeMap<i64, u32>,
}

impl TimeBounds {
    /// Takes a killmail in.
    pub fn add(&mut self, time: i64, id: u32) {
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

    /// Ids of killmails at or after this time are at least this; `None`: there are none.
    pub fn at_least(&self, since: i64) -> Option<u32> {
        self.least.range(since.div_euclid(HOUR_SECS)..).next().map(|(_, id)| *id)
    }

    /// Ids of killmails before this time are at most this; `None`: there are none.
    pub fn at_most(&self, until: i64) -> Option<u32> {
        self.most.range(..=until.saturating_sub(1).div_euclid(HOUR_SECS)).next_back().map(|(_, id)| *id)
    }

    /// Ids greater than this are all at or after this time, whatever their exact time.
    pub fn surely_since(&self, since: i64) -> u32 {
        let whole_hours_before = since.saturating_add(HOUR_SECS - 1).div_euclid(HOUR_SECS) - 1;
        self.most.range(..=whole_hours_before).next_back().map_or(0, |(_, id)| *id)
    }

    /// Ids smaller than this are all before this time; `None`: every id is.
    pub fn surely_until(&self, until: i64) -> Option<u32> {
        self.least.range(until.div_euclid(HOUR_SECS)..).next().map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bounds_hold_and_are_as_near_as_hours_allow(
            killmails in proptest::collection::vec((0i64..40_000, 1u32..500), 1..60), time in -5_000i64..45_000,
        ) {
            let mut hours = TimeBounds::default();
            for (time, id) in &killmails {
                hours.add(*time, *id);
            }
            let ids = |keep: &dyn Fn(i64) -> bool| killmails.iter().filter(|(t, _)| keep(*t)).map(|(_, id)| *id).collect::<Vec<_>>();
            let hour = time.div_euclid(HOUR_SECS) * HOUR_SECS;
            prop_assert_eq!(hours.at_least(time), ids(&|t| t >= hour).into_iter().min());
            let last_hour = (time - 1).div_euclid(HOUR_SECS) * HOUR_SECS;
            prop_assert_eq!(hours.at_most(time), ids(&|t| t < last_hour + HOUR_SECS).into_iter().max());
            prop_assert!(ids(&|t| t < time).into_iter().all(|id| id <= hours.surely_since(time)));
            prop_assert!(ids(&|t| t >= time).into_iter().all(|id| hours.surely_until(time).is_some_and(|bound| id >= bound)));
        }
    }
}
