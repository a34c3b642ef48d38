//! Channels: how fast preloads go out, and that they end with what they were asked for.
//!
//! Must not know: how the newest are found.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::channel::{Channel, LOBBY, killmail_ids, parts};
use crate::support::killmail::{Build, SYSTEMS, killmail};
use crate::support::server::{Server, Setup};

const JITA: u32 = SYSTEMS[0];
const PERIMETER: u32 = SYSTEMS[1];
const AMARR: u32 = SYSTEMS[2];
const PILOT: u32 = 95_000_001;
const HOUR: i64 = 3600;
/// Long enough for what must not come to come.
const QUIET: Duration = Duration::from_millis(400);

async fn add(server: &Server, killmails: Vec<Build>) {
    let documents: Vec<Value> = killmails.into_iter().map(Build::r2z2).collect();
    server.send(Method::POST, "/api/v1/killmails", json!(documents).to_string()).await.expect(200);
}

/// What comes of a preload: killmails, the end, and then counts until nothing comes.
async fn rest(client: &mut Channel) -> (Vec<u64>, Value, Vec<u64>) {
    let (mut killmails, mut counts) = (Vec::new(), Vec::new());
    let end = loop {
        let frame = client.frame().await;
        match parts(&frame) {
            ("killmail_update", update) => killmails.extend(killmail_ids(update)),
            ("kill_count_update", count) => panic!("a count before the end: {count}"),
            ("preload_complete", end) => break end.clone(),
            _ => {}
        }
    };
    while let Some(frame) = client.frame_within(QUIET).await {
        match parts(&frame) {
            ("kill_count_update", count) => counts.push(count["system_id"].as_u64().unwrap()),
            other => panic!("{other:?} after the end"),
        }
    }
    (killmails, end, counts)
}

/// Slow enough that nothing but the first killmail is out before a client says the next thing.
fn slow() -> Value {
    json!({ "limit_per_system": 5, "delivery_batch_size": 1, "delivery_interval_ms": 10_000 })
}

/// Three killmails in each of three systems, those of Perimeter with the pilot.
async fn stored(config: &str) -> Server {
    let server = Setup::quiet().config(config).start();
    let here = (1..=3).map(|n| killmail(n).ago(HOUR));
    let there = (11..=13).map(|n| killmail(n).ago(HOUR).system(AMARR));
    let near = (21..=23).map(|n| killmail(n).ago(HOUR).system(PERIMETER).victim(PILOT));
    add(&server, here.chain(there).chain(near).collect()).await;
    server
}

#[tokio::test]
async fn a_preload_ends_with_its_systems() {
    let server = stored("").await;
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA, AMARR, PERIMETER], "preload": slow() })).await;
    assert_eq!(killmail_ids(&client.event("killmail_update").await), [3]);
    client.say("unsubscribe_systems", json!({ "systems": [JITA, AMARR, PERIMETER] })).await;
    let (killmails, end, counts) = rest(&mut client).await;
    assert_eq!((killmails, counts), (vec![], vec![]), "no killmail and no count of a system given up");
    assert_eq!(end, json!({ "total_kills": 1, "systems_processed": 1, "errors": [] }));
    // One that is asked for again begins again, without what was sent.
    client.say("subscribe_systems", json!({ "systems": [JITA], "preload": true })).await;
    let (killmails, _, counts) = rest(&mut client).await;
    assert_eq!((killmails, counts), (vec![2, 1], vec![JITA.into()]));
}

#[tokio::test]
async fn what_stays_keeps_its_preload() {
    let server = stored("[feed]\npreload_within_ms = 4_000").await;
    for way in ["unsubscribe_systems", "update_subscriptions"] {
        let mut client = Channel::v2(server.address()).await;
        client
            .join(json!({ "systems": [JITA, AMARR, PERIMETER], "character_ids": [PILOT], "preload": slow() }))
            .await;
        assert_eq!(killmail_ids(&client.event("killmail_update").await), [3]);
        client.say(way, json!({ "systems": [AMARR, PERIMETER], "remove_systems": [AMARR, PERIMETER] })).await;
        let (killmails, end, counts) = rest(&mut client).await;
        // The pilot's killmails were chosen for Perimeter, but are wanted for the pilot as well.
        assert_eq!(killmails, [2, 1, 23, 22, 21], "{way}");
        assert_eq!((&end["total_kills"], counts), (&json!(6), vec![u64::from(JITA)]));
    }
}

#[tokio::test]
async fn a_preload_ends_with_its_join() {
    let server = stored("").await;
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA, AMARR], "preload": slow() })).await;
    client.event("killmail_update").await;
    assert_eq!(client.ask(json!(["1", "2", LOBBY, "phx_leave", {}])).await[4]["status"], "ok");
    assert_eq!(client.frame().await[3], "phx_close");
    assert_eq!(client.frame_within(QUIET).await, None, "not even an end: nobody is there to hear it");
    client.join(json!({ "systems": [JITA, AMARR], "preload": slow() })).await;
    client.event("killmail_update").await;
    client.ask(json!(["1", "1", LOBBY, "phx_join", { "systems": [AMARR], "preload": true }])).await;
    let (killmails, _, counts) = rest(&mut client).await;
    assert!(killmails.iter().all(|id| (11..=13).contains(id)), "{killmails:?}");
    assert_eq!(counts, [u64::from(AMARR)]);
}

#[tokio::test]
async fn an_interval_has_a_batch_of_killmails_whatever_their_systems() {
    let server = Setup::quiet().start();
    let systems: Vec<u32> = (30_000_001..=30_000_040).collect();
    add(
        &server,
        systems
            .iter()
            .enumerate()
            .map(|(n, system)| killmail(n as u32 + 1).ago(HOUR).system(*system))
            .collect(),
    )
    .await;
    let mut client = Channel::v2(server.address()).await;
    let wish = json!({ "delivery_batch_size": 40, "delivery_interval_ms": 10_000 });
    client.join(json!({ "systems": systems, "preload": wish })).await;
    // All in the first interval: a pause after each system would be minutes.
    let (killmails, end, counts) = rest(&mut client).await;
    assert_eq!((killmails.len(), &end["total_kills"], counts.len()), (40, &json!(40), 40));
}
