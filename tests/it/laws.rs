//! Property tests of the laws that span more than one module. Each prints how often each kind of step
//! occurred.
//!
//! Must not know: how the laws are implemented.

mod answer_steps;
mod answers;
mod client;
mod lists;
mod once;
mod prefix;

use std::collections::BTreeMap;
use std::sync::Mutex;

/// How often each kind of step occurred over all cases of a law.
#[derive(Debug)]
pub struct Steps {
    law: &'static str,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Steps {
    pub const fn new(law: &'static str) -> Self {
        Self { law, counts: Mutex::new(BTreeMap::new()) }
    }

    pub fn count(&self, step: &'static str) {
        self.add(step, 1);
    }

    pub fn add(&self, step: &'static str, times: u64) {
        *self.counts.lock().unwrap().entry(step).or_default() += times;
    }

    /// Prints the counts. Fails if an expected step never occurred.
    pub fn report(&self, expected: &[&str]) {
        let counts = self.counts.lock().unwrap();
        println!("law {}: {counts:?}", self.law);
        for step in expected {
            assert!(
                counts.get(step).is_some_and(|n| *n > 0),
                "law {}: no {step} occurred; nothing is proved of it",
                self.law
            );
        }
    }
}

/// Number of cases for each law.
pub fn cases() -> u32 {
    if crate::support::long() { 4096 } else { 256 }
}
