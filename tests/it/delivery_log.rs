//! The debug log says why a killmail did not reach a client: one word for each of the places that decide.
//!
//! Must not know: where in the server those places are.

use reqwest::Method;
use serde_json::json;

use crate::guests;
use crate::support::channel::Channel;
use crate::support::killmail::{SYSTEMS, killmail};
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::until;
use crate::support::upstream::Upstream;

const JITA: u32 = SYSTEMS[0];
const PERIMETER: u32 = SYSTEMS[1];
const HIGH_VALUE: &[u8] = include_bytes!("../../plugins/prebuilt/high-value.wasm");
/// Traps on killmail 4, drops killmail 5, keeps all others.
const FUSSY: &str = "
    (if (i64.eq (local.get $id) (i64.const 4)) (then unreachable))
    (if (i64.eq (local.get $id) (i64.const 5)) (then (return (i32.const 0))))
    (i32.const 64)";

/// The lines that follow this killmail.
fn lines(server: &Server, id: u32) -> Vec<String> {
    let named = format!("killmail.id={id} ");
    let log = server.log();
    log.lines()
        .filter(|line| line.contains("killstream::delivery") && format!("{line} ").contains(&named))
        .map(str::to_owned)
        .collect()
}

/// Waits for a line of this killmail and reader with this word.
async fn logged(server: &Server, id: u32, why: &str, subscription: Option<&str>) {
    let subscription = subscription.map(|id| format!("subscription.id=\"{id}\""));
    let is_it = |line: &String| {
        line.contains(&format!("why={why}")) && subscription.as_ref().is_none_or(|named| line.contains(named))
    };
    until(&format!("killmail {id}: {why}"), async || lines(server, id).iter().any(is_it).then_some(())).await;
}

async fn subscription(stream: &mut Sse) -> String {
    let connected = stream.event_named("connected").await.json();
    connected["subscription_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_reason_not_to_deliver_has_its_word() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).env("KILLSTREAM_LOG", "info,killstream::delivery=debug").start();
    server.upload("high-value", HIGH_VALUE).await;
    server.upload("fussy", &guests::evaluating(FUSSY)).await;
    let mut all = server.enhanced("").await;
    let all_id = subscription(&mut all).await;
    let mut rich = server.enhanced("min_value=1e9").await;
    let rich_id = subscription(&mut rich).await;
    let mut high = server.enhanced("plugin=high-value").await;
    let high_id = subscription(&mut high).await;
    let mut fussy = server.enhanced("plugin=fussy").await;
    let fussy_id = subscription(&mut fussy).await;
    let mut channel = Channel::v2(server.address()).await;
    let joined = channel.join(json!({ "systems": [PERIMETER] })).await;
    let channel_id = joined["subscription_id"].as_str().unwrap().to_owned();

    // Delivered: each step is there, with the reader it went to.
    upstream.publish(killmail(1).value(5e6).system(PERIMETER));
    assert_eq!(channel.live(1).await, [1]);
    assert_eq!(all.event_named("killmail").await.killmail_id(), Some(1));
    for step in ["received", "announced", "handed over", "sent"] {
        until(step, async || lines(&server, 1).iter().any(|line| line.contains(step)).then_some(())).await;
    }
    let rounds = |line: &String| line.contains("ingest_round{source=") && line.contains("received");
    assert!(lines(&server, 1).iter().any(rounds), "{:#?}", lines(&server, 1));
    let reached = |line: &String| {
        line.contains("connection{client.address=127.0.0.1:")
            && line.contains(&format!("reader{{subscription.id=\"{all_id}\"}}"))
    };
    assert!(lines(&server, 1).iter().any(reached), "{:#?}", lines(&server, 1));
    logged(&server, 1, "filter", Some(&rich_id)).await;
    logged(&server, 1, "interest", Some(&high_id)).await;

    // The channel asks for the past of a system whose killmail it has.
    channel.say("subscribe_systems", json!({ "systems": [PERIMETER, JITA] })).await;
    channel.say("unsubscribe_systems", json!({ "systems": [PERIMETER] })).await;
    channel.say("subscribe_systems", json!({ "systems": [PERIMETER] })).await;
    logged(&server, 1, "already_sent", Some(&channel_id)).await;

    upstream.publish(killmail(2).ago(7_200));
    logged(&server, 2, "age", Some(&all_id)).await;
    let document = json!([killmail(3).r2z2()]).to_string();
    server.send(Method::POST, "/api/v1/killmails", document).await.expect(200);
    logged(&server, 3, "backfill", None).await;
    upstream.publish(killmail(4));
    logged(&server, 4, "fault", Some(&fussy_id)).await;
    upstream.publish(killmail(5));
    logged(&server, 5, "verdict", Some(&fussy_id)).await;
    upstream.publish(killmail(5));
    logged(&server, 5, "known", None).await;
}

#[tokio::test]
async fn an_ordinary_log_says_nothing_of_single_killmails() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).start();
    let mut stream = server.basic("").await;
    upstream.publish(killmail(1));
    assert_eq!(stream.killmails(1).await, [1]);
    assert_eq!(lines(&server, 1), [""; 0]);
}
