//! Numbers that were given up: remembered, tried again after growing waits, and at last looked for in the
//! archives of their days. Pure: times in, questions out. Times are unix milliseconds unless they say
//! otherwise.
//!
//! Bounded: beyond [`HOLES_MAX`] the two nearest become one stretch, which only archives can heal.
//!
//! Must not know: clocks, sockets; what is in an archive.

use serde::{Deserialize, Serialize};

use crate::domain::span::Span;

/// Holes remembered apart from one another: they stand in the checkpoint, which rides with every killmail.
pub const HOLES_MAX: usize = 64;
/// Tries of a number before the archives are asked.
const NUMBER_TRIES: u32 = 6;
/// Tries of an archive that is not there before its day is let go; the waits grow to an hour, so this is a
/// day at least.
const ARCHIVE_TRIES: u32 = 30;
/// Waits grow up to so many times the first.
const WAIT_MAX: u64 = 60;
/// Killmails may be published so much later than they happened: their archive is that of an earlier day,
/// seconds.
const LATE_SECS: i64 = 3 * DAY_SECS;
const DAY_SECS: i64 = 86_400;

/// How holes are healed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healing {
    /// The wait before the second try of a number, milliseconds. The first comes after a quarter of it, the
    /// third after five times it, the next ones after 8, 16, 32 and 60 times it.
    pub first_ms: u64,
    /// No number is tried again sooner than this, milliseconds.
    pub least_ms: u64,
    /// The archive of a day is there so long after its end, milliseconds.
    pub archive_after_ms: u64,
}

impl Healing {
    /// The wait after so many tries.
    const fn wait_ms(&self, tries: u32) -> u64 {
        let times = match tries {
            0 => return if self.first_ms / 4 > self.least_ms { self.first_ms / 4 } else { self.least_ms },
            1 => 1,
            2 => 5,
            3..6 => 1 << tries,
            _ => WAIT_MAX,
        };
        self.first_ms.saturating_mul(times)
    }
}

/// Numbers that did not come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingNumber {
    /// The first of them.
    pub first: u64,
    /// And the last.
    pub last: u64,
    /// How many are missing from the first to the last.
    pub numbers: u64,
    /// When they were given up.
    pub since_ms: u64,
    /// Their file was there and was rewritten: nothing is missing but what changed, and no archive has that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rewritten: bool,
    /// When the document before them was published, unix seconds.
    pub from: i64,
    /// When the one behind them was, unix seconds; `None` until one came.
    pub to: Option<i64>,
    tries: u32,
    due_ms: u64,
    /// The day to look for in the archives next, days since 1970.
    day: Option<i64>,
    /// How often in a row its archive could not be read.
    #[serde(default, skip_serializing_if = "is_zero")]
    unread: u32,
    /// What archives filled in so far: first time, time behind the last, how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filled: Option<(i64, i64, u64)>,
}

impl MissingNumber {
    /// What archives filled in.
    #[must_use]
    pub fn filled(&self) -> Option<Span> {
        self.filled.map(|(from, to, killmails)| Span { from, to, killmails })
    }

    /// Whether its own number is what helps.
    fn is_young(&self) -> bool {
        self.is_one() && (self.rewritten || self.tries < NUMBER_TRIES)
    }

    fn is_one(&self) -> bool {
        self.first == self.last
    }

    fn waits_longer(&mut self, healing: &Healing, now_ms: u64) {
        self.due_ms = now_ms + healing.wait_ms(self.tries);
        self.tries = self.tries.saturating_add(1);
    }
}

/// What to ask for a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cure {
    /// The file of this number once more.
    Number(u64),
    /// What the archive of this day (days since 1970) has.
    Day(i64),
}

/// All holes, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MissingNumbers(Vec<MissingNumber>);

impl MissingNumbers {
    /// All of them, ascending.
    #[must_use]
    pub fn list(&self) -> &[MissingNumber] {
        &self.0
    }

    /// Remembers numbers given up at `now_ms`, which were last asked for at `asked_ms`; the document before
    /// them was published at `from`.
    pub fn open(
        &mut self,
        (first, last): (u64, u64),
        rewritten: bool,
        from: i64,
        healing: &Healing,
        (now_ms, asked_ms): (u64, u64),
    ) {
        if self.0.iter().any(|hole| hole.first <= first && last <= hole.last) {
            return;
        }
        self.0.retain(|hole| hole.first < first || last < hole.last);
        let numbers = last - first + 1;
        let due_ms = asked_ms + healing.wait_ms(0);
        let hole = MissingNumber {
            first,
            last,
            numbers,
            since_ms: now_ms,
            rewritten,
            from,
            to: None,
            tries: 1,
            due_ms,
            day: None,
            unread: 0,
            filled: None,
        };
        let at = self.0.partition_point(|hole| hole.first < first);
        self.0.insert(at, hole);
        while self.0.len() > HOLES_MAX {
            self.join_nearest();
        }
    }

    /// The document behind all of them was published at `at` (unix seconds): none is of a later time.
    pub fn not_behind(&mut self, at: i64) {
        self.0.iter_mut().for_each(|hole| hole.from = hole.from.min(at));
    }

    /// A document came, published at `at` (unix seconds): what is open before it has an end.
    pub fn followed_by(&mut self, at: i64) {
        self.0.iter_mut().filter(|hole| hole.to.is_none()).for_each(|hole| hole.to = Some(at.max(hole.from)));
    }

    /// The number came after all; the hole it was, if it was one of its own.
    pub fn came(&mut self, number: u64) -> Option<MissingNumber> {
        let at = self.0.iter().position(|hole| hole.is_one() && hole.first == number)?;
        Some(self.0.remove(at))
    }

    /// The number did not come this time; the hole, if that was its last try and archives cannot help.
    pub fn missed(&mut self, number: u64, healing: &Healing, now_ms: u64) -> Option<MissingNumber> {
        let at = self.0.iter().position(|hole| hole.is_one() && hole.first == number)?;
        self.0[at].waits_longer(healing, now_ms);
        (self.0[at].rewritten && self.0[at].tries > NUMBER_TRIES).then(|| self.0.remove(at))
    }

    /// Whether this is a number whose file was rewritten.
    #[must_use]
    pub fn is_rewritten(&self, number: u64) -> bool {
        self.0.iter().any(|hole| hole.rewritten && hole.is_one() && hole.first == number)
    }

    /// What to ask next for any hole, and when. Nothing before `begun` (unix seconds) is looked for: the feed
    /// was not followed then.
    #[must_use]
    pub fn next(&self, begun: i64, healing: &Healing) -> Option<(Cure, u64)> {
        self.0.iter().filter_map(|hole| cure(hole, begun, healing)).min_by_key(|(_, at_ms)| *at_ms)
    }

    /// A killmail of this time (unix seconds) was found in the archive of this day.
    pub fn filled(&mut self, day: i64, time: i64, begun: i64) {
        if let Some(hole) = self.0.iter_mut().find(|hole| wants(hole, day, begun)) {
            let span = hole.filled().map_or(Span::at(time), |span| span.with(time));
            hole.filled = Some((span.from, span.to, span.killmails));
        }
    }

    /// The archive of this day was read at `now_ms`, all of it; the holes that are healed by that.
    pub fn read(&mut self, day: i64, begun: i64) -> Vec<MissingNumber> {
        for hole in self.0.iter_mut().filter(|hole| wants(hole, day, begun)) {
            hole.day = Some(day + 1);
            // The tries of the next day begin anew; those of the number are over.
            (hole.tries, hole.unread) = (NUMBER_TRIES, 0);
            hole.due_ms = 0;
        }
        let (healed, open) =
            std::mem::take(&mut self.0).into_iter().partition(|hole: &MissingNumber| is_over(hole, begun));
        self.0 = open;
        healed
    }

    /// The archive of this day could not be read, at `now_ms`, which says nothing of whether it is there: it
    /// is tried again.
    pub fn put_off(&mut self, day: i64, begun: i64, healing: &Healing, now_ms: u64) {
        for hole in self.0.iter_mut().filter(|hole| wants(hole, day, begun)) {
            let times = 1_u64.checked_shl(hole.unread).unwrap_or(WAIT_MAX).min(WAIT_MAX);
            hole.due_ms = now_ms + healing.first_ms.saturating_mul(times);
            hole.unread = hole.unread.saturating_add(1);
        }
    }

    /// The archive of this day is not there, at `now_ms`; the holes that are given up by that.
    pub fn unread(&mut self, day: i64, begun: i64, healing: &Healing, now_ms: u64) -> Vec<MissingNumber> {
        let mut over = false;
        for hole in self.0.iter_mut().filter(|hole| wants(hole, day, begun)) {
            hole.waits_longer(healing, now_ms);
            over |= hole.tries > NUMBER_TRIES + ARCHIVE_TRIES;
        }
        if over { self.read(day, begun) } else { Vec::new() }
    }

    fn join_nearest(&mut self) {
        // A number that may still come is not made part of a stretch while others are left to archives.
        let apart = |pair: &[MissingNumber]| {
            (pair.iter().any(MissingNumber::is_young), pair[1].first.saturating_sub(pair[0].last))
        };
        let nearest = (1..self.0.len()).min_by_key(|at| apart(&self.0[at - 1..=*at]));
        let Some(at) = nearest else { return };
        let other = self.0.remove(at);
        let hole = &mut self.0[at - 1];
        hole.last = hole.last.max(other.last);
        hole.numbers += other.numbers;
        hole.since_ms = hole.since_ms.min(other.since_ms);
        hole.rewritten &= other.rewritten;
        hole.from = hole.from.min(other.from);
        hole.to = hole.to.zip(other.to).map(|(one, two)| one.max(two));
        hole.tries = NUMBER_TRIES;
        hole.due_ms = hole.due_ms.max(other.due_ms);
        hole.day = hole.day.zip(other.day).map(|(one, two)| one.min(two));
        hole.filled = match (hole.filled, other.filled) {
            (Some((from, to, n)), Some((from2, to2, n2))) => Some((from.min(from2), to.max(to2), n + n2)),
            (one, two) => one.or(two),
        };
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn cure(hole: &MissingNumber, begun: i64, healing: &Healing) -> Option<(Cure, u64)> {
    let number = hole.is_one().then_some((Cure::Number(hole.first), hole.due_ms));
    // Where an archive is not there in its time, the number has every other try: it may still come.
    if hole.rewritten || (hole.is_one() && (hole.tries < NUMBER_TRIES || hole.tries % 2 == 1)) {
        return number;
    }
    let archive = next_day(hole, begun).map(|day| (Cure::Day(day), hole.due_ms.max(made_ms(day, healing))));
    // While the archive is not made, the number may still come.
    archive.filter(|(_, at_ms)| *at_ms <= hole.due_ms || number.is_none()).or(number)
}

/// The day to read next, unless all are read; `None` also while it is not known how far the hole goes.
fn next_day(hole: &MissingNumber, begun: i64) -> Option<i64> {
    let first = hole.from.saturating_sub(LATE_SECS).max(begun).div_euclid(DAY_SECS);
    let last = hole.to?.max(hole.from).div_euclid(DAY_SECS);
    Some(hole.day.unwrap_or(first).max(first)).filter(|day| *day <= last.max(first))
}

fn wants(hole: &MissingNumber, day: i64, begun: i64) -> bool {
    !hole.rewritten && next_day(hole, begun) == Some(day)
}

fn is_over(hole: &MissingNumber, begun: i64) -> bool {
    hole.to.is_some() && hole.day.is_some() && next_day(hole, begun).is_none()
}

fn made_ms(day: i64, healing: &Healing) -> u64 {
    let end_ms = (day + 1).saturating_mul(DAY_SECS * 1000);
    u64::try_from(end_ms).unwrap_or(0).saturating_add(healing.archive_after_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALING: Healing = Healing { first_ms: 60_000, least_ms: 6_000, archive_after_ms: 23_400_000 };
    /// A Wednesday at noon, unix seconds.
    const NOON: i64 = 20_000 * DAY_SECS + DAY_SECS / 2;
    const NOON_MS: u64 = NOON as u64 * 1000;

    fn with(first: u64, last: u64) -> MissingNumbers {
        let mut holes = MissingNumbers::default();
        holes.open((first, last), false, NOON - 10, &HEALING, (NOON_MS, NOON_MS));
        holes
    }

    /// Lets a number miss until the archives come next; says after which waits, seconds.
    fn tried_out(holes: &mut MissingNumbers, begun: i64) -> Vec<u64> {
        let (mut waits, mut now_ms) = (vec![], NOON_MS);
        while let Some((Cure::Number(number), at_ms)) = holes.next(begun, &HEALING) {
            waits.push((at_ms - now_ms) / 1000);
            now_ms = at_ms;
            assert_eq!(holes.missed(number, &HEALING, now_ms), None);
            assert!(waits.len() < 100);
        }
        waits
    }

    #[test]
    fn a_number_is_tried_soon_and_after_growing_waits_until_its_archive_is_made() {
        let mut holes = with(7, 7);
        holes.followed_by(NOON + 10);
        let waits = tried_out(&mut holes, NOON - 100);
        assert_eq!(waits[..8], [15, 60, 300, 480, 960, 1920, 3600, 3600]);
        let (cure, at_ms) = holes.next(NOON - 100, &HEALING).unwrap();
        assert_eq!(cure, Cure::Day(20_000));
        assert!(at_ms >= 20_001 * 86_400_000 + 23_400_000, "after half past six of the next day");
        assert!(at_ms < 20_001 * 86_400_000 + 23_400_000 + 3_600_001);
    }

    #[test]
    fn the_days_before_are_read_as_killmails_come_late() {
        let mut holes = with(7, 9);
        holes.followed_by(NOON + DAY_SECS);
        let begun = NOON - 30 * DAY_SECS;
        let mut days = vec![];
        while let Some((Cure::Day(day), _)) = holes.next(begun, &HEALING) {
            days.push(day - 20_000);
            holes.filled(day, NOON + day, begun);
            let healed = holes.read(day, begun);
            assert_eq!(healed.len(), usize::from(day == 20_001));
            if let Some(hole) = healed.first() {
                assert_eq!(
                    hole.filled(),
                    Some(Span { from: NOON + 19_997, to: NOON + 20_002, killmails: 5 })
                );
            }
        }
        assert_eq!(days, [-3, -2, -1, 0, 1]);
        assert_eq!(holes.list(), []);
    }

    #[test]
    fn a_stretch_is_left_to_archives_and_has_no_end_before_a_document_came() {
        let mut holes = with(7, 900);
        assert_eq!(holes.next(NOON, &HEALING), None);
        holes.followed_by(NOON + 5);
        assert_eq!(holes.next(NOON, &HEALING), Some((Cure::Day(20_000), 20_001 * 86_400_000 + 23_400_000)));
    }

    #[test]
    fn one_reading_of_a_day_serves_all_holes_of_that_day() {
        let mut holes = with(7, 8);
        holes.open((20, 21), false, NOON, &HEALING, (NOON_MS, NOON_MS));
        holes.followed_by(NOON + 5);
        assert_eq!(holes.read(20_000, NOON - 5).len(), 2);
    }

    #[test]
    fn a_number_that_comes_is_healed() {
        let mut holes = with(7, 7);
        assert_eq!(holes.came(8), None);
        assert_eq!(holes.came(7).map(|hole| hole.first), Some(7));
        assert_eq!(holes.list(), []);
    }

    #[test]
    fn a_rewritten_file_is_never_looked_for_in_archives() {
        let mut holes = MissingNumbers::default();
        holes.open((3, 3), true, NOON, &HEALING, (NOON_MS, NOON_MS));
        holes.followed_by(NOON);
        for n in 0..6 {
            assert_eq!(holes.next(0, &HEALING).map(|(cure, _)| cure), Some(Cure::Number(3)));
            assert_eq!(holes.missed(3, &HEALING, NOON_MS).is_some(), n == 5);
        }
        assert_eq!(holes.list(), []);
    }

    #[test]
    fn an_archive_that_never_comes_is_let_go() {
        let mut holes = with(7, 9);
        holes.followed_by(NOON);
        let mut now_ms = NOON_MS;
        let mut tries = 0;
        loop {
            let (cure, at_ms) = holes.next(NOON, &HEALING).unwrap();
            assert_eq!(cure, Cure::Day(20_000));
            now_ms = now_ms.max(at_ms);
            tries += 1;
            if let [hole] = &holes.unread(20_000, NOON, &HEALING, now_ms)[..] {
                assert_eq!(hole.filled(), None);
                break;
            }
        }
        assert!(
            tries > 30 && now_ms > NOON_MS + 86_400_000,
            "{tries} tries in {} s",
            (now_ms - NOON_MS) / 1000
        );
    }

    #[test]
    fn a_number_has_its_turns_while_its_archive_is_not_there() {
        let mut holes = with(7, 7);
        holes.followed_by(NOON + 10);
        let (mut now_ms, mut asked) = (NOON_MS + 100 * 86_400_000, vec![]);
        while let Some((cure, at_ms)) = holes.next(NOON - 100, &HEALING) {
            now_ms = now_ms.max(at_ms);
            asked.push(cure);
            match cure {
                Cure::Number(number) => assert_eq!(holes.missed(number, &HEALING, now_ms), None),
                Cure::Day(day) => drop(holes.unread(day, NOON - 100, &HEALING, now_ms)),
            }
        }
        let numbers = asked.iter().filter(|cure| **cure == Cure::Number(7)).count();
        assert_eq!(
            asked[..8],
            [[Cure::Number(7); 5].as_slice(), &[Cure::Day(20_000), Cure::Number(7), Cure::Day(20_000)]]
                .concat()
        );
        assert_eq!((numbers, asked.len() - numbers), (20, 16), "it is let go in the end");
    }

    #[test]
    fn what_may_still_come_is_not_joined_while_others_are_left_to_archives() {
        let mut holes = MissingNumbers::default();
        for n in 0..70 {
            holes.open((n * 1000, n * 1000), false, NOON, &HEALING, (NOON_MS, NOON_MS));
            while let Some(hole) = holes.0.iter().find(|hole| hole.is_young()) {
                holes.missed(hole.first, &HEALING, NOON_MS);
            }
        }
        for number in [70_000, 70_001] {
            holes.open((number, number), false, NOON, &HEALING, (NOON_MS, NOON_MS));
        }
        assert_eq!(holes.list().len(), HOLES_MAX);
        assert_eq!(
            holes.list().iter().filter(|hole| hole.is_one() && hole.first >= 70_000).count(),
            2,
            "{holes:?}"
        );
    }

    #[test]
    fn an_archive_that_cannot_be_read_is_put_off_and_never_let_go() {
        let mut holes = with(7, 9);
        holes.followed_by(NOON);
        for n in 0..100 {
            holes.put_off(20_000, NOON, &HEALING, NOON_MS + n);
        }
        assert_eq!(holes.next(NOON, &HEALING).map(|(cure, _)| cure), Some(Cure::Day(20_000)));
        holes.put_off(20_000, NOON, &HEALING, NOON_MS + 100 * 86_400_000);
        assert_eq!(
            holes.next(NOON, &HEALING).map(|(_, at_ms)| at_ms),
            Some(NOON_MS + 100 * 86_400_000 + 3_600_000)
        );
    }

    #[test]
    fn what_is_remembered_is_bounded_and_nothing_is_forgotten() {
        let mut holes = MissingNumbers::default();
        for n in 0..500 {
            holes.open((n * 10, n * 10), false, NOON, &HEALING, (NOON_MS, NOON_MS));
        }
        assert_eq!(holes.list().len(), HOLES_MAX);
        assert_eq!(holes.list().iter().map(|hole| hole.numbers).sum::<u64>(), 500);
        assert!(serde_json::to_vec(&holes).unwrap().len() < 12_000);
        assert!(
            (0..500).all(|n| holes.list().iter().any(|hole| (hole.first..=hole.last).contains(&(n * 10))))
        );
        holes.open((250, 250), false, NOON, &HEALING, (NOON_MS, NOON_MS));
        assert_eq!(holes.list().iter().map(|hole| hole.numbers).sum::<u64>(), 500, "known already");
    }
}
