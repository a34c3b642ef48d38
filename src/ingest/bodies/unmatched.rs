//! When to retry a killmail of which ESI says that it does not match its hash (422). Pure: the number of such
//! answers and times in, times out.
//!
//! ESI also says so of valid pairs while it is under load. The waits are stored, so they survive a restart.
//!
//! Must not know: clocks, ESI.

use std::time::Duration;

/// When to retry after `times` such answers, the last one at `now_ms` (unix milliseconds); `None`: never.
#[must_use]
pub fn retry_at_ms(waits_ms: &[u64], times: u32, now_ms: i64) -> Option<i64> {
    let wait_ms = waits_ms.get(usize::try_from(times.checked_sub(1)?).ok()?)?;
    Some(now_ms.saturating_add_unsigned(*wait_ms))
}

/// How long to wait at `now_ms` for a time from [`retry_at_ms`]. Never longer than the longest wait, even if
/// the clock was set back.
#[must_use]
pub fn time_left(waits_ms: &[u64], due_ms: i64, now_ms: i64) -> Duration {
    let left_ms = u64::try_from(due_ms.saturating_sub(now_ms)).unwrap_or(0);
    Duration::from_millis(left_ms.min(waits_ms.iter().copied().max().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS_MS: [u64; 3] = [60_000, 600_000, 3_600_000];

    #[test]
    fn retries_come_after_one_ten_and_sixty_minutes_and_then_end() {
        let (mut now_ms, mut waits) = (5, vec![]);
        for times in 1.. {
            let Some(due_ms) = retry_at_ms(&WAITS_MS, times, now_ms) else { break };
            assert_eq!(
                time_left(&WAITS_MS, due_ms, now_ms),
                Duration::from_millis(u64::try_from(due_ms - now_ms).unwrap())
            );
            assert_eq!(time_left(&WAITS_MS, due_ms, due_ms), Duration::ZERO);
            waits.push((due_ms - now_ms) / 60_000);
            now_ms = due_ms;
        }
        assert_eq!(waits, [1, 10, 60]);
        assert_eq!((retry_at_ms(&[], 1, 5), retry_at_ms(&WAITS_MS, 0, 5)), (None, None));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_cause_a_wait_of_years() {
        assert_eq!(time_left(&WAITS_MS, 1_700_000_000_000, 0), Duration::from_secs(3_600));
        assert_eq!(time_left(&WAITS_MS, i64::MIN, i64::MAX), Duration::ZERO);
    }
}
