//! The bundled sample in two parts: history, and what then arrives live. All times are shifted by one constant.

use std::ops::Range;

use crate::domain::entry::Origin;
use crate::domain::killmail::Killmail;
use crate::ingest::package::{self, Rule};
use crate::sample::appraise::estimate;
use crate::store::incoming::{AgeRule, Incoming, ZkbRule};
use crate::{clock, sample};

/// Killmails reserved for live delivery: ten minutes at one per second.
const LIVE: usize = 600;
/// A longer pause between killmails ends the busy period the live ones are taken from, seconds.
const PAUSE_SECS: i64 = 900;

/// The sample, shifted so that the last killmail of the history is now.
#[derive(Debug)]
pub struct Sample {
    /// In killmail id order.
    pub history: Vec<Incoming>,
    /// In killmail id order, for [`Live`].
    pub live: Vec<Incoming>,
}

impl Sample {
    /// Reads and shifts the sample. The few killmails years after the busy period are left out: they would be
    /// in the future.
    #[must_use]
    pub fn read() -> Self {
        let now_ms = clock::now_ms();
        let mut all: Vec<Incoming> = killmails(now_ms).collect();
        let busy = busy_period(&all);
        all.truncate(busy.end);
        let cut = busy.end - LIVE.min(busy.len() / 2);
        let shift_secs = now_ms / 1_000 - all.get(cut.saturating_sub(1)).map_or(0, |last| last.killmail.time);
        for incoming in &mut all {
            incoming.killmail.time += shift_secs;
            estimate_value(incoming);
        }
        let live = all.split_off(cut);
        Self { history: all, live }
    }
}

/// The live killmails: the end of the sample, then its busy period over and over under new ids.
pub struct Live {
    upcoming: Box<dyn Iterator<Item = Incoming> + Send>,
    busy: Range<usize>,
    next_id: u32,
    is_repeat: bool,
}

impl Live {
    /// Starts with these killmails, which keep their own ids.
    #[must_use]
    pub fn new(live: Vec<Incoming>) -> Self {
        let next_id = live.last().map_or(1, |last| last.killmail.killmail_id + 1);
        let busy = busy_period(&killmails(0).collect::<Vec<_>>());
        Self { upcoming: Box::new(live.into_iter()), busy, next_id, is_repeat: false }
    }

    /// The next killmail, as if it happened at `now_ms` (unix milliseconds). `None` each time the sample starts
    /// over.
    pub fn next(&mut self, now_ms: i64) -> Option<Incoming> {
        let Some(mut incoming) = self.upcoming.next() else {
            self.upcoming = Box::new(killmails(now_ms).skip(self.busy.start).take(self.busy.len()));
            self.is_repeat = true;
            return None;
        };
        incoming.origin = Origin::Live;
        incoming.received_at_ms = now_ms;
        incoming.killmail.time = now_ms / 1_000;
        if self.is_repeat {
            change_id(&mut incoming.killmail, self.next_id);
            self.next_id += 1;
        }
        estimate_value(&mut incoming);
        Some(incoming)
    }
}

fn killmails(now_ms: i64) -> impl Iterator<Item = Incoming> + Send {
    let rule = Rule { origin: Origin::Backfill, age: AgeRule::ByUpload, zkb: ZkbRule::Keep };
    sample::lines()
        .filter_map(move |line| package::parse_document(line.as_bytes(), rule, "demo", now_ms).ok())
}

/// Gives a real killmail another id, and removes what belongs to its real one.
fn change_id(killmail: &mut Killmail, id: u32) {
    killmail.killmail_id = id;
    killmail.hash = None;
    if let Some(zkb) = &mut killmail.zkb {
        (zkb.hash, zkb.href) = (None, None);
    }
}

/// Adds an estimated value where there is none: most of the sample has no values, and with 0 ISK each, filters by
/// value would find nothing.
fn estimate_value(incoming: &mut Incoming) {
    let killmail = &mut incoming.killmail;
    if killmail.zkb.as_ref().is_none_or(|zkb| zkb.total_value.is_none()) {
        killmail.zkb = Some(estimate(killmail));
    }
}

/// The longest run of killmails without a pause.
fn busy_period(all: &[Incoming]) -> Range<usize> {
    let (mut longest, mut start) = (0..0, 0);
    for at in 0..all.len() {
        let last = at + 1 == all.len() || all[at + 1].killmail.time - all[at].killmail.time > PAUSE_SECS;
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
    fn history_ends_now_and_live_follows() {
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
    fn every_killmail_has_a_value() {
        let sample = Sample::read();
        let value =
            |k: &Incoming| k.killmail.zkb.as_ref().and_then(|zkb| zkb.total_value).unwrap_or_default();
        assert!(sample.history.iter().chain(&sample.live).all(|k| value(k) > 0.0));
        let billions = sample.history.iter().filter(|k| value(k) > 1e9).count();
        assert!((50..1_500).contains(&billions), "{billions}");
    }

    #[test]
    fn live_killmails_happen_now_and_repeat_under_new_ids() {
        let live = Sample::read().live;
        let first = live.len();
        let mut live = Live::new(live);
        let (mut last_id, mut rounds) = (0, 0);
        for second in 0..i64::try_from(first).unwrap() + 4_500 {
            let now_ms = 1_800_000_000_000 + second * 1_000;
            let Some(Incoming { killmail, received_at_ms, origin, .. }) = live.next(now_ms) else {
                rounds += 1;
                continue;
            };
            assert!(killmail.killmail_id > last_id, "{} after {last_id}", killmail.killmail_id);
            assert_eq!((killmail.time, received_at_ms, origin), (now_ms / 1_000, now_ms, Origin::Live));
            assert_eq!(rounds > 0, killmail.hash.is_none() && killmail.zkb.as_ref().unwrap().hash.is_none());
            last_id = killmail.killmail_id;
        }
        assert_eq!(rounds, 2, "after {first}, and after the busy period");
    }
}
