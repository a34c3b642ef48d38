//! Reproducible random numbers: the same seed gives the same numbers on every machine.
//!
//! Must not know: what they are used for.

/// A small random number generator (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Starts from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any 64-bit number.
    pub const fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if `end` is 0.
    pub const fn below(&mut self, end: u32) -> u32 {
        (((self.throw() >> 32) * end as u64) >> 32) as u32
    }

    /// At least 0 and below 1.
    pub const fn fraction(&mut self) -> f64 {
        (self.throw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with this probability.
    pub const fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// Approximately normally distributed with mean 0 and standard deviation 1 (a sum of four numbers).
    /// Never beyond 3.5.
    pub fn normal(&mut self) -> f64 {
        let throw = self.throw();
        let sum: u64 = (0..4).map(|n| (throw >> (16 * n)) & 0xffff).sum();
        (sum as f64 / 65_535.0 - 2.0) * 3_f64.sqrt()
    }

    /// One of the elements.
    ///
    /// # Panics
    /// There are none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(u32::try_from(from.len()).unwrap_or(u32::MAX)) as usize]
    }
}

/// Draws ranks in proportion to their weights in constant time (the alias method).
#[derive(Debug, Clone)]
pub struct AliasTable {
    /// Below this the rank itself is drawn, otherwise its alias; in units of 2^-32.
    keep: Vec<u32>,
    alias: Vec<u32>,
}

impl AliasTable {
    /// Ranks from 0 on with these weights. None may be negative, and at least one must be positive.
    #[must_use]
    pub fn new(weights: &[f64]) -> Self {
        let mean = weights.iter().sum::<f64>() / weights.len() as f64;
        let mut scaled: Vec<f64> = weights.iter().map(|w| w / mean).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..scaled.len()).partition(|rank| scaled[*rank] < 1.0);
        let mut keep = vec![u32::MAX; scaled.len()];
        let mut alias: Vec<u32> = (0..scaled.len()).map(|rank| rank as u32).collect();
        while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
            keep[poor] = (scaled[poor] * f64::from(u32::MAX)) as u32;
            alias[poor] = rich as u32;
            scaled[rich] -= 1.0 - scaled[poor];
            if scaled[rich] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        Self { keep, alias }
    }

    /// Draws a rank.
    pub fn draw(&self, dice: &mut Dice) -> usize {
        let rank = dice.below(self.keep.len() as u32) as usize;
        if dice.throw() as u32 <= self.keep[rank] { rank } else { self.alias[rank] as usize }
    }
}

/// Weights of `ranks` ranks by a piecewise power law through the given points `(rank from 1, weight)`, which
/// must be ascending in rank.
#[must_use]
pub fn power_law_weights(points: &[(f64, f64)], ranks: usize) -> Vec<f64> {
    let weight = |rank: f64| {
        let after = points.iter().position(|(at, _)| *at >= rank).unwrap_or(points.len() - 1).max(1);
        let ((r0, w0), (r1, w1)) = (points[after - 1], points[after]);
        w0 * (rank / r0).powf((w1 / w0).ln() / (r1 / r0).ln())
    };
    (1..=ranks).map(|rank| weight(rank as f64)).collect()
}

/// A distribution of counts as ranges of `(cumulative share, least, most)`; low counts of a range are more
/// likely.
#[derive(Debug, Clone, Copy)]
pub struct Counts(pub &'static [(f64, u32, u32)]);

impl Counts {
    /// Draws a count.
    pub fn draw(&self, dice: &mut Dice) -> u32 {
        let share = dice.fraction();
        let (_, least, most) = self.0.iter().find(|(upto, ..)| share < *upto).copied().unwrap_or_default();
        if least == most {
            return least;
        }
        let ratio = f64::from(most + 2) / f64::from(least + 1);
        let count = f64::from(least + 1) * ratio.powf(dice.fraction().powf(1.4));
        (count as u32 - 1).clamp(least, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_drawn_in_proportion_to_their_weights() {
        let table = AliasTable::new(&[6.0, 0.0, 3.0, 1.0]);
        let mut dice = Dice::new(1);
        let mut seen = [0_u32; 4];
        for _ in 0..100_000 {
            seen[table.draw(&mut dice)] += 1;
        }
        assert_eq!(seen[1], 0);
        for (rank, share) in [(0, 60_000_u32), (2, 30_000), (3, 10_000)] {
            assert!(seen[rank].abs_diff(share) < 1_000, "{seen:?}");
        }
    }

    #[test]
    fn counts_stay_in_their_ranges() {
        let counts = Counts(&[(0.5, 0, 0), (0.75, 1, 4), (1.0, 5, 100)]);
        let mut dice = Dice::new(2);
        let drawn: Vec<u32> = (0..10_000).map(|_| counts.draw(&mut dice)).collect();
        let upto = |most: u32| drawn.iter().filter(|n| **n <= most).count();
        assert!(upto(0).abs_diff(5_000) < 200 && upto(4).abs_diff(7_500) < 200 && upto(100) == 10_000);
        assert!((1..=4).all(|n| upto(n) > upto(n - 1)) && drawn.contains(&100));
    }

    #[test]
    fn normal_numbers_have_mean_0_and_deviation_1() {
        let mut dice = Dice::new(3);
        let thrown: Vec<f64> = (0..50_000).map(|_| dice.normal()).collect();
        let mean = thrown.iter().sum::<f64>() / 50_000.0;
        let variance = thrown.iter().map(|n| n * n).sum::<f64>() / 50_000.0;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }
}
