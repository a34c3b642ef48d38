//! The bundled sample, cut in two: what happened until now, and what is to happen. One constant moves all of it.

use crate::clock;
use crate::domain::entry::Origin;
use crate::ingest::package::{self, Rule};
use crate::sample;
use crate::store::{AgeRule, Incoming, ZkbRule};

/// Killmails kept back to go live: ten minutes of them.
const LIVE: usize = 600;
/// A longer silence ends the busy stretch the live ones are taken from, seconds.
const SILENCE_SECS: i64 = 900;

/// The sample, moved so that the last killmail of history is now.
#[derive(Debug)]
pub struct Sample {
    /// In killmail id order.
    pub history: Vec<Incoming>,
    /// In killmail id order.
    pub live: Vec<Incoming>,
}

impl Sample {
    /// Reads and moves it. The few killmails years after the busy stretch are left out: they would lie in the future.
    #[must_use]
    pub fn read() -> Self {
        let now_ms = clock::now_ms();
        let rule = Rule { origin: Origin::Backfill, age: AgeRule::ByUpload, zkb: ZkbRule::Keep };
        let mut all: Vec<Incoming> = sample::lines().filter_map(|line| package::take(line.as_bytes(), rule, "demo", now_ms).ok()).collect();
        let busy = longest(&all);
        all.truncate(busy.end);
        let cut = busy.end - LIVE.min(busy.len() / 2);
        let shift_secs = now_ms / 1_000 - all.get(cut.saturating_sub(1)).map_or(0, |last| last.killmail.time);
        for incoming in &mut all {
            incoming.killmail.time += shift_secs;
        }
        let live = all.split_off(cut);
        Self { history: all, live }
    }
}

/// A killmail that comes live now.
#[must_use]
pub fn now(mut killmail: Incoming) -> Incoming {
    killmail.origin = Origin::Live;
    killmail.received_at_ms = clock::now_ms();
    killmail
}

/// The longest run without a silence.
fn longest(all: &[Incoming]) -> std::ops::Range<usize> {
    let (mut longest, mut start) = (0..0, 0);
    for at in 0..all.len() {
        let last = at + 1 == all.len() || all[at + 1].killmail.time - all[at].killmail.time > SILENCE_SECS;
        if last {
            if at + 1 - start > longest.len() {
                longest = start..at + 1;
            }
            start = at + 1;
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_ends_now_and_the_rest_follows() {
        let sample = Sample::read();
        let last = sample.history.last().unwrap().killmail.time;
        assert!((clock::now_ms() / 1_000 - last).abs() < 60);
        assert_eq!(sample.live.len(), LIVE);
        assert!(sample.history.len() > 3_000);
        assert!(sample.live.iter().all(|killmail| killmail.killmail.time >= last));
        let ahead = sample.live.last().unwrap().killmail.time - last;
        assert!(ahead < 86_400, "{ahead}");
    }

    #[test]
    fn values_are_among_the_killmails() {
        let valued = |k: &Incoming| k.killmail.zkb.as_ref().is_some_and(|zkb| zkb.total_value.is_some());
        assert!(Sample::read().history.iter().filter(|k| valued(k)).count() > 300);
    }
}
