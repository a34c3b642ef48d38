//! The search for the oldest file still there, where those before it are gone. Pure: answers in, numbers to
//! look at out.
//!
//! Must not know: how it is asked whether a file is there.

/// Missing files in a row that are taken for the end of what is there: single holes lie in between.
const MISSING_MAX: u64 = 3;

/// A search between two numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldestFileSearch {
    /// Everything before is gone.
    low: u64,
    /// From here on there is nothing to look at.
    high: u64,
    /// The smallest number known to be there, or where the feed is.
    best: u64,
    /// Files missing from the middle on.
    missing: u64,
}

/// Where an answer leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchStep {
    /// On with the search.
    On,
    /// Everything before this number is gone.
    Found(u64),
}

impl OldestFileSearch {
    /// Looks for the first file from `low` on; at `high` the feed is.
    #[must_use]
    pub const fn new(low: u64, high: u64) -> Self {
        Self { low, high, best: high, missing: 0 }
    }

    /// The number to look at.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.low + (self.high.saturating_sub(self.low)) / 2 + self.missing
    }

    /// Whether the file of that number is there.
    pub fn answered(&mut self, is_there: bool) -> SearchStep {
        let number = self.number();
        if is_there {
            (self.high, self.best, self.missing) = (number, number, 0);
        } else {
            self.missing += 1;
            if self.missing == MISSING_MAX {
                (self.low, self.missing) = (number + 1, 0);
            } else if number + 1 >= self.high {
                // Too few to tell; what lies before them decides.
                (self.high, self.missing) = (number + 1 - self.missing, 0);
            }
        }
        if self.low >= self.high { SearchStep::Found(self.best) } else { SearchStep::On }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn search(low: u64, high: u64, is_there: impl Fn(u64) -> bool) -> (u64, u32) {
        let mut seek = OldestFileSearch::new(low, high);
        for asked in 1..1000 {
            if let SearchStep::Found(first) = seek.answered(is_there(seek.number())) {
                return (first, asked);
            }
        }
        panic!("it never ends");
    }

    proptest! {
        #[test]
        fn the_first_file_is_found_whatever_single_holes_there_are(
            low in 0_u64..1000, gone in 0_u64..200_000, kept in 0_u64..200_000, every in 2_u64..50,
        ) {
            let (first, high) = (low + gone, low + gone + kept);
            let (found, asked) = search(low, high, |number| number >= first && (number == first || (number - first) % every != 0));
            prop_assert_eq!(found, first);
            prop_assert!(asked < 80, "{} questions", asked);
        }
    }

    #[test]
    fn with_nothing_there_it_ends_where_the_feed_is() {
        assert_eq!(search(10, 5000, |_| false).0, 5000);
        assert_eq!(search(10, 10, |_| false).0, 10);
    }
}
