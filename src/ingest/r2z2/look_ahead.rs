//! Which later number is asked for while the next one is missing. Pure: 404s and times in, a number out.
//!
//! Must not know: what is asked for otherwise; clocks.

/// 404s on the next number before a later one is asked for: one may be the head of the feed.
const MISSES_MIN: u64 = 2;

/// 404s since the feed last went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookAhead {
    /// 404s on the next number.
    misses: u64,
    /// When each number was last asked for in vain, unix milliseconds: the next one, and those looked at
    /// behind it.
    asked: Vec<(u64, u64)>,
}

impl LookAhead {
    /// Nothing is missing.
    #[must_use]
    pub const fn new() -> Self {
        Self { misses: 0, asked: Vec::new() }
    }

    /// This number was asked for in vain at `now_ms`. The first one told of is the next in line.
    pub fn missed(&mut self, number: u64, now_ms: u64) {
        match self.asked.iter_mut().find(|(asked, _)| *asked == number) {
            Some((_, at_ms)) => *at_ms = now_ms,
            None => self.asked.push((number, now_ms)),
        }
        self.misses += u64::from(self.asked.first().is_some_and(|(first, _)| *first == number));
    }

    /// The later number to ask for now: with each further 404 another one of the `numbers` behind the next
    /// one, in turn.
    #[must_use]
    pub fn next(&self, next: u64, numbers: u64) -> Option<u64> {
        let round = self.misses.checked_sub(MISSES_MIN)?;
        Some(next + 1 + round.checked_rem(numbers)?)
    }

    /// When this number was last asked for in vain.
    #[must_use]
    pub fn asked_ms(&self, number: u64) -> Option<u64> {
        self.asked.iter().find(|(asked, _)| *asked == number).map(|(_, at_ms)| *at_ms)
    }
}

impl Default for LookAhead {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_second_404_on_eight_later_numbers_have_their_turn() {
        let mut ahead = LookAhead::new();
        let mut looked = vec![];
        for at_ms in 0..11 {
            ahead.missed(7, at_ms);
            looked.push(ahead.next(7, 8));
            if let Some(number) = ahead.next(7, 8) {
                ahead.missed(number, at_ms);
            }
        }
        let expected =
            [0, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9].map(|number| Some(number).filter(|number| *number > 0));
        assert_eq!(looked, expected);
        assert_eq!(
            (ahead.asked_ms(7), ahead.asked_ms(8), ahead.asked_ms(10), ahead.asked_ms(16)),
            (Some(10), Some(9), Some(3), None)
        );
        assert_eq!(ahead.next(7, 0), None, "switched off");
    }
}
