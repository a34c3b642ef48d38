//! A binary search for the oldest file that still exists, when the files before it are gone. Pure: whether a
//! file exists in, the next number to probe out.
//!
//! Must not know: how a file is probed.

/// Missing files in a row that count as gone: single missing numbers occur among existing files.
const MISSING_MAX: u64 = 3;

/// A search between two numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldestFileSearch {
    /// Everything before this number is gone.
    low: u64,
    /// From this number on nothing needs probing.
    high: u64,
    /// The smallest number known to exist, or the head of the feed.
    best: u64,
    /// Missing files in a row, from the middle on.
    missing: u64,
}

/// The result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchStep {
    /// Probe the next number.
    Continue,
    /// This is the oldest file.
    Found(u64),
}

impl OldestFileSearch {
    /// Searches from `low` on; `high` is the head of the feed.
    #[must_use]
    pub const fn new(low: u64, high: u64) -> Self {
        Self { low, high, best: high, missing: 0 }
    }

    /// The number to probe.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.low + (self.high.saturating_sub(self.low)) / 2 + self.missing
    }

    /// Takes the result of probing that number.
    pub fn note_probe(&mut self, exists: bool) -> SearchStep {
        let number = self.number();
        if exists {
            (self.high, self.best, self.missing) = (number, number, 0);
        } else {
            self.missing += 1;
            if self.missing == MISSING_MAX {
                (self.low, self.missing) = (number + 1, 0);
            } else if number + 1 >= self.high {
                // Too few in a row to decide; the files before them do.
                (self.high, self.missing) = (number + 1 - self.missing, 0);
            }
        }
        if self.low >= self.high { SearchStep::Found(self.best) } else { SearchStep::Continue }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn search(low: u64, high: u64, exists: impl Fn(u64) -> bool) -> (u64, u32) {
        let mut search = OldestFileSearch::new(low, high);
        for probes in 1..1000 {
            if let SearchStep::Found(first) = search.note_probe(exists(search.number())) {
                return (first, probes);
            }
        }
        panic!("the search does not end");
    }

    proptest! {
        #[test]
        fn the_first_file_is_found_although_single_numbers_are_missing(
            low in 0_u64..1000, gone in 0_u64..200_000, kept in 0_u64..200_000, every in 2_u64..50,
        ) {
            let (first, high) = (low + gone, low + gone + kept);
            let (found, probes) = search(low, high, |number| number >= first && (number == first || (number - first) % every != 0));
            prop_assert_eq!(found, first);
            prop_assert!(probes < 80, "{} probes", probes);
        }
    }

    #[test]
    fn without_any_file_the_search_ends_at_the_head() {
        assert_eq!(search(10, 5000, |_| false).0, 5000);
        assert_eq!(search(10, 10, |_| false).0, 10);
    }
}
