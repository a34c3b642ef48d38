//! Whether the feed has been silent for too long, measured by how killmails usually come; said in the log
//! once, and once when it is over.
//!
//! Must not know: what the sources are; who asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::now_secs;
use crate::feed::Feed;
use crate::telemetry::source_status::{Doing, SourceStatus};
use crate::telemetry::usual_rate;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is too long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// The least, seconds.
    pub least_secs: u64,
    /// As long as so many killmails usually take at this hour.
    pub killmails: f64,
    /// Killmails that usually come in a day.
    pub per_day: f64,
    /// The game's daily downtime, which does not count: so long from 11:00 UTC on, seconds.
    pub downtime_secs: u32,
}

/// How silent the feed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// So long nothing came, seconds.
    pub secs: i64,
    /// So long it may be, seconds.
    pub max_secs: i64,
}

impl Silence {
    /// Whether that is too long.
    #[must_use]
    pub const fn is_too_long(self) -> bool {
        self.secs > self.max_secs
    }
}

/// How silent the running source is at this time, unix seconds; `None` where none runs that should never be
/// silent.
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

/// Looks until the server stops.
pub async fn watch(feed: Arc<Feed>, limits: Limits) {
    let mut closing = feed.closing();
    let mut told = false;
    loop {
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let Some(silence) = silence(feed.source_status(), &limits, now_secs()) else { continue };
        if silence.is_too_long() == told {
            continue;
        }
        told = !told;
        let Silence { secs, max_secs } = silence;
        if told {
            tracing::warn!(
                "the feed is silent: no killmail for {secs} s, more than the {max_secs} s usual now; {}",
                doing(feed.source_status())
            );
        } else {
            tracing::info!("the feed is no longer silent");
        }
    }
}

/// What is being done about it.
fn doing(status: &SourceStatus) -> String {
    let sequence = status.sequence.load(Ordering::Relaxed);
    match status.doing().0 {
        Doing::Following => format!("the source answers and is asked on behind number {sequence}"),
        Doing::BackingOff(why) | Doing::BreakerOpen(why) => {
            format!("{why}; it is asked again after growing waits")
        }
        Doing::NoSpace(why) => format!("{why}; it goes on by itself when there is room"),
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
