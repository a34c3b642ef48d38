//! The acceptance cases of the feed (docs/cases.md, 33 to 40): the server against a fake R2Z2 on loopback.
//!
//! Must not know: how the follower is built; only its requests and their effects.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::killmail::killmail;
use crate::support::server::{Server, Setup};
use crate::support::upstream::{Canned, FIRST, Seen, Upstream};
use crate::support::{long, until};

/// Short waits, for tests that are not about waits.
const HASTY: &str =
    "[ingest]\nr2z2_missing_ms = 300\nr2z2_limited_ms = 300\nr2z2_forbidden_ms = 600\nr2z2_failed_ms = 20\n";

/// The killmail as the server returns it.
async fn stored(server: &Server, id: u32) -> Value {
    until(&format!("killmail {id} to be stored"), async || {
        let reply = server.get(&format!("/api/v1/killmail/{id}")).await;
        (reply.status == 200).then(|| reply.json()["data"].clone())
    })
    .await
}

fn gaps(requests: &[Seen]) -> Vec<Duration> {
    requests.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
}

#[tokio::test]
async fn case_33_what_is_older_than_the_cutoff_is_stored_and_not_pushed() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut stream = server.basic("").await;
    upstream.publish(killmail(1).ago(2 * 3600));
    upstream.publish(killmail(2).ago(60));
    assert_eq!(stream.killmails(1).await, [2]);
    assert_eq!(stored(&server, 1).await["killmail_id"], 1);
    assert_eq!(stream.killmails_until_quiet(Duration::from_millis(300)).await, [0; 0]);
}

#[tokio::test]
async fn late_killmails_are_numbered_by_arrival_and_marked() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let (mut all, mut fresh) = (server.basic("max_age_secs=0").await, server.basic("").await);
    upstream.publish(killmail(10).ago(60));
    upstream.publish(killmail(2).ago(3 * 86_400));
    upstream.publish(killmail(11).ago(30));
    let mut numbers = Vec::new();
    for id in [10, 2, 11] {
        let block = all.event().await;
        assert_eq!(block.killmail_id(), Some(id), "in the order of arrival");
        numbers.push(block.id.unwrap().rsplit('-').next().unwrap().parse::<u64>().unwrap());
    }
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(fresh.killmails(2).await, [10, 11]);
    let metrics = server.get("/metrics/prometheus").await.text();
    assert!(metrics.contains("\nkillstream_source_late_total 1\n"), "{metrics}");
    let oldest = server.get("/api/v1/killmails?order=oldest").await.expect(200);
    assert_eq!(oldest["data"]["killmails"][0]["killmail_id"], 2, "history is still ordered by time");
}

#[tokio::test]
async fn case_34_a_malformed_document_is_passed_over_and_the_feed_goes_on() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).config(HASTY).start();
    let mut stream = server.basic("").await;
    let broken = |id: u32, change: fn(&mut Value)| {
        let mut document = killmail(id).r2z2();
        change(&mut document["esi"]);
        upstream.publish_document(document);
    };
    broken(1, |esi| drop(esi.as_object_mut().unwrap().remove("victim")));
    broken(2, |esi| esi["attackers"] = json!("none"));
    broken(3, |esi| esi["killmail_time"] = json!("yesterday"));
    upstream.publish_raw(upstream.skip_number(), "<html>not today</html>");
    upstream.publish(killmail(5));
    assert_eq!(stream.killmails(1).await, [5]);
    for id in 1..=4 {
        assert_eq!(server.get(&format!("/api/v1/killmail/{id}")).await.status, 404, "killmail {id}");
    }
    assert_eq!(server.log().matches("was refused").count(), 4, "{}", server.log());
    // Each document is counted once; a known killmail counts as skipped.
    upstream.publish(killmail(5));
    upstream.publish(killmail(6));
    assert_eq!(stream.killmails(1).await, [6]);
    // It is counted a moment after it is announced.
    let stats = until("the last one is counted", async || {
        let stats = server.get("/status").await.expect(200)["metrics"]["parser_stats"].clone();
        (stats["total_processed"] == 7).then_some(stats)
    })
    .await;
    assert_eq!(
        (&stats["stored"], &stats["skipped"], &stats["failed"]),
        (&json!(2), &json!(1), &json!(4)),
        "{stats}"
    );
}

#[tokio::test]
async fn case_35_a_first_start_begins_at_the_pointer_and_waits_after_a_404() {
    let upstream = Upstream::start();
    upstream.point_at(FIRST + 1);
    upstream.publish(killmail(1));
    upstream.publish(killmail(2));
    upstream.publish(killmail(3));
    let server = Setup::following(&upstream).env("R2Z2_IDLE_MS", "600").start();
    until("three tries of the next number", async || {
        (upstream.requests().iter().filter(|s| s.number() == Some(FIRST + 3)).count() >= 3).then_some(())
    })
    .await;
    let requests = upstream.requests();
    let urls: Vec<&str> = requests.iter().take(4).map(|s| s.url.as_str()).collect();
    let file = |number: u64| format!("/ephemeral/{number}.json");
    assert_eq!(urls, ["/ephemeral/sequence.json", &file(FIRST + 1), &file(FIRST + 2), &file(FIRST + 3)]);
    let tries: Vec<Seen> = requests.into_iter().filter(|s| s.number() == Some(FIRST + 3)).collect();
    // The fake notes when a request arrives, so the smallest distance may seem a little shorter than it was.
    assert!(gaps(&tries).iter().all(|gap| *gap >= Duration::from_millis(590)), "{:?}", gaps(&tries));
    assert_eq!(
        server.get("/api/v1/killmail/1").await.status,
        404,
        "what came before the pointer is not live"
    );
    upstream.publish(killmail(4));
    stored(&server, 4).await;
}

#[tokio::test]
async fn case_36_a_restart_goes_on_behind_the_last_one() {
    let upstream = Upstream::start();
    let mut server = Server::following(&upstream);
    for id in 1..=3 {
        upstream.publish(killmail(id));
    }
    stored(&server, 3).await;
    for (last, way) in [(3_u32, "stopped"), (5, "killed")] {
        if way == "stopped" {
            assert!(server.stop().success(), "{}", server.log());
        } else {
            server.kill();
        }
        let before = upstream.requests().len();
        upstream.publish(killmail(last + 1));
        upstream.publish(killmail(last + 2));
        server.restart();
        stored(&server, last + 2).await;
        let requests = upstream.requests()[before..].to_vec();
        assert_eq!(requests[0].number(), Some(FIRST + u64::from(last)), "after it was {way}");
        assert!(requests.iter().all(|s| s.url != "/ephemeral/sequence.json"), "{requests:?}");
        assert_eq!(server.get("/api/v1/killmails/count").await.expect(200)["data"]["count"], last + 2);
    }
}

#[tokio::test]
async fn case_37_in_short_a_missing_number_is_passed_over_when_the_next_one_is_there() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream)
        .env("R2Z2_IDLE_MS", "400")
        .config("[ingest]\nr2z2_heal_ms = 2000")
        .start();
    let mut stream = server.basic("").await;
    upstream.publish(killmail(1));
    let missing = upstream.skip_number();
    let later = upstream.publish(killmail(3));
    assert_eq!(stream.killmails(2).await, [1, 3], "sequence.json has not passed it");
    let asked = upstream.requests();
    let tries: Vec<Seen> = asked.iter().filter(|seen| seen.number() == Some(missing)).cloned().collect();
    assert!(
        tries.len() >= 2 && tries[1].at - tries[0].at >= Duration::from_millis(390),
        "{:?}",
        gaps(&tries)
    );
    let looked: Vec<&Seen> = asked.iter().filter(|seen| seen.number() == Some(later)).collect();
    assert_eq!(looked.len(), 1, "the later number that exists is taken");
    assert!(looked[0].at - tries[1].at < Duration::from_millis(390), "at once after the second 404");
    assert!(server.log().contains(&format!("{missing} is missing")), "{}", server.log());
    let metrics = server.get("/metrics/prometheus").await.text();
    assert!(
        metrics.contains("\nkillstream_source_gaps_total 1\n")
            && metrics.contains("\nkillstream_source_gap_numbers 1\n"),
        "{metrics}"
    );
    upstream.publish(killmail(4));
    assert_eq!(stream.killmails(1).await, [4]);
    upstream.publish_at(missing, killmail(2).r2z2());
    assert_eq!(stream.killmails(1).await, [2], "late killmails are live, in the order of arrival");
}

#[tokio::test]
async fn case_37_at_length_a_missing_number_is_passed_over_after_six_seconds_and_tried_again_after_fifteen() {
    if !long() {
        return;
    }
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).env("R2Z2_IDLE_MS", "").env("R2Z2_PACE_MS", "").start();
    upstream.publish(killmail(1));
    let missing = upstream.skip_number();
    upstream.publish(killmail(2));
    stored(&server, 2).await;
    let tries = async || -> Vec<Seen> {
        upstream.requests().into_iter().filter(|s| s.number() == Some(missing)).collect()
    };
    assert_eq!(tries().await.len(), 2);
    tokio::time::sleep(Duration::from_secs(17)).await;
    let waits: Vec<u128> = gaps(&tries().await).iter().map(Duration::as_millis).collect();
    assert!(
        matches!(waits[..], [a, b] if (5_990..7_500).contains(&a) && (14_990..16_500).contains(&b)),
        "{waits:?}"
    );
    let metrics = server.get("/metrics/prometheus").await.text();
    assert!(
        metrics.contains("\nkillstream_source_gaps_total 1\n")
            && metrics.contains("\nkillstream_source_gap_numbers 1\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn case_38_at_length_refusals_are_waited_out() {
    if !long() {
        return;
    }
    let upstream = Upstream::start();
    let number = upstream.publish(killmail(1));
    upstream.fail(number, Canned::status(429).header("retry-after", "2"), 1);
    upstream.fail(number, Canned::status(403), 1);
    let server = Setup::following(&upstream).env("R2Z2_IDLE_MS", "").env("R2Z2_PACE_MS", "").start();
    let health = until("the 403 to be reported", async || {
        let health = server.get("/health").await.expect(200);
        (health["circuit_breaker"]["circuit_state"] == "open").then_some(health)
    })
    .await;
    assert_eq!((&health["healthy"], &health["status"]), (&json!(true), &json!("degraded")), "{health}");
    tokio::time::sleep(Duration::from_secs(55)).await;
    stored(&server, 1).await;
    let tries: Vec<Seen> = upstream.requests().into_iter().filter(|s| s.number() == Some(number)).collect();
    let waits: Vec<u128> = gaps(&tries).iter().map(Duration::as_millis).collect();
    assert!(matches!(waits[..], [a, b] if a >= 1_990 && b >= 59_990), "{waits:?}");
    assert_eq!(server.get("/health").await.expect(200)["status"], "ok");
}

#[tokio::test]
async fn case_38_in_short_refusals_are_waited_out() {
    let upstream = Upstream::start();
    let number = upstream.publish(killmail(1));
    upstream.fail(number, Canned::status(429).header("retry-after", "1"), 1);
    upstream.fail(number, Canned::status(429), 1);
    upstream.fail(number, Canned::status(403), 1);
    upstream.fail(number, Canned::status(503), 2);
    let server = Setup::following(&upstream).config(HASTY).start();
    stored(&server, 1).await;
    let tries: Vec<Seen> = upstream.requests().into_iter().filter(|s| s.number() == Some(number)).collect();
    let waits: Vec<u128> = gaps(&tries).iter().map(Duration::as_millis).collect();
    assert_eq!(waits.len(), 5, "{waits:?}");
    for (wait, least) in waits.iter().zip([1_000, 300, 600, 20, 40]) {
        assert!(*wait + 10 >= least, "{waits:?}");
    }
}

#[tokio::test]
async fn case_39_a_rewritten_file_changes_values_and_is_not_pushed_again() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut stream = server.basic("").await;
    let number = upstream.publish(killmail(1).value(1e6));
    assert_eq!(stream.killmails(1).await, [1]);
    upstream.rewrite(number, killmail(1).value(5e9).labels(&["ganked"]).r2z2(), killmail(2));
    until("the new value", async || (stored(&server, 1).await["zkb"]["totalValue"] == 5e9).then_some(()))
        .await;
    assert_eq!(stored(&server, 1).await["zkb"]["labels"], json!(["ganked"]));
    // The same killmail under a new number, as after a reset of the feed.
    upstream.publish(killmail(1).value(5e9).labels(&["ganked"]));
    upstream.publish(killmail(3));
    assert_eq!(stream.killmails(2).await, [2, 3]);
    assert_eq!(stream.killmails_until_quiet(Duration::from_millis(300)).await, [0; 0]);
}

#[tokio::test]
async fn case_40_every_request_says_who_asks() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).env("USER_AGENT_CONTACT", "pilot@example.org").start();
    upstream.publish(killmail(1));
    stored(&server, 1).await;
    for request in upstream.requests() {
        let agent = request.headers["user-agent"].to_str().unwrap();
        assert!(agent.starts_with("killstream/") && agent.contains("(pilot@example.org"), "{agent}");
        assert!(!request.url.contains('?'), "{}", request.url);
    }
}

#[tokio::test]
async fn without_a_contact_the_real_host_gets_no_requests() {
    let setup = Setup::quiet().env("SOURCE", "r2z2").env("R2Z2_BASE_URL", "").env("USER_AGENT_CONTACT", "");
    let server = setup.env("R2Z2_IDLE_MS", "").env("R2Z2_PACE_MS", "").start();
    assert!(server.log().contains("USER_AGENT_CONTACT is not set"), "{}", server.log());
    let health = server.get("/health").await;
    assert!(health.text().contains("USER_AGENT_CONTACT"), "{}", health.text());
}

#[tokio::test]
async fn a_number_in_the_wrong_file_is_refused() {
    let upstream = Upstream::start();
    let mut wrong = killmail(1).r2z2();
    wrong["sequence_id"] = json!(7);
    upstream.publish_document(wrong);
    upstream.publish(killmail(2));
    let server = Setup::following(&upstream).config(HASTY).start();
    stored(&server, 2).await;
    assert_eq!(server.get("/api/v1/killmail/1").await.status, 404);
    assert!(server.log().contains("carries another number"), "{}", server.log());
}

#[tokio::test]
async fn a_replay_delivers_old_killmails_as_new() {
    let setup = Setup::quiet();
    let file = setup.folder().join("replay.ndjson");
    let lines: Vec<String> = (1..=20_u32)
        .map(|id| killmail(id).time(1_638_000_000 + i64::from(id) * 60).esi().to_string())
        .collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let server = setup
        .args(&["--source", "replay", "--replay", file.to_str().unwrap(), "--replay-speed", "6000"])
        .start();
    let mut stream = server.basic("").await;
    let opening = [stream.next_block().await.unwrap().id, stream.next_block().await.unwrap().id]
        .into_iter()
        .flatten()
        .next()
        .unwrap();
    // From the start of the log on everything is live, wherever the replay was when the stream opened.
    let beginning = format!("{}-0", opening.split_once('-').unwrap().0);
    let mut stream = server.basic(&format!("last_event_id={beginning}")).await;
    assert_eq!(stream.killmails(20).await, (1..=20).collect::<Vec<u64>>());
    assert_eq!(server.get("/api/v1/killmails/count").await.expect(200)["data"]["count"], 20);
}

#[tokio::test]
async fn a_stop_ends_open_streams_and_stores_the_killmail_in_hand() {
    let upstream = Upstream::start();
    let setup = Setup::following(&upstream).env("R2Z2_IDLE_MS", "10").config("grace_ms = 60000");
    let mut server = setup.start();
    let stream = server.enhanced("").await;
    let last = 50;
    for id in 1..=last {
        upstream.publish(killmail(id));
    }
    stored(&server, 10).await;
    assert!(server.stop().success(), "{}", server.log());
    assert!(!server.log().contains("cut off"), "{}", server.log());
    let rest = stream.rest().await;
    assert!(rest.contains("\"killmail_id\":1,") || rest.contains("\"killmail_id\":1}"), "{rest}");
    server.restart();
    stored(&server, last).await;
    assert_eq!(server.get("/api/v1/killmails/count").await.expect(200)["data"]["count"], last);
}
