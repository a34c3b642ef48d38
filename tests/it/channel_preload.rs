//! The numbered acceptance cases of channels (docs/cases.md): preloads, counts, and going on where one was.
//!
//! Must not know: how the newest are found.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::channel::{Channel, LOBBY, killmail_ids, parts};
use crate::support::killmail::{Build, SYSTEMS, killmail};
use crate::support::server::{Server, Setup};
use crate::support::upstream::Upstream;

const JITA: u32 = SYSTEMS[0];
const PERIMETER: u32 = SYSTEMS[1];
const AMARR: u32 = SYSTEMS[2];
const PILOT: u32 = 95_000_001;
const HOUR: i64 = 3600;
/// Long enough for what must not come to come.
const QUIET: Duration = Duration::from_millis(400);

async fn add(server: &Server, killmails: Vec<Build>) {
    let count = killmails.len();
    let documents: Vec<Value> = killmails.into_iter().map(Build::r2z2).collect();
    let report =
        server.send(Method::POST, "/api/v1/killmails", json!(documents).to_string()).await.expect(200);
    assert_eq!(report["data"]["new"], count, "{report}");
}

/// The pushes of a preload up to its end, and the end.
async fn preload(client: &mut Channel) -> (Vec<Value>, Value) {
    let mut pushes = Vec::new();
    loop {
        let frame = client.frame().await;
        match parts(&frame) {
            ("killmail_update", update) => {
                assert_eq!(
                    (&frame[0], &frame[1], &update["preload"]),
                    (&json!("1"), &Value::Null, &json!(true)),
                    "{frame}"
                );
                assert!(update.get("event_id").is_none());
                pushes.push(update.clone());
            }
            ("preload_complete", end) => return (pushes, end.clone()),
            _ => {}
        }
    }
}

fn ids(pushes: &[Value]) -> Vec<Vec<u64>> {
    pushes.iter().map(killmail_ids).collect()
}

#[tokio::test]
async fn case_62_five_of_a_day_for_each_system() {
    let server = Setup::quiet().start();
    let recent = (1..=7).map(|n| killmail(100 + n).ago(HOUR * (20 - i64::from(n))));
    let older = (1..=3).map(|n| killmail(90 + n).ago(HOUR * 30).system(AMARR));
    add(&server, recent.chain(older).chain([killmail(200).ago(HOUR).system(PERIMETER)]).collect()).await;
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [PERIMETER, JITA, AMARR, 30_002_510] })).await;
    let (pushes, end) = preload(&mut client).await;
    assert_eq!(ids(&pushes), [vec![200], vec![107, 106, 105, 104, 103]]);
    assert_eq!((&pushes[0]["system_id"], &pushes[1]["system_id"]), (&json!(PERIMETER), &json!(JITA)));
    assert_eq!(pushes[1]["killmails"][0], server.get("/api/v1/killmail/107").await.expect(200)["data"]);
    assert_eq!(end, json!({ "total_kills": 6, "systems_processed": 4, "errors": [] }));
}

#[tokio::test]
async fn case_63_a_preload_as_the_client_wants_it() {
    let server = Setup::quiet().start();
    let fresh = (1..=25).map(|n| killmail(100 + n).ago(HOUR * 11 - i64::from(n)));
    add(&server, fresh.chain([killmail(99).ago(HOUR * 13)]).collect()).await;
    let wish = json!({ "enabled": true, "limit_per_system": 20, "since_hours": 12, "delivery_batch_size": 8, "delivery_interval_ms": 0 });
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA], "preload": wish })).await;
    let (pushes, end) = preload(&mut client).await;
    let newest: Vec<u64> = (106..=125).rev().collect();
    assert_eq!(ids(&pushes), newest.chunks(8).map(<[u64]>::to_vec).collect::<Vec<_>>());
    assert_eq!(end, json!({ "total_kills": 20, "systems_processed": 1, "errors": [] }));
    for no in [json!({ "enabled": false }), json!(false)] {
        let mut client = Channel::v2(server.address()).await;
        client.join(json!({ "systems": [JITA], "preload": no })).await;
        assert_eq!(client.frame_within(QUIET).await, None);
    }
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA], "preload": true })).await;
    let (pushes, _) = preload(&mut client).await;
    assert_eq!(ids(&pushes), [vec![125, 124, 123, 122, 121]]);
}

#[tokio::test]
async fn case_64_counts_are_of_a_day_and_live_comes_meanwhile() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let fresh = (1..=6).map(|n| killmail(100 + n).ago(HOUR * 11 - i64::from(n)));
    add(&server, fresh.chain([killmail(99).ago(HOUR * 30), killmail(150).ago(HOUR).system(AMARR)]).collect())
        .await;
    let mut client = Channel::v2(server.address()).await;
    let wish = json!({ "limit_per_system": 4, "delivery_batch_size": 1, "delivery_interval_ms": 700 });
    client.join(json!({ "systems": [JITA, PERIMETER], "preload": wish })).await;
    upstream.publish(killmail(200).system(PERIMETER));
    let mut order = Vec::new();
    let mut counts = Vec::new();
    while counts.is_empty() {
        let frame = client.frame().await;
        match parts(&frame) {
            ("killmail_update", update) => order.extend(killmail_ids(update)),
            ("kill_count_update", count) => counts.push((count["system_id"].clone(), count["count"].clone())),
            _ => {}
        }
    }
    // Heartbeats do not wait for a preload either.
    assert_eq!(client.say("get_status", json!({})).await.0, "ok");
    assert_eq!(order.iter().filter(|id| **id != 200).copied().collect::<Vec<_>>(), [106, 105, 104, 103]);
    assert_eq!(order.iter().filter(|id| **id == 200).count(), 1, "{order:?}");
    assert_eq!(counts, [(json!(JITA), json!(6))]);
    assert_eq!(
        client.event_within("kill_count_update", QUIET).await,
        None,
        "systems without a preload are not counted"
    );
}

#[tokio::test]
async fn what_grows_brings_its_past_but_nothing_twice() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    add(
        &server,
        vec![killmail(1).ago(HOUR).victim(PILOT), killmail(2).ago(HOUR).system(AMARR).victim(PILOT)],
    )
    .await;
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA] })).await;
    assert_eq!(ids(&preload(&mut client).await.0), [vec![1]]);
    upstream.publish(killmail(3).victim(PILOT));
    upstream.publish(killmail(4).system(PERIMETER).victim(PILOT));
    upstream.publish(killmail(5));
    assert_eq!(client.live(2).await, [3, 5]);
    // The character brings what was not sent: an old one elsewhere, and one that came live before it was
    // asked for.
    client
        .send(json!(["1", "2", LOBBY, "subscribe_characters", { "character_ids": [PILOT], "preload": true }]))
        .await;
    let (pushes, end) = preload(&mut client).await;
    let mut got = ids(&pushes);
    got.sort_unstable();
    assert_eq!(got, [vec![2], vec![4]]);
    assert_eq!(end["total_kills"], 2);
    // Systems that were found through the character already bring nothing new; joining again neither.
    client.say("subscribe_systems", json!({ "systems": [AMARR, PERIMETER] })).await;
    assert_eq!(client.event("preload_complete").await["total_kills"], 0);
    client.send(json!(["1", "1", LOBBY, "phx_join", { "systems": [JITA, AMARR], "preload": true }])).await;
    assert_eq!(preload(&mut client).await.1["total_kills"], 0);
    upstream.publish(killmail(6).system(AMARR));
    assert_eq!(client.live(1).await, [6]);
}

#[tokio::test]
async fn a_preload_ends_at_its_limit_and_says_so() {
    let server = Setup::quiet().config("[channels]\npreload_max_killmails = 3").start();
    let here = (1..=2).map(|n| killmail(n).ago(HOUR));
    let there = (3..=4).map(|n| killmail(n).ago(HOUR).system(AMARR));
    let farther = (5..=6).map(|n| killmail(n).ago(HOUR).system(PERIMETER));
    add(&server, here.chain(there).chain(farther).collect()).await;
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA, AMARR, PERIMETER] })).await;
    let (pushes, end) = preload(&mut client).await;
    assert_eq!((ids(&pushes), &end["total_kills"]), (vec![vec![2, 1], vec![4]], &json!(3)));
    assert_eq!(
        end["errors"],
        json!(["a preload has at most 3 killmails; 2 systems or other ids were left out"])
    );
}

#[tokio::test]
async fn a_client_goes_on_where_it_was() {
    let upstream = Upstream::start();
    let mut server = Server::following(&upstream);
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA] })).await;
    upstream.publish(killmail(1));
    let update = client.event("killmail_update").await;
    let place = update["event_id"].as_str().unwrap().to_owned();
    let mut stream = server.basic(&format!("system_ids={JITA}&last_event_id={place}")).await;
    drop(client);
    for id in [2, 3] {
        upstream.wait_fetched(upstream.publish(killmail(id))).await;
    }
    assert_eq!(stream.killmails(2).await, [2, 3], "the id is that of the streams");
    server.restart();
    let mut client = Channel::v2(server.address()).await;
    let response = client.join(json!({ "systems": [JITA], "resume_from": place })).await;
    assert_eq!((&response["resumed_from"], response.get("gap")), (&json!(place), None));
    let first = client.frame().await;
    assert_eq!((parts(&first).0, killmail_ids(&first[4])), ("killmail_update", vec![2]));
    assert_eq!(client.live(1).await, [3]);
    assert_eq!(client.frame_within(QUIET).await, None, "no preload unless it is asked for");
    let mut client = Channel::v2(server.address()).await;
    client.send(json!(["1", "1", LOBBY, "phx_join", { "systems": [JITA], "resume_from": place, "preload": { "enabled": true } }])).await;
    let mut got = Vec::new();
    while got.len() < 3 {
        got.extend(killmail_ids(&client.event("killmail_update").await));
    }
    got.sort_unstable();
    assert_eq!(got, [1, 2, 3], "the past before the place, and what came after it, each once");
}

#[tokio::test]
async fn a_client_without_a_killmail_goes_on_where_it_joined() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client = Channel::v2(server.address()).await;
    let begun = client.join(json!({ "systems": [JITA], "resume_from": null })).await;
    let place = begun["event_id"].as_str().unwrap_or_else(|| panic!("no place in {begun}")).to_owned();
    drop(client);
    upstream.wait_fetched(upstream.publish(killmail(1))).await;
    let mut client = Channel::v2(server.address()).await;
    let response = client.join(json!({ "systems": [JITA], "resume_from": place })).await;
    assert_eq!((&response["resumed_from"], &response["event_id"]), (&json!(place), &json!(place)));
    assert_eq!(client.live(1).await, [1]);
}

#[tokio::test]
async fn a_place_that_cannot_be_had_is_told() {
    let server = Setup::quiet().start();
    for (place, reason) in [("nonsense", "malformed"), ("00000000000000aa-5", "other_store")] {
        let mut client = Channel::v2(server.address()).await;
        let response = client.join(json!({ "systems": [JITA], "resume_from": place })).await;
        assert_eq!(
            (&response["gap"]["reason"], &response["gap"]["requested"]),
            (&json!(reason), &json!(place))
        );
        assert!(response["gap"]["resumed_at"].is_string() && response.get("resumed_from").is_none());
    }
}

#[tokio::test]
async fn counts_come_in_turn_but_not_after_a_push() {
    let upstream = Upstream::start();
    let server =
        Setup::following(&upstream).config("[channels]\ncount_ms = 300\ncount_quiet_ms = 60_000").start();
    add(&server, vec![killmail(1).ago(HOUR), killmail(2).ago(HOUR), killmail(3).ago(HOUR).system(AMARR)])
        .await;
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA, PERIMETER, AMARR], "preload": false })).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        let count = client.event("kill_count_update").await;
        assert!(count["timestamp"].as_str().unwrap().ends_with('Z'));
        told.push((count["system_id"].as_u64().unwrap(), count["count"].as_u64().unwrap()));
    }
    let (jita, perimeter, amarr) = (u64::from(JITA), u64::from(PERIMETER), u64::from(AMARR));
    assert_eq!(told, [(jita, 2), (perimeter, 0), (amarr, 1), (jita, 2)]);
    upstream.publish(killmail(4).system(PERIMETER));
    client.live(1).await;
    for _ in 0..4 {
        assert_ne!(client.event("kill_count_update").await["system_id"], PERIMETER);
    }
}
