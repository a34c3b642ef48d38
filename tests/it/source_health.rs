//! How the status of sources is reported: readiness, reasons, names, request rates.
//!
//! Must not know: how a source is followed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::killmail::killmail;
use crate::support::server::{Server, Setup};
use crate::support::until;
use crate::support::upstream::{Canned, Upstream};

async fn ready(server: &Server, status: u16) -> Value {
    until(&format!("/health/ready to be {status}"), async || {
        let reply = server.get("/health/ready").await;
        (reply.status == status).then(|| reply.json())
    })
    .await
}

#[tokio::test]
async fn a_source_that_is_off_without_a_contact_is_not_ready() {
    let setup = Setup::quiet().env("SOURCE", "r2z2").env("R2Z2_BASE_URL", "").env("USER_AGENT_CONTACT", "");
    let server = setup.env("R2Z2_IDLE_MS", "").env("R2Z2_PACE_MS", "").start();
    let body = server.get("/health/ready").await.expect(503);
    assert!(body["reason"].as_str().unwrap().contains("USER_AGENT_CONTACT"), "{body}");
    assert_eq!((&body["ready"], &body["source"]["state"]), (&json!(false), &json!("refused")));
    server.get("/health/live").await.expect(200);
}

#[tokio::test]
async fn an_open_breaker_is_not_ready_unless_another_source_follows_its_feed() {
    let upstream = Upstream::start();
    upstream.refuse(Some(Canned::status(403)));
    let server = Setup::following(&upstream).config("[ingest]\nr2z2_forbidden_ms = 300").start();
    let body = ready(&server, 503).await;
    assert!(body["reason"].as_str().unwrap().contains("refuses us (403)"), "{body}");
    server.get("/health/live").await.expect(200);
    upstream.refuse(None);
    assert_eq!(ready(&server, 200).await["reason"], Value::Null);

    let (first, second) = (Upstream::start(), Upstream::start());
    first.refuse(Some(Canned::status(403)));
    let config = format!(
        "[ingest]\nfallback_after_ms = 200\n[[sources]]\nkind = \"r2z2\"\nurl = \"{}\"",
        second.base()
    );
    let server = Setup::following(&first).config(&config).start();
    ready(&server, 503).await;
    assert_eq!(
        ready(&server, 200).await["source"]["state"],
        "breaker_open",
        "the other one brings what comes"
    );
}

#[tokio::test]
async fn the_only_source_may_be_one_of_the_others() {
    let upstream = Upstream::start();
    upstream.refuse(Some(Canned::status(403)));
    let table = format!(
        "[[sources]]\nkind = \"r2z2\"\nurl = \"{}\"\nname = \"spare\"\nwhen = \"always\"",
        upstream.base()
    );
    let server = Setup::quiet().config(&format!("[ingest]\nr2z2_forbidden_ms = 300\n{table}")).start();
    let body = ready(&server, 503).await;
    let reason = body["reason"].as_str().unwrap();
    assert!(
        reason.contains("the source spare has its breaker open") && reason.contains("refuses us (403)"),
        "{body}"
    );
    assert_eq!(server.get("/health").await.expect(200)["status"], "degraded");
    upstream.refuse(None);
    ready(&server, 200).await;
    until("good health", async || (server.get("/health").await.json()["status"] == "ok").then_some(())).await;
}

#[tokio::test]
async fn a_full_disk_is_reported_without_a_source_too_and_logged_once() {
    let server = Setup::quiet().config("[store]\nmin_free_bytes = 9_000_000_000_000_000_000").start();
    let body = server.get("/health/ready").await.expect(503);
    assert!(body["reason"].as_str().unwrap().contains("must stay free"), "{body}");
    let health = server.get("/health").await.expect(200);
    assert_eq!((&health["status"], &health["healthy"]), (&json!("degraded"), &json!(true)), "{health}");
    assert!(
        health["details"]["storage"]["no_space"].as_str().unwrap().contains("must stay free"),
        "{health}"
    );
    let said = || server.log().matches("the disk is full").count();
    until("the log line", async || (said() == 1).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(said(), 1, "{}", server.log());
    server.get("/health/live").await.expect(200);
}

#[tokio::test]
async fn two_sources_of_one_kind_are_named_by_their_hosts() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let table = |upstream: &Upstream| {
        format!("[[sources]]\nkind = \"redisq\"\nurl = \"{}\"\nwhen = \"always\"\n", upstream.base())
    };
    for upstream in [&one, &two] {
        upstream.answer(
            "/listen.php",
            Canned { after: Duration::from_millis(50), ..Canned::json(&json!({ "package": null })) },
        );
    }
    let server = Setup::quiet()
        .config(&format!("[ingest]\nr2z2_failed_ms = 20\n{}{}", table(&one), table(&two)))
        .start();
    let names = [&one, &two].map(|upstream| upstream.base().trim_start_matches("http://").to_owned());
    let health = server.get("/health").await.expect(200);
    let shown: Vec<&str> = health["details"]["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|source| source["name"].as_str().unwrap())
        .collect();
    assert_eq!(shown, names);
    until("both to be reported as active", async || {
        let metrics = server.get("/metrics/prometheus").await.text();
        names
            .iter()
            .all(|name| metrics.contains(&format!("killstream_source_other_active{{source=\"{name}\"}} 1")))
            .then_some(())
    })
    .await;
    one.answer_once("/listen.php", Canned::json(&json!({ "error": "busy" })));
    let logged = format!("{}: the queue responded 200 with something other than a package", names[0]);
    until("a fault to be logged by name", async || server.log().contains(&logged).then_some(())).await;
    two.answer_once(
        "/listen.php",
        Canned::json(&json!({ "package": { "killID": 1, "killmail": killmail(1).esi(), "zkb": {} } })),
    );
    until("a killmail", async || (server.get("/api/v1/killmail/1").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn rates_cover_the_last_minute_without_an_earlier_request() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).start();
    for id in 1..=20 {
        upstream.publish(killmail(id));
    }
    until("twenty killmails", async || (server.get("/api/v1/killmail/20").await.status == 200).then_some(()))
        .await;
    let zkillboard = server.get("/status").await.expect(200)["metrics"]["api"]["zkillboard"].clone();
    assert!(zkillboard["total_requests"].as_u64() >= Some(21), "{zkillboard}");
    assert!(
        zkillboard["requests_per_minute"].as_f64() >= Some(21.0),
        "the server has been running for seconds: {zkillboard}"
    );
}
