//! History over HTTP: pages, cursors, and the other forms of requests.
//!
//! Must not know: how killmails are found.

use reqwest::Method;
use serde_json::{Value, json};

use crate::http_cases::{JITA, PERIMETER, add, ids};
use crate::support::http::{self};
use crate::support::killmail::killmail;
use crate::support::server::Setup;

#[tokio::test]
async fn history_is_paged_and_its_cursor_pins_the_head() {
    let server = Setup::quiet().start();
    add(&server, (1..=5).map(|id| killmail(id).ago(600)).collect()).await;
    let page = async |query: &str| server.get(&format!("/api/v1/killmails?{query}")).await.expect(200);
    let first = page("limit=2").await;
    assert_eq!(
        (ids(&first["data"]["killmails"]), &first["data"]["count"], &first["data"]["complete"]),
        (vec![5, 4], &json!(2), &json!(true))
    );
    // Older, but stored after the response with the first page.
    add(&server, vec![killmail(6).ago(5), killmail(100).ago(5)]).await;
    let cursor = first["data"]["next_cursor"].as_str().unwrap();
    let second = page(&format!("limit=2&cursor={cursor}")).await;
    assert_eq!(ids(&second["data"]["killmails"]), [3, 2]);
    let third = page(&format!("limit=2&cursor={}", second["data"]["next_cursor"].as_str().unwrap())).await;
    assert_eq!((ids(&third["data"]["killmails"]), &third["data"]["next_cursor"]), (vec![1], &Value::Null));
    assert_eq!(ids(&page("order=oldest&limit=3").await["data"]["killmails"]), [1, 2, 3]);
    let body = server
        .post("/api/v1/killmails/search", &json!({ "system_ids": [JITA], "order": "oldest", "limit": 1 }))
        .await
        .expect(200);
    // Nothing is ignored silently.
    for path in ["/api/v1/killmails/search", "/api/v1/killmails/count"] {
        let refused = server.post(path, &json!([JITA])).await.expect(400);
        assert_eq!(
            (&refused["code"], &refused["details"]["field"]),
            (&json!("INVALID_PARAMETERS"), &json!("body")),
            "{refused}"
        );
        let refused = server.post(&format!("{path}?min_valeu=1"), &json!({})).await.expect(400);
        assert_eq!(refused["details"]["field"], "min_valeu", "{refused}");
    }
    assert_eq!(ids(&body["data"]["killmails"]), [1]);
    let both = server
        .post("/api/v1/killmails/search?limit=2&order=newest", &json!({ "order": "oldest" }))
        .await
        .expect(200);
    assert_eq!(ids(&both["data"]["killmails"]), [1, 2], "the body overrides the query string");
    let count = server.get(&format!("/api/v1/killmails/count?system_ids={JITA}")).await.expect(200);
    assert_eq!(count["data"], json!({ "count": 7, "filter": { "match": "any", "system_ids": [JITA] } }));
    let none =
        server.post("/api/v1/killmails/count", &json!({ "system_ids": [PERIMETER] })).await.expect(200);
    assert_eq!(none["data"], json!({ "count": 0, "filter": { "match": "any", "system_ids": [PERIMETER] } }));
}

#[tokio::test]
async fn history_names_the_invalid_field() {
    let server = Setup::quiet().start();
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("system_ids=x", "system_ids"),
        ("nonsense=1", "nonsense"),
        ("cursor=x", "cursor"),
        ("order=sideways", "order"),
        ("plugin=missing", "plugin"),
    ] {
        let body = server.get(&format!("/api/v1/killmails?{query}")).await.expect(400);
        assert_eq!(
            (&body["code"], &body["details"]["field"]),
            (&json!("INVALID_PARAMETERS"), &json!(field)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn writing_needs_a_token() {
    let server = Setup::quiet().start();
    let body = killmail(1).r2z2().to_string();
    for header in [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", "Basic test-token")]] {
        let reply =
            http::request(Method::POST, &server.url("/api/v1/killmails"), header, body.clone().into_bytes())
                .await;
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (401, &json!("UNAUTHORIZED")));
    }
    server.get("/api/v1/killmail/1").await.expect(404);
}

#[tokio::test]
async fn documents_are_accepted_in_every_arrangement() {
    let server = Setup::quiet().start();
    let document = |id| killmail(id).r2z2().to_string();
    let add = async |body: String| server.send(Method::POST, "/api/v1/killmails", body).await;
    assert_eq!(add(document(1)).await.expect(200)["data"]["new"], 1);
    assert_eq!(
        add(format!("[{},{}]", document(1), document(2))).await.expect(200)["data"],
        json!({ "new": 1, "revised": 0, "known": 1, "conflict": 0, "refused": {}, "fetching": 0, "refused_documents": [] })
    );
    let lines = format!("{}\n{{\"broken\n{}\n\n{{\"a\":1}}\n", document(3), document(4));
    let report = add(lines).await.expect(200)["data"].clone();
    assert_eq!((&report["new"], &report["refused"]["malformed_json"]), (&json!(2), &json!(1)), "{report}");
    assert_eq!(
        add("{\n \"a\": [\n".to_owned()).await.expect(400),
        json!({ "error": "Bad Request", "status": "400" })
    );
    let exported = server.send(Method::GET, "/api/v1/export", "").await;
    let listed: Vec<Value> =
        exported.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ids(&json!(listed)), [1, 2, 3, 4]);
    // An export can be imported again.
    let again = add(exported.text()).await.expect(200)["data"].clone();
    assert_eq!((&again["known"], &again["refused"]), (&json!(4), &json!({})), "{again}");
}

#[tokio::test]
async fn a_url_may_be_64_kib_long() {
    let server = Setup::quiet().start();
    add(&server, vec![killmail(5)]).await;
    let many = (10_000_000..10_007_000).map(|n: u32| n.to_string()).collect::<Vec<_>>().join(",");
    let path = format!("/api/v1/killmails/count?character_ids={many},90000001");
    assert!(path.len() > 63_000, "{}", path.len());
    assert_eq!(server.get(&path).await.expect(200)["data"]["count"], 1);
    assert_eq!(server.stream(&format!("{path}{}", ",1".repeat(2000))).await.status, 414);
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = Setup::quiet().start();
    for path in
        ["/ping", "/api/v1/killmails", "/api/v1/kills/stream", "/sse", "/api/v1/kills/stream/enhanced"]
    {
        let reply = http::request(Method::HEAD, &server.url(path), &[], Vec::new()).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0), "{path}");
    }
    assert_eq!(server.get("/status").await.expect(200)["metrics"]["sse"]["opened_total"], 0);
}
