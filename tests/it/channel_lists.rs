//! The numbered acceptance cases of channels (docs/cases.md): lists that grow and shrink, ids that are
//! refused, who is in.
//!
//! Must not know: how killmails find their channels.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::channel::{Channel, LOBBY};
use crate::support::killmail::{SYSTEMS, killmail};
use crate::support::server::{Server, Setup};
use crate::support::until;
use crate::support::upstream::Upstream;

const JITA: u32 = SYSTEMS[0];
const PERIMETER: u32 = SYSTEMS[1];
const AMARR: u32 = SYSTEMS[2];
const PILOT: u32 = 95_000_001;
/// Long enough for what must not come to come.
const QUIET: Duration = Duration::from_millis(400);

fn sorted(list: &Value) -> Vec<u64> {
    let mut ids: Vec<u64> = list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids
}

fn refused(reason: &str) -> (String, Value) {
    ("error".to_owned(), json!({ "reason": reason }))
}

#[tokio::test]
async fn case_45_systems_are_added() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA] })).await;
    let (status, response) = client.say("subscribe_systems", json!({ "systems": [PERIMETER] })).await;
    assert_eq!(
        (status.as_str(), sorted(&response["subscribed_systems"])),
        ("ok", vec![JITA.into(), PERIMETER.into()])
    );
    let again = client.say("subscribe_systems", json!({ "systems": [PERIMETER, JITA] })).await;
    assert_eq!(again, ("ok".to_owned(), json!({ "message": "Already subscribed to all requested systems" })));
    upstream.publish(killmail(1).system(PERIMETER));
    upstream.publish(killmail(2).system(JITA));
    assert_eq!(client.live(2).await, [1, 2]);
}

#[tokio::test]
async fn case_46_systems_are_taken_out() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA, AMARR] })).await;
    let (_, response) = client.say("unsubscribe_systems", json!({ "systems": [JITA] })).await;
    assert_eq!(response, json!({ "subscribed_systems": [AMARR] }));
    upstream.publish(killmail(1).system(JITA));
    upstream.publish(killmail(2).system(AMARR));
    assert_eq!(client.live(1).await, [2]);
    let foreign = client.say("unsubscribe_systems", json!({ "systems": [JITA] })).await;
    assert_eq!(
        foreign,
        ("ok".to_owned(), json!({ "message": "Not subscribed to any of the requested systems" }))
    );
    let (_, response) = client.say("unsubscribe_systems", json!({ "systems": [AMARR] })).await;
    assert_eq!(response, json!({ "subscribed_systems": [] }));
    upstream.publish(killmail(3).system(AMARR));
    let number = upstream.publish(killmail(4).system(PERIMETER));
    upstream.wait_fetched(number).await;
    assert_eq!(client.killmails_until_quiet(QUIET).await, Vec::<u64>::new());
}

#[tokio::test]
async fn case_47_characters_are_found_wherever_they_are() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({})).await;
    upstream.publish(killmail(1).victim(PILOT));
    let number = upstream.publish(killmail(2));
    upstream.wait_fetched(number).await;
    until("the second to be announced", async || {
        (server.get("/api/v1/killmail/2").await.status == 200).then_some(())
    })
    .await;
    let (_, response) = client.say("subscribe_characters", json!({ "character_ids": [PILOT] })).await;
    assert_eq!(response, json!({ "subscribed_characters": [PILOT] }));
    let again = client.say("subscribe_characters", json!({ "characters": [PILOT] })).await;
    assert_eq!(again.1, json!({ "message": "Already subscribed to all requested characters" }));
    upstream.publish(killmail(3).victim(PILOT));
    upstream.publish(killmail(4).system(AMARR).attackers(&[96_000_000, PILOT]));
    upstream.publish(killmail(5));
    assert_eq!(client.live(2).await, [3, 4]);
    let (_, response) = client.say("unsubscribe_characters", json!({ "characters": [PILOT] })).await;
    assert_eq!(response, json!({ "subscribed_characters": [] }));
    let foreign = client.say("unsubscribe_characters", json!({ "character_ids": [PILOT] })).await;
    assert_eq!(foreign.1, json!({ "message": "Not subscribed to any of the requested characters" }));
    assert_eq!(client.killmails_until_quiet(QUIET).await, Vec::<u64>::new());
}

#[tokio::test]
async fn case_48_systems_or_characters_each_killmail_once() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA], "character_ids": [PILOT] })).await;
    upstream.publish(killmail(1).system(AMARR).victim(PILOT));
    upstream.publish(killmail(2).system(JITA));
    upstream.publish(killmail(3).system(JITA).victim(PILOT));
    upstream.publish(killmail(4).system(AMARR));
    upstream.publish(killmail(5).system(JITA));
    assert_eq!(client.live(4).await, [1, 2, 3, 5]);
    assert_eq!(client.killmails_until_quiet(QUIET).await, Vec::<u64>::new());
}

#[tokio::test]
async fn case_49_characters_stay_when_the_last_system_goes() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA], "character_ids": [PILOT] })).await;
    client.say("unsubscribe_systems", json!({ "systems": [JITA] })).await;
    upstream.publish(killmail(1).system(JITA));
    upstream.publish(killmail(2).system(JITA).victim(PILOT));
    assert_eq!(client.live(1).await, [2]);
}

#[tokio::test]
async fn case_50_ids_are_refused_in_upstreams_words() {
    let server = Setup::quiet().start();
    let mut client = Channel::v2(server.address()).await;
    let many: Vec<u32> = (1..=10_001).collect();
    let crowd: Vec<u32> = (90_000_001..=90_050_001).collect();
    for (payload, reason) in [
        (json!({ "systems": many }), "[validation:too_many_systems] Too many systems (max: 10000)"),
        (
            json!({ "systems": [JITA, "x"] }),
            "[validation:non_integer_system_ids] System IDs must be integers",
        ),
        (json!({ "systems": [0] }), "[validation:invalid_system_ids] Invalid system IDs"),
        (
            json!({ "systems": [JITA], "character_ids": crowd }),
            "[validation:too_many_characters] Too many characters (max: 50000)",
        ),
        (
            json!({ "character_ids": [1.5] }),
            "[validation:non_integer_character_ids] Character IDs must be integers",
        ),
        (json!({ "character_ids": [5] }), "[validation:invalid_character_ids] Invalid character IDs"),
        (
            json!({ "systems": [JITA], "min_value": "x" }),
            "[validation:invalid_min_value] Invalid min_value: 'x' is not a valid number",
        ),
    ] {
        let reply = client.ask(json!(["1", "1", LOBBY, "phx_join", payload])).await;
        assert_eq!(
            reply,
            json!(["1", "1", LOBBY, "phx_reply", { "status": "error", "response": { "reason": reason } }])
        );
    }
    client.join(json!({ "systems": [JITA] })).await;
}

#[tokio::test]
async fn case_51_a_wrong_event_is_told_and_the_channel_lives() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA] })).await;
    let non_integer = "[validation:non_integer_system_ids] System IDs must be integers";
    assert_eq!(client.say("subscribe_systems", json!({ "systems": ["x"] })).await, refused(non_integer));
    assert_eq!(client.say("nonsense", json!({})).await, refused("unknown event: nonsense"));
    for (event, payload) in [
        ("subscribe_systems", json!({})),
        ("subscribe_systems", json!({ "systems": "x" })),
        ("subscribe_characters", json!([1])),
        ("update_subscriptions", json!({ "add_systems": 5 })),
    ] {
        let (status, response) = client.say(event, payload).await;
        let reason = response["reason"].as_str().unwrap().to_owned();
        assert!(
            status == "error" && reason.starts_with(&format!("unknown event: {event}: ")),
            "{status} {reason}"
        );
    }
    upstream.publish(killmail(1));
    assert_eq!(client.live(1).await, [1]);
}

#[tokio::test]
async fn case_55_get_status_has_five_keys() {
    let server = Setup::quiet().start();
    let mut client =
        Channel::open(server.address(), "/socket/websocket?vsn=2.0.0&client_identifier=My%20App!").await;
    let joined = client.join(json!({ "systems": [JITA], "character_ids": [PILOT] })).await;
    let (_, status) = client.say("get_status", json!({})).await;
    assert_eq!(status.as_object().unwrap().len(), 5, "{status}");
    assert_eq!(status["subscription_id"], joined["subscription_id"]);
    assert_eq!(
        (&status["subscribed_systems"], &status["subscribed_characters"]),
        (&json!([JITA]), &json!([PILOT]))
    );
    assert!(status["user_id"].as_str().unwrap().starts_with("My_App__"), "{status}");
    assert!(status["connected_at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn update_subscriptions_does_both_and_says_so() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA, PERIMETER], "character_ids": [PILOT] })).await;
    let change = json!({ "add_systems": [AMARR, JITA], "remove_systems": [JITA, PERIMETER], "remove_characters": [PILOT] });
    let (status, response) = client.say("update_subscriptions", change).await;
    assert_eq!(
        (status.as_str(), sorted(&response["subscribed_systems"])),
        ("ok", vec![JITA.into(), AMARR.into()])
    );
    assert_eq!(response["subscribed_characters"], json!([]));
    assert_eq!(client.event("subscription_updated").await, response);
    let (status, response) = client.say("update_subscriptions", json!({ "add_system": [PERIMETER] })).await;
    let told = "update_subscriptions has no member add_system; did you mean add_systems?";
    assert_eq!((status.as_str(), &response["reason"]), ("error", &json!(told)));
    upstream.publish(killmail(1).system(PERIMETER).victim(PILOT));
    upstream.publish(killmail(2).system(AMARR));
    assert_eq!(client.live(1).await, [2]);
}

#[tokio::test]
async fn other_topics_and_filters_are_joined() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut all = Channel::v2(server.address()).await;
    let mut one = Channel::v2(server.address()).await;
    let mut rich = Channel::v2(server.address()).await;
    all.ask(json!(["1", "1", "killmails:all", "phx_join", {}])).await;
    let reply = one.ask(json!(["1", "1", format!("killmails:character:{PILOT}"), "phx_join", {}])).await;
    assert_eq!(reply[4]["response"]["subscribed_characters"], json!([PILOT]));
    one.ask(json!(["2", "2", format!("killmails:system:{AMARR}"), "phx_join", { "preload": false }])).await;
    rich.join(json!({ "ship_type_ids": [587], "min_value": 5e6, "role": "victim" })).await;
    upstream.publish(killmail(1).system(AMARR).value(9e6));
    upstream.publish(killmail(2).victim(PILOT));
    upstream.publish(killmail(3).value(6e6).with(|k| k.victim.ship_type_id = Some(621)));
    assert_eq!(all.live(3).await, [1, 2, 3]);
    let mut got = one.live(2).await;
    got.sort_unstable();
    assert_eq!(got, [1, 2]);
    assert_eq!(rich.live(1).await, [1]);
    assert_eq!(rich.killmails_until_quiet(QUIET).await, Vec::<u64>::new());
}

#[tokio::test]
async fn ten_thousand_systems_and_fifty_thousand_characters_join_at_once() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client = Channel::v2(server.address()).await;
    let systems: Vec<u32> = (30_000_001..=30_010_000).collect();
    let characters: Vec<u32> = (95_000_001..=95_050_000).collect();
    let response =
        client.join(json!({ "systems": systems, "character_ids": characters, "preload": true })).await;
    assert_eq!(
        (&response["subscribed_systems"], &response["subscribed_characters"]),
        (&json!(systems), &json!(characters))
    );
    let beat = client.say("get_status", json!({})).await;
    assert_eq!(beat.0, "ok");
    upstream.publish(killmail(1).system(31_000_005).victim(95_050_000));
    assert_eq!(client.live(1).await, [1]);
}

/// What `GET /api/v1/subscriptions` lists.
async fn listed(server: &Server) -> Vec<Value> {
    let data = server.get("/api/v1/subscriptions").await.expect(200)["data"].clone();
    let list = data["subscriptions"].as_array().unwrap().clone();
    assert_eq!(data["count"], list.len());
    list
}

#[tokio::test]
async fn case_58_who_leaves_is_gone() {
    let server = Setup::quiet().start();
    let mut client = Channel::open(server.address(), "/socket/websocket?vsn=2.0.0&client_id=test").await;
    let joined = client.join(json!({ "systems": [AMARR, JITA], "character_ids": [PILOT] })).await;
    // Joining again changes nothing about how many there are.
    let again = client.ask(json!(["2", "2", LOBBY, "phx_join", { "systems": [JITA] }])).await;
    let mut stream = server.enhanced(&format!("system_ids={JITA}")).await;
    stream.event_named("connected").await;
    let list = listed(&server).await;
    let socket = list.iter().find(|line| line["type"] == "websocket").unwrap();
    assert_ne!(socket["id"], joined["subscription_id"]);
    assert_eq!(socket["id"], again[4]["response"]["subscription_id"]);
    assert!(socket["subscriber_id"].as_str().unwrap().starts_with("test_"), "{socket}");
    assert_eq!(
        (&socket["system_ids"], &socket["character_ids"], &socket["callback_url"]),
        (&json!([JITA]), &json!([]), &Value::Null)
    );
    assert!(socket["created_at"].is_string() && socket["updated_at"].is_string());
    let stats = server.get("/api/v1/subscriptions/stats").await.expect(200)["data"].clone();
    for (name, count) in [
        ("total_subscriptions", 2),
        ("websocket_subscriptions", 1),
        ("sse_subscriptions", 1),
        ("webhook_subscriptions", 0),
    ] {
        assert_eq!(stats[name], count, "{name} in {stats}");
    }
    assert_eq!((&stats["total_systems"], &stats["total_characters"]), (&json!(1), &json!(0)));
    assert!(stats["memory_usage"].as_u64().unwrap() > 0);
    drop(client);
    until("the channel to be gone", async || {
        let gone = listed(&server).await.iter().all(|line| line["type"] == "sse");
        let status = server.get("/websocket/status").await.expect(200);
        (gone && status["active_connections"] == 0 && status["active_subscriptions"] == 0).then_some(())
    })
    .await;
    assert_eq!(server.send(reqwest::Method::GET, "/api/v1/subscriptions", "").await.status, 200);
}
