//! Plugins through a running server: what a hostile one does to its neighbours, and what promotion, rollback
//! and deletion do to open readers.
//!
//! Must not know: how guests run.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::guests::{self, Text};
use crate::support::killmail::killmail;
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::upstream::Upstream;

/// By the killmail's id: traps, runs for ever, eats memory, keeps. It keeps all large ids, so that its upload
/// passes.
const HOSTILE: &str = "(local $what i32)
    (if (i64.gt_u (local.get $id) (i64.const 1000000)) (then (return (i32.const 64))))
    (local.set $what (i32.wrap_i64 (i64.rem_u (local.get $id) (i64.const 4))))
    (if (i32.eq (local.get $what) (i32.const 0)) (then unreachable))
    (if (i32.eq (local.get $what) (i32.const 1)) (then (loop $again (br $again))))
    (if (i32.eq (local.get $what) (i32.const 2)) (then (loop $more (drop (memory.grow (i32.const 256))) (br $more))))
    (i32.const 64)";

async fn calls(server: &Server, name: &str) -> Value {
    server.get(&format!("/api/v1/plugins/{name}")).await.expect(200)["data"].clone()
}

#[tokio::test]
async fn a_neighbours_stream_is_the_same_byte_for_byte() {
    let upstream = Upstream::start();
    // Each of its faults is a call: it does not rest.
    let quiet = "[sse]\nping_ms = 3600000\nheartbeat_ms = 3600000\nfault_pause_ms = 3600000\n[plugin]\nrest_faults = 0";
    let server = Setup::following(&upstream).config(quiet).start();
    server.upload("hostile", &guests::evaluating(HOSTILE)).await;
    server.upload("good", &guests::evaluating(guests::KEEP)).await;
    let mut alone = server.basic("").await;
    let mut neighbour = server.basic("plugin=good").await;
    let mut hostile = server.enhanced("plugin=hostile").await;
    assert_eq!(hostile.event().await.name(), "connected");
    let ids: Vec<u64> = (1000..1024).collect();
    for id in 1000..1024 {
        upstream.publish(killmail(id));
    }
    assert_eq!(alone.killmails(ids.len()).await, ids);
    assert_eq!(neighbour.killmails(ids.len()).await, ids);
    let (alone, neighbour) =
        (String::from_utf8_lossy(alone.bytes()), String::from_utf8_lossy(neighbour.bytes()));
    assert!(alone.matches("killmail_id").count() >= ids.len(), "{alone}");
    assert_eq!(alone, neighbour);

    let (mut kept, mut told) = (Vec::new(), BTreeMap::new());
    while kept.len() < 6 {
        let block = hostile.event().await;
        match block.name() {
            "killmail" => kept.extend(block.killmail_id()),
            "error" => {
                let body = block.json();
                assert_eq!(
                    (&body["type"], &body["plugin"]),
                    (&json!("plugin_fault"), &json!("hostile")),
                    "{body}"
                );
                assert!(
                    body["killmail_id"].is_u64()
                        && body["timestamp"].is_string()
                        && body["message"].is_string(),
                    "{body}"
                );
                *told.entry(body["fault"].as_str().unwrap().to_owned()).or_insert(0) += 1;
            }
            other => panic!("{other}: {}", block.raw),
        }
    }
    assert_eq!(kept, [1003, 1007, 1011, 1015, 1019, 1023], "a fault costs the killmail it was about");
    let once = ["deadline", "memory", "trap"].map(|word| (word.to_owned(), 1));
    assert_eq!(told, BTreeMap::from(once), "each word once, however often it occurred");
    let counted = calls(&server, "hostile").await;
    assert_eq!(
        (&counted["faults"], &counted["keeps"]),
        (&json!({ "deadline": 6, "memory": 6, "trap": 6 }), &json!(6)),
        "{counted}"
    );
    assert_eq!(calls(&server, "good").await["faults"], json!({}));
}

#[tokio::test]
async fn a_fault_is_told_again_after_its_pause_and_never_on_the_basic_stream() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).config("[sse]\nfault_pause_ms = 1").start();
    server.upload("hostile", &guests::evaluating(HOSTILE)).await;
    let mut enhanced = server.enhanced("plugin=hostile").await;
    let mut basic = server.basic("plugin=hostile").await;
    for id in [1000, 1004, 1008] {
        upstream.publish(killmail(id));
        let told = enhanced.event_named("error").await.json();
        assert_eq!((&told["fault"], &told["killmail_id"]), (&json!("trap"), &json!(id)));
        let begin = format!("plugin hostile failed on killmail {id}: trap: wasm trap: wasm `unreachable`");
        assert!(told["message"].as_str().unwrap().starts_with(&begin), "{told}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    upstream.publish(killmail(1011));
    assert_eq!(basic.event().await.killmail_id(), Some(1011));
}

#[tokio::test]
async fn what_a_guest_writes_and_why_it_fails_is_told_where_faults_are_shown() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).start();
    let evaluate = "(call $out) (call $err) (if (i64.ge_u (local.get $id) (i64.const 1000)) (then unreachable)) (i32.const 64)";
    let bytes = guests::writing(
        "looking\u{feff} at it",
        "KeyError: \x1b[1m'ship'\n",
        &Text { evaluate, ..Text::default() },
    );
    server.upload("writes", &bytes).await;
    let mut enhanced = server.enhanced("plugin=writes").await;
    assert_eq!(enhanced.event().await.name(), "connected");
    upstream.publish(killmail(1000));
    let told = enhanced.event_named("error").await.json();
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("failed on killmail 1000: trap: wasm trap: ")
            && message.contains("it said last: KeyError: [1m'ship'"),
        "{told}"
    );
    let last = server.send(Method::GET, "/api/v1/plugins/writes", "").await.expect(200)["data"]["last_fault"]
        .clone();
    assert_eq!((&last["fault"], &last["killmail_id"]), (&json!("trap"), &json!(1000)), "{last}");
    assert!(
        last["message"].as_str().unwrap().contains("KeyError: [1m'ship'") && last["at"].is_string(),
        "{last}"
    );
    let list = server.send(Method::GET, "/api/v1/subscriptions", "").await.expect(200);
    let fault = &list["data"]["subscriptions"][0]["last_fault"];
    assert_eq!(
        (&fault["plugin"], &fault["fault"], &fault["message"]),
        (&json!("writes"), &json!("trap"), &last["message"]),
        "{list}"
    );
    // It may quote a configuration, so that strangers are told the word only.
    let told = calls(&server, "writes").await["last_fault"].clone();
    assert_eq!(told, json!({ "fault": "trap", "message": null, "killmail_id": 1000, "at": last["at"] }));
    let list = server.get("/api/v1/subscriptions").await.expect(200);
    let told = &list["data"]["subscriptions"][0]["last_fault"];
    assert_eq!(
        (&told["plugin"], &told["fault"], &told["message"]),
        (&json!("writes"), &json!("trap"), &Value::Null),
        "{list}"
    );
    let log = server.log();
    let line = |level: &str, text: &str| {
        log.lines().any(|line| line.contains(level) && line.contains("plugin writes ") && line.contains(text))
    };
    assert!(line("INFO", "says: looking at it") && line("WARN", "says: KeyError: [1m'ship'"), "{log}");
    assert!(line("WARN", "failed on killmail 1000: trap: wasm trap: "), "{log}");
    // Those that were not failed on have none.
    let mut good = server.enhanced("").await;
    assert_eq!(good.event().await.name(), "connected");
    let list = server.get("/api/v1/subscriptions").await.expect(200);
    let without = list["data"]["subscriptions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one.get("last_fault").is_none())
        .count();
    assert_eq!(without, 1, "{list}");
}

fn saying(version: u32) -> Vec<u8> {
    guests::keep_with(&json!({ "v": version }).to_string())
}

async fn version_of(stream: &mut Sse, id: u32) -> Value {
    let block = stream.event_but_heartbeat().await;
    assert_eq!(block.killmail_id(), Some(id.into()), "{}", block.raw);
    block.json()["enriched"]["mine"]["v"].clone()
}

#[tokio::test]
async fn promotion_moves_open_readers_and_rollback_moves_them_back() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let first = server.upload("mine", &saying(1)).await;
    let mut enhanced = server.enhanced("plugin=mine").await;
    assert_eq!(enhanced.event().await.name(), "connected");
    let mut basic = server.basic("plugin=mine").await;
    let pinned = format!("plugin=mine&plugin_config={}", "%7B%22a%22:1%7D");
    let mut configured = server.basic(&pinned).await;
    let mut sees = async |id: u32, version: u32| {
        upstream.publish(killmail(id));
        for stream in [&mut enhanced, &mut basic, &mut configured] {
            assert_eq!(version_of(stream, id).await, version, "killmail {id}");
        }
    };
    sees(1, 1).await;
    let second = server.upload("mine", &saying(2)).await;
    assert_eq!((&first["data"]["state"], &second["data"]["state"]), (&json!("active"), &json!("uploaded")));
    sees(2, 1).await;
    let promote = async |digest: &Value| {
        let body = json!({ "digest": digest }).to_string();
        server.send(Method::POST, "/api/v1/plugins/mine/promote", body).await.expect(200)
    };
    assert_eq!(promote(&second["data"]["digest"]).await["data"]["digest"], second["data"]["digest"]);
    sees(3, 2).await;
    let back = server.send(Method::POST, "/api/v1/plugins/mine/rollback", "").await.expect(200);
    assert_eq!(back["data"]["digest"], first["data"]["digest"]);
    sees(4, 1).await;
    // One that is uploaded and promoted at once; and one that comes when all of it is over.
    let reply = server.send(Method::PUT, "/api/v1/plugins/mine?promote=true", saying(3)).await;
    assert_eq!(reply.expect(201)["data"]["state"], "active");
    sees(5, 3).await;
    let history = server.get("/api/v1/killmails?plugin=mine&limit=1").await.expect(200);
    assert_eq!(history["data"]["killmails"][0]["enriched"]["mine"]["v"], 3);
}

#[tokio::test]
async fn deletion_ends_readers_with_an_error() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    server.upload("mine", &saying(1)).await;
    server.upload("other", &saying(1)).await;
    let mut enhanced = server.enhanced("plugin=mine").await;
    let mut basic = server.basic("plugin=mine").await;
    let mut other = server.basic("plugin=other").await;
    upstream.publish(killmail(1));
    for stream in [&mut enhanced, &mut basic, &mut other] {
        assert_eq!(stream.killmails(1).await, [1]);
    }
    let gone = server.send(Method::DELETE, "/api/v1/plugins/mine", "").await.expect(200);
    assert_eq!(gone["data"], json!({ "name": "mine" }));
    for mut stream in [enhanced, basic] {
        let last = stream.event_named("error").await.json();
        assert_eq!(last["type"], "plugin_gone", "{last}");
        assert!(
            last["message"].as_str().unwrap().contains("mine") && last["timestamp"].is_string(),
            "{last}"
        );
        assert_eq!(stream.next_block().await, None, "nothing follows");
    }
    upstream.publish(killmail(2));
    assert_eq!(other.killmails(1).await, [2]);
    let refused = server.get("/api/v1/kills/stream/enhanced?plugin=mine").await.expect(400);
    assert!(refused["error"]["message"].as_str().unwrap().contains("plugin"), "{refused}");
}

#[tokio::test]
async fn a_preload_ends_when_its_plugin_is_deleted() {
    let server = Setup::quiet()
        .config("[feed]\nbatch_max = 1\nbatch_pause_ms = 20\npreload_within_ms = 600000")
        .start();
    server.upload("mine", &saying(1)).await;
    let documents: Vec<Value> = (1..=2000).map(|id| killmail(id).r2z2()).collect();
    let report =
        server.send(Method::POST, "/api/v1/killmails", json!(documents).to_string()).await.expect(200);
    assert_eq!(report["data"]["new"], 2000);
    let mut stream = server.enhanced("plugin=mine&system_ids=30000142&preload_days=90").await;
    stream.event_named("batch").await;
    server.send(Method::DELETE, "/api/v1/plugins/mine", "").await.expect(200);
    assert_eq!(stream.event_named("error").await.json()["type"], "plugin_gone");
    assert_eq!(stream.next_block().await, None);
}

/// Refuses `{}`, and keeps every killmail but the first it is asked about: not repeatable.
fn forgetful() -> Vec<u8> {
    guests::guest(&Text {
        head: "(global $seen (mut i32) (i32.const 0))
            (data (i32.const 256) \"\\01\\00\\00\\00\\00\\00\\00\\00\\00\\04\\00\\00\\09\\00\\00\\00\")
            (data (i32.const 1024) \"n: needed\")",
        configure: "(if (result i32) (i32.le_u (local.get $config_len) (i32.const 2)) (then (i32.const 256)) (else (i32.const 0)))",
        evaluate: "(local $before i32) (local.set $before (global.get $seen)) (global.set $seen (i32.const 64)) (local.get $before)",
    })
}

#[tokio::test]
async fn an_upload_is_tried_with_the_configuration_of_its_manifest() {
    let server = Setup::quiet().start();
    // Without one it is tried with `{}`, refuses that, and is tried when somebody comes with a configuration
    // it takes.
    server.upload("later", &forgetful()).await;
    let refused = server.get("/api/v1/killmails?plugin=later").await.expect(400);
    assert!(refused["details"]["message"].as_str().unwrap().contains("n: needed"), "{refused}");
    let refused =
        server.get("/api/v1/killmails?plugin=later&plugin_config=%7B%22n%22:1%7D").await.expect(400);
    assert_eq!(refused["details"]["field"], "plugin_config", "{refused}");
    assert!(
        refused["details"]["message"]
            .as_str()
            .unwrap()
            .contains("must not depend on killmails evaluated before"),
        "{refused}"
    );
    // With one it is tried at once.
    let manifest = r#"{"default_config":{"n":1}}"#;
    let reply =
        server.send(Method::PUT, "/api/v1/plugins/now", guests::with_manifest(forgetful(), manifest)).await;
    let body = reply.expect(422);
    assert_eq!(body["details"]["reason"], "not_repeatable", "{body}");
    let fresh = server
        .send(Method::PUT, "/api/v1/plugins/now?instance=fresh", guests::with_manifest(forgetful(), manifest))
        .await;
    fresh.expect(201);
}

#[tokio::test]
async fn each_configuration_is_tried_when_it_is_first_used() {
    let server = Setup::quiet().start();
    // Forgetful with more than one digit.
    let bytes = guests::guest(&Text {
        head: "(global $seen (mut i32) (i32.const 64)) (global $next (mut i32) (i32.const 64))
            (data (i32.const 256) \"\\01\\00\\00\\00\\00\\00\\00\\00\\00\\04\\00\\00\\09\\00\\00\\00\")
            (data (i32.const 1024) \"n: needed\")",
        configure: "(if (i32.gt_u (local.get $config_len) (i32.const 7)) (then (global.set $seen (i32.const 0))))
            (if (result i32) (i32.le_u (local.get $config_len) (i32.const 2)) (then (i32.const 256)) (else (i32.const 0)))",
        evaluate: "(local $before i32) (local.set $before (global.get $seen)) (global.set $seen (global.get $next)) (local.get $before)",
    });
    server.upload("later", &bytes).await;
    server.get("/api/v1/killmails?plugin=later&plugin_config=%7B%22n%22:1%7D").await.expect(200);
    let refused =
        server.get("/api/v1/killmails?plugin=later&plugin_config=%7B%22n%22:10%7D").await.expect(400);
    assert!(
        refused["details"]["message"]
            .as_str()
            .unwrap()
            .contains("must not depend on killmails evaluated before"),
        "{refused}"
    );
}

/// Keeps every fiftieth, after thinking about each for half a millisecond or so.
const THOROUGH: &str = "(local $n i32)
    (local.set $n (i32.const 1000000))
    (loop $again (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (if (result i32) (i64.eqz (i64.rem_u (local.get $id) (i64.const 50))) (then (i32.const 64)) (else (i32.const 0)))";

#[tokio::test]
async fn a_request_judges_within_its_budget_and_goes_on_by_its_cursor() {
    // Pages of 64: two of them are over a hundred. A few killmails are over a millisecond.
    for (budget, needed) in [("judged_max = 100", 2..=2), ("judged_ms = 1", 20..=250)] {
        let server = Setup::quiet().config(&format!("[feed]\n{budget}")).start();
        let documents: Vec<Value> = (1..=250).map(|id| killmail(id).r2z2()).collect();
        server.send(Method::POST, "/api/v1/killmails", json!(documents).to_string()).await.expect(200);
        server.upload("thorough", &guests::evaluating(THOROUGH)).await;
        let (mut cursor, mut kept, mut requests) = (String::new(), Vec::new(), 0);
        loop {
            let page = server
                .get(&format!("/api/v1/killmails?plugin=thorough&order=oldest&limit=100{cursor}"))
                .await
                .expect(200);
            let data = &page["data"];
            kept.extend(
                data["killmails"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter_map(|killmail| killmail["killmail_id"].as_u64()),
            );
            requests += 1;
            let Some(next) = data["next_cursor"].as_str() else {
                assert_eq!(data["complete"], true);
                break;
            };
            assert_eq!(data["complete"], false, "{page}");
            cursor = format!("&cursor={next}");
        }
        assert_eq!(kept, [50, 100, 150, 200, 250], "{budget}");
        assert!(needed.contains(&requests), "{budget}: {requests} requests");
    }
}
