//! What a request of a webhook carries, how long it waits, and how much of an answer it reads.
//!
//! Must not know: which addresses may be called.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use killstream::webhook::config::Config;
use killstream::webhook::target::lookup;
use killstream::webhook::target::sender::{Answer, Attempt, Sender};
use tokio::sync::mpsc;

use crate::support::PATIENCE;

const PROXIES: [&str; 6] =
    ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const PROXY_TEST: &str = "webhook_sender::a_proxy_of_the_environment_is_not_used";
/// Set for the process that has proxies in its environment.
const IN_CHILD: &str = "KILLSTREAM_TEST_PROXY";

fn config() -> Config {
    Config { allow_networks: vec!["127.0.0.1".parse().unwrap()], ..Config::default() }
}

/// Accepts connections, and hands each to a thread.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
    at
}

/// Reads until the text has arrived.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&request).ends_with(end) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8_lossy(&request).into_owned()
}

async fn post(config: &Config, url: &str, headers: &[(&str, &str)]) -> Attempt {
    let sender = Sender::new(config).unwrap();
    let url = sender.targets().parse(url).unwrap();
    sender.post(&url, headers, Bytes::from_static(b"{\"a\":1}")).await
}

fn error_of(attempt: Attempt) -> String {
    match attempt.answer {
        Answer::Failed { error } => error,
        answered @ Answer::Status { .. } => panic!("{answered:?}"),
    }
}

#[tokio::test]
async fn a_request_is_a_post_of_json_with_the_given_headers() {
    let (requests, mut received) = mpsc::channel(1);
    let at = listen(move |mut stream| {
        let request = read_until(&mut stream, "{\"a\":1}");
        requests.blocking_send(request).unwrap();
        let head = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\nset-cookie: a=b\r\ncontent-length: 2";
        stream.write_all(format!("{head}\r\n\r\nno").as_bytes()).unwrap();
    });
    let attempt =
        post(&config(), &format!("http://{at}/hook?token=x#part"), &[("webhook-id", "msg_1")]).await;
    let expected =
        Answer::Status { status: 429, retry_after: Some("7".to_owned()), body: Bytes::from_static(b"no") };
    assert_eq!(attempt.answer, expected);
    let request = received.recv().await.unwrap();
    assert!(request.starts_with("POST /hook?token=x HTTP/1.1\r\n"), "{request}");
    for line in [
        "content-type: application/json",
        "user-agent: WandererKills/1.0",
        "webhook-id: msg_1",
        "content-length: 7",
        &format!("host: {at}"),
    ] {
        assert_eq!(request.lines().filter(|found| found.eq_ignore_ascii_case(line)).count(), 1, "{request}");
    }
    for name in ["accept-encoding", "cookie", "referer", "authorization"] {
        assert!(!request.lines().any(|line| line.starts_with(name)), "{request}");
    }
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_fails_the_attempt() {
    let attempt = post(&config(), "http://127.0.0.1:9999/", &[("webhook-id", "a\r\nb: c")]).await;
    assert_eq!(error_of(attempt), "the header webhook-id has no valid value");
}

#[tokio::test]
async fn of_a_long_answer_the_beginning_is_read() {
    let endless = listen(|mut stream| {
        read_until(&mut stream, "}");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let compressed = listen(|mut stream| {
        read_until(&mut stream, "}");
        let head = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n";
        let _ = stream.write_all(format!("{head}\x1f\x0babc").as_bytes());
    });
    let config = Config { answer_bytes_max: 10_000, ..config() };
    let Answer::Status { status: 200, body, .. } =
        post(&config, &format!("http://{endless}/"), &[]).await.answer
    else {
        panic!("no answer")
    };
    assert_eq!(body.len(), 10_000);
    let Answer::Status { status: 200, body, .. } =
        post(&config, &format!("http://{compressed}/"), &[]).await.answer
    else {
        panic!("no answer")
    };
    assert_eq!(&body[..], b"\x1f\x0bab", "an answer is not decompressed");
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_stalls_counts_with_its_status() {
    for stalls in [false, true] {
        let at = listen(move |mut stream| {
            read_until(&mut stream, "}");
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart").unwrap();
            if stalls {
                let _ = stream.read(&mut [0]);
            }
        });
        let config = Config { timeout_ms: 1_000, ..config() };
        let attempt = post(&config, &format!("http://{at}/"), &[]).await;
        let body = Bytes::from_static(b"part");
        assert_eq!(attempt.answer, Answer::Status { status: 200, retry_after: None, body });
        assert!(attempt.duration_ms < 5_000, "{attempt:?}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let silent = listen(|mut stream| {
        let _ = stream.set_read_timeout(None);
        while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    });
    let dripping = listen(|mut stream| {
        read_until(&mut stream, "}");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"x-drip: 1\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let config = Config { timeout_ms: 1_000, ..config() };
    for at in [silent, dripping] {
        let attempt = post(&config, &format!("http://{at}/"), &[]).await;
        assert!((900..5_000).contains(&attempt.duration_ms), "{attempt:?}");
        assert_eq!(error_of(attempt), "no answer within 1000 ms");
    }
}

#[tokio::test]
async fn a_name_that_is_not_resolved_in_time_is_given_up() {
    let lookup = lookup::from_fn(|_| std::future::pending());
    let config = Config { connect_timeout_ms: 300, ..config() };
    let sender = Sender::with_lookup(&config, lookup).unwrap();
    let url = sender.targets().parse("http://slow.example/").unwrap();
    let attempt = sender.post(&url, &[], Bytes::new()).await;
    assert_eq!(error_of(attempt), "no connection within 300 ms");
}

#[tokio::test]
async fn an_error_says_what_failed_and_not_the_url() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plain = listen(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let hanging_up = listen(drop);
    for (url, part) in [
        (format!("http://{closed}/secret"), "cannot connect: Connection refused"),
        (format!("https://{plain}/secret"), "cannot connect: "),
        (format!("http://{hanging_up}/secret"), "the request failed: "),
    ] {
        let error = error_of(post(&config(), &url, &[]).await);
        assert!(error.starts_with(part) && !error.contains("secret"), "{url}: {error}");
    }
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_not_used() {
    if let Ok(at) = std::env::var(IN_CHILD) {
        let attempt = post(&config(), &format!("http://{at}/"), &[]).await;
        assert!(matches!(attempt.answer, Answer::Status { status: 204, .. }), "{attempt:?}");
        return;
    }
    let target = listen(|mut stream| {
        read_until(&mut stream, "}");
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    });
    let proxy = listen(|mut stream| {
        read_until(&mut stream, "}");
        let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n");
    });
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", PROXY_TEST, "--nocapture"]).env(IN_CHILD, target.to_string());
    for name in PROXIES {
        child.env(name, format!("http://{proxy}"));
    }
    let output = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
