//! Which later number to try while the next one is missing. Pure: 404s and times in, a number out.
//!
//! Must not know: the other requests; clocks.

/// 404s on the next number before a later one is tried: a single one may be the head of the feed.
const NOT_FOUND_MIN: u64 = 2;

/// The 404s since the feed last advanced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookAhead {
    /// 404s on the next number.
    not_found: u64,
    /// The numbers that were not found: the next one first, then later ones.
    tried: Vec<Tried>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tried {
    number: u64,
    /// When it was last requested, unix milliseconds.
    at_ms: u64,
}

impl LookAhead {
    /// Nothing is missing.
    #[must_use]
    pub const fn new() -> Self {
        Self { not_found: 0, tried: Vec::new() }
    }

    /// Notes that a number was not found at `now_ms`. The first one noted is the next number of the feed.
    pub fn note_not_found(&mut self, number: u64, now_ms: u64) {
        match self.tried.iter_mut().find(|tried| tried.number == number) {
            Some(tried) => tried.at_ms = now_ms,
            None => self.tried.push(Tried { number, at_ms: now_ms }),
        }
        self.not_found += u64::from(self.tried.first().is_some_and(|first| first.number == number));
    }

    /// The later number to try now: after each further 404 another one of the `count` numbers after `next`,
    /// in turn.
    #[must_use]
    pub fn number_to_try(&self, next: u64, count: u64) -> Option<u64> {
        let round = self.not_found.checked_sub(NOT_FOUND_MIN)?;
        Some(next + 1 + round.checked_rem(count)?)
    }

    /// When this number was last requested and not found.
    #[must_use]
    pub fn last_tried_ms(&self, number: u64) -> Option<u64> {
        self.tried.iter().find(|tried| tried.number == number).map(|tried| tried.at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_second_404_on_eight_later_numbers_are_tried_in_turn() {
        let mut ahead = LookAhead::new();
        let mut numbers = vec![];
        for at_ms in 0..11 {
            ahead.note_not_found(7, at_ms);
            numbers.push(ahead.number_to_try(7, 8));
            if let Some(number) = ahead.number_to_try(7, 8) {
                ahead.note_not_found(number, at_ms);
            }
        }
        let expected =
            [0, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9].map(|number| Some(number).filter(|number| *number > 0));
        assert_eq!(numbers, expected);
        assert_eq!(
            [7, 8, 10, 16].map(|number| ahead.last_tried_ms(number)),
            [Some(10), Some(9), Some(3), None]
        );
        assert_eq!(ahead.number_to_try(7, 0), None, "switched off");
    }
}
