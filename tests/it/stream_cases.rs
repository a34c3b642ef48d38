//! The numbered acceptance cases of the streams (docs/cases.md).
//!
//! Must not know: how a reader finds its killmails.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::dice::Dice;
use crate::support::killmail::{Build, SYSTEMS, killmail, r2z2, random};
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::upstream::Upstream;
use crate::support::{http, until};

const JITA: u32 = SYSTEMS[0];
const AMARR: u32 = SYSTEMS[2];
/// The intervals of the streams, divided by ten.
const QUICK: &str = "[sse]\nping_ms = 1000\nheartbeat_ms = 3000";
const BASIC: &str = "/api/v1/kills/stream";
const ENHANCED: &str = "/api/v1/kills/stream/enhanced";

fn quick(upstream: &Upstream) -> Server {
    Setup::following(upstream).config(QUICK).start()
}

async fn add(server: &Server, killmails: Vec<Build>) {
    let count = killmails.len();
    let documents: Vec<Value> = killmails.into_iter().map(Build::r2z2).collect();
    let report =
        server.send(Method::POST, "/api/v1/killmails", json!(documents).to_string()).await.expect(200);
    assert_eq!(report["data"]["new"], count, "{report}");
}

/// The body of the response to an invalid parameter of a stream (docs/cases.md, case 65).
fn refusal(message: &str) -> Value {
    json!({ "error": { "domain": "validation", "type": "invalid_format", "message": message, "details": null, "retryable": false } })
}

#[tokio::test]
async fn case_65_an_invalid_id_is_refused_with_the_exact_body() {
    let server = Setup::quiet().start();
    for path in [BASIC, ENHANCED, "/sse"] {
        let reply = server.get(&format!("{path}?system_ids=invalid")).await;
        assert_eq!(reply.expect(400), refusal("Invalid system_ids: 'invalid' is not a valid integer"));
        assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"));
    }
}

#[tokio::test]
async fn case_66_parameters_beyond_their_limits_are_refused_with_the_exact_text() {
    let server = Setup::quiet().start();
    let many = (1..=101).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    for (query, message) in [
        ("min_value=-100".to_owned(), "min_value must be non-negative, got -100.0"),
        ("min_value=x".to_owned(), "Invalid min_value: 'x' is not a valid number"),
        (format!("system_ids={many}"), "Too many system_ids specified (max 100)"),
        (format!("character_ids={many}"), "Too many character_ids specified (max 100)"),
        ("system_ids[]=1".to_owned(), "system_ids must be a comma-separated list of integers"),
        ("preload_days=-5".to_owned(), "preload_days must be non-negative"),
        ("preload_days=x".to_owned(), "Invalid preload_days: 'x' is not a valid integer"),
    ] {
        for path in [BASIC, ENHANCED] {
            assert_eq!(server.get(&format!("{path}?{query}")).await.expect(400), refusal(message), "{query}");
        }
    }
    let mut capped = server
        .enhanced("system_ids=%2030000142%20,%2030000144%20&preload_days=120&unknown=1&min_value=")
        .await;
    let connected = capped.event_named("connected").await.json();
    assert_eq!(connected["filters"]["system_ids"], json!([30_000_142, 30_000_144]));
    assert_eq!(connected["filters"]["preload_days"], 90);
}

#[tokio::test]
async fn case_67_the_basic_stream_is_unnamed_and_never_silent() {
    let upstream = Upstream::start();
    let server = quick(&upstream);
    let mut stream = server.basic("").await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(
        (stream.header("cache-control"), stream.header("x-accel-buffering")),
        (Some("no-cache"), Some("no"))
    );
    assert_eq!(stream.next_block().await.unwrap().raw, "retry: 2000\n\n");
    let opening = stream.next_block().await.unwrap();
    assert!(opening.data.is_none() && opening.event.is_none() && opening.id.is_some(), "{opening:?}");
    let ping = stream.next_block().await.unwrap();
    assert_eq!(ping.raw, format!(": ping\nid: {}\n\n", opening.id.unwrap()));
    upstream.publish(killmail(5));
    let block = stream.event().await;
    assert_eq!((block.event.as_deref(), block.killmail_id()), (None, Some(5)));
    assert!(block.id.is_some() && block.raw.lines().filter(|line| line.starts_with("data:")).count() == 1);
    assert_eq!(block.json(), server.get("/api/v1/killmail/5").await.expect(200)["data"]);
}

/// Checks which killmails each of these streams gets of those published after all are open.
async fn sieve(killmails: Vec<Value>, expected: &[(&str, &[u64])]) {
    let upstream = Upstream::start();
    let server = quick(&upstream);
    let mut streams = Vec::new();
    for (query, _) in expected {
        for path in [BASIC, ENHANCED] {
            let mut stream = server.stream(&format!("{path}?{query}")).await;
            stream.next_block().await;
            stream.next_block().await;
            streams.push(stream);
        }
    }
    let mut all = server.basic("").await;
    all.next_block().await;
    all.next_block().await;
    let count = killmails.len();
    for document in killmails {
        upstream.publish_document(document);
    }
    all.killmails(count).await;
    for (n, stream) in streams.iter_mut().enumerate() {
        let (query, ids) = expected[n / 2];
        let mut got = stream.killmails(ids.len()).await;
        got.extend(stream.killmails_until_quiet(Duration::from_millis(300)).await);
        assert_eq!(got, ids, "{query} of stream {n}");
    }
}

#[tokio::test]
async fn case_68_value_and_either_character_or_system() {
    let mut snake = killmail(6).system(AMARR).victim(21).attackers(&[22]).r2z2();
    snake["zkb"] = json!({ "hash": snake["zkb"]["hash"], "total_value": 20e6 });
    let mut no_value = killmail(7).victim(21).attackers(&[22]).r2z2();
    no_value["zkb"].as_object_mut().unwrap().remove("totalValue");
    let killmails = vec![
        killmail(1).system(JITA).victim(11).attackers(&[12]).value(5e6).r2z2(),
        killmail(2).system(AMARR).victim(13).attackers(&[14, 99]).value(5e6).r2z2(),
        killmail(3).system(AMARR).victim(99).attackers(&[12]).value(5e5).r2z2(),
        killmail(4).system(JITA).victim(11).attackers(&[12]).without_zkb().r2z2(),
        killmail(5).system(AMARR).structure().attackers(&[99]).value(1e7).r2z2(),
        snake,
        no_value,
    ];
    sieve(
        killmails,
        &[
            ("", &[1, 2, 3, 4, 5, 6, 7]),
            ("min_value=1000000", &[1, 2, 5, 6]),
            ("min_value=5000000", &[1, 2, 5, 6]),
            ("min_value=10000001", &[6]),
            ("system_ids=30000142", &[1, 4, 7]),
            ("system_ids=30000142,30002187", &[1, 2, 3, 4, 5, 6, 7]),
            ("system_ids=31000005", &[]),
            ("character_ids=99", &[2, 3, 5]),
            ("character_ids=11,22", &[1, 4, 6, 7]),
            ("character_ids=99&system_ids=30000142", &[1, 2, 3, 4, 5, 7]),
            ("character_ids=99&system_ids=30000142&match=all", &[]),
            ("character_ids=99&system_ids=30002187&match=all&min_value=1000000", &[2, 5]),
            ("character_ids=99&system_ids=30000142&min_value=1000000", &[1, 2, 5]),
            ("character_ids=99&role=victim", &[3]),
            ("character_ids=99&role=final_blow", &[5]),
        ],
    )
    .await;
}

/// Adds 120 killmails of character 77 within 90 days, one older, and others in between.
async fn with_history(server: &Server) {
    let day = 86_400;
    let mut killmails = vec![killmail(1).victim(77).ago(100 * day)];
    for n in 0..120_u32 {
        let at = 89 * day - i64::from(n) * day / 2;
        killmails.push(killmail(10 + 2 * n).attackers(&[5, 77]).ago(at));
        killmails.push(killmail(11 + 2 * n).ago(at));
    }
    add(server, killmails).await;
}

fn preloaded() -> Vec<u64> {
    (0..120).map(|n| 10 + 2 * n).collect()
}

fn ids(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|k| k["killmail_id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn case_69_history_comes_in_batches_then_live() {
    let upstream = Upstream::start();
    let server = quick(&upstream);
    with_history(&server).await;
    let mut stream = server.enhanced("character_ids=77&preload_days=90").await;
    assert_eq!(stream.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(
        (stream.header("cache-control"), stream.header("x-accel-buffering")),
        (Some("no-cache"), Some("no"))
    );
    let first = stream.event().await;
    let connected = first.json();
    assert_eq!((first.name(), &connected["status"]), ("connected", &json!("connected")));
    assert_eq!(connected["filters"]["character_ids"], json!([77]));
    assert!(
        connected["subscription_id"].is_string() && connected["timestamp"].is_string() && first.id.is_some(),
        "{connected}"
    );
    let mut got = Vec::new();
    for number in 1..=3 {
        let block = stream.event_but_heartbeat().await;
        let batch = block.json();
        assert_eq!(
            (block.name(), &batch["batch_number"], &batch["total_batches"]),
            ("batch", &json!(number), &json!(3))
        );
        assert_eq!(batch["kills"], batch["killmails"]);
        let listed = ids(&batch["kills"]);
        assert!(listed.len() <= 50 && batch["count"] == json!(listed.len()), "{}", listed.len());
        assert!(block.id.as_ref().unwrap().contains('.'), "{:?}", block.id);
        got.extend(listed);
    }
    assert_eq!(got, preloaded());
    let block = stream.event_but_heartbeat().await;
    let transition = block.json();
    assert_eq!(
        (block.name(), &transition["status"], &transition["total_historical"]),
        ("transition", &json!("historical_complete"), &json!(120))
    );
    assert!(!block.id.as_ref().unwrap().contains('.'));
    upstream.publish(killmail(9000).victim(77));
    let live = stream.event_but_heartbeat().await;
    assert_eq!((live.name(), live.killmail_id()), ("killmail", Some(9000)));
    let heartbeat = stream.event().await;
    assert_eq!((heartbeat.name(), &heartbeat.json()["mode"]), ("heartbeat", &json!("realtime")));
    assert_eq!(heartbeat.id, live.id);
}

#[tokio::test]
async fn case_69_the_basic_stream_preloads_one_by_one() {
    let upstream = Upstream::start();
    let server = quick(&upstream);
    with_history(&server).await;
    let mut stream = server.basic("character_ids=77&preload_days=90").await;
    assert_eq!(stream.killmails(120).await, preloaded());
    let transition = loop {
        let block = stream.next_block().await.unwrap();
        if block.comments != ["ping"] {
            break block;
        }
    };
    assert!(
        transition.data.is_none() && transition.id.is_some_and(|id| !id.contains('.')),
        "{:?}",
        transition.raw
    );
    upstream.publish(killmail(9000).victim(77));
    assert_eq!(stream.killmails(1).await, [9000]);
}

#[tokio::test]
async fn case_70_enhanced_streams_are_limited_and_free_their_places() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).config("[sse]\nenhanced_max_connections = 100").start();
    let mut streams = Vec::new();
    for n in 0..100 {
        let mut stream = server.enhanced(if n % 2 == 0 { "" } else { "system_ids=30000142" }).await;
        assert_eq!(stream.event().await.name(), "connected");
        streams.push(stream);
    }
    let refused = server.get(ENHANCED).await;
    let body = json!({ "error": { "type": "connection_limit_reached", "message": "Too many active SSE connections" } });
    assert_eq!(refused.expect(503), body);
    assert_eq!(http::request(Method::HEAD, &server.url(ENHANCED), &[], Vec::new()).await.status, 200);
    upstream.publish(killmail(5));
    for stream in &mut streams[..2] {
        let block = stream.event_but_heartbeat().await;
        assert_eq!((block.name(), block.killmail_id()), ("killmail", Some(5)));
    }
    drop(streams.pop());
    let again = until("a free place", async || {
        let stream = server.enhanced("").await;
        (stream.status == 200).then_some(stream)
    });
    assert_eq!(again.await.event().await.name(), "connected");
}

#[tokio::test]
async fn case_71_a_reconnecting_client_misses_nothing() {
    let upstream = Upstream::start();
    let server = quick(&upstream);
    for path in [BASIC, ENHANCED] {
        let base = if path == BASIC { 0 } else { 1000 };
        let mut stream = server.stream(path).await;
        stream.next_block().await;
        stream.next_block().await;
        upstream.publish(killmail(base + 1));
        assert_eq!(stream.killmails(1).await, [u64::from(base) + 1]);
        let number = upstream.publish(killmail(base + 2));
        upstream.gave(number).await;
        let number = upstream.publish(killmail(base + 3));
        upstream.gave(number).await;
        let mut again = stream.reconnect().await;
        assert_eq!(again.killmails(2).await, [u64::from(base) + 2, u64::from(base) + 3]);
        assert_eq!(again.killmails_until_quiet(Duration::from_millis(300)).await, Vec::<u64>::new());
    }
}

#[tokio::test]
async fn case_71_a_preload_continues_where_it_was_interrupted() {
    let upstream = Upstream::start();
    let server = quick(&upstream);
    with_history(&server).await;
    let mut stream = server.enhanced("character_ids=77&preload_days=90").await;
    let mut got = ids(&stream.event_named("batch").await.json()["kills"]);
    let mut again = stream.reconnect().await;
    let block = again.event_named("batch").await;
    assert_eq!((&block.json()["batch_number"], &block.json()["total_batches"]), (&json!(1), &json!(2)));
    got.extend(ids(&block.json()["kills"]));
    got.extend(ids(&again.event_named("batch").await.json()["kills"]));
    assert_eq!(got, preloaded());
    assert_eq!(again.event_named("transition").await.json()["total_historical"], 70);
}

#[tokio::test]
async fn the_header_wins_over_the_parameter_and_a_bad_id_is_a_gap() {
    let upstream = Upstream::start();
    let server = quick(&upstream);
    let mut stream = server.basic("").await;
    let opening = {
        stream.next_block().await;
        stream.next_block().await.unwrap().id.unwrap()
    };
    upstream.publish(killmail(1));
    stream.killmails(1).await;
    let path = format!("{BASIC}?last_event_id=nonsense");
    let mut resumed = Sse::get(server.address(), &path, &[("last-event-id", &opening)]).await;
    assert_eq!(resumed.event().await.killmail_id(), Some(1));
    for path in [BASIC, ENHANCED] {
        let mut lost = server.stream(&format!("{path}?last_event_id=nonsense")).await;
        let gap = lost.event_named("gap").await;
        let body = gap.json();
        assert_eq!((&body["reason"], &body["requested"]), (&json!("malformed"), &json!("nonsense")));
        assert_eq!(body["resumed_at"].as_str(), gap.id.as_deref());
        assert!(body["timestamp"].is_string());
    }
}

#[tokio::test]
async fn a_post_opens_the_same_stream() {
    let upstream = Upstream::start();
    let server = quick(&upstream);
    let many: Vec<u32> = (1..=5000).collect();
    let mut stream =
        Sse::post(server.address(), ENHANCED, &json!({ "character_ids": many, "min_value": 10 })).await;
    assert_eq!(stream.event().await.name(), "connected");
    upstream.publish(killmail(5));
    upstream.publish(killmail(6).victim(4999));
    assert_eq!(stream.killmails(1).await, [6]);
    for wrong in [json!({ "system_ids": "x" }), json!([30_000_142]), json!(5), json!("system_ids")] {
        let refused = server.post(BASIC, &wrong).await;
        assert_eq!(refused.expect(400)["error"]["type"], "invalid_format", "{wrong}");
    }
}

#[tokio::test]
async fn streams_are_told_that_the_server_stops() {
    let mut server = Setup::quiet().start();
    let mut enhanced = server.enhanced("").await;
    enhanced.event().await;
    let mut basic = server.basic("").await;
    basic.next_block().await;
    basic.next_block().await;
    assert!(server.stop().success());
    let last = enhanced.event_but_heartbeat().await;
    assert_eq!((last.name(), &last.json()["type"]), ("error", &json!("closing")));
    assert!(enhanced.next_block().await.is_none());
    while let Some(block) = basic.next_block().await {
        assert!(block.data.is_none(), "{block:?}");
    }
}

/// The value of a metric.
async fn metric(server: &Server, name: &str) -> u64 {
    let text = server.get("/metrics/prometheus").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("killstream_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Waits until a counter has not changed for a second.
async fn settled(server: &Server, name: &str) {
    let (mut last, mut same) = (u64::MAX, 0);
    until("no more growth", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = metric(server, name).await;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same >= 10).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_little_and_loses_nothing() {
    const CLIENTS: usize = 40;
    let config = "[feed]\nbatch_pause_ms = 1\n[sse]\nbatch_cache_bytes = 0\nheartbeat_ms = 600000";
    let server = Setup::quiet().config(config).start();
    let mut dice = Dice::new(7);
    let old = killmail(0).ago(3600).build().time;
    for chunk in 0..10_u32 {
        let documents: Vec<Value> = (1..=300)
            .map(|n| {
                let mut one = random(&mut dice, chunk * 300 + n, old);
                one.victim.character_id = Some(77);
                r2z2(&one)
            })
            .collect();
        let report =
            server.send(Method::POST, "/api/v1/killmails", json!(documents).to_string()).await.expect(200);
        assert_eq!(report["data"]["new"], 300);
    }
    let path = format!("{ENHANCED}?character_ids=77&preload_days=1");
    let mut reads = server.stream(&path).await;
    reads.event_named("transition").await;
    let mut stuck = Vec::new();
    let mut resident = Vec::new();
    // The allocator and the kernel also take memory for other reasons, so the cost of a client is the least
    // that any further round costs.
    for round in 0..4 {
        for _ in 0..CLIENTS {
            stuck.push(Sse::narrow(server.address(), &path, 4096).await);
        }
        settled(&server, "feed_preloaded_total").await;
        resident.push(metric(&server, "process_resident_memory_bytes").await);
        eprintln!("round {round}: {} bytes resident", resident[round]);
    }
    let each =
        resident.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) / CLIENTS as u64).min().unwrap();
    eprintln!("{each} bytes for each client that does not read");
    assert!(each < 64 << 10, "{each} bytes for each client that does not read: {resident:?}");
    let mut one = stuck.swap_remove(0);
    let mut got = Vec::new();
    loop {
        let block = one.event().await;
        match block.name() {
            "batch" => {
                assert_eq!(block.json()["kills"], block.json()["killmails"]);
                got.extend(ids(&block.json()["kills"]));
            }
            "transition" => break,
            _ => {}
        }
    }
    assert_eq!(got, (1..=3000).collect::<Vec<u64>>());
}
