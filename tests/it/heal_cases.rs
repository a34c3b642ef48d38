//! Missing numbers are remembered and recovered: by their own number, or from the archive of their day. Every
//! stream is notified once of what archives filled in.
//!
//! Must not know: how missing numbers are stored.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::killmail::{Build, began, killmail};
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::until;
use crate::support::upstream::{Canned, FIRST, Upstream};

/// Short waits; archives exist at midnight.
const HASTY: &str = "[ingest]\nr2z2_missing_ms = 100\nr2z2_heal_ms = 20\nr2z2_failed_ms = 20\narchive_after_secs = 0\nr2z2_far_numbers = 10\n";
const DAY: i64 = 86_400;

/// Noon of yesterday, unix seconds.
fn noon() -> i64 {
    began().div_euclid(DAY) * DAY - DAY / 2
}

/// Yesterday, as the paths of archives name it.
fn yesterday() -> String {
    jiff::Timestamp::from_second(noon()).unwrap().strftime("%Y%m%d").to_string()
}

/// A killmail of yesterday noon, published then.
fn at_noon(id: u32) -> Build {
    killmail(id).time(noon() + i64::from(id))
}

fn published(upstream: &Upstream, id: u32) -> u64 {
    let mut document = at_noon(id).r2z2();
    document["uploaded_at"] = json!(noon() + i64::from(id) + 5);
    upstream.publish_document(document)
}

async fn gaps(server: &Server) -> Value {
    server.get("/status").await.expect(200)["metrics"]["processing"]["gaps"].clone()
}

async fn metric(server: &Server, name: &str) -> u64 {
    let text = server.get("/metrics/prometheus").await.text();
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("killstream_{name} "))).map(str::to_owned);
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

async fn count(server: &Server) -> u64 {
    server.get("/api/v1/killmails/count").await.expect(200)["data"]["count"].as_u64().unwrap()
}

async fn closed(server: &Server) {
    let healed = async || gaps(server).await["healed_total"] != 0 && gaps(server).await["open_numbers"] == 0;
    until("the missing numbers to be closed", async || healed().await.then_some(())).await;
}

async fn next_gap(stream: &mut Sse) -> Value {
    let gap = stream.event_named("gap").await;
    let gap_data = gap.json();
    assert_eq!(gap_data["reason"], "backfilled", "{gap_data}");
    assert_eq!(
        gap_data["resumed_at"].as_str(),
        gap.id.as_deref(),
        "the place of the gap is the id of the event"
    );
    gap_data
}

#[tokio::test]
async fn a_missing_number_is_remembered_over_a_kill_and_recovered_when_it_arrives() {
    let upstream = Upstream::start();
    let mut server =
        Setup::following(&upstream).config(&HASTY.replace("heal_ms = 20", "heal_ms = 400")).start();
    upstream.publish(killmail(1));
    until("the first killmail", async || (count(&server).await == 1).then_some(())).await;
    let missing = upstream.skip_number();
    let last = upstream.publish(killmail(3));
    upstream.point_at(last);
    until("the number to be passed over", async || (gaps(&server).await["open_numbers"] == 1).then_some(()))
        .await;
    assert_eq!(
        (metric(&server, "source_gaps_total").await, metric(&server, "source_gap_numbers").await),
        (1, 1)
    );
    until("the killmail after it", async || (count(&server).await == 2).then_some(())).await;
    server.kill();
    server.restart();
    let open = gaps(&server).await;
    assert_eq!(
        (&open["open"][0]["first"], &open["open"][0]["numbers"]),
        (&json!(missing), &json!(1)),
        "{open}"
    );
    let mut stream = server.basic("").await;
    upstream.publish_at(missing, killmail(2).r2z2());
    assert_eq!(stream.killmails(1).await, [2], "a killmail recovered by its number is live");
    closed(&server).await;
    assert_eq!(
        (metric(&server, "source_gap_numbers").await, metric(&server, "source_healed_total").await),
        (0, 1)
    );
    assert!(server.log().contains("are closed"), "{}", server.log());
    assert_eq!(count(&server).await, 3);
}

#[tokio::test]
async fn a_number_that_never_arrives_is_filled_in_from_the_archive_and_announced_once() {
    let upstream = Upstream::start();
    published(&upstream, 1);
    let server = Setup::following(&upstream).config(HASTY).start();
    until("the first killmail", async || (count(&server).await == 1).then_some(())).await;
    let (mut basic, mut enhanced) = (server.basic("").await, server.enhanced("").await);
    let mut away = server.enhanced("").await;
    away.event_named("connected").await;
    upstream.skip_number();
    let last = published(&upstream, 4);
    upstream.point_at(last);
    assert_eq!(basic.killmails(1).await, [4]);
    upstream.archive(&yesterday(), &[at_noon(1), at_noon(2), at_noon(3), at_noon(4)]);
    closed(&server).await;
    let (one, two) = (next_gap(&mut basic).await, next_gap(&mut enhanced).await);
    for name in ["reason", "requested", "resumed_at", "from", "to", "killmails"] {
        assert_eq!(one[name], two[name], "{name}");
    }
    assert_eq!(one["killmails"], 2);
    // The announced span finds what was filled in.
    let (from, to) = (one["from"].as_str().unwrap(), one["to"].as_str().unwrap());
    let found =
        server.get(&format!("/api/v1/killmails?since={from}&until={to}&order=oldest")).await.expect(200);
    let ids: Vec<&Value> =
        found["data"]["killmails"].as_array().unwrap().iter().map(|k| &k["killmail_id"]).collect();
    assert_eq!(ids, [2, 3], "{found}");
    let body = server.get("/api/v1/killmail/2").await.expect(200);
    assert_eq!(body["data"]["killmail_hash"], format!("{:040x}", 2), "the hash is that of the list");
    // A client that resumes before the gap passes it; one that resumes after it is not notified again.
    let mut back = away.reconnect().await;
    let resumed = next_gap(&mut back).await;
    assert_eq!(resumed["resumed_at"], one["resumed_at"]);
    let mut again = back.reconnect().await;
    published(&upstream, 5);
    let next = again.event_named("killmail").await;
    assert_eq!(next.killmail_id(), Some(5));
    assert_eq!(basic.killmails(1).await, [5], "what was filled in is never delivered as live");
    assert_eq!((metric(&server, "source_backfilled_total").await, count(&server).await), (2, 5));
}

#[tokio::test]
async fn after_days_offline_existing_files_come_first_and_then_the_archives() {
    let upstream = Upstream::start();
    published(&upstream, 1);
    let mut server = Setup::following(&upstream).config(HASTY).start();
    until("the first killmail", async || (count(&server).await == 1).then_some(())).await;
    let stream = server.basic("").await;
    server.kill();
    let gone: Vec<u64> = (2..60).map(|id| published(&upstream, id)).collect();
    (60..89).for_each(|id| _ = published(&upstream, id));
    let last = published(&upstream, 89);
    gone.iter().for_each(|number| upstream.remove(*number));
    upstream.point_at(last);
    server.restart();
    until("the newest killmail", async || (count(&server).await == 31).then_some(())).await;
    let open = gaps(&server).await;
    assert_eq!(
        (&open["open"][0]["first"], &open["open"][0]["numbers"]),
        (&json!(FIRST + 1), &json!(58)),
        "{open}"
    );
    drop(stream);
    let mut stream = server.basic("").await;
    upstream.archive(&yesterday(), &(1..90).map(at_noon).collect::<Vec<_>>());
    assert_eq!(next_gap(&mut stream).await["killmails"], 58);
    closed(&server).await;
    assert_eq!(count(&server).await, 89);
    assert_eq!(stream.killmails_until_quiet(Duration::from_millis(300)).await, [0; 0]);
    assert_eq!(server.log().matches("are no longer there").count(), 1, "{}", server.log());
}

#[tokio::test]
async fn an_archive_that_breaks_off_is_read_again() {
    let upstream = Upstream::start();
    published(&upstream, 1);
    let server = Setup::following(&upstream).config(HASTY).start();
    until("the first killmail", async || (count(&server).await == 1).then_some(())).await;
    upstream.skip_number();
    let last = published(&upstream, 9);
    upstream.point_at(last);
    upstream.archive(&yesterday(), &(1..10).map(at_noon).collect::<Vec<_>>());
    let raw = format!("/history/raw/{}.json", yesterday());
    let whole = serde_json::to_vec(&json!({ "2": at_noon(2).esi(), "3": at_noon(3).esi() })).unwrap();
    upstream.answer_once(&raw, cut_gzip(&whole));
    upstream.answer_once(&raw, Canned::status(503));
    upstream.answer_once(&raw, Canned { body: whole[..whole.len() - 2].to_vec(), ..Canned::status(200) });
    for page in ["<html>busy</html>", "{\"error\":\"busy\"}", "{}"] {
        upstream.answer_once(&raw, Canned { body: page.as_bytes().to_vec(), ..Canned::status(200) });
        upstream.answer_once(
            &format!("/history/{}.json", yesterday()),
            Canned { body: page.as_bytes().to_vec(), ..Canned::status(200) },
        );
    }
    upstream.answer_once(
        &format!("/history/{}.json", yesterday()),
        Canned { body: b"<html>".to_vec(), ..Canned::status(200) },
    );
    closed(&server).await;
    assert_eq!(count(&server).await, 9);
}

/// A truncated gzip response.
fn cut_gzip(text: &[u8]) -> Canned {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    let whole = encoder.finish().unwrap();
    Canned { body: whole[..whole.len() / 2].to_vec(), ..Canned::status(200) }
        .header("content-encoding", "gzip")
}

#[tokio::test]
async fn failed_responses_are_requested_again() {
    let upstream = Upstream::start();
    let number = upstream.publish(killmail(1));
    let whole = serde_json::to_vec(&killmail(1).r2z2()).unwrap();
    upstream.fail(number, cut_gzip(&whole), 1);
    upstream.fail(number, Canned { body: whole[..whole.len() / 2].to_vec(), ..Canned::status(200) }, 1);
    upstream.fail(number, Canned { body: b"<html>busy</html>".to_vec(), ..Canned::status(200) }, 1);
    upstream.fail(number, Canned { after: Duration::from_millis(900), ..Canned::status(200) }, 1);
    upstream.fail(number, Canned::status(502), 2);
    upstream.fail(number, Canned { body: b"{}".to_vec(), ..Canned::status(500) }, 1);
    let server = Setup::following(&upstream).config(&format!("{HASTY}timeout_ms = 300\n")).start();
    let mut stream = server.basic("").await;
    upstream.publish(killmail(2));
    until("both killmails", async || (count(&server).await == 2).then_some(())).await;
    assert_eq!(metric(&server, "source_gaps_total").await, 0, "nothing was given up: {}", server.log());
    assert!(metric(&server, "source_timeouts_total").await >= 1);
    drop(stream.killmails_until_quiet(Duration::from_millis(100)).await);
    // With such a short timeout a busy machine may occasionally miss another response.
    until("good health", async || (server.get("/health").await.expect(200)["status"] == "ok").then_some(()))
        .await;
}

#[tokio::test]
async fn a_feed_that_was_set_back_is_followed_from_its_pointer() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).config(&format!("{HASTY}r2z2_rollback_ms = 300\n")).start();
    for id in 1..=20 {
        upstream.publish(killmail(id));
    }
    until("twenty killmails", async || (count(&server).await == 20).then_some(())).await;
    let mut stream = server.basic("").await;
    // The numbers from the tenth on are assigned again: one killmail is known, the others are new.
    for (number, id) in (FIRST + 10..).zip([11, 31, 32]) {
        upstream.publish_at(number, killmail(id).r2z2());
    }
    (FIRST + 13..FIRST + 20).for_each(|number| upstream.remove(number));
    upstream.point_at(FIRST + 10);
    assert_eq!(stream.killmails(2).await, [31, 32]);
    assert_eq!(count(&server).await, 22);
    assert!(server.log().contains("has been set back"), "{}", server.log());
}

#[tokio::test]
async fn a_placeholder_is_passed_over_and_recovered_once_its_file_has_a_killmail() {
    let upstream = Upstream::start();
    let empty = json!({ "killmail_id": null, "hash": null, "esi": null, "zkb": { "href": "https://esi.evetech.net/killmails///" } });
    let number = upstream.publish_document(empty);
    upstream.publish(killmail(2));
    let server = Setup::following(&upstream).config(&HASTY.replace("heal_ms = 20", "heal_ms = 300")).start();
    until("the killmail behind it", async || (count(&server).await == 1).then_some(())).await;
    assert_eq!(metric(&server, "source_gaps_total").await, 1);
    let mut stream = server.basic("").await;
    upstream.publish_at(number, killmail(1).r2z2());
    assert_eq!(stream.killmails(1).await, [1]);
    closed(&server).await;
}
