//! What guests take together, as strangers meet it who each bring a configuration of their own.
//!
//! Must not know: how any of it is counted.

use serde_json::json;

use crate::guests::{self, Text};
use crate::limits;
use crate::support::channel::Channel;
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;

/// With the four pages it begins with, a guest has 24 MiB.
const GROWS: &str = "(drop (memory.grow (i32.const 380))) (i32.const 0)";
/// `err` with 4,000,000 bytes from 65,536 on, nearly all of them 0.
const REFUSES: &str = "(drop (memory.grow (i32.const 70))) (i32.const 128)";
const WHY: &str = r#"(data (i32.const 128) "\01\00\00\00\00\00\00\00\00\00\01\00\00\09\3d\00") (data (i32.const 65536) "no \1b[31msuch\0athing")"#;

#[tokio::test]
async fn who_comes_when_guests_have_all_their_memory_is_told_to_come_later() {
    let server = Setup::quiet()
        .config("trusted_proxies = [\"127.0.0.0/8\"]\n[plugin]\nguests_memory_bytes = 67108864")
        .start();
    server.upload("grows", &guests::guest(&Text { configure: GROWS, ..Text::default() })).await;
    let asked = |n: u32| format!("plugin=grows&plugin_config=%7B%22n%22:{n}%7D");
    let path = |n: u32| format!("/api/v1/kills/stream?system_ids=30000142&{}", asked(n));
    let from = |n: u32| format!("198.51.100.{n}");
    let one = limits::open(&server, &path(1), &from(1)).await;
    assert_eq!(one.status, 200);

    let refused = limits::get(&server, &path(2), &from(1)).await;
    assert!(refused.header("retry-after").is_some());
    let message = refused.expect(503)["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("33554432")
            && message.contains("from this address")
            && message.contains("half of plugin."),
        "{message}"
    );
    let two = limits::open(&server, &path(2), &from(2)).await;
    assert_eq!(two.status, 200, "another address has its own half");

    let told = server.get("/status").await.expect(200)["metrics"]["plugins"].clone();
    assert!(told["bytes"].as_u64().is_some_and(|bytes| (48 << 20..64 << 20).contains(&bytes)), "{told}");
    assert_eq!(told["waiting"]["pages"], json!({ "live": 0, "history": 0, "held": 0 }), "{told}");
    assert_eq!(told["waiting"]["configurations"], 0, "{told}");
    assert!(told["resting"] == 0 && told["compile_large_memory_bytes"].is_u64(), "{told}");
    assert_eq!(
        (&told["max_bytes"], &told["evaluators"]["small"]["kept"]),
        (&(64 << 20).into(), &2.into()),
        "{told}"
    );
    assert!(told["component_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{told}");
    assert_eq!(told["scripting"], json!({ "bytes": 0, "max_bytes": 48 << 20, "refused_total": 0 }));

    let refused = limits::get(&server, &path(3), &from(3)).await;
    assert!(refused.header("retry-after").is_some());
    let message = refused.expect(503)["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("(plugin.guests_memory_bytes)") && message.contains("67108864"), "{message}");
    let history = limits::get(&server, &format!("/api/v1/killmails?{}", asked(3)), &from(3)).await;
    assert!(history.header("retry-after").is_some());
    assert_eq!(history.expect(503)["details"]["limit"], 64 << 20);

    drop(one);
    let shared = limits::open(&server, &path(2), &from(3)).await;
    assert_eq!(shared.status, 200, "the pair that is there is shared");
    let metrics = server.get("/metrics/prometheus").await.text();
    for line in [
        "killstream_plugin_memory_max_bytes 67108864",
        "killstream_plugin_memory_scripting_max_bytes 50331648",
        "killstream_plugin_uploads_waiting{lane=\"small scan\"} 0",
        "killstream_plugin_pages_waiting{of=\"live\"} 0",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn a_refusal_of_four_megabytes_is_answered_in_one_line() {
    let server = Setup::quiet().start();
    server
        .upload("refuses", &guests::guest(&Text { head: WHY, configure: REFUSES, ..Text::default() }))
        .await;
    let refused = server.get("/api/v1/killmails?limit=1&plugin=refuses&plugin_config=%7B%22n%22:1%7D").await;
    let text = refused.text();
    assert!(text.len() < 1_024 && text.contains("no [31msuch thing"), "{} bytes: {:.200}", text.len(), text);
}

/// The status of each way to ask with a configuration of this size, and the refusals' messages.
async fn ask_with_config(server: &Server, bytes: usize) -> ([u16; 3], Vec<String>) {
    let config = json!({ "a": "x".repeat(bytes - r#"{"a":""}"#.len()) });
    let body = json!({ "plugin": "mine", "plugin_config": config });
    let history = server.post("/api/v1/killmails/search", &body).await;
    let stream = Sse::post(server.address(), "/api/v1/kills/stream", &body).await;
    let mut client = Channel::v2(server.address()).await;
    let joined = client.ask(json!(["1", "1", "killmails:lobby", "phx_join", body])).await;
    let is_joined = joined[4]["status"] == "ok";
    let status = [history.status.as_u16(), stream.status, if is_joined { 200 } else { 400 }];
    let mut messages = Vec::new();
    if history.status != 200 {
        messages.push(history.json()["error"].as_str().unwrap().to_owned());
    }
    if !is_joined {
        messages.push(joined[4]["response"]["reason"].as_str().unwrap().to_owned());
    }
    (status, messages)
}

#[tokio::test]
async fn a_configuration_may_be_as_long_as_the_setting_says() {
    for (setting, limit) in [(None, 8_192), (Some(100_000), 100_000), (Some(100), 100)] {
        let lines = setting.map_or_else(String::new, |bytes| format!("[plugin]\nconfig_bytes = {bytes}"));
        let server = Setup::quiet().config(&lines).start();
        server.upload("mine", &guests::evaluating(guests::KEEP)).await;
        assert_eq!(ask_with_config(&server, limit).await, ([200; 3], Vec::new()), "{limit}");
        let (status, messages) = ask_with_config(&server, limit + 1).await;
        assert_eq!(status, [400; 3], "{limit}");
        assert_eq!(messages.len(), 2);
        let expected = format!("is {} bytes; at most {limit} (plugin.config_bytes)", limit + 1);
        assert!(messages.iter().all(|message| message.contains(&expected)), "{messages:?}");
    }
}
