//! Connections that cost something without a complete request: half of one, none at all, one that is too
//! large, or a response that nobody reads.
//!
//! Must not know: how timeouts are measured.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::support::channel::Channel;
use crate::support::killmail::killmail;
use crate::support::server::{Server, Setup, TOKEN};
use crate::support::{PATIENCE, until};

const SEARCH: &str = "/api/v1/killmails/search";

/// Opens a connection and sends this.
async fn send(address: SocketAddr, text: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(text.as_bytes()).await.unwrap();
    socket
}

/// Everything the server sends until it closes.
async fn rest(mut socket: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset counts as closing.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut text)).await.expect("the server closes");
    String::from_utf8(text).unwrap()
}

/// The status and the body of the response, after which the server closes.
async fn answer(socket: TcpStream) -> (u16, Value) {
    let text = rest(socket).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|_| json!(body)))
}

/// Opens a connection and completes one request on it.
async fn pinged(address: SocketAddr) -> TcpStream {
    let mut socket = send(address, "GET /ping HTTP/1.1\r\nhost: here\r\n\r\n").await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"pong") {
        assert!(timeout(PATIENCE, socket.read_buf(&mut answer)).await.expect("a pong in time").unwrap() > 0);
    }
    socket
}

fn head(method: &str, path: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n"
    )
}

#[tokio::test]
async fn incomplete_requests_time_out() {
    let limits = "[connections]\nhead_ms = 400\nidle_ms = 600\nrefused_ms = 300\n[sse]\nping_ms = 2_000";
    let server = Setup::quiet().config(limits).start();
    let at = server.address();
    let mut stream = server.basic("").await;
    stream.next_block().await;
    let waiting =
        send(at, "GET /ephemeral/7.json?wait=3 HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").await;
    let (silent, idle) = (TcpStream::connect(at).await.unwrap(), pinged(at).await);
    let half = send(at, "GET /ping HTTP/1.1\r\nhost: he").await;
    let mut trickling = send(at, "GET /ping HTTP/1.1\r\nx: ").await;
    let trickled = async {
        // Fails when the server has closed.
        while trickling.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, trickled).await.expect("a trickle of bytes does not extend the time");
    let (status, body) = answer(half).await;
    assert_eq!((status, &body["limit"]), (408, &json!(400)), "{body}");
    assert!(body["message"].as_str().unwrap().contains("connections.head_ms"), "{body}");
    assert_eq!((rest(silent).await, rest(idle).await), (String::new(), String::new()));
    assert_eq!(answer(waiting).await.0, 404, "a request that waits is complete");
    assert!(stream.next_block().await.is_some(), "a stream has no time limit");
    let metrics = server.get("/metrics/prometheus").await.text();
    assert!(metrics.contains("killstream_connections_timed_out_total 4\n"), "{metrics}");
}

#[tokio::test]
async fn the_longest_idle_connection_makes_room() {
    let server = Setup::quiet().files(200, 200).config("reserved_files = 100\n[sse]\nping_ms = 200").start();
    let at = server.address();
    let mut stream = server.basic("").await;
    stream.next_block().await;
    let oldest = pinged(at).await;
    sleep(Duration::from_millis(5)).await;
    let mut silent = Vec::new();
    for _ in 0..98 {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    for _ in 0..30 {
        drop(pinged(at).await);
    }
    assert_eq!(rest(oldest).await, "", "it was closed first");
    for _ in 0..10 {
        assert!(stream.next_block().await.is_some(), "a stream is not evicted");
    }
    let metrics = server.get("/metrics/prometheus").await.text();
    assert!(metrics.contains("killstream_connections_refused_total 0\n"), "{metrics}");
    assert!(!metrics.contains("killstream_connections_evicted_total 0\n"), "{metrics}");
}

#[tokio::test]
async fn headers_and_urls_have_their_own_limits() {
    let server = Setup::quiet().start();
    let at = server.address();
    let lines = |bytes: usize| format!("x: {}\r\n", "x".repeat(990)).repeat(bytes / 995);
    let ask = |url: usize, headers: usize| {
        let url = format!("/ping?{}", "x".repeat(url - 6));
        format!("GET {url} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n{}\r\n", lines(headers))
    };
    assert_eq!(answer(send(at, &ask(65_534, 64_000)).await).await, (200, json!("pong")));
    let (status, body) = answer(send(at, &ask(100, 67_000)).await).await;
    assert_eq!((status, &body["limit"]), (431, &json!(65_536)), "{body}");
    // Refused before it is complete.
    let (status, _) = answer(send(at, ask(100, 67_000).trim_end()).await).await;
    assert_eq!(status, 431);
    let (status, body) = answer(send(at, &ask(66_000, 100)).await).await;
    assert_eq!((status, &body["limit"]), (414, &json!(65_534)), "{body}");
    let many = |lines: usize| {
        format!(
            "GET /ping HTTP/1.1\r\nhost: here\r\nconnection: close\r\n{}\r\n",
            "x: y\r\n".repeat(lines - 2)
        )
    };
    assert_eq!(answer(send(at, &many(100)).await).await, (200, json!("pong")));
    let (status, body) = answer(send(at, &many(101)).await).await;
    assert_eq!((status, &body["limit"]), (431, &json!(100)), "{body}");
    // The same on a connection that has had a response before.
    let mut socket = pinged(at).await;
    socket.write_all(many(101).as_bytes()).await.unwrap();
    assert_eq!(answer(socket).await.0, 431);
    // Pipelined behind another request, where its bytes are not counted as they arrive.
    let two = format!("GET /ping HTTP/1.1\r\nhost: here\r\n\r\n{}", ask(100, 67_000));
    assert!(rest(send(at, &two).await).await.contains("HTTP/1.1 431"));
}

#[tokio::test]
async fn a_request_names_one_host() {
    let server = Setup::quiet().start();
    for (text, status) in [
        ("GET /ping HTTP/1.1\r\n\r\n", 400),
        ("GET /ping HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("GET /ping HTTP/1.0\r\n\r\n", 200),
        ("GET /ping HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 200),
    ] {
        let (received, body) = answer(send(server.address(), text).await).await;
        assert_eq!(received, status, "{text} {body}");
        assert!(received == 200 || body["message"].as_str().unwrap().contains("Host"), "{body}");
    }
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_before_it_arrives() {
    let server = Setup::quiet().start();
    let at = server.address();
    let token = format!("authorization: Bearer {TOKEN}\r\n");
    for (path, with, length, limit, setting) in [
        (SEARCH, "", (5 << 20) + 1, 5 << 20, "http.filter_max_bytes"),
        ("/api/v1/killmails/count", "", (5 << 20) + 1, 5 << 20, "http.filter_max_bytes"),
        ("/sse", "", (5 << 20) + 1, 5 << 20, "http.filter_max_bytes"),
        ("/api/v1/kills/stream", "", (5 << 20) + 1, 5 << 20, "http.filter_max_bytes"),
        ("/api/v1/kills/stream/enhanced", "", (5 << 20) + 1, 5 << 20, "http.filter_max_bytes"),
        ("/api/v1/kills/systems", "", (1 << 20) + 1, 1 << 20, "http.anonymous_max_bytes"),
        ("/api/v1/systems/bulk/killmails", "", (1 << 20) + 1, 1 << 20, "http.anonymous_max_bytes"),
        (SEARCH, token.as_str(), 8_000_001, 8_000_000, "http.body_max_bytes"),
        ("/api/v1/killmails", token.as_str(), 8_000_001, 8_000_000, "http.body_max_bytes"),
    ] {
        let (status, body) =
            answer(send(at, &format!("{}{with}\r\n", head("POST", path, length))).await).await;
        assert_eq!((status, &body["limit"]), (413, &json!(limit)), "{path} {body}");
        assert!(body["message"].as_str().unwrap().contains(setting), "{path} {body}");
    }
    // A client that goes on sending can still read the response; one without a content length is cut off at
    // the limit.
    let chunked = "POST /api/v1/kills/systems HTTP/1.1\r\nhost: here\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(65_536)).repeat(17);
    assert_eq!(answer(send(at, &format!("{chunked}{chunk}0\r\n\r\n")).await).await.0, 413);
    let sent = format!("{}\r\n{}", head("POST", "/api/v1/kills/systems", 2 << 20), " ".repeat(2 << 20));
    assert_eq!(answer(send(at, &sent).await).await.0, 413);
    let largest = format!("{}\r\n{}", head("POST", SEARCH, 5 << 20), " ".repeat(5 << 20));
    assert_eq!(answer(send(at, &largest).await).await.0, 200);
}

#[tokio::test]
async fn the_token_is_checked_before_the_body_is_read() {
    let server = Setup::quiet().start();
    let at = server.address();
    let made = json!({ "name": "reader", "scopes": ["events"] }).to_string();
    let made = server.send(reqwest::Method::POST, "/api/v1/tokens", made).await;
    assert!(made.status.is_success(), "{}", made.text());
    let lesser = made.json()["data"]["token"].as_str().unwrap().to_owned();
    for (method, path) in [
        ("POST", "/api/v1/killmails"),
        ("PUT", "/api/v1/plugins/mine"),
        ("POST", "/api/v1/plugins/mine/promote"),
        ("POST", "/api/v1/tokens"),
    ] {
        // No byte of the body is ever sent; the announced length alone exceeds some limits.
        let request = head(method, path, 9_000_000);
        assert_eq!(answer(send(at, &format!("{request}\r\n")).await).await.0, 401, "{path}");
        assert_eq!(
            answer(send(at, &format!("{request}authorization: Bearer wrong\r\n\r\n")).await).await.0,
            401,
            "{path}"
        );
        let (status, body) =
            answer(send(at, &format!("{request}authorization: Bearer {lesser}\r\n\r\n")).await).await;
        assert_eq!((status, &body["code"]), (403, &json!("FORBIDDEN")), "{path}");
    }
}

#[tokio::test]
async fn bodies_share_their_memory_and_have_a_minimum_rate() {
    let limits = "[http]\nin_flight_max_bytes = 300_000\nbody_window_ms = 3_000\nbody_window_min_bytes = 100";
    let server = Setup::quiet().config(limits).start();
    let at = server.address();
    let part = |bytes: usize| format!("{}\r\n{}", head("POST", SEARCH, 250_000), " ".repeat(bytes));
    let first = send(at, &part(249_000)).await;
    until("the first body to be in memory", async || {
        let metrics = server.get("/metrics/prometheus").await.text();
        let line = metrics.lines().find(|line| line.starts_with("killstream_requests_in_flight_bytes "));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .filter(|bytes| *bytes > 200_000)
            .map(drop)
    })
    .await;
    let (status, body) = answer(send(at, &part(249_000)).await).await;
    assert_eq!(
        (status, &body["code"], &body["details"]["limit"]),
        (503, &json!("LIMIT_REACHED"), &json!(300_000)),
        "{body}"
    );
    let stream = format!("{}\r\n{}", head("POST", "/api/v1/kills/stream", 250_000), " ".repeat(249_000));
    let refused = rest(send(at, &stream).await).await;
    assert!(
        refused.starts_with("HTTP/1.1 503")
            && refused.contains("retry-after: ")
            && refused.contains("\"domain\":\"sse\""),
        "{refused}"
    );
    let (status, body) = answer(first).await;
    assert_eq!((status, &body["limit"]), (408, &json!(100)), "{body}");
    assert_eq!(server.post(SEARCH, &json!({ "limit": 1 })).await.status, 200, "the memory is free again");
}

#[tokio::test]
async fn a_response_nobody_reads_is_aborted() {
    let server = Setup::quiet().config("[connections]\nwrite_ms = 500").start();
    let documents: Vec<Value> = (1..=200).map(|id| killmail(id).r2z2()).collect();
    server.send(reqwest::Method::POST, "/api/v1/killmails", json!(documents).to_string()).await.expect(200);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(server.address()).await.unwrap();
    let page = "GET /api/v1/killmails?limit=200 HTTP/1.1\r\nhost: here\r\n\r\n";
    // More than the kernel buffers.
    let asked = async { while socket.write_all(page.as_bytes()).await.is_ok() {} };
    timeout(PATIENCE, asked).await.expect("the server closes the connection");
    until("it to be counted", async || {
        server
            .get("/metrics/prometheus")
            .await
            .text()
            .contains("killstream_connections_stalled_total 1\n")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_channel_that_never_sends_a_message_is_closed() {
    let server = Setup::quiet().config("[channels]\nfirst_message_ms = 700\nping_ms = 200").start();
    let mut silent = Channel::v2(server.address()).await;
    let mut speaking = Channel::v2(server.address()).await;
    speaking.ask(json!([null, "1", "phoenix", "heartbeat", {}])).await;
    // It responds to pings, as every client does automatically.
    assert_eq!(silent.goodbye().await, 1008);
    let answer = speaking.ask(json!([null, "2", "phoenix", "heartbeat", {}])).await;
    assert_eq!(answer[1], "2");
}

#[tokio::test]
async fn open_connections_do_not_keep_the_server_from_stopping() {
    let mut server: Server = Setup::quiet().start();
    let at = server.address();
    let (_silent, _idle, mut stream) =
        (TcpStream::connect(at).await.unwrap(), pinged(at).await, server.basic("").await);
    stream.next_block().await;
    let _half = send(at, "POST /ping HTTP/1.1\r\nhost: here\r\ncontent-length: 10\r\n\r\nx").await;
    let status = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert!(status.success(), "{status}");
}
