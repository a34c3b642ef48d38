//! Streams on the wire: events and chunks, the length of lines, and characters that end lines.
//!
//! Must not know: which killmails a stream gets.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::dice::Dice;
use crate::support::killmail::{Build, SYSTEMS, began, giant, killmail, r2z2};
use crate::support::server::{Server, Setup};
use crate::support::upstream::Upstream;

const JITA: u32 = SYSTEMS[0];
/// Line breaks for clients that split lines by the rules of Unicode.
const BREAKS: [char; 3] = ['\u{2028}', '\u{2029}', '\u{85}'];

async fn add(server: &Server, documents: Vec<Value>) {
    let count = documents.len();
    let report =
        server.send(Method::POST, "/api/v1/killmails", json!(documents).to_string()).await.expect(200);
    assert_eq!(report["data"]["new"], count, "{report}");
}

/// Killmails of about 10 kB each.
fn large(ids: std::ops::Range<u32>) -> Vec<Value> {
    let attackers: Vec<u32> = (90_000_001..90_000_041).collect();
    ids.map(|id| killmail(id).ago(600).attackers(&attackers).r2z2()).collect()
}

#[tokio::test]
async fn an_event_is_a_chunk() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).start();
    add(&server, (1..=3).map(|id| killmail(id).ago(600)).map(Build::r2z2).collect()).await;
    for path in ["/api/v1/kills/stream", "/api/v1/kills/stream/enhanced"] {
        let mut stream = server.stream(&format!("{path}?system_ids={JITA}&preload_days=1")).await;
        let mut blocks = Vec::new();
        while blocks
            .iter()
            .all(|raw: &String| !raw.contains("historical_complete") && !raw.contains(": transition"))
        {
            blocks.push(stream.next_block().await.unwrap().raw);
        }
        let id = if path.ends_with("enhanced") { 11 } else { 10 };
        upstream.publish(killmail(id));
        blocks.push(stream.next_block().await.unwrap().raw);
        assert!(blocks.last().unwrap().contains("data: {\"killmail_id\":1"), "{blocks:?}");
        assert_eq!(stream.chunks, blocks.iter().map(String::len).collect::<Vec<_>>(), "{path}");
    }
}

#[tokio::test]
async fn an_event_over_the_limit_arrives_whole() {
    let server = Setup::quiet().start();
    let giant = giant(&mut Dice::new(7), 5, began() - 600);
    let system = giant.solar_system_id;
    add(&server, vec![r2z2(&giant)]).await;
    let kept = server.get("/api/v1/killmail/5").await.expect(200)["data"].clone();
    let mut basic = server.basic(&format!("system_ids={system}&preload_days=1")).await;
    assert_eq!(basic.event().await.json(), kept);
    let mut enhanced = server.enhanced(&format!("system_ids={system}&preload_days=1")).await;
    let batch = enhanced.event_named("batch").await.json();
    assert_eq!(
        (&batch["kills"], &batch["killmails"], &batch["last"]),
        (&json!([kept]), &json!([kept]), &json!(true))
    );
    assert!(basic.chunks.iter().chain(&enhanced.chunks).all(|size| *size <= 64 << 10));
}

#[tokio::test]
async fn line_breaks_of_unicode_are_escaped_on_every_route() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).start();
    let mut stream = server.basic("").await;
    stream.next_block().await;
    stream.next_block().await;
    let text = "one\u{2028}two\u{2029}three\u{85}four";
    let mut document = killmail(5).r2z2();
    document["esi"]["note"] = json!(text);
    upstream.publish_document(document);
    let live = stream.event().await;
    assert_eq!(live.json()["note"], text);
    assert!(!live.raw.contains(BREAKS), "{}", live.raw);
    for path in ["/api/v1/killmail/5", "/api/v1/killmails", &format!("/api/v1/kills/cached/{JITA}")] {
        let reply = server.get(path).await;
        assert!(!reply.text().contains(BREAKS) && reply.expect(200).to_string().contains(text), "{path}");
    }
    // Messages that quote parameters.
    for path in [
        "/api/v1/killmails?role=%E2%80%A8",
        "/api/v1/kills/stream?role=%E2%80%A9",
        "/api/v1/killmails?%C2%85=1",
    ] {
        let reply = server.get(path).await;
        assert!(
            !reply.text().contains(BREAKS) && reply.expect(400).to_string().contains(BREAKS),
            "{path}: {}",
            reply.text()
        );
    }
    let mut mirrored = server.send(Method::GET, "/api/v1/export", "").await.text();
    mirrored.push_str(&server.get("/ephemeral/1.json").await.text());
    assert!(!mirrored.contains(BREAKS) && mirrored.contains("\\u2028"), "{mirrored}");
}

#[tokio::test]
async fn no_line_of_a_batch_exceeds_the_limit() {
    let server = Setup::quiet().start();
    add(&server, large(1..101)).await;
    let mut stream = server.enhanced(&format!("system_ids={JITA}&preload_days=1")).await;
    let (mut numbers, mut killmails) = (Vec::new(), 0);
    loop {
        let batch = stream.event_named("batch").await;
        let longest = batch.raw.lines().map(str::len).max().unwrap();
        assert!(longest <= 512 << 10, "{longest}");
        let batch = batch.json();
        killmails += batch["count"].as_u64().unwrap();
        numbers.push((batch["batch_number"].clone(), batch["total_batches"].clone()));
        if batch["last"] == true {
            break;
        }
    }
    let total = numbers.len();
    assert!(killmails == 100 && total > 2, "{killmails} in {total}");
    assert_eq!(numbers, (1..=total).map(|number| (json!(number), json!(total))).collect::<Vec<_>>());
}
