//! Channels: what the answer to a join says, and what the list of subscriptions says of a channel.
//!
//! Must not know: how killmails are found.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::channel::{Channel, LOBBY, killmail_ids};
use crate::support::killmail::{SYSTEMS, killmail};
use crate::support::server::{Server, Setup, TOKEN};
use crate::support::upstream::Upstream;
use crate::support::{http, until};

const JITA: u32 = SYSTEMS[0];
const PILOT: u32 = 95_000_001;
/// Long enough for what must not come to come.
const QUIET: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_join_says_where_it_begins_and_what_it_gets() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client = Channel::v2(server.address()).await;
    let payload = json!({ "systems": [JITA], "corporation_ids": [98_000_001, 98_000_000], "role": "victim", "min_value": 5, "preload": false });
    let response = client.join(payload).await;
    let filter = json!({
        "system_ids": [JITA], "corporation_ids": [98_000_000, 98_000_001], "match": "any", "role": "victim", "min_value": 5.0,
    });
    assert_eq!((&response["filter"], response.get("ignored")), (&filter, None));
    // Nothing is pushed on it, and nothing is lost when it comes back.
    let place = response["event_id"].as_str().unwrap().to_owned();
    drop(client);
    upstream.wait_fetched(upstream.publish(killmail(1))).await;
    let mut client = Channel::v2(server.address()).await;
    let again = client.join(json!({ "systems": [JITA], "resume_from": place, "preload": false })).await;
    assert_eq!((&again["event_id"], &again["resumed_from"]), (&json!(place), &json!(place)));
    assert_eq!(client.live(1).await, [1]);
    let mut other = Channel::v2(server.address()).await;
    let gone = other.join(json!({ "systems": [JITA], "resume_from": "nonsense" })).await;
    assert_eq!(gone["event_id"], gone["gap"]["resumed_at"]);
    let reply = other.ask(json!(["2", "2", "killmails:all", "phx_join", {}])).await;
    assert!(
        reply[4]["response"]["event_id"].is_string()
            && reply[4]["response"]["filter"] == json!({ "match": "any" }),
        "{reply}"
    );
}

/// The one row of the list of subscriptions, asked for with these headers.
async fn row(server: &Server, headers: &[(&str, &str)]) -> Value {
    let reply = http::request(Method::GET, &server.url("/api/v1/subscriptions"), headers, Vec::new()).await;
    let list = reply.expect(200)["data"].clone();
    assert_eq!(list["count"], 1, "{list}");
    list["subscriptions"][0].clone()
}

#[tokio::test]
async fn the_list_of_subscriptions_tells_how_far_a_channel_is() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client =
        Channel::open(server.address(), "/socket/websocket?vsn=2.0.0&client_identifier=map").await;
    let began =
        client.join(json!({ "systems": [JITA], "alliance_ids": [99_000_001], "preload": false })).await;
    let first = row(&server, &[]).await;
    assert_eq!(
        (&first["type"], &first["system_ids"], &first["alliance_ids"]),
        (&json!("websocket"), &json!([JITA]), &json!([99_000_001]))
    );
    assert_eq!(
        (&first["character_ids"], &first["region_ids"], &first["callback_url"]),
        (&json!([]), &json!([]), &Value::Null)
    );
    assert_eq!(
        (&first["place"], &first["behind"], &first["delivered"]),
        (&began["event_id"], &json!(0), &json!(0))
    );
    assert!(
        first["subscriber_id"].as_str().unwrap().starts_with("map_") && first["connected_at"].is_string()
    );
    assert_eq!(first["address"], Value::Null, "addresses are for those with a token");
    assert_eq!(row(&server, &[("authorization", "Bearer wrong")]).await["address"], Value::Null);
    assert_eq!(row(&server, &[("authorization", &format!("Bearer {TOKEN}"))]).await["address"], "127.0.0.1");
    upstream.publish(killmail(1));
    let update = client.event("killmail_update").await;
    let after = until("the killmail to be counted", async || {
        Some(row(&server, &[]).await).filter(|row| row["delivered"] == 1)
    })
    .await;
    assert_eq!((&after["place"], &after["behind"]), (&update["event_id"], &json!(0)));
    // A preload is delivered as well.
    client.send(json!(["1", "2", LOBBY, "subscribe_systems", { "systems": [SYSTEMS[1]] }])).await;
    client.event("preload_complete").await;
    drop(client);
    let mut stream = server.basic(&format!("region_ids=10000002&system_ids={JITA}")).await;
    upstream.publish(killmail(2));
    stream.killmails(1).await;
    let stream_row = until("the stream alone", async || {
        Some(server.get("/api/v1/subscriptions").await.expect(200)["data"].clone())
            .filter(|list| list["count"] == 1 && list["subscriptions"][0]["delivered"] == 1)
    })
    .await;
    let stream_row = &stream_row["subscriptions"][0];
    assert_eq!(
        (&stream_row["type"], &stream_row["region_ids"], &stream_row["address"]),
        (&json!("sse"), &json!([10_000_002]), &Value::Null)
    );
}

/// The killmails of a push, each with its topic.
fn pushed(frame: &Value) -> Vec<(String, u64)> {
    let topic = frame[2].as_str().unwrap_or_default();
    let ids = if frame[3] == "killmail_update" { killmail_ids(&frame[4]) } else { Vec::new() };
    ids.into_iter().map(|id| (topic.to_owned(), id)).collect()
}

#[tokio::test]
async fn each_topic_of_a_connection_is_a_subscription_of_its_own() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let old = killmail(1).ago(3600).victim(PILOT);
    server.send(Method::POST, "/api/v1/killmails", json!([old.r2z2()]).to_string()).await.expect(200);
    let mut client = Channel::v2(server.address()).await;
    let topics = [
        LOBBY.to_owned(),
        "killmails:all".to_owned(),
        format!("killmails:system:{JITA}"),
        format!("killmails:character:{PILOT}"),
    ];
    for (n, topic) in topics.iter().enumerate() {
        client.send(json!([n.to_string(), n.to_string(), topic, "phx_join", { "systems": [JITA], "preload": true }])).await;
    }
    // Preloads come between the answers to the joins.
    let (mut joined, mut got) = (0, Vec::new());
    while joined < topics.len() || got.len() < 7 {
        let frame = client.frame().await;
        if frame[3] == "phx_reply" {
            assert_eq!(frame[4]["status"], "ok", "{frame}");
            joined += 1;
            if joined == topics.len() {
                upstream.publish(killmail(2).victim(PILOT));
            }
        }
        got.extend(pushed(&frame));
    }
    while let Some(frame) = client.frame_within(QUIET).await {
        got.extend(pushed(&frame));
    }
    got.sort();
    // The past of everything is not preloaded.
    let mut expected: Vec<(String, u64)> =
        topics.iter().flat_map(|topic| [1, 2].map(|id| (topic.clone(), id))).collect();
    expected.retain(|(topic, id)| topic != "killmails:all" || *id == 2);
    expected.sort();
    assert_eq!(got, expected, "once on each topic, and only once");
}

#[tokio::test]
async fn a_join_says_what_had_no_effect_and_refuses_what_looks_like_a_filter() {
    let server = Setup::quiet().start();
    let mut client = Channel::v2(server.address()).await;
    let response = client
        .join(
            json!({ "systems": [JITA], "client_identifier": "wanderer_app", "nosuch": 1, "preload": false }),
        )
        .await;
    assert_eq!(response["ignored"], json!(["nosuch"]));
    let mut other = Channel::v2(server.address()).await;
    for (payload, reason) in [
        (
            json!({ "corporation_id": [98_000_001] }),
            "Unknown parameter: corporation_id; did you mean corporation_ids?",
        ),
        (
            json!({ "systems": [JITA], "format": "nonsense" }),
            "Invalid format: 'nonsense' is not one of canonical",
        ),
    ] {
        let reply = other.ask(json!(["1", "1", LOBBY, "phx_join", payload])).await;
        let told = reply[4]["response"]["reason"].as_str().unwrap();
        assert!(reply[4]["status"] == "error" && told.ends_with(reason), "{reply}");
    }
    assert_eq!(
        other
            .join(json!({ "systems": [JITA], "format": "canonical", "preload": false }))
            .await
            .get("ignored"),
        None
    );
}
