//! The limit of open files: it is raised and logged, and however many clients connect, it is never reached.
//!
//! Must not know: how connections are counted.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::killmail::killmail;
use crate::support::server::{Server, Setup};
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, until};

const HARD: u32 = 200;
const RESERVED: usize = 100;

/// Opens a stream. Returns the connection and the first part of the response.
async fn connect(server: &Server) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    socket.write_all(b"GET /sse HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    let mut response = Vec::new();
    while !String::from_utf8_lossy(&response).contains("connected") && !response.ends_with(b"}}") {
        let read = tokio::time::timeout(PATIENCE, socket.read_buf(&mut response))
            .await
            .expect("a response in time")
            .unwrap();
        assert!(read > 0, "cut off after {:?}", String::from_utf8_lossy(&response));
    }
    (socket, String::from_utf8(response).unwrap())
}

#[tokio::test]
async fn connections_are_refused_before_files_run_out() {
    let upstream = Upstream::start();
    let server =
        Setup::following(&upstream).files(64, HARD).config(&format!("reserved_files = {RESERVED}")).start();
    let system = server.get("/status").await.expect(200)["metrics"]["system"].clone();
    assert_eq!(
        (&system["ports"]["limit"], &system["connections"]["max"]),
        (&HARD.into(), &RESERVED.into()),
        "{system}"
    );
    assert!(server.log().contains("limit of open files: 200 (was 64); at most 100 connections"));

    let mut stream = server.basic("").await;
    stream.next_block().await;
    let mut clients = Vec::new();
    let refusal = loop {
        let (socket, response) = connect(&server).await;
        if !response.starts_with("HTTP/1.1 200") {
            break response;
        }
        clients.push(socket);
        assert!(clients.len() <= RESERVED, "no connection was refused");
    };
    assert!(refusal.starts_with("HTTP/1.1 503") && refusal.contains("connection: close"), "{refusal}");
    assert!(
        refusal.contains(r#""type":"connection_limit_reached""#) && refusal.contains(r#""limit":100"#),
        "{refusal}"
    );
    assert!(clients.len() > RESERVED - 10, "refused after {}", clients.len());

    // At the limit: the source goes on, the store writes, and open streams receive killmails.
    for id in 1..=20 {
        upstream.publish(killmail(id));
    }
    assert_eq!(stream.killmails(20).await, (1..=20).collect::<Vec<_>>());

    clients.truncate(clients.len() - 10);
    until("room for one more", async || {
        let (_socket, response) = connect(&server).await;
        response.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    let system = server.get("/status").await.expect(200)["metrics"]["system"].clone();
    assert!(
        system["connections"]["refused_total"].as_u64() >= Some(1)
            && system["ports"]["count"].as_u64() < Some(HARD.into()),
        "{system}"
    );
    assert_eq!(server.get("/api/v1/killmail/20").await.expect(200)["data"]["killmail_id"], 20);
}
