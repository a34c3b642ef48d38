//! A range of ids.
//!
//! Must not know: what the ids stand for.

/// The ids from `low` to `high`, both included; empty if `low` is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    pub low: u32,
    pub high: u32,
}

impl IdRange {
    pub const ALL: Self = Self { low: 0, high: u32::MAX };
    pub const EMPTY: Self = Self { low: 1, high: 0 };

    pub const fn new(low: u32, high: u32) -> Self {
        Self { low, high }
    }

    pub const fn is_empty(self) -> bool {
        self.low > self.high
    }

    pub const fn contains(self, id: u32) -> bool {
        self.low <= id && id <= self.high
    }

    /// The ids that are in both.
    pub fn intersect(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.min(other.high) }
    }

    /// The ids of the range that are smaller than `id`.
    pub fn below(self, id: u32) -> Self {
        id.checked_sub(1).map_or(Self::EMPTY, |high| Self { high: high.min(self.high), ..self })
    }

    /// The ids of the range that are greater than `id`.
    pub fn above(self, id: u32) -> Self {
        id.checked_add(1).map_or(Self::EMPTY, |low| Self { low: low.max(self.low), ..self })
    }
}
