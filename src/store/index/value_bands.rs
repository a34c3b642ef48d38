//! Killmails by total value, in bands a quarter of an octave wide, so that a query that restricts only the value
//! tests the rows of a few bands, not every row. Bands are coarse; the rows are tested exactly.
//!
//! Must not know: what else a query restricts.

use std::ops::RangeInclusive;

use crate::store::index::postings::Postings;

/// Shifts out all but the bits that select the band: the exponent and the first two bits of the fraction.
const SHIFT: u32 = 50;
/// The band of 1 ISK and less.
const FIRST: u64 = 1.0f64.to_bits() >> SHIFT;
/// The last band holds everything above 2^63 ISK.
const BANDS: usize = 253;

/// Values in ISK from `min` to `max`, both included; empty if `min` is greater.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValueRange {
    pub min: f64,
    pub max: f64,
}

/// Killmails by value. A killmail whose value is unknown is in no band.
#[derive(Debug)]
pub struct ValueBands {
    lists: Box<[Postings]>,
    counts: Box<[u64]>,
}

impl Default for ValueBands {
    fn default() -> Self {
        Self {
            lists: (0..BANDS).map(|_| Postings::default()).collect(),
            counts: vec![0; BANDS].into_boxed_slice(),
        }
    }
}

impl ValueBands {
    pub fn insert(&mut self, value: f64, killmail_id: u32) {
        if let Some(band) = band(value)
            && !self.lists[band].contains(killmail_id)
        {
            self.lists[band].insert(killmail_id);
            self.counts[band] += 1;
        }
    }

    pub fn remove(&mut self, value: f64, killmail_id: u32) {
        if let Some(band) = band(value)
            && self.lists[band].contains(killmail_id)
        {
            self.lists[band].remove(killmail_id);
            self.counts[band] -= 1;
        }
    }

    /// An upper bound of the killmails in this range.
    pub fn count(&self, values: ValueRange) -> u64 {
        bands(values).map_or(0, |bands| self.counts[bands].iter().sum())
    }

    /// The non-empty bands that overlap this range: together they contain every killmail in it.
    pub fn lists(&self, values: ValueRange) -> Vec<&Postings> {
        let found = bands(values).map(|bands| &self.lists[bands]);
        found.into_iter().flatten().filter(|list| !list.is_empty()).collect()
    }

    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Postings)> {
        self.lists.iter().enumerate()
    }

    /// Memory behind the lists, bytes, estimated.
    pub fn heap_bytes(&self) -> usize {
        self.lists.iter().map(Postings::heap_bytes).sum()
    }
}

/// A greater value is in the same band or a later one.
fn band(value: f64) -> Option<usize> {
    if value.is_nan() {
        return None;
    }
    let band = if value > 1.0 { (value.to_bits() >> SHIFT) - FIRST } else { 0 };
    Some((band as usize).min(BANDS - 1))
}

fn bands(values: ValueRange) -> Option<RangeInclusive<usize>> {
    let bands = band(values.min)?..=band(values.max)?;
    (!bands.is_empty()).then_some(bands)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: ValueRange = ValueRange { min: 0.0, max: f64::INFINITY };

    #[test]
    fn values_at_the_ends_have_a_band() {
        for value in [f64::NEG_INFINITY, -5.0, 0.0, 0.5, 1.0] {
            assert_eq!(band(value), Some(0), "{value}");
        }
        assert_eq!(
            (band(1e30), band(f64::INFINITY), band(f64::NAN)),
            (Some(BANDS - 1), Some(BANDS - 1), None)
        );
        assert!(band(1e9) < band(1.3e9), "a quarter of an octave apart");
    }

    #[test]
    fn inserted_killmails_are_counted_and_removed() {
        let mut bands = ValueBands::default();
        bands.insert(5e6, 7);
        bands.insert(5e6, 7);
        bands.insert(f64::NAN, 8);
        assert_eq!(
            (
                bands.count(ALL),
                bands.count(ValueRange { min: 1e7, ..ALL }),
                bands.count(ValueRange { min: 9.0, max: 8.0 })
            ),
            (1, 0, 0)
        );
        bands.remove(9e12, 7);
        bands.remove(5e6, 7);
        bands.remove(5e6, 7);
        assert!(bands.count(ALL) == 0 && bands.lists(ALL).is_empty());
    }

    proptest! {
        #[test]
        fn no_value_in_a_range_is_missed(value in 0.0..1e14, min in 0.0..1e14, max in 0.0..1e14) {
            let mut bands = ValueBands::default();
            bands.insert(value, 1);
            let range = ValueRange { min, max };
            if min <= value && value <= max {
                prop_assert_eq!(bands.count(range), 1);
                prop_assert!(bands.lists(range).iter().any(|list| list.contains(1)));
            }
        }
    }
}
