//! How often each of many is there.
//!
//! Must not know: what is counted.

use std::hash::Hash;

use hashbrown::HashMap;

/// Counts by key; what is there no more takes no room.
#[derive(Debug, Clone)]
pub struct KeyCounts<K>(HashMap<K, usize>);

impl<K> Default for KeyCounts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> KeyCounts<K> {
    /// How often this one is there.
    pub fn of(&self, key: &K) -> usize {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// How many different ones are there.
    #[must_use]
    pub fn different(&self) -> usize {
        self.0.len()
    }

    /// Nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more.
    pub fn add(&mut self, key: K) {
        *self.0.entry(key).or_default() += 1;
    }

    /// One less, if it is there.
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
    fn what_is_gone_takes_no_room() {
        let mut tally = KeyCounts::default();
        tally.add("a");
        tally.add("a");
        tally.add("b");
        tally.remove(&"b");
        tally.remove(&"c");
        assert_eq!((tally.of(&"a"), tally.of(&"b"), tally.different()), (2, 0, 1));
        tally.remove(&"a");
        tally.remove(&"a");
        assert!(tally.is_empty());
    }
}
