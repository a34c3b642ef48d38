//! Counts by key.
//!
//! Must not know: what is counted.

use std::hash::Hash;

use hashbrown::HashMap;

/// Counts by key. A count of 0 takes no memory.
#[derive(Debug, Clone)]
pub struct KeyCounts<K>(HashMap<K, usize>);

impl<K> Default for KeyCounts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> KeyCounts<K> {
    /// The count of this key.
    pub fn of(&self, key: &K) -> usize {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// Number of keys with a count above 0.
    #[must_use]
    pub fn different(&self) -> usize {
        self.0.len()
    }

    /// Whether every count is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds 1 to the count of this key.
    pub fn add(&mut self, key: K) {
        *self.0.entry(key).or_default() += 1;
    }

    /// Subtracts 1 from the count of this key, unless it is 0.
    pub fn remove(&mut self, key: &K) {
        let Some(count) = self.0.get_mut(key) else { return };
        *count -= 1;
        if *count == 0 {
            self.0.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_of_zero_takes_no_memory() {
        let mut counts = KeyCounts::default();
        counts.add("a");
        counts.add("a");
        counts.add("b");
        counts.remove(&"b");
        counts.remove(&"c");
        assert_eq!((counts.of(&"a"), counts.of(&"b"), counts.different()), (2, 0, 1));
        counts.remove(&"a");
        counts.remove(&"a");
        assert!(counts.is_empty());
    }
}
