//! Killmails with an impossible time: stored and marked, in no time window, never the newest.
//!
//! Must not know: how they are kept apart in the store.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::channel::Channel;
use crate::support::killmail::{killmail, now};
use crate::support::server::{Server, Setup};

const SYSTEM: u32 = 30_000_142;
const HOUR: i64 = 3_600;

async fn add(server: &Server, id: u32, time: i64) {
    let body = killmail(id).time(time).system(SYSTEM).esi().to_string();
    assert_eq!(server.send(Method::POST, "/api/v1/killmails", body).await.expect(200)["data"]["new"], 1);
}

fn ids(killmails: &Value) -> Vec<u64> {
    killmails.as_array().unwrap().iter().map(|killmail| killmail["killmail_id"].as_u64().unwrap()).collect()
}

/// A server with two killmails of a minute ago, and three with an impossible time among and after them.
async fn server() -> Server {
    let server = Setup::quiet().start();
    add(&server, 1, 1_000_000_000).await;
    add(&server, 2, now() - 60).await;
    add(&server, 3, now() + 2 * HOUR).await;
    add(&server, 4, now() - 50).await;
    add(&server, 5, now() + 400 * 24 * HOUR).await;
    server
}

async fn check(server: &Server) {
    for (id, implausible) in [(1, true), (2, false), (3, true), (4, false), (5, true)] {
        let shown = server.get(&format!("/api/v1/killmail/{id}")).await.expect(200)["data"].clone();
        assert_eq!(shown.get("time_implausible"), implausible.then_some(&json!(true)), "{shown}");
    }
    let listed = async |path: &str| ids(&server.get(path).await.expect(200)["data"]["killmails"]);
    assert_eq!(listed("/api/v1/killmails").await, [4, 2, 5, 3, 1]);
    assert_eq!(listed("/api/v1/killmails?order=oldest").await, [1, 2, 3, 4, 5]);
    let since = now() - 24 * HOUR;
    assert_eq!(listed(&format!("/api/v1/killmails?since={since}")).await, [4, 2]);
    assert_eq!(
        server.get(&format!("/api/v1/killmails/count?since={since}")).await.expect(200)["data"]["count"],
        2
    );
    assert_eq!(server.get("/api/v1/killmails/count").await.expect(200)["data"]["count"], 5);
    // The same page by page.
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let page =
            server.get(&format!("/api/v1/killmails?limit=1{cursor}")).await.expect(200)["data"].clone();
        pages.extend(ids(&page["killmails"]));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(pages, [4, 2, 5, 3, 1]);
    // The kills API of the older service.
    let kills = async |path: &str| ids(&server.get(path).await.expect(200)["data"]["kills"]);
    assert_eq!(kills(&format!("/api/v1/kills/cached/{SYSTEM}")).await, [4, 2, 5, 3, 1]);
    assert_eq!(kills(&format!("/api/v1/kills/system/{SYSTEM}?since_hours=24")).await, [4, 2]);
    assert_eq!(server.get(&format!("/api/v1/kills/count/{SYSTEM}")).await.expect(200)["data"]["count"], 2);
    // The mirror lists days only for killmails with a possible time.
    let totals = server.get("/history/totals.json").await.expect(200);
    assert_eq!(totals.as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>(), 2, "{totals}");
}

#[tokio::test]
async fn killmails_with_an_impossible_time_are_in_no_window_and_never_the_newest() {
    let mut server = server().await;
    check(&server).await;
    server.restart();
    check(&server).await;
}

#[tokio::test]
async fn preloads_and_counts_omit_them() {
    let server = server().await;
    let mut stream = server.enhanced(&format!("system_ids={SYSTEM}&preload_days=90")).await;
    assert_eq!(stream.event().await.name(), "connected");
    let batch = stream.event().await.json();
    assert_eq!(ids(&batch["killmails"]), [2, 4], "{batch}");
    let transition = stream.event().await;
    assert_eq!((transition.name(), &transition.json()["total_historical"]), ("transition", &json!(2)));
    let mut client = Channel::v2(server.address()).await;
    client
        .join(json!({ "systems": [SYSTEM], "preload": { "limit_per_system": 50, "since_hours": 168 } }))
        .await;
    let mut pushed = ids(&client.event("killmail_update").await["killmails"]);
    pushed.sort_unstable();
    assert_eq!(pushed, [2, 4]);
    assert_eq!(client.event("kill_count_update").await["count"], 2);
}
