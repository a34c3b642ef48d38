//! The mirror: our log in the form in which R2Z2 publishes zKillboard's, and one killstream that follows another
//! through it.
//!
//! Must not know: how files are made; only what a reader of R2Z2 sees.

use std::io::Read;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::dice::Dice;
use crate::support::http::{self, Reply};
use crate::support::killmail::{Build, began, killmail, random};
use crate::support::server::{Server, Setup};
use crate::support::until;
use crate::support::upstream::Upstream;

/// Noon of a day long past.
const NOON: i64 = 1_638_014_400;

async fn file(server: &Server, number: u64) -> Value {
    server.get(&format!("/ephemeral/{number}.json")).await.expect(200)
}

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Reply {
    http::request(Method::GET, &server.url(path), headers, Vec::new()).await
}

async fn add(server: &Server, document: &Value) {
    let reply = server.send(Method::POST, "/api/v1/killmails", document.to_string()).await;
    assert!(reply.status.is_success(), "{}", reply.text());
}

async fn head(server: &Server) -> u64 {
    server.get("/ephemeral/sequence.json").await.expect(200)["sequence"].as_u64().unwrap()
}

#[tokio::test]
async fn the_mirror_serves_every_file_as_it_came() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    assert_eq!(head(&server).await, 1, "the number to request first");
    assert_eq!(server.get("/ephemeral/1.json").await.status, 404);
    let mut dice = Dice::new(7);
    let mut published = Vec::new();
    for id in 1..=20 {
        let mut document = Build(random(&mut dice, id, began())).r2z2();
        document["esi"]["unheard_of"] = json!({ "deep": [id] });
        document["zkb"]["totalDroppableValue"] = json!(12.5);
        document["zkb"]["attackerCount"] = json!(3);
        document["uploaded_at"] = json!(began() + i64::from(id));
        upstream.publish_document(document.clone());
        published.push(document);
    }
    until("all killmails", async || (head(&server).await == 20).then_some(())).await;
    for (number, mut document) in (1..).zip(published) {
        document["sequence_id"] = json!(number);
        assert_eq!(file(&server, number).await, document);
    }
    for path in [
        "/ephemeral/21.json",
        "/ephemeral/0.json",
        "/ephemeral/x.json",
        "/ephemeral/1",
        "/ephemeral/99999999999999999999.json",
    ] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn the_mirror_supports_conditional_requests() {
    let server = Setup::quiet().start();
    add(&server, &killmail(1).time(NOON).r2z2()).await;
    for path in [
        "/ephemeral/sequence.json",
        "/ephemeral/1.json",
        "/history/totals.json",
        "/history/20211127.json",
        "/history/raw/20211127.json",
    ] {
        let first = get(&server, path, &[("accept", "image/png")]).await;
        assert_eq!(first.status, 200, "{path}: {}", first.text());
        let tag = first.header("etag").unwrap().to_owned();
        let again = get(&server, path, &[("if-none-match", &tag)]).await;
        assert_eq!(
            (again.status.as_u16(), again.body.len(), again.header("etag")),
            (304, 0, Some(tag.as_str())),
            "{path}"
        );
        assert_eq!(get(&server, path, &[("if-none-match", "\"other\"")]).await.status, 200, "{path}");
    }
    let plain = reqwest::Client::builder().no_proxy().no_gzip().build().unwrap();
    let zipped =
        plain.get(server.url("/ephemeral/1.json")).header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(zipped.headers()["content-encoding"], "gzip");
    let zipped = zipped.bytes().await.unwrap();
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&zipped[..]).read_to_string(&mut plain).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&plain).unwrap(), file(&server, 1).await);
}

#[tokio::test]
async fn a_revised_killmail_is_announced_by_the_next_file_also_across_restarts() {
    let mut server = Setup::quiet().start();
    for id in 1..=3 {
        add(&server, &killmail(id).without_zkb().r2z2()).await;
    }
    let tag = get(&server, "/ephemeral/2.json", &[]).await.header("etag").unwrap().to_owned();
    add(&server, &killmail(2).value(5e9).r2z2()).await;
    add(&server, &killmail(1).value(6e9).r2z2()).await;
    assert_eq!(head(&server).await, 3, "a revision is not a new file");
    assert_eq!(
        get(&server, "/ephemeral/2.json", &[("if-none-match", &tag)]).await.expect(200)["zkb"]["totalValue"],
        5e9
    );
    assert_eq!(file(&server, 3).await.get("sequence_updated"), None, "existing files do not change for it");
    server.restart();
    for id in 4..=6 {
        add(&server, &killmail(id).r2z2()).await;
    }
    assert_eq!(file(&server, 4).await["sequence_updated"], 2);
    server.restart();
    assert_eq!(file(&server, 4).await["sequence_updated"], 2, "also for clients that come later");
    assert_eq!(file(&server, 5).await["sequence_updated"], 1);
    assert_eq!(file(&server, 6).await.get("sequence_updated"), None);
}

/// No source gave a hash, and none can be computed.
fn hashless(id: u32) -> Value {
    killmail(id)
        .time(NOON)
        .without_zkb()
        .with(|k| k.hash = None)
        .with(|k| k.attackers[0].final_blow = false)
        .esi()
}

#[tokio::test]
async fn a_killmail_without_a_hash_gets_no_number_until_it_has_one() {
    let mut server = Setup::quiet().start();
    add(&server, &killmail(1).without_zkb().r2z2()).await;
    add(&server, &killmail(1).value(1e9).r2z2()).await;
    add(&server, &hashless(2)).await;
    assert_eq!(head(&server).await, 1);
    assert_eq!(server.get("/ephemeral/2.json").await.status, 404, "there is no file yet");
    add(&server, &killmail(3).time(NOON).r2z2()).await;
    assert_eq!(file(&server, 2).await["killmail_id"], 3, "the next file is the next killmail with a hash");
    assert_eq!(file(&server, 2).await["sequence_updated"], 1);
    let hashes = server.get("/history/20211127.json").await.expect(200);
    assert_eq!(hashes, json!({ "3": format!("{:040x}", 3) }));
    assert_eq!(server.get("/history/raw/20211127.json").await.expect(200).as_object().unwrap().len(), 2);
    server.restart();
    // Its hash comes later, and with it a file that nobody has read yet.
    let mut known = hashless(2);
    known["killmail_hash"] = json!(format!("{:040x}", 2));
    add(&server, &known).await;
    assert_eq!((head(&server).await, &file(&server, 3).await["killmail_id"]), (3, &json!(2)));
    server.restart();
    add(&server, &killmail(4).r2z2()).await;
    let ids: Vec<Value> =
        [file(&server, 1).await, file(&server, 2).await, file(&server, 3).await, file(&server, 4).await]
            .map(|file| file["killmail_id"].clone())
            .to_vec();
    assert_eq!(ids, [1, 3, 2, 4]);
}

#[tokio::test]
async fn a_missing_hash_is_computed_until_a_source_gives_one() {
    let first = Setup::quiet().start();
    let second = Setup::quiet()
        .env("SOURCE", "r2z2")
        .env("R2Z2_BASE_URL", &first.url(""))
        .env("R2Z2_IDLE_MS", "20")
        .start();
    let body = killmail(1).time(NOON).without_zkb().with(|k| k.hash = None).esi();
    add(&first, &body).await;
    // Victim 90000001, final blow by 90000002, a Rifter, noon of 2021-11-27.
    let computed = "568ed5265b3e10af17fe2a0e69deae980407087d";
    let shown = first.get("/api/v1/killmail/1").await.expect(200)["data"].clone();
    assert_eq!((&shown["killmail_hash"], &shown["hash_source"]), (&json!(computed), &json!("computed")));
    assert_eq!(
        (&file(&first, 1).await["hash"], &file(&first, 1).await["hash_source"]),
        (&json!(computed), &json!("computed"))
    );
    assert_eq!(first.get("/history/20211127.json").await.expect(200), json!({ "1": computed }));
    let kept = async || {
        let reply = second.get("/api/v1/killmail/1").await;
        (reply.status == 200).then(|| reply.json()["data"].clone())
    };
    assert_eq!(until("the follower to have it", kept).await, shown, "marked there too");
    // The same killmail with a hash: it replaces the computed one everywhere.
    let mut named = body;
    named["killmail_hash"] = json!("ab".repeat(20));
    add(&first, &named).await;
    add(&first, &killmail(2).r2z2()).await;
    assert_eq!(file(&first, 1).await["hash"], "ab".repeat(20));
    assert_eq!(file(&first, 1).await.get("hash_source"), None);
    let corrected = async || {
        kept()
            .await
            .filter(|shown| shown["killmail_hash"] == "ab".repeat(20) && shown.get("hash_source").is_none())
    };
    until("the follower to have the given hash", corrected).await;
    until("equal stores", async || (first.digest().await == second.digest().await).then_some(())).await;
}

#[tokio::test]
async fn a_corrected_hash_is_corrected_everywhere() {
    let upstream = Upstream::start();
    let server = Server::following(&upstream);
    let number = upstream.publish(killmail(1).time(NOON));
    until("the killmail", async || {
        (head(&server).await == 1 && server.get("/ephemeral/1.json").await.status == 200).then_some(())
    })
    .await;
    let new = "cd".repeat(20);
    let corrected = killmail(1).time(NOON).with(|k| {
        k.hash = Some("cd".repeat(20));
        k.zkb.as_mut().unwrap().hash = Some("cd".repeat(20));
    });
    upstream.rewrite(number, corrected.r2z2(), killmail(2));
    let shown = until("the correction", async || {
        let shown = server.get("/api/v1/killmail/1").await.expect(200)["data"].clone();
        (shown["zkb"]["hash"] == new).then_some(shown)
    })
    .await;
    assert_eq!(shown["killmail_hash"], new);
    let first = file(&server, 1).await;
    assert_eq!((&first["hash"], &first["zkb"]["hash"]), (&json!(new), &json!(new)));
    assert_eq!(server.get("/history/20211127.json").await.expect(200), json!({ "1": new }));
    upstream.publish(killmail(3));
    until("the files after it", async || (head(&server).await == 3).then_some(())).await;
    let announced =
        [file(&server, 2).await, file(&server, 3).await].map(|file| file.get("sequence_updated").cloned());
    assert!(announced.contains(&Some(json!(1))), "clients that follow the mirror learn of it: {announced:?}");
}

#[tokio::test]
async fn histories_list_exactly_one_day() {
    let server = Setup::quiet().start();
    let midnight = NOON + 12 * 3600;
    for (id, time) in
        [(1, midnight - 86_401), (2, midnight - 86_400), (3, NOON), (4, midnight - 1), (5, midnight)]
    {
        add(&server, &killmail(id).time(time).r2z2()).await;
    }
    assert_eq!(
        server.get("/history/totals.json").await.expect(200),
        json!({ "20211126": 1, "20211127": 3, "20211128": 1 })
    );
    let hashes = server.get("/history/20211127.json").await.expect(200);
    let expected: Value = (2..=4)
        .map(|id| (id.to_string(), json!(format!("{id:040x}"))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert_eq!(hashes, expected);
    let bodies = server.get("/history/raw/20211127.json").await.expect(200);
    assert_eq!(bodies["3"], killmail(3).time(NOON).esi());
    assert_eq!(bodies.as_object().unwrap().len(), 3);
    for path in ["20211125.json", "20211131.json", "raw/20211125.json", "2021112.json", "20211127", "x.json"]
    {
        assert_eq!(server.get(&format!("/history/{path}")).await.status, 404, "{path}");
    }
    add(&server, &killmail(6).time(NOON).r2z2()).await;
    assert_eq!(server.get("/history/totals.json").await.expect(200)["20211127"], 4);
}

#[tokio::test]
async fn a_request_may_wait_for_the_next_file() {
    let upstream = Upstream::start();
    let server = Setup::following(&upstream).config("[mirror]\nwait_max_secs = 15\n").start();
    upstream.publish(killmail(1));
    until("the first killmail", async || (server.get("/ephemeral/1.json").await.status == 200).then_some(()))
        .await;
    let tag = get(&server, "/ephemeral/sequence.json", &[]).await.header("etag").unwrap().to_owned();
    let waiting = get(&server, "/ephemeral/2.json?wait=1000", &[]);
    let moved = [("if-none-match", tag.as_str())];
    let moving = get(&server, "/ephemeral/sequence.json?wait=1000", &moved);
    let publish = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        upstream.publish(killmail(2));
    };
    let (file, sequence, ()) = tokio::join!(waiting, moving, publish);
    assert_eq!(file.expect(200)["killmail_id"], 2);
    assert_eq!(sequence.expect(200)["sequence"], 2);
    assert_eq!(server.get("/ephemeral/2.json?wait=soon").await.status, 400);
    drop(server);
    let impatient = Setup::quiet().config("[mirror]\nwait_max_secs = 1\n").start();
    assert_eq!(
        get(&impatient, "/ephemeral/1.json?wait=1000", &[]).await.status,
        404,
        "limited by the server, not by the client"
    );
}

#[tokio::test]
async fn a_follower_that_waits_gets_the_next_killmail_without_another_request() {
    let first = Setup::quiet().start();
    let setup = Setup::quiet()
        .env("SOURCE", "r2z2")
        .env("R2Z2_BASE_URL", &first.url(""))
        .env("R2Z2_IDLE_MS", "600000");
    let second = setup.config("[ingest]\nr2z2_wait_secs = 15\n").start();
    until("the second to send its request", async || second.log().contains("from its head").then_some(()))
        .await;
    for id in 1..=3 {
        add(&first, &killmail(id).r2z2()).await;
        let path = format!("/api/v1/killmail/{id}");
        until("the second to have it", async || (second.get(&path).await.status == 200).then_some(())).await;
    }
}

#[tokio::test]
async fn two_servers_chained_through_the_mirror_are_equal_after_kills_under_load() {
    let upstream = Upstream::start();
    let first = Server::following(&upstream);
    let base = first.url("");
    let mut second = Setup::quiet()
        .env("SOURCE", "r2z2")
        .env("R2Z2_BASE_URL", &base)
        .env("R2Z2_IDLE_MS", "20")
        .env("R2Z2_PACE_MS", "1")
        .start();
    // Only then does it know where to begin.
    let state = async || second.get("/health").await.json()["details"]["source"]["state"].clone();
    until("the second to follow", async || (state().await == "following").then_some(())).await;
    let count = async |server: &Server| {
        server.get("/api/v1/killmails/count").await.expect(200)["data"]["count"].as_u64()
    };
    let mut dice = Dice::new(11);
    let mut numbers = Vec::new();
    for id in 1..=400_u32 {
        let killmail = Build(random(&mut dice, id, began() - i64::from(id % 50)));
        numbers.push((upstream.publish(killmail.clone()), killmail));
        if id % 40 == 0 {
            // A file that is rewritten before the first has read it would prove nothing.
            until("the first to have it", async || {
                (count(&first).await >= Some(u64::from(id))).then_some(())
            })
            .await;
            let (number, killmail) = numbers[usize::try_from(dice.below(u64::from(id))).unwrap()].clone();
            let rewritten = killmail.value(f64::from(id) * 1e6).labels(&["ganked"]).r2z2();
            upstream.rewrite(number, rewritten, Build(random(&mut dice, 10_000 + id, began())));
        }
        if id % 130 == 0 {
            second.restart();
        }
    }
    let total = 410;
    until("the first to have all", async || (count(&first).await == Some(total)).then_some(())).await;
    // One more, so that the last rewritten file is announced.
    upstream.publish(killmail(20_000));
    until("the second to have all", async || (count(&second).await == Some(total + 1)).then_some(())).await;
    until("equal stores", async || (first.digest().await == second.digest().await).then_some(())).await;
    let metrics = first.get("/metrics/prometheus").await.text();
    assert!(metrics.contains("killstream_store_revised_total "), "{metrics}");
    assert!(!metrics.contains("killstream_store_revised_total 0"), "{metrics}");
}
