//! Responses of a feed that are not the requested document: pages, other JSON, unusable documents. None is
//! taken for a document, and `/health` shows it.
//!
//! Must not know: how the follower is built; only its requests and their effects.

use serde_json::{Value, json};

use crate::support::killmail::killmail;
use crate::support::server::{Server, Setup};
use crate::support::until;
use crate::support::upstream::{Canned, FIRST, Upstream};

/// Short waits.
const HASTY: &str = "[ingest]\nr2z2_failed_ms = 20\nr2z2_heal_ms = 100\n";

fn page(text: &str) -> Canned {
    Canned { body: text.as_bytes().to_vec(), ..Canned::status(200) }.header("content-type", "text/html")
}

async fn state(server: &Server) -> String {
    server.get("/health").await.json()["details"]["source"]["state"].as_str().unwrap().to_owned()
}

async fn metric(server: &Server, name: &str) -> String {
    let text = server.get("/metrics/prometheus").await.text();
    let line = text.lines().find(|line| line.starts_with(&format!("killstream_{name} "))).unwrap_or_default();
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_page_for_everything_is_an_outage_and_no_number_is_passed_over() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).config(HASTY).start();
    let mut stream = server.basic("").await;
    upstream.publish(killmail(1));
    assert_eq!(stream.killmails(1).await, [1]);
    upstream.refuse(Some(page("<html>We are checking your browser</html>")));
    until("the breaker to open", async || (state(&server).await == "breaker_open").then_some(())).await;
    let health = server.get("/health").await.expect(200);
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(
        health["details"]["source"]["reason"].as_str().unwrap().contains("other than a document of the feed"),
        "{health}"
    );
    upstream.refuse(None);
    // The outage may end between a number and the one after it, which would pass over the number.
    until("the outage to end", async || (state(&server).await == "following").then_some(())).await;
    for id in 2..=4 {
        upstream.publish(killmail(id));
    }
    assert_eq!(stream.killmails(3).await, [2, 3, 4]);
    let counts = (metric(&server, "source_gaps_total").await, metric(&server, "source_refused_total").await);
    assert_eq!(counts, ("0".to_owned(), "0".to_owned()));
    until("good health", async || (server.get("/health").await.expect(200)["status"] == "ok").then_some(()))
        .await;
}

#[tokio::test]
async fn one_unreadable_number_is_stored_raw_passed_over_and_retried() {
    for text in [
        "<html>busy</html>",
        "",
        "{}",
        "{\"error\":\"busy\"}",
        "[{\"killmail_id\":2}]",
        "{\"killmail_id\":2,\"esi\":{\"vic",
    ] {
        let upstream = Upstream::start();
        let server = Setup::following(&upstream).config(HASTY).start();
        let mut stream = server.basic("").await;
        upstream.publish(killmail(1));
        let unreadable = upstream.skip_number();
        upstream.publish_raw(unreadable, text);
        assert_eq!(stream.killmails(1).await, [1]);
        until("health to be degraded", async || (state(&server).await == "backing_off").then_some(())).await;
        assert_eq!(metric(&server, "source_gaps_total").await, "0", "the number after it does not exist");
        upstream.publish(killmail(3));
        assert_eq!(stream.killmails(1).await, [3]);
        upstream.publish_at(unreadable, killmail(2).r2z2());
        assert_eq!(stream.killmails(1).await, [2]);
        let metrics = server.get("/metrics/prometheus").await.text();
        assert!(metrics.contains("store_refused_total{reason=\"not_of_the_feed\"} 1"), "{text}: {metrics}");
        until("the missing number to be recovered", async || {
            (metric(&server, "source_gap_numbers").await == "0").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn documents_refused_in_a_row_for_one_reason_degrade_health() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).config("[health]\nrefused_documents = 4").start();
    let mut stream = server.basic("").await;
    let mut id = 0;
    let mut broken = |count: u32| {
        for _ in 0..count {
            id += 1;
            let mut document = killmail(id).r2z2();
            document["esi"].as_object_mut().unwrap().remove("victim");
            upstream.publish_document(document);
        }
    };
    let run = async || server.get("/health").await.expect(200);
    let of = |health: &Value| health["details"]["source"]["refused_in_a_row"]["documents"].clone();
    broken(3);
    let health =
        until("three to be refused", async || Some(run().await).filter(|health| of(health) == 3)).await;
    assert_eq!(health["status"], "ok", "{health}");
    broken(2);
    let health =
        until("five to be refused", async || Some(run().await).filter(|health| of(health) == 5)).await;
    assert_eq!((&health["status"], &health["healthy"]), (&json!("degraded"), &json!(true)), "{health}");
    assert_eq!(health["details"]["source"]["refused_in_a_row"]["reason"], "missing_fields", "{health}");
    upstream.publish(killmail(99));
    assert_eq!(stream.killmails(1).await, [99], "the follower continues");
    until("good health", async || (run().await["status"] == "ok").then_some(())).await;
    assert_eq!(run().await["details"]["source"]["refused_in_a_row"], Value::Null);
}

#[tokio::test]
async fn the_pointer_may_be_a_bare_number_or_one_in_a_string_and_is_never_a_page() {
    for (first, text) in [
        ("<html>busy</html>", format!("{}", FIRST + 1)),
        ("{\"error\":1}", format!("{{\"sequence\":\"{}\"}}", FIRST + 1)),
    ] {
        let upstream = Upstream::start();
        upstream.publish(killmail(1));
        upstream.publish(killmail(2));
        upstream.answer("/ephemeral/sequence.json", page(&text));
        upstream.answer_once("/ephemeral/sequence.json", page(first));
        let server = Setup::following(&upstream).config(HASTY).start();
        until("the second killmail", async || {
            (server.get("/api/v1/killmail/2").await.status == 200).then_some(())
        })
        .await;
        assert_eq!(server.get("/api/v1/killmail/1").await.status, 404);
    }
}
