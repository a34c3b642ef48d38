//! The numbered acceptance cases of the HTTP interface (docs/cases.md): basics, kills API, the killmail.
//!
//! Must not know: how the server finds what it answers.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::http::{self, Reply};
use crate::support::killmail::{Build, SYSTEMS, esi, killmail, without_nulls};
use crate::support::server::{Server, Setup};
use crate::support::until;
use crate::support::upstream::Upstream;

pub const JITA: u32 = SYSTEMS[0];
pub const PERIMETER: u32 = SYSTEMS[1];

/// Adds killmails; all must be new.
pub async fn add(server: &Server, killmails: Vec<Build>) {
    let count = killmails.len();
    let documents: Vec<Value> = killmails.into_iter().map(Build::r2z2).collect();
    let report =
        server.send(Method::POST, "/api/v1/killmails", json!(documents).to_string()).await.expect(200);
    let expected = json!({ "new": count, "revised": 0, "known": 0, "conflict": 0, "refused": {}, "fetching": 0, "refused_documents": [] });
    assert_eq!(report["data"], expected);
}

/// Publishes a killmail on the feed and waits until the server has it.
async fn inject(server: &Server, upstream: &Upstream, build: Build) -> Value {
    let id = build.clone().build().killmail_id;
    upstream.publish(build);
    let path = format!("/api/v1/killmail/{id}");
    until(&path, async || {
        let reply = server.get(&path).await;
        (reply.status == 200).then(|| reply.json())
    })
    .await
}

pub fn ids(list: &Value) -> Vec<u64> {
    list.as_array()
        .unwrap_or_else(|| panic!("no list: {list}"))
        .iter()
        .map(|k| k["killmail_id"].as_u64().unwrap())
        .collect()
}

fn is_iso_micros(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() == 27
        && text.ends_with('Z')
        && text.as_bytes()[19] == b'.'
        && text.parse::<jiff::Timestamp>().is_ok()
}

fn assert_kills_error(reply: &Reply, status: u16, code: &str, message: &str) {
    let body = reply.expect(status);
    assert_eq!((&body["error"], &body["code"]), (&json!(message), &json!(code)), "{body}");
    assert!(is_iso_micros(&body["timestamp"]), "{body}");
    assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"));
}

#[tokio::test]
async fn case_01_ping_says_pong() {
    let server = Setup::quiet().start();
    let reply = server.get("/ping").await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "pong"));
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
}

#[tokio::test]
async fn case_02_health_and_its_aliases_are_ok() {
    let server = Setup::quiet().start();
    for path in ["/health", "/api/health"] {
        let body = server.get(path).await.expect(200);
        assert_eq!((&body["healthy"], &body["status"]), (&json!(true), &json!("ok")), "{body}");
        assert_eq!(body["circuit_breaker"]["circuit_state"], "closed");
        assert!(body["connection_monitor"].is_object() && body["details"]["cache"].is_object());
        assert!(is_iso_micros(&body["timestamp"]), "{body}");
    }
    assert_eq!(server.get("/health/live").await.expect(200)["status"], "ok");
}

#[tokio::test]
async fn case_04_status_has_every_name() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    inject(&server, &upstream, killmail(1)).await;
    // It is counted a moment after it is stored.
    let body = until("the killmail is counted", async || {
        let body = server.get("/status").await.expect(200);
        (body["metrics"]["processing"]["killmails_received"] == 1).then_some(body)
    })
    .await;
    for key in [
        "api_requests_per_minute",
        "active_subscriptions",
        "killmails_stored",
        "cache_hit_rate",
        "memory_usage_mb",
        "uptime_hours",
    ] {
        assert!(body["summary"][key].is_number(), "{key} in {body}");
    }
    assert!(is_iso_micros(&body["timestamp"]));
    assert_eq!(
        (&body["summary"]["killmails_stored"], &body["metrics"]["storage"]["systems_count"]),
        (&json!(1), &json!(1))
    );
    let processing = &body["metrics"]["processing"];
    assert_eq!(
        (&processing["redisq_received"], &processing["killmails_received"]),
        (&json!(1), &json!(1)),
        "{processing}"
    );
    assert!(processing["last_killmail_ago_seconds"].as_u64().unwrap() < 60, "{processing}");
    // What the dashboard of the older service reads.
    let dashboard = server.get("/status?debug=dashboard").await.expect(200);
    assert_eq!(dashboard["template_values"]["cache_size"], 1, "{dashboard}");
    for key in ["memory_mb", "process_count", "hit_rate"] {
        assert!(dashboard["template_values"][key].is_number(), "{key} in {dashboard}");
    }
    assert_eq!(dashboard["raw_health"]["healthy"], true);
    assert!(dashboard["unified_status"]["system_memory"]["total"].as_u64() > Some(0), "{dashboard}");
    assert!(dashboard["unified_status"]["system_processes"]["count"].as_u64() > Some(0), "{dashboard}");
}

#[tokio::test]
async fn case_05_metrics_are_json_or_text() {
    let server = Setup::quiet().start();
    add(&server, vec![killmail(1)]).await;
    let body = server.get("/metrics").await.expect(200);
    for component in ["cache", "application", "subscriptions"] {
        assert!(body["components"][component].is_object(), "{component} in {body}");
    }
    let plain =
        http::request(Method::GET, &server.url("/metrics"), &[("accept", "text/plain")], Vec::new()).await;
    let open = http::request(
        Method::GET,
        &server.url("/metrics"),
        &[("accept", "application/openmetrics-text")],
        Vec::new(),
    )
    .await;
    for reply in [
        &plain,
        &open,
        &server.get("/metrics?format=prometheus").await,
        &server.get("/metrics/prometheus").await,
    ] {
        let text = reply.text();
        assert!(text.contains("\nkillstream_store_killmails 1\n"), "{text}");
        let ours = |line: &str| line.starts_with("# ") || line.starts_with("killstream_");
        assert!(text.lines().all(ours), "{text}");
    }
    assert!(plain.header("content-type").unwrap().starts_with("text/plain"));
    assert!(open.text().ends_with("# EOF\n"));
}

#[tokio::test]
async fn case_09_unknown_paths_have_the_envelope_of_their_api() {
    let server = Setup::quiet().start();
    assert_eq!(server.get("/nope").await.expect(404), json!({ "error": "Not Found", "status": "404" }));
    let reply = server.get("/api/v1/nope").await;
    assert_kills_error(&reply, 404, "NOT_FOUND", "Not Found");
    assert_eq!(reply.json()["details"], Value::Null);
    let gate = json!({ "error": "Forbidden", "code": "forbidden", "message": "Debug endpoints are disabled in production" });
    for name in ["cleanup", "stats", "test"] {
        assert_eq!(server.get(&format!("/api/v1/kills/stream/{name}")).await.expect(403), gate);
    }
}

#[tokio::test]
async fn case_10_html_from_the_api_is_406() {
    let server = Setup::quiet().start();
    let get = async |path: &str, accept| {
        http::request(Method::GET, &server.url(path), &[("accept", accept)], Vec::new()).await
    };
    assert_eq!(
        get("/api/v1/killmails", "text/html").await.expect(406),
        json!({ "error": "Not Acceptable", "status": "406" })
    );
    assert_eq!(get("/api/v1/killmails", "text/html,*/*;q=0.8").await.status, 200);
    assert_eq!(get("/", "text/html").await.status, 200);
}

#[tokio::test]
async fn case_12_request_ids_are_echoed_or_made() {
    let server = Setup::quiet().start();
    let made = server.get("/ping").await;
    assert!(made.header("x-request-id").is_some_and(|id| id.len() >= 20));
    let id = "abcdefghijklmnopqrstuvwxyz012345";
    let echoed = http::request(Method::GET, &server.url("/nope"), &[("x-request-id", id)], Vec::new()).await;
    assert_eq!(echoed.header("x-request-id"), Some(id));
    assert_eq!(echoed.header("cache-control"), Some("max-age=0, private, must-revalidate"));
}

#[tokio::test]
async fn case_14_system_ids_are_positive_digits() {
    let server = Setup::quiet().start();
    for id in ["abc", "0", "-1", "12x", "1.5", "%20", "%FF"] {
        for list in ["system", "cached", "count"] {
            let reply = server.get(&format!("/api/v1/kills/{list}/{id}")).await;
            assert_kills_error(&reply, 400, "INVALID_SYSTEM_ID", "Invalid system ID format");
            assert_eq!(reply.json()["details"], Value::Null);
        }
    }
    let body = server.get("/api/v1/kills/count/000123").await.expect(200);
    assert_eq!(body["data"]["system_id"], 123);
    server.get("/api/v1/kills/system/99999999999999999999").await.expect(200);
}

#[tokio::test]
async fn case_15_windows_are_checked() {
    let server = Setup::quiet().start();
    for wrong in ["limit=0", "limit=1001", "limit=x", "since_hours=0", "since_hours=x", "since_hours=-1"] {
        let reply = server.get(&format!("/api/v1/kills/system/{JITA}?{wrong}")).await;
        assert_kills_error(&reply, 400, "INVALID_SYSTEM_ID", "Invalid system ID format");
    }
    server
        .get(&format!("/api/v1/kills/system/{JITA}?since_hours=99999999999999999999999&limit=1000&other=x"))
        .await
        .expect(200);
}

#[tokio::test]
async fn case_16_a_killmail_of_the_feed_is_listed() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    inject(&server, &upstream, killmail(77).value(5e6)).await;
    let body = server.get(&format!("/api/v1/kills/system/{JITA}?limit=3&since_hours=48")).await.expect(200);
    let data = &body["data"];
    let first = &data["kills"][0];
    assert_eq!((&first["killmail_id"], &first["zkb"]["totalValue"]), (&json!(77), &json!(5e6)));
    assert!(
        first["killmail_time"].is_string()
            && data["cached"].is_boolean()
            && is_iso_micros(&data["timestamp"]),
        "{body}"
    );
}

#[tokio::test]
async fn case_17_since_hours_is_a_window() {
    let server = Setup::quiet().start();
    add(&server, vec![killmail(1).ago(30 * 3600), killmail(2).ago(60)]).await;
    let listed = async |hours: u32| {
        let body = server.get(&format!("/api/v1/kills/system/{JITA}?since_hours={hours}")).await.expect(200);
        ids(&body["data"]["kills"])
    };
    assert_eq!(listed(24).await, [2]);
    assert_eq!(listed(48).await, [2, 1]);
}

#[tokio::test]
async fn case_18_the_newest_come_first() {
    let server = Setup::quiet().start();
    add(&server, (1..=5).map(|id| killmail(id).ago(600 - i64::from(id))).collect()).await;
    let body = server.get(&format!("/api/v1/kills/system/{JITA}?limit=2")).await.expect(200);
    assert_eq!(ids(&body["data"]["kills"]), [5, 4]);
    for (path, list) in [
        (format!("/api/v1/systems/{JITA}/killmails?hours=24&limit=2"), "kills"),
        ("/api/v1/characters/90000001/killmails?hours=24&limit=2".to_owned(), "kills"),
    ] {
        assert_eq!(ids(&server.get(&path).await.expect(200)[list]), [5, 4], "{path}");
    }
    assert_eq!(ids(&server.get(&format!("/api/systems/{JITA}/kills?limit=1")).await.expect(200)), [5]);
}

#[tokio::test]
async fn case_20_several_systems_at_once() {
    let server = Setup::quiet().start();
    add(&server, vec![killmail(1), killmail(2)]).await;
    let body = server
        .post("/api/v1/kills/systems", &json!({ "system_ids": [JITA, PERIMETER, -5], "limit": "1" }))
        .await
        .expect(200);
    let lists = &body["data"]["systems_kills"];
    assert_eq!(ids(&lists[JITA.to_string()]), [2]);
    assert_eq!((&lists[PERIMETER.to_string()], &lists["-5"]), (&json!([]), &json!([])));
    assert!(is_iso_micros(&body["data"]["timestamp"]));
    let bulk = json!({ "system_ids": [JITA, PERIMETER], "hours": 24, "limit_per_system": 5 });
    let body = server.post("/api/v1/systems/bulk/killmails", &bulk).await.expect(200);
    assert_eq!(ids(&body["systems"][JITA.to_string()]), [2, 1]);
}

#[tokio::test]
async fn case_21_lists_of_systems_are_checked() {
    let server = Setup::quiet().start();
    for wrong in [
        json!({}),
        json!([]),
        json!({ "system_ids": [] }),
        json!({ "system_ids": ["x"] }),
        json!({ "system_ids": 5 }),
    ] {
        let reply = server.post("/api/v1/kills/systems", &wrong).await;
        assert_kills_error(&reply, 400, "INVALID_SYSTEM_IDS", "Invalid system IDs");
    }
    for (name, value) in
        [("limit", json!(0)), ("limit", json!(1001)), ("since_hours", json!("x")), ("since_hours", json!(0))]
    {
        let reply = server.post("/api/v1/kills/systems", &json!({ "system_ids": [JITA], name: value })).await;
        assert_kills_error(&reply, 400, "INVALID_PARAMETERS", "Invalid parameters");
    }
    let large = http::request(
        Method::POST,
        &server.url("/api/v1/kills/systems"),
        &[],
        br#"{"system_ids":[18446744073709551616],"since_hours":18446744073709551616}"#.to_vec(),
    )
    .await;
    assert_eq!(large.expect(200)["data"]["systems_kills"], json!({ "18446744073709551616": [] }));
    let url = server.url("/api/v1/kills/systems");
    let broken =
        http::request(Method::POST, &url, &[("content-type", "application/json")], b"{".to_vec()).await;
    assert_eq!(broken.expect(400), json!({ "error": "Bad Request", "status": "400" }));
}

#[tokio::test]
async fn case_22_cached_lists_stored_killmails() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let path = format!("/api/v1/kills/cached/{JITA}");
    let empty = server.get(&path).await.expect(200);
    assert_eq!((&empty["data"]["kills"], &empty["data"]["cached"]), (&json!([]), &json!(true)));
    inject(&server, &upstream, killmail(9)).await;
    let body = server.get(&path).await.expect(200);
    assert_eq!((ids(&body["data"]["kills"]), &body["data"]["truncated"]), (vec![9], &json!(false)));
}

#[tokio::test]
async fn case_22_cached_says_when_there_is_more() {
    let server = Setup::quiet().config("[http]\ncached_max = 2").start();
    add(&server, (1..=3).map(killmail).collect()).await;
    let body = server.get(&format!("/api/v1/kills/cached/{JITA}")).await.expect(200);
    assert_eq!((ids(&body["data"]["kills"]), &body["data"]["truncated"]), (vec![3, 2], &json!(true)));
}

#[tokio::test]
async fn case_23_killmail_ids_are_checked() {
    let server = Setup::quiet().start();
    for id in ["x", "0", "-1", "1x"] {
        let reply = server.get(&format!("/api/v1/killmail/{id}")).await;
        assert_kills_error(&reply, 400, "INVALID_KILLMAIL_ID", "Invalid killmail ID format");
    }
    for id in ["5", "99999999999999999999"] {
        assert_kills_error(
            &server.get(&format!("/api/v1/killmail/{id}")).await,
            404,
            "NOT_FOUND",
            "Killmail not found",
        );
    }
}

#[tokio::test]
async fn case_26_counts_are_of_the_last_day() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    add(&server, vec![killmail(1).ago(25 * 3600)]).await;
    for id in 2..=4 {
        inject(&server, &upstream, killmail(id)).await;
    }
    let body = server.get(&format!("/api/v1/kills/count/{JITA}")).await.expect(200);
    let data = &body["data"];
    assert_eq!(
        (&data["system_id"], &data["count"], &data["window_hours"]),
        (&json!(JITA), &json!(3), &json!(24)),
        "{body}"
    );
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.iter().any(has_null),
        Value::Object(members) => members.values().any(has_null),
        _ => false,
    }
}

#[tokio::test]
async fn case_27_every_killmail_has_both_spellings() {
    let server = Setup::quiet().start();
    add(&server, vec![killmail(5).attackers(&[1, 2, 3]).ago(60)]).await;
    let body = server.get("/api/v1/killmail/5").await.expect(200);
    let data = &body["data"];
    assert_eq!(
        (&data["system_id"], &data["solar_system_id"], &data["attacker_count"]),
        (&json!(JITA), &json!(JITA), &json!(3))
    );
    assert_eq!(data["kill_time"], data["killmail_time"]);
    assert!(data["kill_time"].as_str().unwrap().ends_with('Z'));
    assert!(
        data.get("killID").is_none() && data.get("victim_char_id").is_none() && !has_null(data),
        "{data}"
    );
}

#[tokio::test]
async fn case_28_zkb_has_both_spellings() {
    let server = Setup::quiet().start();
    add(&server, vec![killmail(5).value(4e6), killmail(6).without_zkb()]).await;
    let body = server.get("/api/v1/killmail/5").await.expect(200);
    let (data, zkb) = (&body["data"], &body["data"]["zkb"]);
    for (camel, snake) in
        [("totalValue", "total_value"), ("droppedValue", "dropped_value"), ("fittedValue", "fitted_value")]
    {
        assert!(zkb[camel].is_number() && zkb[camel] == zkb[snake], "{zkb}");
    }
    assert!(zkb["hash"].is_string() && zkb["points"].is_u64() && zkb["labels"].is_array(), "{zkb}");
    assert!(["npc", "solo", "awox"].iter().all(|flag| zkb[flag].is_boolean()), "{zkb}");
    assert_eq!((&data["total_value"], &data["npc"]), (&zkb["total_value"], &zkb["npc"]));
    let bare = &server.get("/api/v1/killmail/6").await.expect(200)["data"]["zkb"];
    assert_eq!(
        (&bare["totalValue"], &bare["points"], &bare["solo"]),
        (&json!(0.0), &json!(0), &json!(false)),
        "{bare}"
    );
    let absent: Vec<&str> = bare["absent"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(
        ["totalValue", "points", "npc", "solo", "awox", "labels"].iter().all(|name| absent.contains(name)),
        "{bare}"
    );
}

#[tokio::test]
async fn case_29_one_final_blow_and_npcs_survive() {
    let server = Setup::quiet().start();
    let npc = |k: &mut killstream::domain::killmail::Killmail| {
        k.attackers[1].character_id = None;
        k.attackers[1].faction_id = Some(500_010);
    };
    add(&server, vec![killmail(5).attackers(&[1, 2, 3]).with(npc)]).await;
    let body = server.get("/api/v1/killmail/5").await.expect(200);
    let attackers = body["data"]["attackers"].as_array().unwrap();
    assert_eq!(attackers.iter().filter(|a| a["final_blow"] == json!(true)).count(), 1);
    assert!(attackers[1].get("character_id").is_none());
    assert_eq!(attackers[1]["faction_id"], 500_010);
}

#[tokio::test]
async fn case_30_a_structure_is_a_victim() {
    let server = Setup::quiet().start();
    add(&server, vec![killmail(5).structure()]).await;
    let victim = &server.get("/api/v1/killmail/5").await.expect(200)["data"]["victim"];
    assert!(victim.get("character_id").is_none(), "{victim}");
    assert_eq!(victim["ship_type_id"], 35_832);
}

#[tokio::test]
async fn case_32_items_and_position_come_back() {
    let server = Setup::quiet().start();
    let item = |id: u64| killstream::domain::killmail::Item {
        item_type_id: id,
        flag: 5,
        quantity_dropped: Some(2),
        ..Default::default()
    };
    let build = killmail(5).with(|k| {
        k.victim.items = Some(vec![
            killstream::domain::killmail::Item { items: Some(vec![item(34)]), ..item(3293) },
            item(2488),
        ]);
    });
    let source = without_nulls(esi(&build.clone().build()));
    add(&server, vec![build]).await;
    let victim = &server.get("/api/v1/killmail/5").await.expect(200)["data"]["victim"];
    assert_eq!(
        (&victim["items"], &victim["position"]),
        (&source["victim"]["items"], &source["victim"]["position"])
    );
}
