//! Whether the feed has been silent for longer than is usual at this hour. Logged once, and once when it is over.
//!
//! Must not know: what the sources are, or who asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::now_secs;
use crate::telemetry::source_status::{Doing, SourceStatus};
use crate::telemetry::usual_rate;

/// How often to check.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// When a silence is too long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Never too long below this, seconds.
    pub least_secs: u64,
    /// Too long when this many killmails would usually have come.
    pub killmails: f64,
    /// Killmails in a usual day.
    pub per_day: f64,
    /// The game's daily downtime from 11:00 UTC on, which does not count, seconds.
    pub downtime_secs: u32,
}

/// How long the feed has been silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// Time without a killmail, seconds.
    pub secs: i64,
    /// How long it may be, seconds.
    pub max_secs: i64,
}

impl Silence {
    /// Whether the silence is too long.
    #[must_use]
    pub const fn is_too_long(self) -> bool {
        self.secs > self.max_secs
    }
}

/// How long the running source has been silent at `now`, unix seconds. `None` while no source runs, or one that may
/// be silent.
pub fn silence(status: &SourceStatus, limits: &Limits, now: i64) -> Option<Silence> {
    let kind = *status.kind.lock();
    if !status.running.load(Ordering::Relaxed) || !kind.should_never_be_silent() {
        return None;
    }
    let since_ms =
        status.last_killmail_ms.load(Ordering::Relaxed).max(status.started_ms.load(Ordering::Relaxed));
    let secs = usual_rate::silence_secs(since_ms.div_euclid(1000), now, limits.downtime_secs);
    let max_secs = usual_rate::silent_max_secs(now, limits.least_secs, limits.killmails, limits.per_day);
    Some(Silence { secs, max_secs })
}

/// Checks the first source until the server stops.
pub async fn watch(status: Arc<SourceStatus>, limits: Limits, mut closing: watch::Receiver<bool>) {
    let mut is_logged = false;
    loop {
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
        let Some(silence) = silence(&status, &limits, now_secs()) else { continue };
        if silence.is_too_long() == is_logged {
            continue;
        }
        is_logged = !is_logged;
        let Silence { secs, max_secs } = silence;
        if is_logged {
            tracing::warn!(
                "the feed is silent: no killmail for {secs} s, more than the usual {max_secs} s at this hour; {}",
                describe(&status)
            );
        } else {
            tracing::info!("the feed is no longer silent");
        }
    }
}

/// What the source is doing about it.
fn describe(status: &SourceStatus) -> String {
    let sequence = status.sequence.load(Ordering::Relaxed);
    match status.doing().0 {
        Doing::Following => format!("the source answers, the last number is {sequence}"),
        Doing::BackingOff(why) | Doing::BreakerOpen(why) => {
            format!("{why}; retrying with growing waits")
        }
        Doing::NoSpace(why) => format!("{why}; resumes when there is room"),
        Doing::Off | Doing::Refused(_) | Doing::Finished => "no source runs".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::source_kind::SourceKind;

    const LIMITS: Limits = Limits { least_secs: 300, killmails: 8.0, per_day: 12_000.0, downtime_secs: 900 };
    const NOON: i64 = 20_000 * 86_400 + 43_200;

    fn running(kind: SourceKind) -> SourceStatus {
        let status = SourceStatus::default();
        *status.kind.lock() = kind;
        status.running.store(true, Ordering::Relaxed);
        status.started_ms.store((NOON - 1000) * 1000, Ordering::Relaxed);
        status
    }

    #[test]
    fn silence_counts_from_the_last_killmail_or_the_start() {
        let status = running(SourceKind::R2z2);
        assert_eq!(silence(&status, &LIMITS, NOON), Some(Silence { secs: 1000, max_secs: 300 }));
        status.count_received(NOON - 100, (NOON - 20) * 1000);
        assert_eq!(silence(&status, &LIMITS, NOON).map(|s| (s.secs, s.is_too_long())), Some((20, false)));
        assert_eq!(silence(&status, &LIMITS, NOON + 281).map(Silence::is_too_long), Some(true));
    }

    #[test]
    fn nothing_is_expected_of_no_source_or_a_replay() {
        for kind in [SourceKind::None, SourceKind::Replay] {
            assert_eq!(silence(&running(kind), &LIMITS, NOON), None);
        }
        let ended = running(SourceKind::R2z2);
        ended.running.store(false, Ordering::Relaxed);
        assert_eq!(silence(&ended, &LIMITS, NOON), None);
    }
}
