//! The numbered acceptance cases of channels (docs/cases.md): the door itself, life signs, limits, ends.
//!
//! Must not know: what is said on a channel.

use std::time::{Duration, Instant};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::guests;
use crate::support::channel::{Channel, LOBBY};
use crate::support::killmail::{SYSTEMS, killmail};
use crate::support::server::{Server, Setup};
use crate::support::socket::masked;
use crate::support::upstream::Upstream;
use crate::support::{http, until};

const JITA: u32 = SYSTEMS[0];
/// The waits of channels shorter, but for goodbyes.
const QUICK: &str = "[channels]\nping_ms = 2_500\nidle_ms = 20_000\ngoodbye_ms = 5_000";

#[tokio::test]
async fn case_6_the_door_tells_where_it_is() {
    let server = Setup::quiet().start();
    let about = server.get("/websocket").await.expect(200);
    assert_eq!((&about["channels"]["killmails"], &about["version"]), (&json!(LOBBY), &json!("2.0.0")));
    assert_eq!(about["websocket_url"], format!("ws://{}/socket", server.address()));
    let limits = &about["limits"];
    assert_eq!(
        (&limits["max_systems_per_subscription"], &limits["timeout_seconds"]),
        (&json!(10_000), &json!(60))
    );
    let headers = [("x-forwarded-proto", "https"), ("host", "kills.example.org:443")];
    let reply = http::request(reqwest::Method::GET, &server.url("/websocket"), &headers, Vec::new()).await;
    assert_eq!(reply.expect(200)["websocket_url"], "wss://kills.example.org/socket");
}

#[tokio::test]
async fn case_7_the_status_counts_who_is_in() {
    let server = Setup::quiet().start();
    let status = async || server.get("/websocket/status").await.expect(200);
    assert_eq!(
        (&status().await["status"], &status().await["active_connections"]),
        (&json!("operational"), &json!(0))
    );
    let mut one = Channel::v2(server.address()).await;
    let two = Channel::v1(server.address()).await;
    one.join(json!({ "systems": [JITA] })).await;
    let told = until("both to be counted", async || {
        Some(status().await).filter(|told| told["active_connections"] == 2)
    })
    .await;
    assert_eq!(told["active_subscriptions"], 1);
    assert!(told["uptime_seconds"].is_u64() && told["timestamp"].is_string());
    let refused = server.send(reqwest::Method::DELETE, "/websocket/status", "").await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (405, &json!("Method Not Allowed")));
    let numbers = server.get("/status").await.expect(200)["metrics"]["websocket"].clone();
    assert_eq!(
        (&numbers["connections"]["active"], &numbers["subscriptions"]["active"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(numbers["subscriptions"]["total_systems"], 1);
    drop(two);
    until("one to be gone", async || (status().await["active_connections"] == 1).then_some(())).await;
    let text = server.get("/metrics/prometheus").await.text();
    assert!(text.contains("killstream_channels_connections 1\n"), "{text}");
}

#[tokio::test]
async fn case_44_pings_are_life_and_silence_is_not() {
    let server = Setup::quiet().config("[channels]\nping_ms = 600_000\nidle_ms = 6_000").start();
    let mut pinging = Channel::v2(server.address()).await;
    let mut silent = Channel::v2(server.address()).await;
    // Twice as long as the server waits.
    let began = Instant::now();
    let mut pongs = 0;
    while began.elapsed() < Duration::from_secs(13) {
        pinging.message(Message::Ping(vec![7].into())).await;
        let answer = pinging.message_within(Duration::from_secs(1)).await;
        pongs += u32::from(matches!(answer, Some(Message::Pong(payload)) if payload[..] == [7]));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(pinging.closed, None, "after {:?}", began.elapsed());
    }
    assert!(pongs > 3);
    pinging.join(json!({ "systems": [JITA] })).await;
    assert_eq!(silent.goodbye().await, 1000);
}

#[tokio::test]
async fn a_server_pings_and_pongs_are_life() {
    let server = Setup::quiet().config("[channels]\nping_ms = 300\nidle_ms = 6_000").start();
    let mut client = Channel::v2(server.address()).await;
    let began = Instant::now();
    let mut pings = 0;
    // Reading answers pings; nothing else is sent.
    while began.elapsed() < Duration::from_secs(13) {
        pings +=
            u32::from(matches!(client.message_within(Duration::from_secs(1)).await, Some(Message::Ping(_))));
        assert_eq!(client.closed, None);
    }
    assert!(pings >= 5, "{pings}");
    client.join(json!({})).await;
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_with_1009() {
    let server = Setup::quiet().config(QUICK).start();
    let mut client = Channel::v2(server.address()).await;
    let frame = |length: usize| {
        let frame = json!(["1", "1", LOBBY, "phx_join", { "systems": [JITA], "more": "" }]).to_string();
        frame.replace("\"more\":\"\"", &format!("\"more\":\"{}\"", "x".repeat(length - frame.len())))
    };
    client.message(Message::text(frame(1 << 20))).await;
    assert_eq!(client.frame().await[4]["status"], "ok", "the limit itself is within it");
    client.message(Message::text(frame((1 << 20) + 1))).await;
    assert_eq!(client.goodbye().await, 1009);
}

#[tokio::test]
async fn origins_are_kept_out_where_they_are_named() {
    let open = Setup::quiet().start();
    let localhost = [("origin", "http://localhost")];
    assert!(Channel::try_open(open.address(), "/socket/websocket", &localhost).await.is_ok());
    let server =
        Setup::quiet().config("[channels]\norigins = ['https://map.example.org', '*.example.net']").start();
    for (origin, welcome) in
        [("https://map.example.org", true), ("http://a.example.net:81", true), ("http://localhost", false)]
    {
        let entered =
            Channel::try_open(server.address(), "/socket/websocket?vsn=2.0.0", &[("origin", origin)]).await;
        assert_eq!(entered.err(), (!welcome).then_some(403), "{origin}");
    }
    assert!(Channel::try_open(server.address(), "/socket", &[]).await.is_ok(), "a program has no origin");
}

#[tokio::test]
async fn connections_end_at_their_limits_and_slots_come_back() {
    let server =
        Setup::quiet().config("[channels]\nmax_connections = 3\nmax_connections_per_address = 2").start();
    let one = Channel::v2(server.address()).await;
    let two = Channel::v2(server.address()).await;
    let refused = Channel::try_open(server.address(), "/socket/websocket", &[]).await.unwrap_err();
    assert_eq!(refused, 503);
    drop((one, two));
    until("a slot to be free", async || Channel::try_open(server.address(), "/socket", &[]).await.ok()).await;
    let text = server.get("/metrics/prometheus").await.text();
    let refused =
        text.lines().find_map(|line| line.strip_prefix("killstream_channels_refused_total ")).unwrap();
    assert!(refused.parse::<u64>().unwrap() >= 1);
}

/// The first byte and the payload of the next frame of a server.
async fn unmasked(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let first = socket.read_u8().await.unwrap();
    let length = match socket.read_u8().await.unwrap() {
        126 => socket.read_u16().await.unwrap().into(),
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

#[tokio::test]
async fn messages_are_deflated_where_both_agree() {
    const DEFLATED_TEXT: u8 = 0b1100_0001;
    let server = Setup::quiet().start();
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nhost: {}\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
        server.address()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    assert!(
        answer.starts_with("http/1.1 101 ")
            && answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{answer}"
    );
    assert!(answer.contains("sec-websocket-extensions: permessage-deflate;"), "{answer}");
    let systems: Vec<u32> = (30_000_001..30_000_301).collect();
    let join = json!(["1", "1", LOBBY, "phx_join", { "systems": systems, "preload": false }]).to_string();
    let mut deflated = vec![0; 4096];
    let mut deflate = Compress::new(Compression::fast(), false);
    deflate.compress(join.as_bytes(), &mut deflated, FlushCompress::Sync).unwrap();
    let length = usize::try_from(deflate.total_out()).unwrap();
    // The empty block at the end of each message is left out on the wire.
    let body = deflated[..length].strip_suffix(&[0, 0, 0xff, 0xff]).unwrap();
    socket.write_all(&masked(DEFLATED_TEXT, body)).await.unwrap();
    let (first, mut body) = unmasked(&mut socket).await;
    assert_eq!(first, DEFLATED_TEXT);
    body.extend([0, 0, 0xff, 0xff]);
    let mut text = vec![0; 8192];
    let mut inflate = Decompress::new(false);
    inflate.decompress(&body, &mut text, FlushDecompress::Sync).unwrap();
    text.truncate(usize::try_from(inflate.total_out()).unwrap());
    let reply: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(reply[4]["response"]["subscribed_systems"], json!(systems));
    socket.write_all(&masked(0b1000_0001, br#"[null,"7","phoenix","heartbeat",{}]"#)).await.unwrap();
    assert_eq!(unmasked(&mut socket).await.0, 0b1000_0001, "what is small is left as it is");
}

#[tokio::test]
async fn heartbeats_do_not_wait_for_a_slow_plugin() {
    const ENDLESS: &str =
        "(if (i64.eq (local.get $id) (i64.const 1)) (then (loop $on (br $on)))) (i32.const 64)";
    let upstream = Upstream::start();
    let server = Setup::following(&upstream)
        .config("[plugin]\nevaluate_cpu_ms = 8_000\ncall_wall_ms = 60_000")
        .start();
    server.upload("slow", &guests::evaluating(ENDLESS)).await;
    let mut client = Channel::v2(server.address()).await;
    let plugins = json!([{ "name": "slow" }]);
    let reply = client
        .ask(
            json!(["1", "1", LOBBY, "phx_join", { "systems": [JITA], "plugins": plugins, "preload": false }]),
        )
        .await;
    assert_eq!(reply[4]["status"], "ok", "{reply}");
    upstream.wait_fetched(upstream.publish(killmail(1))).await;
    let faults = async || {
        let data = server.get("/api/v1/plugins/slow").await.expect(200)["data"].clone();
        data["faults"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>()
    };
    for n in 0..20 {
        let beat = client.ask(json!([null, n.to_string(), "phoenix", "heartbeat", {}])).await;
        assert_eq!(beat[1], n.to_string());
    }
    assert_eq!(faults().await, 0, "the plugin is still at work");
    until("the plugin to be stopped", async || (faults().await > 0).then_some(())).await;
    assert_eq!(client.say("get_status", json!({})).await.0, "ok");
}

#[tokio::test]
async fn topics_have_a_limit() {
    let server = Setup::quiet().config("[channels]\ntopics_max = 2\nchannel_ids_max = 3").start();
    let mut client = Channel::v2(server.address()).await;
    client.join(json!({ "systems": [1, 2, 3] })).await;
    client.ask(json!(["2", "2", "killmails:all", "phx_join", {}])).await;
    let reply = client.ask(json!(["3", "3", "killmails:system:5", "phx_join", {}])).await;
    assert_eq!(reply[4]["response"]["reason"], "too many topics on one connection (max: 2)");
    let (status, response) = client.say("subscribe_systems", json!({ "systems": [4] })).await;
    let reason = "[validation:too_many_systems] Too many systems (max: 3)";
    assert_eq!((status.as_str(), &response["reason"]), ("error", &json!(reason)));
}

#[tokio::test]
async fn a_plugin_judges_what_a_channel_gets() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let component = include_bytes!("../../plugins/prebuilt/high-value.wasm");
    let mut client = Channel::v2(server.address()).await;
    let join = |config: Value| json!(["1", "1", LOBBY, "phx_join", { "systems": [JITA], "plugins": [{ "name": "judge", "config": config }] }]);
    let reply = client.ask(join(json!({}))).await;
    let reason = reply[4]["response"]["reason"].as_str().unwrap().to_owned();
    assert!(
        reply[4]["status"] == "error" && reason.starts_with("[validation:invalid_plugin] there is no plugin"),
        "{reason}"
    );
    server.upload("judge", component).await;
    let reply = client.ask(join(json!({ "min_isk": "x" }))).await;
    let reason = reply[4]["response"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("[validation:invalid_plugin_config] "), "{reason}");
    let reply = client.ask(join(json!({ "min_isk": 5e9 }))).await;
    assert_eq!(reply[4]["status"], "ok", "{reply}");
    upstream.publish(killmail(1).value(1e6));
    upstream.publish(killmail(2).value(9e9));
    let update = client.event("killmail_update").await;
    assert_eq!(update["killmails"][0]["killmail_id"], 2);
    assert!(update["killmails"][0]["enriched"]["judge"].is_object(), "{update}");
    // Without its plugin the channel is over, and says so.
    server.send(reqwest::Method::DELETE, "/api/v1/plugins/judge", "").await.expect(200);
    let end = loop {
        let frame = client.frame().await;
        if frame[3] == "phx_error" {
            break frame;
        }
    };
    assert_eq!((&end[0], &end[1], &end[4]["reason"]), (&json!("1"), &json!("1"), &json!("plugin_gone")));
}
