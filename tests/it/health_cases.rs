//! Health, including case 3 of docs/cases.md: when the server reports itself as unhealthy or not ready, and
//! what it logs about a silent feed.
//!
//! Must not know: how silence is measured.

use std::time::Duration;

use crate::support::killmail::killmail;
use crate::support::server::{Server, Setup};
use crate::support::until;
use crate::support::upstream::{Canned, Upstream};

const SILENT: &str = "[health]\nsilent_secs = 4\nsilent_killmails = 0.0\ndowntime_secs = 0\n";

async fn wait_for_status(server: &Server, path: &str, status: u16) -> serde_json::Value {
    until(&format!("{path} to be {status}"), async || {
        let reply = server.get(path).await;
        (reply.status == status).then(|| reply.json())
    })
    .await
}

#[tokio::test]
async fn case_03_a_breaker_open_for_too_long_is_unhealthy_and_before_that_degraded() {
    for (secs, status) in [(600, 200), (0, 503)] {
        let upstream = Upstream::start();
        upstream.answer("/ephemeral/sequence.json", Canned::status(403));
        let server =
            Setup::following(&upstream).config(&format!("[health]\nbreaker_open_secs = {secs}\n")).start();
        upstream.asked_for("/ephemeral/sequence.json").await;
        let health = until("the breaker to open", async || {
            let health = server.get("/health").await;
            (health.json()["circuit_breaker"]["circuit_state"] == "open").then_some(health)
        })
        .await;
        let body = health.expect(status);
        let words = (body["healthy"].as_bool(), body["status"].as_str());
        assert_eq!(
            words,
            if status == 200 { (Some(true), Some("degraded")) } else { (Some(false), Some("error")) }
        );
        for key in ["details", "circuit_breaker", "connection_monitor", "timestamp"] {
            assert!(!body[key].is_null(), "{key}: {body}");
        }
        server.get("/health/live").await.expect(200);
    }
}

#[tokio::test]
async fn a_silent_feed_fails_readiness_and_is_logged_once() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).config(SILENT).start();
    let body = wait_for_status(&server, "/health/ready", 503).await;
    assert_eq!(body["ready"], false, "{body}");
    assert!(body["reason"].as_str().is_some_and(|reason| reason.starts_with("no killmail for")), "{body}");
    assert_eq!(server.get("/health").await.expect(200)["healthy"], true, "a silent feed is not unhealthy");
    let logged = |what: &str| server.log().matches(what).count();
    until("the log to say it", async || (logged("the feed is silent") == 1).then_some(())).await;
    // Two more checks log nothing.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!((logged("the feed is silent"), logged("no longer silent")), (1, 0), "{}", server.log());
    assert!(
        server.log().contains("the source answers, the last number is"),
        "the log tells that the source answers: {}",
        server.log()
    );
    let mut id = 0;
    let ready = until("killmails to make it ready, and the log to say so", async || {
        id += 1;
        upstream.publish(killmail(id));
        let ready = server.get("/health/ready").await;
        (logged("no longer silent") > 0 && ready.status == 200).then_some(ready)
    })
    .await;
    assert_eq!(ready.json()["ready"], true, "{}", ready.text());
}

#[tokio::test]
async fn without_a_source_the_server_is_healthy_and_ready() {
    let server = Setup::quiet().config(SILENT).start();
    tokio::time::sleep(Duration::from_millis(5_000)).await;
    for path in ["/health", "/health/live", "/health/ready"] {
        server.get(path).await.expect(200);
    }
    assert!(!server.log().contains("silent"), "{}", server.log());
}

#[tokio::test]
async fn stored_records_are_checked_for_damage_while_the_server_runs() {
    let upstream = Upstream::start();
    let server =
        Setup::following(&upstream).config("[store]\nscrub_per_sec = 1000\nscrub_pause_secs = 0\n").start();
    for id in 1..=5 {
        upstream.publish(killmail(id));
    }
    let storage = until("all records to be looked at twice", async || {
        let storage = server.get("/status").await.json()["metrics"]["storage"].clone();
        (storage["scrubbed_records"].as_u64() >= Some(10)).then_some(storage)
    })
    .await;
    assert_eq!(storage["damaged_records"], 0);
    assert_eq!(server.get("/health").await.expect(200)["details"]["storage"]["damaged_records"], 0);
}
