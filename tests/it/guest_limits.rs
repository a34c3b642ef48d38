//! What guests take together, as strangers meet it who each bring a configuration of their own.
//!
//! Must not know: how any of it is counted.

use serde_json::json;

use crate::guests::{self, Text};
use crate::support::server::Setup;

/// With the four pages it begins with, a guest has 24 MiB.
const GROWS: &str = "(drop (memory.grow (i32.const 380))) (i32.const 0)";
/// `err` with 4,000,000 bytes from 65,536 on, nearly all of them 0.
const REFUSES: &str = "(drop (memory.grow (i32.const 70))) (i32.const 128)";
const WHY: &str =
    r#"(data (i32.const 128) "\01\00\00\00\00\00\00\00\00\00\01\00\00\09\3d\00") (data (i32.const 65536) "no \1b[31msuch\0athing")"#;

#[tokio::test]
async fn who_comes_when_guests_have_all_their_memory_is_told_to_come_later() {
    let server = Setup::quiet().config("[plugin]\nguests_memory_bytes = 67108864").start();
    server.upload("grows", &guests::guest(&Text { configure: GROWS, ..Text::default() })).await;
    let path = |n: u32| format!("/api/v1/kills/stream?system_ids=30000142&plugin=grows&plugin_config=%7B%22n%22:{n}%7D");
    let (one, two) = (server.stream(&path(1)).await, server.stream(&path(2)).await);
    assert_eq!((one.status, two.status), (200, 200));
    let told = server.get("/status").await.expect(200)["metrics"]["plugins"].clone();
    assert!(told["bytes"].as_u64().is_some_and(|bytes| (48 << 20..64 << 20).contains(&bytes)), "{told}");
    assert_eq!(told["waiting"]["pages"], json!({ "live": 0, "history": 0, "held": 0 }), "{told}");
    assert_eq!(told["waiting"]["configurations"], 0, "{told}");
    assert!(told["resting"] == 0 && told["compile_large_memory_bytes"].is_u64(), "{told}");
    assert_eq!((&told["max_bytes"], &told["evaluators"]["small"]["kept"]), (&(64 << 20).into(), &2.into()), "{told}");

    let refused = server.get(&path(3)).await;
    assert!(refused.header("retry-after").is_some());
    let message = refused.expect(503)["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("plugin.guests_memory_bytes") && message.contains("67108864"), "{message}");
    let history = server.get("/api/v1/killmails?plugin=grows&plugin_config=%7B%22n%22:3%7D").await;
    assert!(history.header("retry-after").is_some());
    assert_eq!(history.expect(503)["details"]["limit"], 64 << 20);

    drop(one);
    assert_eq!(server.stream(&path(2)).await.status, 200, "the pair that is there is shared");
    let metrics = server.get("/metrics/prometheus").await.text();
    assert!(metrics.contains("killstream_plugin_memory_max_bytes 67108864"), "{metrics}");
    assert!(metrics.contains("killstream_plugin_uploads_waiting{lane=\"small scan\"} 0"), "{metrics}");
    assert!(metrics.contains("killstream_plugin_pages_waiting{of=\"live\"} 0"), "{metrics}");
}

#[tokio::test]
async fn a_refusal_of_four_megabytes_is_answered_in_one_line() {
    let server = Setup::quiet().start();
    server.upload("refuses", &guests::guest(&Text { head: WHY, configure: REFUSES, ..Text::default() })).await;
    let refused = server.get("/api/v1/killmails?limit=1&plugin=refuses&plugin_config=%7B%22n%22:1%7D").await;
    let text = refused.text();
    assert!(text.len() < 1_024 && text.contains("no [31msuch thing"), "{} bytes: {:.200}", text.len(), text);
}
