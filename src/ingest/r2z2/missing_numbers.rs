//! Numbers that were passed over: remembered, retried after growing waits, and finally looked for in the
//! archives of their days. Pure: times in, recovery steps out. Times are unix milliseconds unless stated
//! otherwise.
//!
//! Bounded: beyond [`RANGES_MAX`] the two nearest ranges are merged, and only archives can recover a merged
//! one.
//!
//! Must not know: clocks, sockets; what is in an archive.

use serde::{Deserialize, Serialize};

use crate::clock::DAY_SECS;
use crate::domain::span::Span;

/// Ranges remembered separately. They are part of the checkpoint, which is written with every killmail.
pub const RANGES_MAX: usize = 64;
/// Tries of a number before the archives are read.
const NUMBER_TRIES: u32 = 6;
/// Tries of an archive that does not exist before its day is given up. The waits grow to an hour, so this
/// takes a day at least.
const ARCHIVE_TRIES: u32 = 30;
/// Waits grow up to this many times the first.
const WAIT_MAX_TIMES: u64 = 60;
/// A killmail may be published this much later than it happened (`docs/sources.md`), and is in the archive of
/// the day on which it happened, seconds.
const LATE_SECS: i64 = 3 * DAY_SECS;

/// When missing numbers are retried, milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryWaits {
    /// The wait before the second try of a number. The first try comes after a quarter of it, later ones
    /// after 5, 8, 16, 32 and 60 times it.
    pub first_ms: u64,
    /// The shortest wait.
    pub least_ms: u64,
    /// How long after the end of a day its archive exists.
    pub archive_after_ms: u64,
}

impl RecoveryWaits {
    /// The wait after this many tries.
    const fn wait_ms(&self, tries: u32) -> u64 {
        let times = match tries {
            0 => return if self.first_ms / 4 > self.least_ms { self.first_ms / 4 } else { self.least_ms },
            1 => 1,
            2 => 5,
            3..6 => 1 << tries,
            _ => WAIT_MAX_TIMES,
        };
        self.first_ms.saturating_mul(times)
    }
}

/// Numbers that are missing: one, or several that are only looked for in archives. On disk: names of members
/// never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingRange {
    pub first: u64,
    pub last: u64,
    /// How many numbers from `first` to `last` are missing.
    pub numbers: u64,
    /// When they were passed over.
    pub since_ms: u64,
    /// The file existed and was rewritten: only the new version is missing, and no archive has that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rewritten: bool,
    /// When the document before the range was published, unix seconds.
    pub from: i64,
    /// When the document after the range was published, unix seconds; `None` until there is one.
    pub to: Option<i64>,
    tries: u32,
    due_ms: u64,
    /// The day whose archive is read next, days since 1970.
    day: Option<i64>,
    /// How often in a row that archive could not be read.
    #[serde(default, skip_serializing_if = "is_zero")]
    unread: u32,
    /// What archives recovered so far: start, end and number of killmails of a [`Span`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filled: Option<(i64, i64, u64)>,
}

impl MissingRange {
    /// The killmails that archives recovered.
    #[must_use]
    pub fn recovered(&self) -> Option<Span> {
        self.filled.map(|(from, to, killmails)| Span { from, to, killmails })
    }

    /// Whether the number itself is still retried, rather than archives.
    fn is_retried(&self) -> bool {
        self.is_single() && (self.rewritten || self.tries < NUMBER_TRIES)
    }

    fn is_single(&self) -> bool {
        self.first == self.last
    }

    fn is_number(&self, number: u64) -> bool {
        self.is_single() && self.first == number
    }

    fn schedule_next_try(&mut self, waits: &RecoveryWaits, now_ms: u64) {
        self.due_ms = now_ms + waits.wait_ms(self.tries);
        self.tries = self.tries.saturating_add(1);
    }
}

/// What to request to recover a missing number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryStep {
    /// The file of this number.
    Number(u64),
    /// The archive of this day, days since 1970.
    Day(i64),
}

/// Numbers that are passed over now.
#[derive(Debug, Clone, Copy)]
pub struct PassedOver {
    pub first: u64,
    pub last: u64,
    /// The file existed and was rewritten.
    pub rewritten: bool,
    /// When the document before them was published, unix seconds.
    pub from: i64,
    pub now_ms: u64,
    /// When they were last requested; the waits count from then.
    pub requested_ms: u64,
}

/// All missing ranges, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MissingNumbers(Vec<MissingRange>);

impl MissingNumbers {
    /// The ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[MissingRange] {
        &self.0
    }

    /// Remembers numbers, unless they are already.
    pub fn add(&mut self, passed_over: PassedOver, waits: &RecoveryWaits) {
        let PassedOver { first, last, rewritten, from, now_ms, requested_ms } = passed_over;
        if self.0.iter().any(|range| range.first <= first && last <= range.last) {
            return;
        }
        self.0.retain(|range| range.first < first || last < range.last);
        let range = MissingRange {
            first,
            last,
            numbers: last - first + 1,
            since_ms: now_ms,
            rewritten,
            from,
            to: None,
            tries: 1,
            due_ms: requested_ms + waits.wait_ms(0),
            day: None,
            unread: 0,
            filled: None,
        };
        let at = self.0.partition_point(|range| range.first < first);
        self.0.insert(at, range);
        while self.0.len() > RANGES_MAX {
            self.merge_nearest();
        }
    }

    /// Takes into account that a document after all of them was published at `at` (unix seconds): none of
    /// them was published later.
    pub fn limit_from(&mut self, at: i64) {
        self.0.iter_mut().for_each(|range| range.from = range.from.min(at));
    }

    /// Takes into account that the next document was published at `at` (unix seconds): ranges without an end
    /// end there.
    pub fn set_end(&mut self, at: i64) {
        for range in self.0.iter_mut().filter(|range| range.to.is_none()) {
            range.to = Some(at.max(range.from));
        }
    }

    /// Removes a number that arrived; returns its range if it was remembered as a single one.
    pub fn remove_arrived(&mut self, number: u64) -> Option<MissingRange> {
        let at = self.0.iter().position(|range| range.is_number(number))?;
        Some(self.0.remove(at))
    }

    /// Records a failed attempt; returns the range if that was the last one and archives cannot help.
    pub fn note_failed_try(
        &mut self,
        number: u64,
        waits: &RecoveryWaits,
        now_ms: u64,
    ) -> Option<MissingRange> {
        let at = self.0.iter().position(|range| range.is_number(number))?;
        self.0[at].schedule_next_try(waits, now_ms);
        (self.0[at].rewritten && self.0[at].tries > NUMBER_TRIES).then(|| self.0.remove(at))
    }

    /// Whether this is a number whose file was rewritten.
    #[must_use]
    pub fn is_rewritten(&self, number: u64) -> bool {
        self.0.iter().any(|range| range.rewritten && range.is_number(number))
    }

    /// The next step for any range, and when it is due. Nothing from before `begun` (unix seconds), when the
    /// feed was not followed yet, is looked for.
    #[must_use]
    pub fn next_step(&self, begun: i64, waits: &RecoveryWaits) -> Option<(RecoveryStep, u64)> {
        self.0.iter().filter_map(|range| next_step(range, begun, waits)).min_by_key(|(_, due_ms)| *due_ms)
    }

    /// Notes that a killmail of this time (unix seconds) was found in the archive of a day.
    pub fn note_recovered(&mut self, day: i64, time: i64, begun: i64) {
        if let Some(range) = self.0.iter_mut().find(|range| needs_day(range, day, begun)) {
            let span = range.recovered().map_or(Span::at(time), |span| span.with(time));
            range.filled = Some((span.from, span.to, span.killmails));
        }
    }

    /// Notes that the archive of a day was read to its end; returns the ranges that this closes.
    pub fn note_archive_read(&mut self, day: i64, begun: i64) -> Vec<MissingRange> {
        for range in self.0.iter_mut().filter(|range| needs_day(range, day, begun)) {
            range.day = Some(day + 1);
            // The next day has all its tries; those of the number are used up.
            (range.tries, range.unread) = (NUMBER_TRIES, 0);
            range.due_ms = 0;
        }
        let (closed, open) =
            std::mem::take(&mut self.0).into_iter().partition(|range: &MissingRange| is_done(range, begun));
        self.0 = open;
        closed
    }

    /// Notes that the archive of a day could not be read, which does not show whether it exists: it is
    /// retried.
    pub fn postpone_archive(&mut self, day: i64, begun: i64, waits: &RecoveryWaits, now_ms: u64) {
        for range in self.0.iter_mut().filter(|range| needs_day(range, day, begun)) {
            let times = 1_u64.checked_shl(range.unread).unwrap_or(WAIT_MAX_TIMES).min(WAIT_MAX_TIMES);
            range.due_ms = now_ms + waits.first_ms.saturating_mul(times);
            range.unread = range.unread.saturating_add(1);
        }
    }

    /// Notes that the archive of a day does not exist; returns the ranges that are given up for that.
    pub fn note_archive_missing(
        &mut self,
        day: i64,
        begun: i64,
        waits: &RecoveryWaits,
        now_ms: u64,
    ) -> Vec<MissingRange> {
        let mut is_given_up = false;
        for range in self.0.iter_mut().filter(|range| needs_day(range, day, begun)) {
            range.schedule_next_try(waits, now_ms);
            is_given_up |= range.tries > NUMBER_TRIES + ARCHIVE_TRIES;
        }
        if is_given_up { self.note_archive_read(day, begun) } else { Vec::new() }
    }

    fn merge_nearest(&mut self) {
        // Ranges left to archives are merged first, rather than numbers that may still arrive.
        let distance = |pair: &[MissingRange]| {
            (pair.iter().any(MissingRange::is_retried), pair[1].first.saturating_sub(pair[0].last))
        };
        let nearest = (1..self.0.len()).min_by_key(|at| distance(&self.0[at - 1..=*at]));
        let Some(at) = nearest else { return };
        let other = self.0.remove(at);
        let range = &mut self.0[at - 1];
        range.last = range.last.max(other.last);
        range.numbers += other.numbers;
        range.since_ms = range.since_ms.min(other.since_ms);
        range.rewritten &= other.rewritten;
        range.from = range.from.min(other.from);
        range.to = range.to.zip(other.to).map(|(one, two)| one.max(two));
        range.tries = NUMBER_TRIES;
        range.due_ms = range.due_ms.max(other.due_ms);
        range.day = range.day.zip(other.day).map(|(one, two)| one.min(two));
        range.filled = match (range.filled, other.filled) {
            (Some((from, to, n)), Some((from2, to2, n2))) => Some((from.min(from2), to.max(to2), n + n2)),
            (one, two) => one.or(two),
        };
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn next_step(range: &MissingRange, begun: i64, waits: &RecoveryWaits) -> Option<(RecoveryStep, u64)> {
    let number = range.is_single().then_some((RecoveryStep::Number(range.first), range.due_ms));
    // While an archive that should exist does not, every other try is of the number, which may still arrive.
    if range.rewritten || (range.is_single() && (range.tries < NUMBER_TRIES || range.tries % 2 == 1)) {
        return number;
    }
    let archive = next_day(range, begun)
        .map(|day| (RecoveryStep::Day(day), range.due_ms.max(archive_exists_ms(day, waits))));
    // Until the archive should exist, the number may still arrive.
    archive.filter(|(_, due_ms)| *due_ms <= range.due_ms || number.is_none()).or(number)
}

/// The day whose archive to read next; `None` if all were read, or while the end of the range is unknown.
fn next_day(range: &MissingRange, begun: i64) -> Option<i64> {
    let first = range.from.saturating_sub(LATE_SECS).max(begun).div_euclid(DAY_SECS);
    let last = range.to?.max(range.from).div_euclid(DAY_SECS);
    Some(range.day.unwrap_or(first).max(first)).filter(|day| *day <= last.max(first))
}

fn needs_day(range: &MissingRange, day: i64, begun: i64) -> bool {
    !range.rewritten && next_day(range, begun) == Some(day)
}

fn is_done(range: &MissingRange, begun: i64) -> bool {
    range.to.is_some() && range.day.is_some() && next_day(range, begun).is_none()
}

fn archive_exists_ms(day: i64, waits: &RecoveryWaits) -> u64 {
    let end_ms = (day + 1).saturating_mul(DAY_SECS * 1000);
    u64::try_from(end_ms).unwrap_or(0).saturating_add(waits.archive_after_ms)
}

#[cfg(test)]
#[path = "missing_numbers_tests.rs"]
mod tests;
