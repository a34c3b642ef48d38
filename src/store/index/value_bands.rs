//! Killmails by what they are worth, in bands a quarter of an octave wide: a question for values alone then
//! looks at those near its bounds and beyond, not at every row. Bands are coarse; rows are tested exactly.
//!
//! Must not know: what else is asked.

use crate::store::index::postings::Postings;

/// Bits of a value that tell the band: the exponent and two bits behind it.
const SHIFT: u32 = 50;
/// The band of 1 ISK and less.
const FIRST: u64 = 1.0f64.to_bits() >> SHIFT;
/// Bands: up to 2^63 ISK and all beyond.
const BANDS: usize = 253;

/// Killmails by value. Those of unknown value are in none.
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
    /// Takes a killmail in.
    pub fn insert(&mut self, value: f64, killmail_id: u32) {
        if let Some(band) = band(value)
            && !self.lists[band].contains(killmail_id)
        {
            self.lists[band].insert(killmail_id);
            self.counts[band] += 1;
        }
    }

    /// Takes a killmail out again.
    pub fn remove(&mut self, value: f64, killmail_id: u32) {
        if let Some(band) = band(value)
            && self.lists[band].contains(killmail_id)
        {
            self.lists[band].remove(killmail_id);
            self.counts[band] -= 1;
        }
    }

    /// How many may be worth this much.
    pub fn count(&self, (least, most): (f64, f64)) -> u64 {
        span(least, most).map_or(0, |(low, high)| self.counts[low..=high].iter().sum())
    }

    /// Lists that together have all that are worth this much, and a few more.
    pub fn lists(&self, (least, most): (f64, f64)) -> Vec<&Postings> {
        let found = span(least, most).map(|(low, high)| &self.lists[low..=high]);
        found.into_iter().flatten().filter(|list| !list.is_empty()).collect()
    }

    /// The killmails of each band.
    #[cfg(test)]
    pub fn each(&self) -> impl Iterator<Item = (usize, &Postings)> {
        self.lists.iter().enumerate()
    }

    /// Memory, bytes, estimated.
    pub fn heap_bytes(&self) -> usize {
        self.lists.iter().map(Postings::heap_bytes).sum()
    }
}

/// The band of a value; greater values are in the same or a later one.
fn band(value: f64) -> Option<usize> {
    if value.is_nan() {
        return None;
    }
    let band = if value > 1.0 { (value.to_bits() >> SHIFT) - FIRST } else { 0 };
    Some((band as usize).min(BANDS - 1))
}

fn span(least: f64, most: f64) -> Option<(usize, usize)> {
    band(least).zip(band(most)).filter(|(low, high)| low <= high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
    fn what_went_in_comes_out() {
        let mut bands = ValueBands::default();
        bands.insert(5e6, 7);
        bands.insert(5e6, 7);
        bands.insert(f64::NAN, 8);
        assert_eq!(
            (bands.count((0.0, f64::INFINITY)), bands.count((1e7, f64::INFINITY)), bands.count((9.0, 8.0))),
            (1, 0, 0)
        );
        bands.remove(9e12, 7);
        bands.remove(5e6, 7);
        bands.remove(5e6, 7);
        assert!(bands.count((0.0, f64::INFINITY)) == 0 && bands.lists((0.0, f64::INFINITY)).is_empty());
    }

    proptest! {
        #[test]
        fn no_value_within_bounds_is_missed(value in 0.0..1e14, least in 0.0..1e14, most in 0.0..1e14) {
            let mut bands = ValueBands::default();
            bands.insert(value, 1);
            if least <= value && value <= most {
                prop_assert_eq!(bands.count((least, most)), 1);
                prop_assert!(bands.lists((least, most)).iter().any(|list| list.contains(1)));
            }
        }
    }
}
