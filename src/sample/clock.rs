//! When made-up killmails happen: by hour of the day, with noise per minute, and in battles.
//!
//! Must not know: what a killmail is; the current time.

use crate::clock::DAY_SECS;
use crate::sample::rng::Dice;
use crate::universe::activity::KILLMAILS_BY_HOUR;

/// The average time between two battles, days.
const DAYS_PER_BATTLE: f64 = 3.0;
/// The fewest and the most killmails a minute of a battle, in multiples of an average minute (9 killmails);
/// that is 30 to 96.
const BATTLE: (f64, f64) = (3.3, 10.7);

/// The time of one killmail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub time: i64,
    /// The number of the battle it belongs to.
    pub battle: Option<u32>,
}

/// Iterates over the times of a given number of killmails, ascending.
#[derive(Debug)]
pub struct Moments {
    from: i64,
    dice: Dice,
    minutes: Vec<Minute>,
    /// The sum of all weights.
    total: f64,
    next_minute: usize,
    /// The weight of the minutes before `next_minute`.
    passed: f64,
    /// The number of killmails in the minutes before `next_minute`.
    given: u64,
    killmails: u64,
    /// The times of the current minute, latest first.
    waiting: Vec<Moment>,
}

/// The weights of one minute.
#[derive(Debug, Clone, Copy)]
struct Minute {
    everyday: f64,
    /// 0 without a battle.
    in_battle: f64,
    battle: u32,
}

impl Moments {
    /// Times of exactly this many killmails in the days from `from` (unix seconds) on.
    #[must_use]
    pub fn new(seed: u64, from: i64, days: f64, killmails: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x636c_6f63_6b00_0001);
        let count = ((days * 1440.0).ceil() as usize).max(1);
        let mean = f64::from(KILLMAILS_BY_HOUR.iter().sum::<u32>()) / 24.0;
        let mut minutes: Vec<Minute> = (0..count)
            .map(|minute| {
                let hour = (from + minute as i64 * 60).rem_euclid(DAY_SECS) / 3600;
                let everyday =
                    f64::from(KILLMAILS_BY_HOUR[hour as usize]) / mean * (0.45 * dice.normal()).exp();
                Minute { everyday, in_battle: 0.0, battle: 0 }
            })
            .collect();
        for battle in 0..(days / DAYS_PER_BATTLE).round() as u32 {
            let start = dice.below(count as u32) as usize;
            let weight = BATTLE.0 + (BATTLE.1 - BATTLE.0) * dice.fraction();
            let end = (start + 10 + dice.below(51) as usize).min(count);
            for minute in &mut minutes[start..end] {
                (minute.in_battle, minute.battle) = (weight * (0.25 * dice.normal()).exp(), battle);
            }
        }
        let total = minutes.iter().map(|minute| minute.everyday + minute.in_battle).sum();
        Self {
            from,
            dice,
            minutes,
            total,
            next_minute: 0,
            passed: 0.0,
            given: 0,
            killmails,
            waiting: Vec::new(),
        }
    }

    /// Draws the times within the next minute; `None` at the end.
    fn draw_minute(&mut self) -> Option<()> {
        let Minute { everyday, in_battle: fought, battle } = *self.minutes.get(self.next_minute)?;
        let start = self.from + self.next_minute as i64 * 60;
        self.passed += everyday + fought;
        self.next_minute += 1;
        let last = self.next_minute == self.minutes.len();
        let due =
            if last { self.killmails } else { (self.killmails as f64 * self.passed / self.total) as u64 };
        let mut second = 0;
        for _ in self.given..due {
            let in_battle = self.dice.chance(fought / (everyday + fought));
            // In a battle many killmails share a second.
            if !(in_battle && self.dice.chance(0.4)) {
                second = self.dice.below(60);
            }
            self.waiting
                .push(Moment { time: start + i64::from(second), battle: in_battle.then_some(battle) });
        }
        self.given = due;
        self.waiting.sort_unstable_by_key(|moment| std::cmp::Reverse(moment.time));
        Some(())
    }
}

impl Iterator for Moments {
    type Item = Moment;

    fn next(&mut self) -> Option<Moment> {
        while self.waiting.is_empty() {
            self.draw_minute()?;
        }
        self.waiting.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ascending_and_complete() {
        let moments: Vec<Moment> = Moments::new(5, 1_700_000_000, 7.0, 83_228).collect();
        assert_eq!(moments.len(), 83_228);
        assert!(moments.is_sorted_by_key(|m| m.time));
        assert!(moments.iter().all(|m| (1_700_000_000..1_700_000_000 + 7 * DAY_SECS).contains(&m.time)));
    }

    #[test]
    fn hours_and_minutes_are_distributed_as_in_a_real_week() {
        let from = 1_699_920_000;
        let moments: Vec<Moment> = Moments::new(6, from, 70.0, 900_000).collect();
        let share = |hour: i64| {
            moments.iter().filter(|m| m.battle.is_none() && m.time % DAY_SECS / 3600 == hour).count() as f64
        };
        assert!((share(19) / share(11) / (5732.0 / 1744.0) - 1.0).abs() < 0.08, "{}", share(19) / share(11));
        let mut minutes = vec![0_u32; 70 * 1440];
        for moment in &moments {
            minutes[usize::try_from((moment.time - from) / 60).unwrap()] += 1;
        }
        minutes.sort_unstable();
        let at = |share: f64| minutes[(minutes.len() as f64 * share) as usize];
        assert!((6..=10).contains(&at(0.5)) && (22..=40).contains(&at(0.99)), "{} {}", at(0.5), at(0.99));
        assert!((80..=200).contains(minutes.last().unwrap()), "{:?}", minutes.last());
    }

    #[test]
    fn a_few_killmails_in_a_short_time_are_possible() {
        assert_eq!(Moments::new(1, 0, 0.001, 3).count(), 3);
        assert_eq!(Moments::new(1, 0, 1.0, 0).count(), 0);
    }
}
