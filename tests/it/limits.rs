//! Limits per client address, as forwarded by a trusted proxy, and compressed responses.
//!
//! Must not know: how addresses are counted.

use std::io::Read;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::guests;
use crate::support::http::{self, Reply};
use crate::support::killmail::killmail;
use crate::support::server::{Server, Setup};
use crate::support::sse::Sse;
use crate::support::until;

const STREAM: &str = "/api/v1/kills/stream";

/// Opens a stream from this address, behind a proxy.
pub async fn open(server: &Server, path: &str, from: &str) -> Sse {
    Sse::get(server.address(), path, &[("x-forwarded-for", from)]).await
}

/// Sends a request from this address, behind a proxy.
pub async fn get(server: &Server, path: &str, from: &str) -> Reply {
    http::request(Method::GET, &server.url(path), &[("x-forwarded-for", from)], Vec::new()).await
}

#[tokio::test]
async fn an_address_has_its_own_number_of_streams() {
    let settings = "trusted_proxies = [\"127.0.0.0/8\"]\n[sse]\nmax_connections_per_address = 2";
    let server = Setup::quiet().config(settings).start();
    let one = open(&server, STREAM, "198.51.100.1").await;
    let two = open(&server, "/api/v1/kills/stream/enhanced", "198.51.100.1").await;
    assert_eq!((one.status, two.status), (200, 200));
    for path in [STREAM, "/sse", "/api/v1/kills/stream/enhanced"] {
        let refused = get(&server, path, "203.0.113.9, 198.51.100.1").await;
        assert_eq!(refused.expect(503)["error"]["type"], "connection_limit_reached", "{path}");
        assert!(refused.header("retry-after").is_some());
    }
    assert_eq!(open(&server, STREAM, "198.51.100.2").await.status, 200, "another address has its own limit");
    drop(one);
    let again = until("a free place", async || {
        let stream = open(&server, STREAM, "198.51.100.1").await;
        (stream.status == 200).then_some(stream)
    });
    again.await;
}

#[tokio::test]
async fn without_a_trusted_proxy_the_header_is_ignored() {
    let server = Setup::quiet().config("[sse]\nmax_connections_per_address = 1").start();
    let one = open(&server, STREAM, "198.51.100.1").await;
    assert_eq!(one.status, 200);
    assert_eq!(get(&server, STREAM, "198.51.100.2").await.status, 503, "both come from this machine");
}

#[tokio::test]
async fn an_address_has_its_own_number_of_evaluators() {
    let settings = "trusted_proxies = [\"127.0.0.1\"]\n[plugin]\nevaluators_per_address_max = 2";
    let server = Setup::quiet().config(settings).start();
    server.upload("mine", &guests::evaluating(guests::KEEP)).await;
    let with = |path: &str, n: u32| format!("{path}?plugin=mine&plugin_config=%7B%22n%22:{n}%7D");
    let one = open(&server, &with(STREAM, 1), "198.51.100.1").await;
    let two = open(&server, &with(STREAM, 2), "198.51.100.1").await;
    let same = open(&server, &with(STREAM, 2), "198.51.100.1").await;
    assert_eq!((one.status, two.status, same.status), (200, 200, 200));
    let refused = get(&server, &with(STREAM, 3), "198.51.100.1").await.expect(503);
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("evaluators_per_address_max") && message.contains('2'), "{message}");
    let refused = get(&server, &with("/api/v1/killmails", 3), "198.51.100.1").await.expect(503);
    assert_eq!(
        (&refused["code"], &refused["details"]["limit"]),
        (&json!("LIMIT_REACHED"), &json!(2)),
        "{refused}"
    );
    assert_eq!(
        get(&server, &with("/api/v1/killmails", 2), "198.51.100.1").await.status,
        200,
        "an equal pair counts once"
    );
    assert_eq!(
        get(&server, &with("/api/v1/killmails", 3), "198.51.100.2").await.status,
        200,
        "another address has its own limit"
    );
    drop(one);
    until("a free evaluator", async || {
        let status = get(&server, &with("/api/v1/killmails", 3), "198.51.100.1").await.status;
        (status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn all_evaluators_together_have_a_limit() {
    let server = Setup::quiet().config("[plugin]\nevaluators_max = 1").start();
    server.upload("mine", &guests::evaluating(guests::KEEP)).await;
    let one = server.basic("plugin=mine&plugin_config=%7B%22n%22:1%7D").await;
    assert_eq!(one.status, 200);
    let refused =
        server.get(&format!("{STREAM}?plugin=mine&plugin_config=%7B%22n%22:2%7D")).await.expect(503);
    assert!(refused["error"]["message"].as_str().unwrap().contains('1'), "{refused}");
}

#[tokio::test]
async fn history_is_compressed_on_request_and_streams_never_are() {
    let server = Setup::quiet().start();
    let documents: Vec<Value> = (1..=50).map(|id| killmail(id).r2z2()).collect();
    assert_eq!(
        server.send(Method::POST, "/api/v1/killmails", json!(documents).to_string()).await.expect(200)["data"]
            ["new"],
        50
    );
    http::client();
    let client = Client::builder().no_proxy().no_gzip().build().unwrap();
    let ask = async |path: &str, accepted: &str| {
        let response = client.get(server.url(path)).header("accept-encoding", accepted).send().await.unwrap();
        let encoding =
            response.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        (encoding, response.bytes().await.unwrap())
    };
    let (encoding, packed) = ask("/api/v1/killmails?limit=50", "gzip").await;
    assert_eq!(encoding.as_deref(), Some("gzip"));
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut unpacked).unwrap();
    let (encoding, plain) = ask("/api/v1/killmails?limit=50", "identity").await;
    assert_eq!(encoding, None);
    let (unpacked, plain): (Value, Value) =
        (serde_json::from_str(&unpacked).unwrap(), serde_json::from_slice(&plain).unwrap());
    assert_eq!(unpacked["data"], plain["data"]);
    assert!(
        packed.len() * 4 < plain.to_string().len(),
        "{} bytes of {}",
        packed.len(),
        plain.to_string().len()
    );
    let stream = Sse::get(server.address(), STREAM, &[("accept-encoding", "gzip")]).await;
    assert_eq!((stream.status, stream.header("content-encoding")), (200, None));
}
