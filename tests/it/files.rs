//! The limit of open files: raised, told, and never reached, whoever connects.
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

/// A stream that stays open, and what is said to it first.
async fn connect(server: &Server) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    socket.write_all(b"GET /sse HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("connected") && !answer.ends_with(b"}}") {
        let read = tokio::time::timeout(PATIENCE, socket.read_buf(&mut answer))
            .await
            .expect("an answer in time")
            .unwrap();
        assert!(read > 0, "cut off after {:?}", String::from_utf8_lossy(&answer));
    }
    (socket, String::from_utf8(answer).unwrap())
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
    let mut guests = Vec::new();
    let refusal = loop {
        let (socket, answer) = connect(&server).await;
        if !answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
        guests.push(socket);
        assert!(guests.len() <= RESERVED, "nobody was refused");
    };
    assert!(refusal.starts_with("HTTP/1.1 503") && refusal.contains("connection: close"), "{refusal}");
    assert!(
        refusal.contains(r#""type":"connection_limit_reached""#) && refusal.contains(r#""limit":100"#),
        "{refusal}"
    );
    assert!(guests.len() > RESERVED - 10, "refused after {}", guests.len());

    // Full to the brim: the source goes on, the store writes, who is in gets it.
    for id in 1..=20 {
        upstream.publish(killmail(id));
    }
    assert_eq!(stream.killmails(20).await, (1..=20).collect::<Vec<_>>());

    guests.truncate(guests.len() - 10);
    until("room for one more", async || {
        let (_socket, answer) = connect(&server).await;
        answer.starts_with("HTTP/1.1 200").then_some(())
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
