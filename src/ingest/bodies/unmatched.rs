//! When a killmail is asked for again that ESI says does not go with its hash. Pure: how often it said so and
//! times in, times out.
//!
//! ESI says so for right pairs, too, while it is under load. What is remembered stands on disk, so the waits
//! survive the server.
//!
//! Must not know: clocks, ESI.

use std::time::Duration;

/// When to ask again after `times` such answers, the last at `now_ms` (unix milliseconds); `None`: never.
#[must_use]
pub fn again_ms(waits_ms: &[u64], times: u32, now_ms: i64) -> Option<i64> {
    let wait_ms = waits_ms.get(usize::try_from(times.checked_sub(1)?).ok()?)?;
    Some(now_ms.saturating_add_unsigned(*wait_ms))
}

/// How long to wait at `now_ms` for a time told by [`again_ms`]; a clock that was set back waits no longer
/// than the longest wait.
#[must_use]
pub fn left(waits_ms: &[u64], due_ms: i64, now_ms: i64) -> Duration {
    let left_ms = u64::try_from(due_ms.saturating_sub(now_ms)).unwrap_or(0);
    Duration::from_millis(left_ms.min(waits_ms.iter().copied().max().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS_MS: [u64; 3] = [60_000, 600_000, 3_600_000];

    #[test]
    fn it_is_asked_again_after_one_ten_and_sixty_minutes_and_then_no_more() {
        let (mut now_ms, mut waits) = (5, vec![]);
        for times in 1.. {
            let Some(due_ms) = again_ms(&WAITS_MS, times, now_ms) else { break };
            assert_eq!(
                left(&WAITS_MS, due_ms, now_ms),
                Duration::from_millis(u64::try_from(due_ms - now_ms).unwrap())
            );
            assert_eq!(left(&WAITS_MS, due_ms, due_ms), Duration::ZERO);
            waits.push((due_ms - now_ms) / 60_000);
            now_ms = due_ms;
        }
        assert_eq!(waits, [1, 10, 60]);
        assert_eq!((again_ms(&[], 1, 5), again_ms(&WAITS_MS, 0, 5)), (None, None));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_make_it_wait_for_years() {
        assert_eq!(left(&WAITS_MS, 1_700_000_000_000, 0), Duration::from_secs(3_600));
        assert_eq!(left(&WAITS_MS, i64::MIN, i64::MAX), Duration::ZERO);
    }
}
