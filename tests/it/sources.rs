//! Sources beside R2Z2, and fallbacks: fakes on loopback that misbehave on purpose.
//!
//! Must not know: how sources are built; only their requests and their effects.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::eve_kill::EveKill;
use crate::support::killmail::{Build, killmail};
use crate::support::server::{Server, Setup};
use crate::support::until;
use crate::support::upstream::{Canned, Upstream};

/// Short waits, for tests that are not about waits.
const HASTY: &str = "[ingest]\nr2z2_limited_ms = 300\nr2z2_forbidden_ms = 300\nr2z2_failed_ms = 20\nredisq_pace_ms = 20\n\
    fallback_after_ms = 400\nfallback_back_ms = 300\nwebsocket_ping_ms = 3000\n\
    esi_unmatched_retry_ms = [30, 30, 30]\n";

pub fn source(kind: &str, url: &str, more: &str) -> String {
    format!("{HASTY}[[sources]]\nkind = \"{kind}\"\nurl = \"{url}\"\n{more}\n")
}

/// A server with this source only, which fetches bodies from the fake.
fn only(upstream: &Upstream, kind: &str, url: &str) -> Setup {
    Setup::quiet().env("ESI_BASE_URL", &upstream.base()).config(&source(kind, url, "when = \"always\""))
}

pub async fn stored(server: &Server, id: u32) -> Value {
    until(&format!("killmail {id} to be stored"), async || {
        let reply = server.get(&format!("/api/v1/killmail/{id}")).await;
        (reply.status == 200).then(|| reply.json()["data"].clone())
    })
    .await
}

async fn metric(server: &Server, name: &str) -> String {
    let text = server.get("/metrics/prometheus").await.text();
    let line = text.lines().find(|line| line.starts_with(&format!("killstream_{name} "))).unwrap_or_default();
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}

/// An empty queue; each package is returned once.
fn queue(upstream: &Upstream) {
    upstream.answer(
        "/listen.php",
        Canned { after: Duration::from_millis(30), ..Canned::json(&json!({ "package": null })) },
    );
}

fn package(upstream: &Upstream, package: &Value) {
    upstream.answer_once("/listen.php", Canned::json(&json!({ "package": package })));
}

fn hash(id: u32) -> String {
    format!("{id:040x}")
}

/// Makes the fake ESI return the body of a killmail.
fn body(upstream: &Upstream, killmail: Build) {
    let (id, esi) = (killmail.0.killmail_id, killmail.esi());
    upstream.answer(
        &esi_path(id),
        Canned::json(&esi).header("x-ratelimit-limit", "3600/15m").header("x-ratelimit-remaining", "3598"),
    );
}

fn esi_path(id: u32) -> String {
    format!("/killmails/{id}/{}", hash(id))
}

/// A package as RedisQ has sent them since December 2025: without a body.
fn named(id: u32) -> Value {
    json!({ "killID": id, "zkb": { "hash": hash(id), "totalValue": 5e6, "npc": false, "labels": ["pvp"],
        "href": format!("https://esi.evetech.net/v1/killmails/{id}/{}/", hash(id)) } })
}

#[tokio::test]
async fn a_queue_delivers_killmails_with_and_without_bodies() {
    let upstream = Upstream::start();
    queue(&upstream);
    body(&upstream, killmail(2).without_zkb());
    let whole = killmail(1).r2z2();
    package(&upstream, &json!({ "killID": 1, "killmail": whole["esi"], "zkb": whole["zkb"] }));
    upstream.answer_once("/listen.php", Canned::status(302).header("location", "/object.php?objectID=7"));
    upstream.answer("/object.php", Canned::json(&json!({ "package": named(2) })));
    let server = only(&upstream, "redisq", &upstream.base()).start();
    assert_eq!(stored(&server, 1).await["zkb"]["totalValue"], 1e6);
    let fetched = stored(&server, 2).await;
    assert_eq!((&fetched["zkb"]["totalValue"], &fetched["killmail_hash"]), (&json!(5e6), &json!(hash(2))));
    assert_eq!(fetched["victim"]["ship_type_id"], 587);
    let requests = upstream.requests();
    let asked = requests.iter().find(|seen| seen.url == esi_path(2)).unwrap();
    assert!(asked.headers["user-agent"].to_str().unwrap().contains("(tests@localhost"));
    assert_eq!(asked.headers["x-compatibility-date"], "2026-08-18");
    let listened = requests.iter().find(|seen| seen.url.starts_with("/listen.php")).unwrap();
    assert!(
        listened.url.contains("queueID=killstream-") && listened.url.contains("ttw=10"),
        "{}",
        listened.url
    );
    until("it to be counted", async || (metric(&server, "fetch_bodies_total").await == "1").then_some(()))
        .await;
}

#[tokio::test]
async fn a_queue_that_refuses_gets_no_requests_for_as_long_as_it_says() {
    let upstream = Upstream::start();
    queue(&upstream);
    upstream.answer_once("/listen.php", Canned::status(429).header("retry-after", "1"));
    upstream.answer_once("/listen.php", Canned::status(403));
    upstream.answer_once("/listen.php", Canned { body: b"<html>".to_vec(), ..Canned::status(200) });
    upstream.answer_once("/listen.php", Canned::status(502));
    package(&upstream, &json!({ "killID": 1, "killmail": killmail(1).esi(), "zkb": { "hash": hash(1) } }));
    let server = only(&upstream, "redisq", &upstream.base()).start();
    stored(&server, 1).await;
    let asked: Vec<_> =
        upstream.requests().into_iter().filter(|seen| seen.url.starts_with("/listen.php")).collect();
    // The 429 counts as a failure, so the wait after the 403 is doubled.
    for (pair, least_ms) in asked.windows(2).zip([1_000, 600, 80, 160]) {
        assert!(
            pair[1].at - pair[0].at + Duration::from_millis(10) >= Duration::from_millis(least_ms),
            "after {}",
            pair[0].status
        );
    }
}

#[tokio::test]
async fn bodies_are_fetched_through_whatever_esi_answers() {
    let upstream = Upstream::start();
    queue(&upstream);
    (1..=3).for_each(|id| body(&upstream, killmail(id)));
    let limits = |status: u16| {
        Canned::status(status).header("x-esi-error-limit-remain", "0").header("x-esi-error-limit-reset", "1")
    };
    upstream.answer_once(
        &esi_path(1),
        Canned { body: b"<html>bad gateway</html>".to_vec(), ..Canned::status(502) },
    );
    upstream.answer_once(&esi_path(2), limits(420));
    upstream.answer_once(&esi_path(3), Canned::status(429).header("retry-after", "1"));
    upstream.answer(
        &esi_path(4),
        Canned {
            status: 422,
            ..Canned::json(&json!({ "error": "Invalid killmail_id and/or killmail_hash" }))
        },
    );
    body(&upstream, killmail(6));
    upstream.answer(&esi_path(5), Canned::json(&killmail(6).esi()));
    (1..=6).for_each(|id| package(&upstream, &named(id)));
    let server = only(&upstream, "redisq", &upstream.base()).start();
    for id in [1, 2, 3, 6] {
        stored(&server, id).await;
    }
    until("two to be given up", async || {
        (metric(&server, "fetch_given_up_total").await == "2").then_some(())
    })
    .await;
    assert!(
        server
            .log()
            .contains("killmail 4 of redisq is given up: ESI says that id and hash do not belong together"),
        "{}",
        server.log()
    );
    assert!(
        server.log().contains("killmail 5 of redisq is given up: ESI responded with another killmail"),
        "{}",
        server.log()
    );
    let refused = server.get("/metrics/prometheus").await.text();
    assert!(refused.contains("store_refused_total{reason=\"no_body\"} 2"), "{refused}");
    let asked: Vec<_> =
        upstream.requests().into_iter().filter(|seen| seen.url.starts_with("/killmails/")).collect();
    assert_eq!(asked.iter().filter(|seen| seen.url == esi_path(4)).count(), 4, "three retries");
    let failed = asked.iter().filter(|seen| seen.status != 200).count();
    let esi = server.get("/status").await.expect(200)["metrics"]["api"]["esi"].clone();
    assert_eq!(
        (&esi["total_requests"], &esi["error_count"]),
        (&json!(asked.len()), &json!(failed)),
        "as many as were asked: {esi}"
    );
    assert_eq!(esi["requests_per_minute"].as_f64(), esi["total_requests"].as_f64(), "{esi}");
    for pair in asked.windows(2).filter(|pair| matches!(pair[0].status, 420 | 429 | 502)) {
        assert!(
            pair[1].at - pair[0].at >= Duration::from_millis(990),
            "{} after {}",
            pair[1].url,
            pair[0].status
        );
    }
}

#[tokio::test]
async fn a_requested_body_survives_a_kill() {
    let upstream = Upstream::start();
    queue(&upstream);
    upstream.answer(&esi_path(1), Canned::status(503));
    package(&upstream, &named(1));
    let mut server = only(&upstream, "redisq", &upstream.base()).start();
    until("a try to fetch", async || (metric(&server, "fetch_failures_total").await != "0").then_some(()))
        .await;
    server.kill();
    body(&upstream, killmail(1));
    server.restart();
    assert_eq!(stored(&server, 1).await["zkb"]["totalValue"], 5e6);
    until("nothing to be wanted", async || (metric(&server, "fetch_waiting").await == "0").then_some(()))
        .await;
}

#[tokio::test]
async fn a_422_of_esi_is_retried_and_the_wait_survives_a_kill() {
    let upstream = Upstream::start();
    queue(&upstream);
    let invalid = Canned {
        status: 422,
        ..Canned::json(&json!({ "error": "Invalid killmail_id and/or killmail_hash" }))
    };
    upstream.answer_once(&esi_path(1), Canned { body: b"<html>busy</html>".to_vec(), ..Canned::status(200) });
    body(&upstream, killmail(1));
    upstream.answer_once(&esi_path(2), invalid.clone());
    upstream.answer_once(&esi_path(2), invalid);
    body(&upstream, killmail(2));
    package(&upstream, &named(1));
    package(&upstream, &named(2));
    let config =
        source("redisq", &upstream.base(), "when = \"always\"").replace("[30, 30, 30]", "[30, 8_000]");
    let mut server = Setup::quiet().env("ESI_BASE_URL", &upstream.base()).config(&config).start();
    stored(&server, 1).await;
    let asked = || upstream.requests().iter().filter(|seen| seen.url == esi_path(2)).count();
    until("the second wait", async || server.log().contains("next try in 8 s").then_some(())).await;
    server.kill();
    assert_eq!(asked(), 2);
    server.restart();
    // Requests are processed in the order of their ids: the third comes after the second was checked.
    body(&upstream, killmail(3));
    package(&upstream, &named(3));
    stored(&server, 3).await;
    assert_eq!(asked(), 2, "the wait continues after the kill");
    assert_eq!(stored(&server, 2).await["zkb"]["totalValue"], 5e6);
    assert_eq!((asked(), metric(&server, "fetch_given_up_total").await), (3, "0".to_owned()));
}

#[tokio::test]
async fn a_killmail_handed_in_by_name_is_fetched_and_not_announced() {
    let upstream = Upstream::start();
    body(&upstream, killmail(1));
    let server = Setup::following(&upstream).start();
    let mut stream = server.basic("max_age_secs=0").await;
    // A row of zKillboard's REST API before June 2026.
    let row = json!([{ "killmail_id": 1, "zkb": { "hash": hash(1), "totalValue": 5e6 } }, { "killmail_id": 2, "zkb": { "totalValue": 1.0 } }]);
    let report =
        server.send(Method::POST, "/api/v1/killmails", row.to_string()).await.expect(200)["data"].clone();
    assert_eq!(
        (&report["new"], &report["fetching"], &report["refused"]),
        (&json!(0), &json!(1), &json!({ "missing_hash": 1 }))
    );
    assert_eq!(stored(&server, 1).await["zkb"]["totalValue"], 5e6);
    upstream.publish(killmail(3));
    assert_eq!(stream.killmails(1).await, [3], "hand-ins are not live");
    assert_eq!(metric(&server, "fetch_given_up_total").await, "0");
}

#[tokio::test]
async fn a_websocket_delivers_killmails_and_is_reconnected() {
    let upstream = Upstream::start();
    let eve_kill = EveKill::start();
    body(&upstream, killmail(2));
    let server = only(&upstream, "websocket", &eve_kill.url()).start();
    eve_kill.subscribed(1).await;
    let mut whole = killmail(1).esi();
    whole["zkb"] = json!({ "hash": hash(1), "totalValue": 7e6 });
    eve_kill.killmail(&whole);
    eve_kill.say("{\"type\":\"ping\"}");
    eve_kill.say("no JSON at all");
    let theirs = json!({ "killmail_id": 2, "killmail_hash": hash(2), "kill_time": "2024-08-03T12:00:00.000Z", "system_id": 30_000_142,
        "total_value": 1.0, "victim": { "ship_id": 670, "damage_taken": 1 }, "attackers": [{ "ship_id": 17_812 }], "items": [] });
    eve_kill.killmail(&theirs);
    assert_eq!(stored(&server, 1).await["zkb"]["totalValue"], 7e6);
    assert_eq!(stored(&server, 2).await["victim"]["ship_type_id"], 587, "the body is ESI's, not EVE-KILL's");
    until("the ping to be answered", async || {
        eve_kill.heard().iter().any(|text| text == "{\"type\":\"pong\"}").then_some(())
    })
    .await;
    eve_kill.close();
    eve_kill.subscribed(2).await;
    eve_kill.refuse(Some(503));
    eve_kill.close();
    until("refused connections", async || (eve_kill.connections() >= 4).then_some(())).await;
    eve_kill.refuse(None);
    eve_kill.subscribed(3).await;
    eve_kill.killmail(&killmail(3).esi());
    stored(&server, 3).await;
    assert_eq!(eve_kill.heard()[0], "all");
    assert!(eve_kill.agents()[0].contains("(tests@localhost"), "{:?}", eve_kill.agents());
}

#[tokio::test]
async fn a_websocket_that_accepts_topics_only_as_json_gets_json() {
    let upstream = Upstream::start();
    let eve_kill = EveKill::start().json_only();
    let server = only(&upstream, "websocket", &eve_kill.url()).start();
    eve_kill.subscribed(1).await;
    eve_kill.killmail(&killmail(1).esi());
    stored(&server, 1).await;
    assert_eq!(eve_kill.heard()[..2], ["all", "{\"topics\":[\"all\"],\"type\":\"subscribe\"}"]);
}

#[tokio::test]
async fn a_fallback_stands_in_while_the_feed_is_unavailable() {
    let first = Upstream::start();
    let second = Upstream::start();
    let server = Setup::following(&first)
        .config(
            &source("r2z2", &second.base(), "name = \"second\"")
                .replace("[[", "fallback_overlap_numbers = 2\n[["),
        )
        .start();
    let mut stream = server.basic("").await;
    first.publish(killmail(1));
    assert_eq!(stream.killmails(1).await, [1]);
    first.refuse(Some(Canned::status(503)));
    second.publish(killmail(1));
    second.publish(killmail(2));
    second.point_at(second.next_number());
    assert_eq!(
        stream.killmails(1).await,
        [2],
        "killmails from before the fallback started are there as well"
    );
    second.publish(killmail(3));
    assert_eq!(stream.killmails(1).await, [3]);
    assert_eq!(metric(&server, "source_fallback_active").await, "1");
    assert!(
        server.log().contains("the source r2z2 is unavailable (")
            && server.log().contains("second stands in"),
        "{}",
        server.log()
    );
    let health = server.get("/health").await.expect(200);
    assert_eq!(
        (&health["status"], &health["details"]["source"]["fallback"]),
        (&json!("degraded"), &json!("second"))
    );
    assert_eq!(
        (&health["details"]["sources"][0]["state"], &health["details"]["sources"][0]["active"]),
        (&json!("following"), &json!(true))
    );
    for id in 2..=4 {
        first.publish(killmail(id));
    }
    first.refuse(None);
    assert_eq!(stream.killmails(1).await, [4]);
    until("the fallback to stop", async || {
        (metric(&server, "source_fallback_active").await == "0").then_some(())
    })
    .await;
    assert!(server.log().contains("r2z2 is back; second stops"), "{}", server.log());
    let asked = second.requests().len();
    first.publish(killmail(5));
    assert_eq!(stream.killmails(1).await, [5]);
    assert_eq!(
        stream.killmails_until_quiet(Duration::from_millis(300)).await,
        [0; 0],
        "each was delivered once"
    );
    // One request may have been in flight.
    assert!(second.requests().len() <= asked + 1, "the fallback sends no more requests");
}

#[tokio::test]
async fn the_next_fallback_stands_in_if_the_one_before_cannot() {
    let upstream = Upstream::start();
    let eve_kill = EveKill::start();
    upstream.refuse(Some(Canned::status(403)));
    let dead = source("r2z2", "http://127.0.0.1:9", "name = \"dead\"");
    let config = format!("{dead}[[sources]]\nkind = \"websocket\"\nurl = \"{}\"\n", eve_kill.url());
    let server = Setup::following(&upstream).config(&config).start();
    eve_kill.subscribed(1).await;
    eve_kill.killmail(&killmail(1).esi());
    stored(&server, 1).await;
    assert!(
        server.log().contains("dead stands in") && server.log().contains("websocket stands in"),
        "{}",
        server.log()
    );
}

#[tokio::test]
async fn several_sources_deliver_each_killmail_once() {
    let upstream = Upstream::start();
    let eve_kill = EveKill::start();
    let server = Setup::following(&upstream)
        .config(&source("websocket", &eve_kill.url(), "when = \"always\""))
        .start();
    let mut stream = server.basic("").await;
    eve_kill.subscribed(1).await;
    for id in 1..=30 {
        eve_kill.killmail(&killmail(id).esi());
        upstream.publish(killmail(id));
    }
    let mut got = stream.killmails(30).await;
    got.sort_unstable();
    assert_eq!(got, (1..=30).collect::<Vec<_>>());
    assert_eq!(stream.killmails_until_quiet(Duration::from_millis(300)).await, [0; 0]);
    // Whichever source was first, zKillboard's values are there in the end.
    until("the values", async || (stored(&server, 30).await["zkb"]["totalValue"] == 1e6).then_some(())).await;
}

#[tokio::test]
async fn a_mirror_beside_the_first_continues_where_it_stopped() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let config = source("r2z2", &second.base(), "name = \"second\"\nwhen = \"always\"");
    let mut server = Setup::following(&first).config(&config).start();
    let number = second.publish(killmail(1));
    first.publish(killmail(2));
    stored(&server, 1).await;
    stored(&server, 2).await;
    second.gave(number).await;
    server.kill();
    let before = (first.requests().len(), second.requests().len());
    second.publish(killmail(3));
    first.publish(killmail(4));
    server.restart();
    stored(&server, 3).await;
    stored(&server, 4).await;
    let next = |upstream: &Upstream, before: usize| upstream.requests()[before].number();
    assert_eq!(
        (next(&first, before.0), next(&second, before.1)),
        (Some(number + 1), Some(number + 1)),
        "each has a place of its own"
    );
}

#[tokio::test]
async fn a_recording_is_played_back_with_its_timing() {
    let upstream = Upstream::start();
    let setup = Setup::following(&upstream);
    let file = setup.folder().join("recording.ndjson");
    let mut recorder =
        setup.command("record").args(["--count", "6", file.to_str().unwrap()]).spawn().unwrap();
    upstream.asked_for("/ephemeral/sequence.json").await;
    let number = upstream.publish(killmail(1).value(1e6));
    upstream.publish(killmail(2));
    upstream.gave(number + 1).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    upstream.publish_raw(upstream.skip_number(), "{\"killmail_id\": 9,\n \"nonsense\": true}");
    upstream.rewrite(number, killmail(1).value(9e9).r2z2(), killmail(3));
    upstream.publish(killmail(4));
    let ended = until("the recorder to end", async || recorder.try_wait().unwrap()).await;
    assert!(ended.success());
    let recorded = std::fs::read_to_string(&file).unwrap();
    assert_eq!(recorded.lines().count(), 6, "{recorded}");
    let replayed = |speed: &str| {
        Setup::quiet().args(&["--replay", file.to_str().unwrap(), "--replay-speed", speed]).start()
    };
    let slow = replayed("0.01");
    stored(&slow, 1).await;
    assert_eq!(
        slow.get("/api/v1/killmail/3").await.status,
        404,
        "a document recorded 0.9 s later is due 90 s later"
    );
    drop(slow);
    let server = replayed("1");
    assert_eq!(
        stored(&server, 2).await["killmail_time"],
        stored(&server, 4).await["killmail_time"],
        "times are their own"
    );
    assert_eq!(stored(&server, 1).await["zkb"]["totalValue"], 9e9, "the rewritten file is replayed as well");
    let metrics = server.get("/metrics/prometheus").await.text();
    assert!(
        metrics.contains("store_refused_total{reason="),
        "a document that is not a killmail is refused again: {metrics}"
    );
    for id in 1..=4 {
        stored(&server, id).await;
    }
    assert_eq!(server.get("/api/v1/killmails/count").await.expect(200)["data"]["count"], 4);
}
