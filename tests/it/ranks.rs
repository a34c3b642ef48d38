//! Sources of different ranks: what a queue of another site says never replaces what zKillboard said, in
//! whatever order they come.
//!
//! Must not know: how values are merged; only which ones are shown, and where they are said to be from.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::killmail::killmail;
use crate::support::server::{Server, Setup};
use crate::support::until;
use crate::support::upstream::{Canned, Upstream};

/// A server that follows R2Z2 and, beside it, a queue of another site.
fn beside(upstream: &Upstream, queue: &Upstream) -> Server {
    let config = format!(
        "[ingest]\nredisq_pace_ms = 20\n[[sources]]\nkind = \"redisq\"\nurl = \"{}\"\nwhen = \"always\"\n",
        queue.base()
    );
    queue.answer(
        "/listen.php",
        Canned { after: Duration::from_millis(30), ..Canned::json(&json!({ "package": null })) },
    );
    Setup::following(upstream).env("ESI_BASE_URL", &queue.base()).config(&config).start()
}

/// As a queue of another site sends it: its own values, no labels, more points.
fn package(queue: &Upstream, id: u32, body: &Value) {
    let zkb = json!({ "hash": format!("{id:040x}"), "totalValue": 7.0, "points": 99, "labels": [], "theirs": true });
    let package = json!({ "package": { "killID": id, "killmail": body, "zkb": zkb } });
    queue.answer_once("/listen.php", Canned::json(&package));
}

async fn shown(server: &Server, id: u32, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    until(&format!("killmail {id}: {what}"), async || {
        let reply = server.get(&format!("/api/v1/killmail/{id}")).await;
        (reply.status == 200).then(|| reply.json()["data"].clone()).filter(|shown| is(shown))
    })
    .await
}

fn values(shown: &Value) -> [&Value; 3] {
    ["totalValue", "points", "labels"].map(|member| &shown["zkb"][member])
}

#[tokio::test]
async fn a_queue_that_comes_second_only_fills_in() {
    let (upstream, queue) = (Upstream::start(), Upstream::start());
    let server = beside(&upstream, &queue);
    upstream.publish(killmail(1));
    shown(&server, 1, "from R2Z2", |shown| shown["zkb"]["totalValue"] == 1e6).await;
    let mut body = killmail(1).esi();
    body["war_id"] = json!(700_001);
    package(&queue, 1, &body);
    let both = shown(&server, 1, "from both", |shown| shown.get("provenance").is_some()).await;
    assert_eq!(values(&both), [&json!(1e6), &json!(3), &json!(["pvp", "loc:highsec"])], "{both}");
    assert_eq!((&both["war_id"], &both["zkb"]["theirs"]), (&json!(700_001), &json!(true)));
    assert_eq!(both["provenance"], json!({ "redisq": ["war_id", "zkb.theirs"] }));
    // Another body of the lower rank is a conflict, another value from R2Z2 is not.
    body["victim"]["damage_taken"] = json!(1);
    package(&queue, 1, &body);
    let conflicts = async || {
        server.get("/metrics/prometheus").await.text().contains("killstream_store_conflicts_total 1")
    };
    until("the conflict", async || conflicts().await.then_some(())).await;
    let mut war = killmail(1).value(2e6).r2z2();
    war["esi"]["war_id"] = json!(700_002);
    upstream.publish_document(war);
    let last = shown(&server, 1, "from R2Z2 again", |shown| shown["zkb"]["totalValue"] == 2e6).await;
    assert_eq!(
        (&last["war_id"], &last["provenance"]),
        (&json!(700_002), &json!({ "redisq": ["zkb.theirs"] }))
    );
}

#[tokio::test]
async fn what_a_queue_said_first_gives_way() {
    let (upstream, queue) = (Upstream::start(), Upstream::start());
    let mut server = beside(&upstream, &queue);
    let mut body = killmail(1).esi();
    body["victim"]["damage_taken"] = json!(1);
    body["war_id"] = json!(700_001);
    package(&queue, 1, &body);
    let first = shown(&server, 1, "from the queue", |_| true).await;
    assert_eq!(first["provenance"], json!({ "redisq": ["body", "killmail_hash", "zkb"] }));
    server.restart();
    upstream.publish(killmail(1));
    let both = shown(&server, 1, "from both", |shown| shown["zkb"]["totalValue"] == 1e6).await;
    assert_eq!(values(&both), [&json!(1e6), &json!(3), &json!(["pvp", "loc:highsec"])]);
    assert_eq!(both["victim"]["damage_taken"], 1200, "a differing body of the higher rank replaces it");
    assert_eq!(both["provenance"], json!({ "redisq": ["war_id", "zkb.theirs"] }));
    assert!(server.get("/metrics/prometheus").await.text().contains("killstream_store_conflicts_total 0"));
}

#[tokio::test]
async fn a_body_fetched_for_a_queue_is_esis() {
    let (upstream, queue) = (Upstream::start(), Upstream::start());
    let server = beside(&upstream, &queue);
    let hash = format!("{:040x}", 1);
    queue.answer(&format!("/killmails/1/{hash}"), Canned::json(&killmail(1).esi()));
    let named = json!({ "package": { "killID": 1, "zkb": { "hash": hash, "totalValue": 7.0 } } });
    queue.answer_once("/listen.php", Canned::json(&named));
    let fetched = shown(&server, 1, "fetched", |_| true).await;
    assert_eq!(
        (&fetched["provenance"], &fetched["zkb"]["totalValue"]),
        (&json!({ "redisq": ["zkb"] }), &json!(7.0))
    );
    upstream.publish(killmail(1));
    let both = shown(&server, 1, "from R2Z2", |shown| shown["zkb"]["totalValue"] == 1e6).await;
    assert_eq!(both.get("provenance"), None);
}
