//! Paths with extra slashes, and the origins whose pages may read responses and connect.
//!
//! Must not know: what the responses hold.

use reqwest::Method;
use serde_json::json;

use crate::support::channel::Channel;
use crate::support::http;
use crate::support::server::Setup;

#[tokio::test]
async fn extra_slashes_change_nothing() {
    let server = Setup::quiet().start();
    for path in [
        "/ping/",
        "//ping",
        "/ping//",
        "/api/v1/killmails/",
        "//api//v1///killmails//?limit=1",
        "/api/v1/killmails/count/",
        "//",
    ] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert!(reply.header("x-request-id").is_some() && reply.header("cache-control").is_some(), "{path}");
    }
    server.post("/api/v1/killmails/search/", &json!({ "limit": 1 })).await.expect(200);
    server.send(Method::POST, "/api/v1/killmails/", "[]").await.expect(200);
    assert_eq!(server.get("/api/v1/nope/").await.expect(404)["code"], "NOT_FOUND");
    assert_eq!(server.send(Method::DELETE, "/ping/", "").await.status, 405);
    let mut stream = server.stream("//api/v1/kills/stream/").await;
    assert_eq!((stream.status, stream.next_block().await.is_some()), (200, true));
    for path in ["//socket/websocket?vsn=2.0.0", "/socket/websocket/?vsn=2.0.0", "//socket//?vsn=2.0.0"] {
        let mut channel = Channel::open(server.address(), path).await;
        assert_eq!(channel.join(json!({})).await["status"], "connected", "{path}");
    }
}

#[tokio::test]
async fn one_origin_host_applies_to_pages_and_channels() {
    let server = Setup::quiet().env("ORIGIN_HOST", "https://yourdomain.com").start();
    let allowed = async |origin: &str| {
        let reply = http::request(Method::GET, &server.url("/ping"), &[("origin", origin)], Vec::new()).await;
        reply.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(allowed("https://yourdomain.com").await.as_deref(), Some("https://yourdomain.com"));
    assert_eq!(allowed("https://other.example").await, None);
    let path = "/socket/websocket?vsn=2.0.0";
    let open =
        async |origin| Channel::try_open(server.address(), path, &[("origin", origin)]).await.map(drop);
    assert_eq!(
        (open("https://yourdomain.com").await, open("https://other.example").await),
        (Ok(()), Err(403))
    );
    assert!(Channel::try_open(server.address(), path, &[]).await.is_ok(), "programs send no origin");
}
