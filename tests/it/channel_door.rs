//! The numbered acceptance cases of channels: the door itself, life signs, limits, ends.
//!
//! Must not know: what is said on a channel.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::channel::{Channel, LOBBY};
use crate::support::http;
use crate::support::killmail::{SYSTEMS, killmail};
use crate::support::server::{Server, Setup};
use crate::support::until;
use crate::support::upstream::Upstream;

const JITA: u32 = SYSTEMS[0];
/// The waits of channels at a tenth.
const QUICK: &str = "[channels]\nping_ms = 2_500\nidle_ms = 6_000\ngoodbye_ms = 500";

#[tokio::test]
async fn case_6_the_door_tells_where_it_is() {
    let server = Setup::quiet().start();
    let about = server.get("/websocket").await.expect(200);
    assert_eq!((&about["channels"]["killmails"], &about["version"]), (&json!(LOBBY), &json!("2.0.0")));
    assert_eq!(about["websocket_url"], format!("ws://{}/socket", server.address()));
    let limits = &about["limits"];
    assert_eq!((&limits["max_systems_per_subscription"], &limits["timeout_seconds"]), (&json!(10_000), &json!(60)));
    let headers = [("x-forwarded-proto", "https"), ("host", "kills.example.org:443")];
    let reply = http::request(reqwest::Method::GET, &server.url("/websocket"), &headers, Vec::new()).await;
    assert_eq!(reply.expect(200)["websocket_url"], "wss://kills.example.org/socket");
}

#[tokio::test]
async fn case_7_the_status_counts_who_is_in() {
    let server = Setup::quiet().start();
    let status = async || server.get("/websocket/status").await.expect(200);
    assert_eq!((&status().await["status"], &status().await["active_connections"]), (&json!("operational"), &json!(0)));
    let mut one = Channel::v2(server.address()).await;
    let two = Channel::v1(server.address()).await;
    one.join(json!({ "systems": [JITA] })).await;
    let told = until("both to be counted", async || Some(status().await).filter(|told| told["active_connections"] == 2)).await;
    assert_eq!(told["active_subscriptions"], 1);
    assert!(told["uptime_seconds"].is_u64() && told["timestamp"].is_string());
    let numbers = server.get("/status").await.expect(200)["metrics"]["websocket"].clone();
    assert_eq!((&numbers["connections"]["active"], &numbers["subscriptions"]["active"]), (&json!(2), &json!(1)));
    assert_eq!(numbers["subscriptions"]["total_systems"], 1);
    drop(two);
    until("one to be gone", async || (status().await["active_connections"] == 1).then_some(())).await;
    let text = server.get("/metrics/prometheus").await.text();
    assert!(text.contains("killstream_channels_connections 1\n"), "{text}");
}

#[tokio::test]
async fn case_44_pings_are_life_and_silence_is_not() {
    let server = Setup::quiet().config("[channels]\nping_ms = 600_000\nidle_ms = 2_000").start();
    let mut pinging = Channel::v2(server.address()).await;
    let mut silent = Channel::v2(server.address()).await;
    // Five times as long as the server waits.
    let began = Instant::now();
    let mut pongs = 0;
    while began.elapsed() < Duration::from_secs(10) {
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
    let server = Setup::quiet().config("[channels]\nping_ms = 300\nidle_ms = 2_000").start();
    let mut client = Channel::v2(server.address()).await;
    let began = Instant::now();
    let mut pings = 0;
    // Reading answers pings; nothing else is sent.
    while began.elapsed() < Duration::from_secs(6) {
        pings += u32::from(matches!(client.message_within(Duration::from_secs(1)).await, Some(Message::Ping(_))));
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
    let server = Setup::quiet().config("[channels]\norigins = ['https://map.example.org', '*.example.net']").start();
    for (origin, welcome) in [("https://map.example.org", true), ("http://a.example.net:81", true), ("http://localhost", false)] {
        let entered = Channel::try_open(server.address(), "/socket/websocket?vsn=2.0.0", &[("origin", origin)]).await;
        assert_eq!(entered.err(), (!welcome).then_some(403), "{origin}");
    }
    assert!(Channel::try_open(server.address(), "/socket", &[]).await.is_ok(), "a program has no origin");
}

#[tokio::test]
async fn connections_end_at_their_limits_and_slots_come_back() {
    let server = Setup::quiet().config("[channels]\nmax_connections = 3\nmax_connections_per_address = 2").start();
    let one = Channel::v2(server.address()).await;
    let two = Channel::v2(server.address()).await;
    let refused = Channel::try_open(server.address(), "/socket/websocket", &[]).await.unwrap_err();
    assert_eq!(refused, 503);
    drop((one, two));
    until("a slot to be free", async || Channel::try_open(server.address(), "/socket", &[]).await.ok()).await;
    let text = server.get("/metrics/prometheus").await.text();
    let refused = text.lines().find_map(|line| line.strip_prefix("killstream_channels_refused_total ")).unwrap();
    assert!(refused.parse::<u64>().unwrap() >= 1);
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
async fn case_81_many_sockets_lose_and_double_nothing() {
    const SOCKETS: usize = 40;
    const KILLMAILS: u32 = 60;
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let mut clients = Vec::new();
    for n in 0..SOCKETS {
        // Each wants its own half of the systems, and 500 others where nothing happens.
        let mut systems: Vec<u32> = (31_000_006..31_000_506).collect();
        systems.extend(SYSTEMS.iter().enumerate().filter(|(at, _)| (at + n) % 2 == 0).map(|(_, system)| *system));
        let mut client = if n % 2 == 0 { Channel::v2(server.address()).await } else { Channel::v1(server.address()).await };
        let payload = json!({ "systems": systems, "preload": false });
        let join = if n % 2 == 0 {
            json!(["1", "1", LOBBY, "phx_join", payload])
        } else {
            json!({ "topic": LOBBY, "event": "phx_join", "payload": payload, "ref": "1" })
        };
        client.ask(join).await;
        clients.push((client, systems));
    }
    let place = |n: u32| SYSTEMS[n as usize % SYSTEMS.len()];
    for n in 0..KILLMAILS {
        upstream.publish(killmail(1000 + n).system(place(n)));
    }
    for (n, (client, systems)) in clients.iter_mut().enumerate() {
        let wanted: Vec<u64> = (0..KILLMAILS).filter(|n| systems.contains(&place(*n))).map(|n| u64::from(1000 + n)).collect();
        let mut got = client.live(wanted.len()).await;
        got.extend(client.killmails_until_quiet(Duration::from_millis(50)).await);
        assert_eq!(got, wanted, "socket {n}");
    }
}

#[tokio::test]
async fn a_plugin_judges_what_a_channel_gets() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let component = include_bytes!("../../plugins/prebuilt/high-value.wasm");
    let mut client = Channel::v2(server.address()).await;
    let join =
        |config: Value| json!(["1", "1", LOBBY, "phx_join", { "systems": [JITA], "plugins": [{ "name": "judge", "config": config }] }]);
    let reply = client.ask(join(json!({}))).await;
    let reason = reply[4]["response"]["reason"].as_str().unwrap().to_owned();
    assert!(reply[4]["status"] == "error" && reason.starts_with("[validation:invalid_plugin] there is no plugin"), "{reason}");
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
