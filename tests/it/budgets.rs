//! Limits on what clients can make the server keep in memory: JSON with very many members, filters with very
//! many ids, responses that nobody reads. Also what history reports when plugin faults hide killmails.
//!
//! Must not know: how any of it is stored inside.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::guests;
use crate::support::channel::Channel;
use crate::support::dice::Dice;
use crate::support::http::{self, Reply};
use crate::support::killmail::{began, esi, giant, killmail};
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::until;

const MIB: u64 = 1 << 20;

/// The peak resident memory of the server, bytes.
fn peak_memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

async fn post(server: &Server, path: &str, body: String) -> Reply {
    let token = format!("Bearer {}", crate::support::server::TOKEN);
    let headers = [("content-type", "application/json"), ("authorization", token.as_str())];
    http::request(Method::POST, &server.url(path), &headers, body.into_bytes()).await
}

#[tokio::test]
async fn unknown_members_of_a_body_take_no_memory() {
    let server = Setup::quiet().start();
    let junk = |bytes: usize| "{\"a\":1},".repeat(bytes / 8);
    // A first request, since it takes memory that later ones do not.
    let body = format!("{{\"system_ids\":[30000142],\"junk\":[{}0]}}", junk(1000));
    post(&server, "/api/v1/kills/systems", body).await.expect(200);
    let before = peak_memory(&server);
    let body = format!("{{\"system_ids\":[30000142],\"junk\":[{}0]}}", junk(4 << 20));
    post(&server, "/api/v1/kills/systems", body.clone()).await.expect(200);
    let unknown = post(&server, "/api/v1/killmails/search", body.clone()).await.expect(400);
    assert_eq!(unknown["error"], "Unknown parameter: junk");
    post(&server, "/api/v1/tokens", body.clone()).await.expect(400);
    post(&server, "/api/v1/plugins/none/promote", body).await.expect(400);
    let mut client = Channel::v2(server.address()).await;
    let part = json!({ "a": 1 });
    let joined = client.join(json!({ "systems": [30_000_142], "junk": vec![part; 100_000] })).await;
    assert!(joined["subscription_id"].is_string(), "{joined}");
    let grown = peak_memory(&server).saturating_sub(before);
    assert!(grown < 24 * MIB, "{grown} bytes for a body of 4 MiB");
}

#[tokio::test]
async fn nesting_has_a_limit() {
    let server = Setup::quiet().start();
    let nested = |levels: usize| {
        format!("{{\"system_ids\":[30000142],\"more\":{}{}}}", "[".repeat(levels), "]".repeat(levels))
    };
    post(&server, "/api/v1/kills/systems", nested(63)).await.expect(200);
    for path in ["/api/v1/kills/systems", "/api/v1/killmails/search", "/api/v1/killmails/count"] {
        let refused = post(&server, path, nested(200)).await.expect(400);
        assert_eq!(refused["details"]["field"], "body", "{path}: {refused}");
    }
    let mut client = Channel::v2(server.address()).await;
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    client.send(json!(["1", "1", "killmails:lobby", "phx_join", { "systems": [1], "deep": deep }])).await;
    let answer = client.frame().await;
    assert!(answer.to_string().contains("64 levels deep"), "{answer}");
}

/// A filter of this many systems.
fn systems(first: u32, count: u32) -> Value {
    json!({ "system_ids": (first..first + count).collect::<Vec<u32>>() })
}

#[tokio::test]
async fn all_filters_together_have_a_limit_and_equal_ones_count_once() {
    let server = Setup::quiet().config("[feed]\nfilters_max_bytes = 200000").start();
    let open = async |wanted: Value| Sse::post(server.address(), "/api/v1/kills/stream", &wanted).await;
    let first = open(systems(30_000_000, 5_000)).await;
    let (one, equal) = (first.status, open(systems(30_000_000, 5_000)).await);
    assert_eq!((one, equal.status), (200, 200));
    let filters = server.get("/status").await.expect(200)["metrics"]["filters"].clone();
    assert!(
        filters["bytes"].as_u64().is_some_and(|bytes| (5_000 * 4..200_000).contains(&bytes)),
        "{filters}"
    );
    let refused = server.post("/api/v1/kills/stream", &systems(30_001_000, 5_000)).await;
    let error = refused.expect(503)["error"].clone();
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("feed.filters_max_bytes") && text.contains("200000")),
        "{error}"
    );
    assert!(refused.header("retry-after").is_some());

    let mut client = Channel::v2(server.address()).await;
    let few: Vec<u32> = (1..50).collect();
    assert!(client.join(json!({ "systems": few, "preload": false })).await["subscription_id"].is_string());
    let many: Vec<u32> = (1000..3000).collect();
    let (status, response) =
        client.say("subscribe_systems", json!({ "systems": many, "preload": false })).await;
    assert_eq!(status, "error", "{response}");
    assert!(
        response["reason"].as_str().is_some_and(|text| text.contains("feed.filters_max_bytes")),
        "{response}"
    );
    let mut other = Channel::v2(server.address()).await;
    let answer = other
        .ask(json!(["1", "1", "killmails:lobby", "phx_join", { "systems": many, "preload": false }]))
        .await;
    assert_eq!(answer[4]["status"], "error", "{answer}");
    assert!(
        answer[4]["response"]["reason"].as_str().is_some_and(|text| text.contains("feed.filters_max_bytes")),
        "{answer}"
    );

    drop((first, equal));
    until("room for the filter", async || {
        (open(systems(30_001_000, 5_000)).await.status == 200).then_some(())
    })
    .await;
    let metrics = server.get("/metrics/prometheus").await.text();
    assert!(
        metrics.contains("killstream_feed_filters_bytes")
            && metrics.contains("killstream_feed_filters_refused_total")
    );
}

/// Sends a request and never reads the response.
async fn send_without_reading(server: &Server, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(server.address()).await.unwrap();
    socket.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn a_response_nobody_reads_is_not_written() {
    let server = Setup::quiet().start();
    let mut dice = Dice::new(5);
    let giants: Vec<Value> = (1..=10).map(|id| esi(&giant(&mut dice, id, began()))).collect();
    for giants in giants.chunks(5) {
        post(&server, "/api/v1/killmails", json!(giants).to_string()).await.expect(200);
    }
    let path = "/api/v1/killmails?limit=1000";
    let whole = server.get(path).await;
    let length = whole.body.len() as u64;
    assert!(length > 5 * MIB);
    let body = whole.expect(200);
    let ids: Vec<u64> = body["data"]["killmails"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["killmail_id"].as_u64())
        .collect();
    assert_eq!(ids, (1..=10).rev().collect::<Vec<u64>>());
    assert_eq!((&body["data"]["count"], &body["data"]["complete"]), (&json!(10), &json!(true)));
    assert!(body["timestamp"].is_string() && body["data"]["filter"].is_object());

    let before = peak_memory(&server);
    let mut sockets = Vec::new();
    for _ in 0..30 {
        sockets.push(send_without_reading(&server, path).await);
    }
    // Clients that read are served meanwhile, and by then the server has handled all of the others.
    for _ in 0..3 {
        server.get(path).await.expect(200);
    }
    let grown = peak_memory(&server).saturating_sub(before);
    assert!(grown < 30 * length / 3, "{grown} bytes for 30 responses of {length} bytes that nobody reads");
}

#[tokio::test]
async fn a_page_written_in_portions_is_the_same_page() {
    let server = Setup::quiet().start();
    let all: Vec<Value> = (1..=600).map(|id| killmail(id).system(30_000_142).esi()).collect();
    post(&server, "/api/v1/killmails", json!(all).to_string()).await.expect(200);
    let long = server.get("/api/v1/killmails?limit=500&order=oldest").await;
    assert_eq!(long.header("content-length"), None);
    let body = long.expect(200);
    let ids = |list: &Value| {
        list.as_array().unwrap().iter().filter_map(|one| one["killmail_id"].as_u64()).collect::<Vec<u64>>()
    };
    assert_eq!(ids(&body["data"]["killmails"]), (1..=500).collect::<Vec<u64>>());
    let next = body["data"]["next_cursor"].as_str().unwrap();
    let rest = server.get(&format!("/api/v1/killmails?limit=500&order=oldest&cursor={next}")).await;
    let body = rest.expect(200);
    assert_eq!(ids(&body["data"]["killmails"]), (501..=600).collect::<Vec<u64>>());
    assert_eq!(body["data"]["next_cursor"], Value::Null);
    let plain = [("accept-encoding", "identity")];
    let short =
        http::request(Method::GET, &server.url("/api/v1/killmails?limit=3"), &plain, Vec::new()).await;
    assert!(short.header("content-length").is_some(), "a short response has a length");
    let several = json!({ "system_ids": [30_000_142, 5, -1], "limit": 1000, "since_hours": 1_000_000 });
    let body = server.post("/api/v1/kills/systems", &several).await.expect(200);
    let kills = &body["data"]["systems_kills"];
    assert_eq!((ids(&kills["30000142"]).len(), &kills["5"], &kills["-1"]), (600, &json!([]), &json!([])));
    let several = json!({ "system_ids": [30_000_142], "hours": 1_000_000 });
    let body = server.post("/api/v1/systems/bulk/killmails", &several).await.expect(200);
    assert_eq!(ids(&body["systems"]["30000142"]).len(), 50);
}

#[tokio::test]
async fn history_reports_what_plugin_faults_hide() {
    // The plugin is used several times and must not be put to rest in between.
    let server = Setup::quiet().config("[plugin]\nrest_faults = 0").start();
    // Traps on every third killmail, keeps the others.
    let trapping =
        "(if (i64.eqz (i64.rem_u (local.get $id) (i64.const 3))) (then unreachable)) (i32.const 64)";
    server.upload("trapping", &guests::evaluating(trapping)).await;
    server.upload("good", &guests::evaluating(guests::KEEP)).await;
    let all: Vec<Value> = (1..=9).map(|id| killmail(id).esi()).collect();
    post(&server, "/api/v1/killmails", json!(all).to_string()).await.expect(200);
    let history = async |query: &str| {
        server.get(&format!("/api/v1/killmails?{query}")).await.expect(200)["data"].clone()
    };
    let data = history("plugin=trapping").await;
    assert_eq!(
        (&data["count"], &data["complete"], &data["faults"]),
        (&json!(6), &json!(false), &json!({ "trap": 3 })),
        "{data}"
    );
    let example = data["fault_example"].as_str().unwrap();
    assert!(
        example.starts_with("plugin trapping failed on killmail 9: trap: wasm trap: wasm `unreachable`"),
        "{example}"
    );
    assert_eq!(data["next_cursor"], Value::Null);
    let data = history("plugin=trapping&limit=1&order=oldest").await;
    assert_eq!(
        (&data["complete"], &data["faults"], &data["fault_example"]),
        (&json!(true), &json!({}), &Value::Null),
        "no killmail was hidden yet"
    );
    let data = history("plugin=good").await;
    assert_eq!(
        (&data["count"], &data["complete"], &data["faults"]),
        (&json!(9), &json!(true), &json!({})),
        "{data}"
    );
    let data = history("").await;
    assert!(data.get("faults").is_none() && data["complete"] == json!(true), "{data}");
    let output = server
        .setup()
        .command("query")
        .args(["--server", &server.url(""), "plugin=trapping"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 6);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("failed on 3 killmails (3 trap)"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
