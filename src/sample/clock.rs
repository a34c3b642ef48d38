//! When killmails happen: the hours of a day, the noise of minutes, battles.
//!
//! Must not know: what a killmail is, or what time it is now.

use crate::clock::DAY_SECS;
use crate::sample::rng::Dice;

/// Killmails of one week by hour of day, UTC: quiet at downtime (11), busiest at 19.
const HOURS: [f64; 24] = [
    3515.0, 3587.0, 3301.0, 3328.0, 3598.0, 2721.0, 2348.0, 2052.0, 2190.0, 2285.0, 2426.0, 1744.0, 3293.0,
    3889.0, 3735.0, 3755.0, 3870.0, 4187.0, 4490.0, 5732.0, 5589.0, 4980.0, 3632.0, 2981.0,
];
/// Days between two battles, on average.
const DAYS_PER_BATTLE: f64 = 3.0;
/// A battle's killmails a minute, least and most, in means of all minutes (9 killmails): 30 to 96.
const BATTLE: (f64, f64) = (3.3, 10.7);

/// One killmail's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Unix seconds.
    pub time: i64,
    /// The battle it belongs to.
    pub battle: Option<u32>,
}

/// The times of a given number of killmails, ascending.
#[derive(Debug)]
pub struct Moments {
    from: i64,
    dice: Dice,
    /// What each minute weighs: its share for everyday losses, its share for a battle, and which.
    minutes: Vec<(f64, f64, u32)>,
    total: f64,
    next_minute: usize,
    /// Weight and number of killmails before `next_minute`.
    passed: f64,
    given: u64,
    killmails: u64,
    waiting: Vec<Moment>,
}

impl Moments {
    /// Times of exactly so many killmails in the days from `from` (unix seconds).
    #[must_use]
    pub fn new(seed: u64, from: i64, days: f64, killmails: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x636c_6f63_6b00_0001);
        let count = ((days * 1440.0).ceil() as usize).max(1);
        let mean = HOURS.iter().sum::<f64>() / 24.0;
        let mut minutes: Vec<(f64, f64, u32)> = (0..count)
            .map(|minute| {
                let hour = (from + minute as i64 * 60).rem_euclid(DAY_SECS) / 3600;
                (HOURS[hour as usize] / mean * (0.45 * dice.normal()).exp(), 0.0, 0)
            })
            .collect();
        for battle in 0..(days / DAYS_PER_BATTLE).round() as u32 {
            let start = dice.below(count as u32) as usize;
            let weight = BATTLE.0 + (BATTLE.1 - BATTLE.0) * dice.fraction();
            let end = (start + 10 + dice.below(51) as usize).min(count);
            for minute in &mut minutes[start..end] {
                (minute.1, minute.2) = (weight * (0.25 * dice.normal()).exp(), battle);
            }
        }
        let total = minutes.iter().map(|m| m.0 + m.1).sum();
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

    /// Throws the seconds of the next minute's killmails.
    fn minute(&mut self) -> Option<()> {
        let (plain, fought, battle) = *self.minutes.get(self.next_minute)?;
        let start = self.from + self.next_minute as i64 * 60;
        self.passed += plain + fought;
        self.next_minute += 1;
        let last = self.next_minute == self.minutes.len();
        let due =
            if last { self.killmails } else { (self.killmails as f64 * self.passed / self.total) as u64 };
        let mut second = 0;
        for _ in self.given..due {
            let in_battle = self.dice.chance(fought / (plain + fought));
            // In battles many die in the same second.
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
            self.minute()?;
        }
        self.waiting.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_ascend_and_all_are_given() {
        let moments: Vec<Moment> = Moments::new(5, 1_700_000_000, 7.0, 83_228).collect();
        assert_eq!(moments.len(), 83_228);
        assert!(moments.is_sorted_by_key(|m| m.time));
        assert!(moments.iter().all(|m| (1_700_000_000..1_700_000_000 + 7 * DAY_SECS).contains(&m.time)));
    }

    #[test]
    fn hours_and_minutes_are_those_of_a_real_week() {
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
    fn a_few_killmails_in_a_short_time_are_fine() {
        assert_eq!(Moments::new(1, 0, 0.001, 3).count(), 3);
        assert_eq!(Moments::new(1, 0, 1.0, 0).count(), 0);
    }
}
