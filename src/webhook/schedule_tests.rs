//! Every row of the retry schedule.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const NOW_MS: i64 = 1_796_000_000_000;
const DAY_MS: i64 = 86_400_000;

fn status(status: u16) -> Answer {
    Answer::Status { status, retry_after: None, body: Bytes::new() }
}

fn asking(status: u16, retry_after: &str) -> Answer {
    Answer::Status { status, retry_after: Some(retry_after.to_owned()), body: Bytes::new() }
}

fn limited(body: &'static str, retry_after: Option<&str>) -> Answer {
    Answer::Status {
        status: 429,
        retry_after: retry_after.map(str::to_owned),
        body: Bytes::from_static(body.as_bytes()),
    }
}

fn failed() -> Answer {
    Answer::Failed { error: "no answer within 10 s".to_owned() }
}

fn after(count: u32) -> Failures {
    Failures { count, since_ms: if count == 0 { 0 } else { NOW_MS } }
}

/// The wait after an answer, without jitter.
fn wait_ms(failures: Failures, answer: &Answer) -> i64 {
    match Config::default().next_attempt(failures, answer, NOW_MS, || 0.0) {
        Next::Retry { at_ms, .. } => at_ms - NOW_MS,
        other => panic!("no retry after {answer:?}: {other:?}"),
    }
}

#[test]
fn waits_are_a_minute_then_five_then_fifteen_then_an_hour_each() {
    let secs = [60, 300, 900, 3_600, 3_600, 3_600, 3_600];
    let (schedule, mut failures, mut now_ms) = (Config::default(), Failures::default(), NOW_MS);
    for (so_far, secs) in (0..).zip(secs) {
        assert_eq!(failures.count, so_far);
        let Next::Retry { failures: more, at_ms } =
            schedule.next_attempt(failures, &status(500), now_ms, || 0.0)
        else {
            panic!("no retry after {so_far} failures");
        };
        assert_eq!((at_ms - now_ms, more.since_ms), (secs * 1_000, NOW_MS));
        (failures, now_ms) = (more, at_ms);
    }
    assert_eq!(wait_ms(after(u32::MAX), &failed()), 3_600_000);
}

#[test]
fn only_2xx_is_a_success_and_ends_the_failures() {
    let schedule = Config::default();
    for code in [200, 201, 202, 204, 226, 299] {
        assert_eq!(schedule.next_attempt(after(7), &status(code), NOW_MS, || 0.0), Next::Delivered, "{code}");
    }
    for code in
        [100, 199, 300, 301, 302, 303, 304, 307, 308, 400, 401, 404, 408, 422, 425, 429, 500, 502, 503, 504]
    {
        assert_eq!(wait_ms(after(0), &status(code)), 60_000, "{code}");
    }
    assert_eq!(wait_ms(after(0), &failed()), 60_000);
}

#[test]
fn a_410_disables_at_once() {
    let next = Config::default().next_attempt(after(0), &asking(410, "5"), NOW_MS, || 0.0);
    let failures = Failures { count: 1, since_ms: NOW_MS };
    assert_eq!(next, Next::Disable { failures, reason: "the endpoint answered 410 (gone)".to_owned() });
}

#[test]
fn jitter_prolongs_a_wait_by_up_to_a_tenth() {
    let at = |part: f64| match Config::default().next_attempt(after(0), &status(500), NOW_MS, || part) {
        Next::Retry { at_ms, .. } => at_ms - NOW_MS,
        other => panic!("{other:?}"),
    };
    assert_eq!((at(0.0), at(0.5), at(0.999_999)), (60_000, 63_000, 65_999));
    let without = Config { retry_jitter_percent: 0, ..Config::default() };
    let next = without.next_attempt(after(0), &status(500), NOW_MS, || 0.999);
    assert!(matches!(next, Next::Retry { at_ms, .. } if at_ms == NOW_MS + 60_000), "{next:?}");
}

#[test]
fn a_retry_after_replaces_the_wait_within_bounds() {
    let date = |after_secs: i64| {
        jiff::Timestamp::from_second(NOW_MS / 1_000 + after_secs)
            .unwrap()
            .strftime("%a, %d %b %Y %H:%M:%S GMT")
            .to_string()
    };
    for (text, wait) in [
        ("7".to_owned(), 7_000),
        ("7200".to_owned(), 7_200_000),
        (date(90), 90_000),
        (date(7_200), 7_200_000),
        // Clamped: nothing, the past, the absurd.
        ("0".to_owned(), 1_000),
        (date(-1), 1_000),
        (date(-100 * 365 * 86_400), 1_000),
        ("86401".to_owned(), DAY_MS),
        ("99999999999999999999".to_owned(), DAY_MS),
        (date(30 * 86_400), DAY_MS),
        // Not a wait: the schedule holds.
        ("-1".to_owned(), 60_000),
        ("later".to_owned(), 60_000),
        (String::new(), 60_000),
    ] {
        for code in [429, 500, 503, 302] {
            assert_eq!(wait_ms(after(0), &asking(code, &text)), wait, "{code} {text}");
        }
    }
}

#[test]
fn a_failing_endpoint_cannot_ask_for_less_than_the_first_wait() {
    assert_eq!(wait_ms(after(3), &asking(503, "1")), 1_000);
    assert_eq!(wait_ms(after(4), &asking(503, "1")), 60_000, "this is the fifth failure");
    assert_eq!(wait_ms(after(4), &asking(503, "120")), 120_000);
}

#[test]
fn discord_says_in_the_body_how_long_to_wait() {
    let discord = r#"{"message": "You are being rate limited.", "retry_after": 64.57, "global": false}"#;
    assert_eq!(wait_ms(after(0), &limited(discord, Some("65"))), 64_570);
    assert_eq!(wait_ms(after(0), &limited(discord, None)), 64_570);
    for (body, wait) in [
        (r#"{"retry_after":0.3}"#, 1_000),
        (r#"{"retry_after":2}"#, 2_000),
        (r#"{"retry_after":1e300}"#, DAY_MS),
        // Not a wait: the header holds.
        (r#"{"retry_after":-1}"#, 30_000),
        (r#"{"retry_after":"5"}"#, 30_000),
        (r#"{"message":"cut of"#, 30_000),
        ("[]", 30_000),
        ("", 30_000),
    ] {
        assert_eq!(wait_ms(after(0), &limited(body, Some("30"))), wait, "{body}");
    }
    let other =
        Answer::Status { status: 500, retry_after: None, body: Bytes::from_static(discord.as_bytes()) };
    assert_eq!(wait_ms(after(0), &other), 60_000, "only a 429 speaks of limits");
}

#[test]
fn a_subscription_is_failing_after_five_failures() {
    let schedule = Config::default();
    let shown: Vec<bool> = (0..7).map(|count| schedule.is_failing(after(count))).collect();
    assert_eq!(shown, [false, false, false, false, false, true, true]);
}

#[test]
fn five_days_after_the_first_failure_in_a_row_a_failure_disables() {
    let schedule = Config::default();
    let at = |now_ms: i64, answer: &Answer| schedule.next_attempt(after(100), answer, now_ms, || 0.0);
    assert!(matches!(at(NOW_MS + 5 * DAY_MS - 1, &status(500)), Next::Retry { .. }));
    let failures = Failures { count: 101, since_ms: NOW_MS };
    let reason = |last: &str| format!("every attempt failed for 5 days; the last one: {last}");
    assert_eq!(
        at(NOW_MS + 5 * DAY_MS, &status(500)),
        Next::Disable { failures, reason: reason("status 500") }
    );
    assert_eq!(
        at(NOW_MS + 6 * DAY_MS, &failed()),
        Next::Disable { failures, reason: reason("no answer within 10 s") }
    );
    assert_eq!(at(NOW_MS + 6 * DAY_MS, &status(204)), Next::Delivered);
    // A first failure never disables, however long ago an earlier run was.
    assert_eq!(wait_ms(Failures { count: 0, since_ms: 1 }, &status(500)), 60_000);
    // A clock that was set back does not either.
    assert!(matches!(at(NOW_MS - DAY_MS, &status(500)), Next::Retry { .. }));
}

#[test]
fn unset_settings_are_the_defaults() {
    let read: Config = serde_json::from_str(r#"{"failing_after": 2}"#).unwrap();
    assert_eq!(read, Config { failing_after: 2, ..Config::default() });
    assert!(serde_json::from_str::<Config>(r#"{"retries": 2}"#).is_err());
    let empty = Config { retry_secs: vec![], ..Config::default() };
    let next = empty.next_attempt(after(0), &status(500), NOW_MS, || 0.0);
    assert!(matches!(next, Next::Retry { at_ms, .. } if at_ms == NOW_MS + 3_600_000), "{next:?}");
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let known = prop_oneof![Just(200_u16), Just(429), Just(503), 100_u16..600];
    let texts = prop_oneof!["[0-9]{1,25}", "[ -~]{0,30}", Just("Sun, 06 Nov 2094 08:49:37 GMT".to_owned())];
    prop_oneof![
        Just(failed()),
        (known, proptest::option::of(texts), "\\{\"retry_after\":[0-9.e+-]{1,20}\\}").prop_map(
            |(status, retry_after, body)| Answer::Status { status, retry_after, body: Bytes::from(body) }
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]
    #[test]
    fn every_wait_is_at_least_a_second_and_at_most_a_day_and_a_tenth(
        count in any::<u32>(), since_ms in any::<i64>(), now_ms in 0..4_000_000_000_000_i64, part in 0.0..1.0,
        answer in any_answer(),
    ) {
        if let Next::Retry { failures, at_ms } =
            Config::default().next_attempt(Failures { count, since_ms }, &answer, now_ms, || part)
        {
            prop_assert!((1_000..=DAY_MS + DAY_MS / 10).contains(&(at_ms - now_ms)));
            prop_assert_eq!(failures.count, count.saturating_add(1));
        }
    }
}
