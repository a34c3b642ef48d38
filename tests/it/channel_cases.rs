//! The numbered acceptance cases of channels (docs/cases.md): versions, refs, joins, leaves, liveness, ends.
//!
//! Must not know: how a conversation is kept.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::channel::{Channel, LOBBY, killmail_ids};
use crate::support::dice::Dice;
use crate::support::killmail::{SYSTEMS, giant, killmail, now, r2z2};
use crate::support::server::{Server, Setup};
use crate::support::upstream::Upstream;

const JITA: u32 = SYSTEMS[0];
const PERIMETER: u32 = SYSTEMS[1];
const AMARR: u32 = SYSTEMS[2];
/// Long enough for what must not come to come.
const QUIET: Duration = Duration::from_millis(400);

fn ok(response: Value) -> Value {
    json!({ "status": "ok", "response": response })
}

fn error(reason: &str) -> Value {
    json!({ "status": "error", "response": { "reason": reason } })
}

#[tokio::test]
async fn case_41_a_join_is_answered_as_the_map_expects() {
    let server = Setup::quiet().start();
    let mut client = Channel::v2(server.address()).await;
    let reply = client
        .ask(json!(["1", "1", LOBBY, "phx_join", { "systems": [JITA], "client_identifier": "wanderer_app" }]))
        .await;
    let id = reply[4]["response"]["subscription_id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 22);
    assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{id}");
    let mut response = reply[4]["response"].clone();
    // Ours beside what the map reads.
    ["event_id", "filter"]
        .iter()
        .for_each(|name| drop(response.as_object_mut().unwrap().remove(*name).unwrap()));
    let expected = json!({ "subscription_id": id, "subscribed_systems": [JITA], "subscribed_characters": [], "status": "connected" });
    assert_eq!(response, expected);
    assert_eq!(reply, json!(["1", "1", LOBBY, "phx_reply", ok(reply[4]["response"].clone())]));
}

#[tokio::test]
async fn case_42_a_killmail_comes_once_to_those_of_its_system() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut here = Channel::v2(server.address()).await;
    let mut elsewhere = Channel::v2(server.address()).await;
    here.join(json!({ "systems": [JITA] })).await;
    elsewhere.join(json!({ "systems": [AMARR] })).await;
    upstream.publish(killmail(7));
    let number = upstream.publish(killmail(8).system(AMARR));
    let frame = loop {
        let frame = here.frame().await;
        if frame[3] == "killmail_update" {
            break frame;
        }
    };
    assert_eq!(
        frame.as_array().unwrap()[..4],
        [json!("1"), Value::Null, json!(LOBBY), json!("killmail_update")]
    );
    let update = &frame[4];
    assert_eq!((&update["system_id"], &update["preload"]), (&json!(JITA), &json!(false)));
    assert!(update["timestamp"].as_str().unwrap().ends_with('Z') && update["event_id"].is_string());
    assert_eq!(update["killmails"], json!([server.get("/api/v1/killmail/7").await.expect(200)["data"]]));
    upstream.wait_fetched(number).await;
    assert_eq!(elsewhere.live(1).await, [8]);
    assert_eq!(here.killmails_until_quiet(QUIET).await, Vec::<u64>::new());
    assert_eq!(elsewhere.killmails_until_quiet(QUIET).await, Vec::<u64>::new());
}

#[tokio::test]
async fn case_43_a_heartbeat_is_answered_in_its_own_words() {
    let server = Setup::quiet().start();
    let mut client = Channel::v2(server.address()).await;
    let reply = client.ask(json!([null, "7", "phoenix", "heartbeat", {}])).await;
    assert_eq!(reply, json!([null, "7", "phoenix", "phx_reply", ok(json!({}))]));
}

#[tokio::test]
async fn case_52_topics_and_events_that_are_not_ours() {
    let server = Setup::quiet().start();
    let mut client = Channel::v2(server.address()).await;
    let reply = client.ask(json!(["1", "1", "killmails:other", "phx_join", {}])).await;
    assert_eq!(reply, json!(["1", "1", "killmails:other", "phx_reply", error("join crashed")]));
    let reply = client.ask(json!(["2", "2", "foo:bar", "phx_join", {}])).await;
    assert_eq!(reply, json!([null, "2", "foo:bar", "phx_reply", error("unmatched topic")]));
    let reply = client.ask(json!(["3", "4", LOBBY, "get_status", {}])).await;
    assert_eq!(reply, json!([null, "4", LOBBY, "phx_reply", error("unmatched topic")]));
    let reply = client.ask(json!(["3", "5", LOBBY, "phx_leave", {}])).await;
    assert_eq!(reply, json!(["3", "5", LOBBY, "phx_reply", ok(json!({}))]));
}

#[tokio::test]
async fn case_53_a_leave_is_answered_then_closed_and_the_socket_lives() {
    let server = Setup::quiet().start();
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [] })).await;
    let reply = client.ask(json!(["1", "2", LOBBY, "phx_leave", {}])).await;
    assert_eq!(reply, json!(["1", "2", LOBBY, "phx_reply", ok(json!({}))]));
    assert_eq!(client.frame().await, json!(["1", "1", LOBBY, "phx_close", {}]));
    let beat = client.ask(json!([null, "3", "phoenix", "heartbeat", {}])).await;
    assert_eq!(beat[1], "3");
}

#[tokio::test]
async fn case_54_a_second_join_takes_the_place_of_the_first() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA], "preload": false })).await;
    let reply =
        client.ask(json!(["9", "9", LOBBY, "phx_join", { "systems": [AMARR], "preload": false }])).await;
    assert_eq!(
        (&reply[0], &reply[1], &reply[4]["response"]["subscribed_systems"]),
        (&json!("9"), &json!("9"), &json!([AMARR]))
    );
    assert_eq!(client.frame().await, json!(["1", "1", LOBBY, "phx_close", {}]));
    upstream.publish(killmail(1));
    upstream.publish(killmail(2).system(AMARR));
    let update = client.frame().await;
    assert_eq!((&update[0], killmail_ids(&update[4])), (&json!("9"), vec![2]));
    // What still carries the ref of the first is for nobody.
    client.send(json!(["1", "10", LOBBY, "get_status", {}])).await;
    let reply = client.ask(json!([null, "11", LOBBY, "get_status", {}])).await;
    assert_eq!((&reply[0], &reply[1]), (&json!("9"), &json!("11")));
}

#[tokio::test]
async fn case_56_the_version_decides_who_gets_in() {
    let server = Setup::quiet().start();
    for path in ["/socket/websocket?vsn=3.0.0", "/socket?vsn=2.1.0", "/websocket?vsn=x"] {
        assert_eq!(Channel::try_open(server.address(), path, &[]).await.unwrap_err(), 403, "{path}");
    }
    let mut client = Channel::open(server.address(), "/socket/websocket").await;
    let reply =
        client.ask(json!({ "topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": 5 })).await;
    assert_eq!(
        reply,
        json!({ "topic": "phoenix", "event": "phx_reply", "payload": ok(json!({})), "ref": 5 })
    );
    for path in ["/socket?vsn=2.0.0", "/websocket?client_identifier=eve-chart-bot&vsn=2.0.0"] {
        let mut client = Channel::open(server.address(), path).await;
        client.join(json!({})).await;
    }
    assert_eq!(server.get("/socket/websocket").await.status, 426);
    assert_eq!(server.post("/socket/websocket", &json!({})).await.status, 400);
}

#[tokio::test]
async fn case_57_refs_come_back_as_they_are() {
    let server = Setup::quiet().start();
    let mut client = Channel::v2(server.address()).await;
    let reply = client.ask(json!([1, 2, LOBBY, "phx_join", {}])).await;
    assert_eq!((&reply[0], &reply[1]), (&json!(1), &json!(2)));
    let reply = client.ask(json!([1, 3, LOBBY, "get_status", {}])).await;
    assert_eq!((&reply[0], &reply[1]), (&json!(1), &json!(3)));
    // Without a join ref the join's own ref is the channel's, but for the answer to the join.
    let reply = client.ask(json!([null, "x", "killmails:all", "phx_join", {}])).await;
    assert_eq!((&reply[0], &reply[1]), (&Value::Null, &json!("x")));
    let reply = client.ask(json!([null, null, "killmails:all", "get_status", {}])).await;
    assert_eq!((&reply[0], &reply[1]), (&json!("x"), &Value::Null));
}

#[tokio::test]
async fn case_59_version_1_is_four_keys() {
    let server = Setup::quiet().start();
    let mut client = Channel::v1(server.address()).await;
    let payload = json!({ "systems": [], "character_ids": [], "preload": { "enabled": false } });
    let reply = client
        .ask(json!({ "topic": LOBBY, "event": "phx_join", "payload": payload, "ref": "join_1_2" }))
        .await;
    assert_eq!(
        (&reply["event"], &reply["ref"], &reply["topic"]),
        (&json!("phx_reply"), &json!("join_1_2"), &json!(LOBBY))
    );
    assert_eq!((&reply["payload"]["status"], reply.as_object().unwrap().len()), (&json!("ok"), 4));
}

#[tokio::test]
async fn case_60_version_1_joins_again_with_other_lists() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client = Channel::v1(server.address()).await;
    let join = |systems: Value, n: u32| {
        let payload = json!({ "systems": systems, "character_ids": [], "preload": { "enabled": false } });
        json!({ "topic": LOBBY, "event": "phx_join", "payload": payload, "ref": format!("join_{n}") })
    };
    client.ask(join(json!([JITA]), 1)).await;
    let reply = client.ask(join(json!([AMARR]), 2)).await;
    assert_eq!((&reply["ref"], &reply["payload"]["status"]), (&json!("join_2"), &json!("ok")));
    upstream.publish(killmail(1));
    upstream.publish(killmail(2).system(AMARR));
    // Nothing stands between: a close of the first join would end the second here.
    let update = client.frame().await;
    assert_eq!((&update["event"], &update["ref"]), (&json!("killmail_update"), &Value::Null));
    assert_eq!(killmail_ids(&update["payload"]), [2]);
}

#[tokio::test]
async fn case_61_version_1_heartbeats() {
    let server = Setup::quiet().start();
    let mut client = Channel::v1(server.address()).await;
    let reply = client
        .ask(json!({ "topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "heartbeat_123" }))
        .await;
    assert_eq!(reply["ref"], "heartbeat_123");
}

#[tokio::test]
async fn an_object_under_version_2_is_answered_in_kind() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut client = Channel::v2(server.address()).await;
    let payload = json!({ "systems": [JITA], "preload": false });
    let reply =
        client.ask(json!({ "topic": LOBBY, "event": "phx_join", "payload": payload, "ref": 1 })).await;
    assert_eq!((&reply["ref"], &reply["payload"]["status"]), (&json!(1), &json!("ok")));
    upstream.publish(killmail(3));
    let update = client.frame().await;
    assert_eq!((&update["event"], killmail_ids(&update["payload"])), (&json!("killmail_update"), vec![3]));
}

#[tokio::test]
async fn a_binary_push_of_version_2_is_understood() {
    let server = Setup::quiet().start();
    let mut client = Channel::v2(server.address()).await;
    let mut frame = vec![0, 1, 1, 15, 8];
    frame.extend_from_slice(br#"11killmails:lobbyphx_join{"systems":[30000142]}"#);
    client.message(Message::binary(frame)).await;
    let reply = client.frame().await;
    assert_eq!((&reply[0], &reply[1]), (&json!("1"), &json!("1")));
    assert_eq!(reply[4]["response"]["subscribed_systems"], json!([JITA]));
    client.message(Message::binary(br#"[null,"7","phoenix","heartbeat",{}]"#.as_slice())).await;
    assert_eq!(client.answer().await[1], "7");
}

#[tokio::test]
async fn what_is_no_frame_is_told_and_survived() {
    let server = Setup::quiet().start();
    let mut client = Channel::v2(server.address()).await;
    let mut old = Channel::v1(server.address()).await;
    for text in ["hello", "[1,2]", "{}"] {
        client.message(Message::text(text)).await;
        let told = client.frame().await;
        assert_eq!(told.as_array().map(Vec::len), Some(5), "{told}");
        assert_eq!(
            told.as_array().map(|told| &told[..4]),
            Some(&[Value::Null, Value::Null, json!("phoenix"), json!("phx_error")][..]),
            "{text}"
        );
        old.message(Message::text(text)).await;
        let told = old.frame().await;
        assert_eq!((&told["topic"], &told["event"]), (&json!("phoenix"), &json!("phx_error")), "{text}");
    }
    client.join(json!({ "systems": [PERIMETER] })).await;
}

#[tokio::test]
async fn the_largest_killmail_comes_whole() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut new = Channel::v2(server.address()).await;
    let mut old = Channel::v1(server.address()).await;
    new.ask(json!(["1", "1", "killmails:all", "phx_join", {}])).await;
    old.ask(json!({ "topic": "killmails:all", "event": "phx_join", "payload": {}, "ref": "1" })).await;
    let dice = &mut Dice::new(5);
    upstream.publish_document(r2z2(&giant(dice, 7, now())));
    upstream.publish(killmail(8));
    for client in [&mut new, &mut old] {
        let update = client.event("killmail_update").await;
        assert_eq!(update["killmails"], json!([server.get("/api/v1/killmail/7").await.expect(200)["data"]]));
        assert!(update["event_id"].is_string() && update["preload"] == false);
        assert_eq!(client.live(1).await, [8]);
    }
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let mut server = Setup::quiet().start();
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [JITA] })).await;
    let stopped = tokio::task::spawn_blocking(move || server.stop());
    assert_eq!(client.goodbye().await, 1012);
    assert!(stopped.await.unwrap().success());
}
